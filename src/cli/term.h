/*
 * The terminal: what the three standard streams are, whether colours are welcome, how wide a line
 * is, and making text from models and files safe to show.
 */
#ifndef PONDER_CLI_TERM_H
#define PONDER_CLI_TERM_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct term {
    bool in_tty, out_tty, err_tty;
    bool escapes; /* stdout is a terminal that can move its cursor: TERM is not "dumb" */
    bool colour;  /* and NO_COLOR is not set */
};

void term_init(struct term *t);

/* Columns of a terminal on stdout (or stderr); 80 where neither is one. Asked anew each time. */
int term_width(const struct term *t);

/* Lines of a terminal on stdout; 24 where it is none. */
int term_height(const struct term *t);

/* Escape sequences, "" when there are no colours. */
const char *term_dim(const struct term *t);
const char *term_bold(const struct term *t);
const char *term_plain(const struct term *t);

/* Columns that a character takes: 0, 1 or 2. */
int term_char_width(uint32_t cp);

/* Control characters (except newline and tab) would let outside text drive the terminal: true for
   the ones that must not be shown. */
bool term_char_unsafe(uint32_t cp);

/* Appends s[0..n) with unsafe characters as U+FFFD and bad UTF-8 mended; on one line when
   `oneline` (newlines and tabs become spaces). */
int term_clean(struct buf *out, const char *s, size_t n, bool oneline, struct err *e);

/* Sends what is buffered; an error of the stream (a full disk) becomes one of ours. */
int term_flush(struct err *e);

/* 1,234,567 into out; returns out. cap ≥ 28 always suffices. */
char *term_group(char *out, size_t cap, unsigned long long v);

#endif
