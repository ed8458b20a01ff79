/* UTF-8: decoding with the "maximal subpart" rule of Unicode 15, section 3.9 (U+FFFD practice). */
#ifndef PONDER_BASE_UTF8_H
#define PONDER_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Reads one character of s[0..n), n > 0. Returns the bytes it takes (≥ 1) and sets *cp. A byte
 * sequence that is not UTF-8 gives U+FFFD over its maximal subpart with *bad = true (bad may be
 * NULL). A valid but cut-off sequence at the end is bad as well; utf8_incomplete tells it apart.
 */
size_t utf8_next(const char *s, size_t n, uint32_t *cp, bool *bad);

/* How many bytes at the end of s[0..n) begin a character that more bytes could complete (0..3). */
size_t utf8_incomplete(const char *s, size_t n);

/* Writes cp as 1-4 bytes (surrogates and > U+10FFFF as U+FFFD); returns how many. */
size_t utf8_put(char out[4], uint32_t cp);

bool utf8_valid(const char *s, size_t n);

/* Number of terminal columns is not computed here: see cli/term. */
#endif
