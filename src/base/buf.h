/*
 * Bounded growing byte buffers.
 *
 * A buffer cannot be made without a maximum: it is what stands between outside data and memory.
 * The bytes are always followed by a NUL that `len` does not count. When an append fails the buffer
 * keeps what it had.
 */
#ifndef PONDER_BASE_BUF_H
#define PONDER_BASE_BUF_H

#include "base/err.h"

struct buf {
    char *data; /* owned; "" (static) before the first append */
    size_t len, cap, max;
};

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b); /* frees the bytes; empty and usable again */
void buf_clear(struct buf *b);   /* len = 0, memory kept */

int buf_reserve(struct buf *b, size_t more, struct err *e); /* room for `more` further bytes */
int buf_append(struct buf *b, const void *p, size_t n, struct err *e);
int buf_puts(struct buf *b, const char *s, struct err *e);
int buf_putc(struct buf *b, char c, struct err *e);
int buf_printf(struct buf *b, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
