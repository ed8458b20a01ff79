/*
 * Streaming detokenization. Tokens of a byte-level vocabulary may end inside a character; the bytes
 * of an unfinished one (three at most) wait for the next token. What is waiting is always a prefix
 * that can still become a character, so nothing is held back longer than needed.
 */
#include "base/utf8.h"
#include "text/tokenizer.h"

#include <string.h>

static const char bad_char[] = "\xef\xbf\xbd"; /* U+FFFD */

void detok_init(struct detok *d)
{
    *d = (struct detok){0};
}

/* Appends s, with U+FFFD for what is not UTF-8. */
static int put(struct buf *out, const char *s, size_t n, struct err *e)
{
    int rc = 0;
    size_t good = 0, i = 0;
    while (!rc && i < n) {
        uint32_t cp;
        bool bad;
        size_t used = utf8_next(s + i, n - i, &cp, &bad);
        if (bad) {
            rc = buf_append(out, s + good, i - good, e);
            if (!rc)
                rc = buf_append(out, bad_char, 3, e);
            good = i + used;
        }
        i += used;
    }
    return rc ? rc : buf_append(out, s + good, n - good, e);
}

int detok_push(struct detok *d, const struct tokenizer *t, int32_t id, struct buf *out,
               struct err *e)
{
    if (id < 0 || (size_t)id >= tokenizer_count(t))
        return err_set(e, ERR_USAGE, "token id %d is not in the vocabulary of %zu tokens", (int)id,
                       tokenizer_count(t));
    size_t n;
    const char *s = tokenizer_bytes(t, id, &n);
    /* The pending character first, byte by byte, until it is decided. */
    while (d->n > 0 && n > 0) {
        char head[4];
        size_t have = d->n;
        memcpy(head, d->pending, have);
        head[have++] = *s;
        if (utf8_incomplete(head, have) == have) {
            d->pending[d->n++] = *s++;
            n--;
            continue;
        }
        uint32_t cp;
        bool bad;
        size_t used = utf8_next(head, have, &cp, &bad);
        int rc = put(out, head, used, e);
        if (rc)
            return rc;
        if (used == have) { /* complete; else *s begins something new */
            s++;
            n--;
        }
        d->n = 0;
    }
    size_t rest = utf8_incomplete(s, n);
    int rc = put(out, s, n - rest, e);
    if (rc || rest == 0)
        return rc;
    memcpy(d->pending, s + n - rest, rest);
    d->n = (uint8_t)rest;
    return 0;
}

int detok_flush(struct detok *d, struct buf *out, struct err *e)
{
    int rc = put(out, d->pending, d->n, e);
    d->n = 0;
    return rc;
}
