/* Reading one tool call as a model wrote it. Private to the output parser (parse.c). */
#ifndef PONDER_TEXT_PARSE_CALL_H
#define PONDER_TEXT_PARSE_CALL_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

/*
 * Each appends {"name":…,"arguments":…} to `out` and sets *ok, or leaves `out` alone when s[0..n)
 * is not a call (*ok = false, returns 0). Arguments are the model's own text when they are an
 * object; a string that holds an object counts as that object. Non-zero: out of memory.
 */

/* {"name": …, "arguments" or "parameters": …}, maybe inside {"function": …} or a fence. */
int call_tagged(struct buf *out, const char *s, size_t n, bool *ok, struct err *e);

/* "function<｜tool▁sep｜>NAME" and a fenced object, or "NAME<｜tool▁sep｜>{…}". */
int call_deepseek(struct buf *out, const char *s, size_t n, bool *ok, struct err *e);

/* A bare object at the start of s, which must have a name and an object of arguments; *used gets
   its length. */
int call_bare(struct buf *out, const char *s, size_t n, size_t *used, bool *ok, struct err *e);

/*
 * The beginning of a call that is still being written. 1: `name` was appended to, *at is where the
 * object of arguments begins; 0: not certain yet; -1: this call does not come in that order.
 * Non-zero *code: out of memory.
 */
int call_begins(const char *s, size_t n, bool deepseek, struct buf *name, size_t *at, int *code,
                struct err *e);

#endif
