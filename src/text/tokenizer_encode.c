/*
 * Encoding: the way of a text through the parts of a tokenizer.
 *
 *     bytes → valid UTF-8 → [added tokens] → normalizer → [added tokens] → pieces → merges → ids
 *
 * Added tokens are looked for twice because some are defined on the text as it is and some on the
 * normalized text. Marks of trust travel with the text through every step that changes it; where
 * nothing changes, nothing is copied.
 */
#include "base/num.h"
#include "base/utf8.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* Positions in a piece are 32 bits wide. */
#define TEXT_MAX ((size_t)1 << 30)

/* ---- working memory --------------------------------------------------------------------------
 */

int tokenizer_pool_new(struct tokenizer_pool **out, struct err *e)
{
    struct tokenizer_pool *p = *out = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, sizeof *p, "the tokenizer");
    pthread_mutex_init(&p->lock, NULL);
    return 0;
}

static void work_free(struct tokenizer_work *w)
{
    if (!w)
        return;
    pretok_work_free(w->pretok);
    bpe_work_release(&w->bpe);
    free(w);
}

void tokenizer_pool_free(struct tokenizer_pool *p)
{
    if (!p)
        return;
    while (p->n > 0)
        work_free(p->idle[--p->n]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* Working memory for a text of n bytes. */
static int work_take(const struct tokenizer *t, size_t n, struct tokenizer_work **out,
                     struct err *e)
{
    struct tokenizer_work *w = NULL;
    int rc = 0;
    pthread_mutex_lock(&t->pool->lock);
    if (t->pool->n > 0)
        w = t->pool->idle[--t->pool->n];
    pthread_mutex_unlock(&t->pool->lock);
    if (!w) {
        w = calloc(1, sizeof *w);
        rc = w ? pretok_work_new(&w->pretok, &t->pretok, e)
               : err_nomem(e, sizeof *w, "text to tokenize");
    }
    if (rc) {
        work_free(w);
        w = NULL;
    } else {
        pretok_work_begin(w->pretok, n);
    }
    *out = w;
    return rc;
}

static void work_give(const struct tokenizer *t, struct tokenizer_work *w)
{
    if (!w)
        return;
    bpe_work_trim(&w->bpe);
    pretok_work_trim(w->pretok);
    pthread_mutex_lock(&t->pool->lock);
    if (t->pool->n < TOKENIZER_IDLE) {
        t->pool->idle[t->pool->n++] = w;
        w = NULL;
    }
    pthread_mutex_unlock(&t->pool->lock);
    work_free(w);
}

/* ---- encoding --------------------------------------------------------------------------------
 */

struct encoding {
    const struct tokenizer *t;
    struct tokenizer_work *work;
    bool all; /* every byte may form added tokens */
    struct ids *out;
};

/* A part of the text with its marks; trust NULL: all bytes (when `all`) or none. */
struct part {
    const char *s;
    size_t n;
    const uint8_t *trust;
};

static struct part cut(struct part p, size_t from, size_t to)
{
    return (struct part){p.s + from, to - from, p.trust ? p.trust + from : NULL};
}

static int emit_piece(void *arg, const char *s, size_t n, struct err *e)
{
    struct encoding *c = arg;
    return bpe_encode(&c->t->bpe, &c->work->bpe, s, n, c->out, e);
}

static int encode_plain(struct encoding *c, struct part p, struct err *e)
{
    return pretok_run(&c->t->pretok, c->work->pretok, p.s, p.n, emit_piece, c, e);
}

/* Ids of the added tokens of `a` in p; what lies between goes to `rest`. */
static int encode_added(struct encoding *c, const struct added *a, struct part p,
                        int (*rest)(struct encoding *, struct part, struct err *), struct err *e)
{
    size_t at = 0, done = 0, before = 0;
    struct added_match m;
    int rc = 0;
    if (c->all || p.trust) {
        while (!rc && added_next(a, p.s, p.n, p.trust, &at, &done, &m)) {
            if (m.from > before)
                rc = rest(c, cut(p, before, m.from), e);
            if (!rc)
                rc = ids_push(c->out, m.id, e);
            before = m.to;
        }
    }
    if (rc || before == p.n)
        return rc;
    return rest(c, cut(p, before, p.n), e);
}

static int encode_gap(struct encoding *c, struct part p, struct err *e)
{
    const struct tokenizer *t = c->t;
    if (normalize_same(&t->normalizer, p.s, p.n))
        return encode_added(c, &t->normalized, p, encode_plain, e);
    struct buf text, marks;
    buf_init(&text, SIZE_MAX / 2);
    buf_init(&marks, SIZE_MAX / 2);
    int rc = normalize_text(&t->normalizer, p.s, p.n, p.trust, &text, &marks, e);
    if (!rc && text.len > TEXT_MAX)
        rc = err_set(e, ERR_LIMIT, "text of %zu bytes is too long to tokenize", text.len);
    if (!rc) {
        const uint8_t *trust = p.trust ? (const uint8_t *)marks.data : NULL;
        rc = encode_added(c, &t->normalized, (struct part){text.data, text.len, trust},
                          encode_plain, e);
    }
    buf_release(&text);
    buf_release(&marks);
    return rc;
}

/* Copies p with U+FFFD for what is not UTF-8. */
static int repair(struct part *p, struct buf *text, struct buf *marks, struct err *e)
{
    int rc = 0;
    for (size_t i = 0, used; !rc && i < p->n; i += used) {
        uint32_t cp;
        char u[4];
        used = utf8_next(p->s + i, p->n - i, &cp, NULL);
        size_t len = utf8_put(u, cp);
        rc = buf_append(text, u, len, e);
        if (rc || !p->trust)
            continue;
        char all = memchr(p->trust + i, 0, used) == NULL;
        for (size_t k = 0; !rc && k < len; k++)
            rc = buf_putc(marks, all, e);
    }
    if (!rc)
        *p = (struct part){text->data, text->len, p->trust ? (const uint8_t *)marks->data : NULL};
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     const uint8_t *trusted, struct ids *out, struct err *e)
{
    struct encoding c = {.t = t, .all = flags & TOKENIZER_SPECIAL, .out = out};
    struct part p = {text, n, c.all ? NULL : trusted};
    struct buf fixed, marks;
    size_t before = out->n;
    buf_init(&fixed, 3 * TEXT_MAX);
    buf_init(&marks, 3 * TEXT_MAX);
    int rc = 0;
    if (n > TEXT_MAX)
        return err_set(e, ERR_LIMIT, "text of %zu bytes is too long to tokenize", n);
    if (!utf8_valid(text, n))
        rc = repair(&p, &fixed, &marks, e);
    if (!rc)
        rc = work_take(t, p.n, &c.work, e);
    if (!rc && flags & TOKENIZER_BOS && tokenizer_adds_bos(t))
        rc = ids_push(out, t->bos, e);
    if (!rc)
        rc = encode_added(&c, &t->raw, p, encode_gap, e);
    if (rc)
        out->n = before;
    work_give(t, c.work);
    buf_release(&fixed);
    buf_release(&marks);
    return rc;
}
