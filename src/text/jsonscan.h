/*
 * A pull scanner for JSON: for the two members of a tokenizer.json that hold megabytes (vocabulary
 * and merges), where building a tree of values would take longer than all the rest of loading.
 * Strict (RFC 8259), reads a text in memory once, from left to right; small members are cut out as
 * slices and go to the JSON library.
 *
 *     bool first = true, more;
 *     jscan_enter(j, '{', e);
 *     while (!(rc = jscan_more(j, '}', &first, &more, e)) && more) {
 *         jscan_key(j, &s, e);
 *         jscan_int(j, &i, e);
 *     }
 */
#ifndef PONDER_TEXT_JSONSCAN_H
#define PONDER_TEXT_JSONSCAN_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct jscan {
    const char *s;
    size_t n, at;
    struct buf scratch; /* of strings with escapes */
};

/* A string of the text: in place, or in the scanner's scratch until the next string is read. */
struct jstr {
    const char *p;
    size_t n;
};

void jscan_init(struct jscan *j, const char *s, size_t n);
void jscan_release(struct jscan *j);

/* The next character that is not white space, 0 at the end; not consumed. */
char jscan_peek(struct jscan *j);

int jscan_enter(struct jscan *j, char open, struct err *e);
/* After '{' or '[' and after each item: is there another? Consumes commas and `close`. */
int jscan_more(struct jscan *j, char close, bool *first, bool *more, struct err *e);
int jscan_key(struct jscan *j, struct jstr *out, struct err *e); /* string and colon */
int jscan_string(struct jscan *j, struct jstr *out, struct err *e);
int jscan_int(struct jscan *j, int64_t *out, struct err *e);
/* Passes over one value, checked; `out` (may be NULL) is its text. */
int jscan_skip(struct jscan *j, struct jstr *out, struct err *e);
int jscan_end(struct jscan *j, struct err *e); /* nothing but white space may follow */

/* ERR_FORMAT, "line L: WORDS" for the current place. */
int jscan_fail(const struct jscan *j, struct err *e, const char *words);

#endif
