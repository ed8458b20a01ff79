#include "base/buf.h"

#include "base/num.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cap counts usable bytes; one more is always allocated for the NUL. cap = 0: nothing owned. */

static char *no_bytes(void)
{
    return (char *)(uintptr_t) "";
}

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.data = no_bytes(), .max = max};
}

void buf_release(struct buf *b)
{
    if (b->cap)
        free(b->data);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->cap)
        b->data[0] = 0;
}

int buf_reserve(struct buf *b, size_t more, struct err *e)
{
    size_t need;
    if (!num_add(&need, b->len, more) || need > b->max || need == SIZE_MAX)
        return err_set(e, ERR_LIMIT, "longer than the limit of %zu bytes", b->max);
    if (need <= b->cap)
        return 0;
    size_t cap = num_max(need, 32), twice;
    if (num_mul(&twice, b->cap, 2))
        cap = num_max(cap, twice);
    cap = num_min(cap, b->max);
    if (cap == SIZE_MAX) /* cannot add the NUL; need itself is smaller */
        cap--;
    char *p = realloc(b->cap ? b->data : NULL, cap + 1);
    if (!p)
        return err_nomem(e, cap + 1, "a buffer");
    p[b->len] = 0;
    b->data = p;
    b->cap = cap;
    return 0;
}

int buf_append(struct buf *b, const void *p, size_t n, struct err *e)
{
    if (!n)
        return 0;
    int rc = buf_reserve(b, n, e);
    if (rc)
        return rc;
    memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

int buf_puts(struct buf *b, const char *s, struct err *e)
{
    return buf_append(b, s, strlen(s), e);
}

int buf_putc(struct buf *b, char c, struct err *e)
{
    return buf_append(b, &c, 1, e);
}

int buf_printf(struct buf *b, struct err *e, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap), rc;
    va_end(ap);
    if (n < 0)
        rc = err_set(e, ERR_FORMAT, "text cannot be formatted");
    else
        rc = buf_reserve(b, (size_t)n, e);
    if (!rc && n > 0) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return rc;
}
