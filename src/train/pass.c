/* See pass.h. */
#include "train/pass.h"

#include "base/num.h"
#include "base/progress.h"
#include "base/quota.h"
#include "tensor/kv.h"

#include <stdlib.h>

static size_t pages_of(size_t tokens)
{
    return (tokens + KV_PAGE - 1) / KV_PAGE;
}

int pass_init(struct pass *p, const struct model *m, size_t tokens, size_t longest, struct err *e)
{
    struct kv_shape shape;
    *p = (struct pass){.tokens = tokens, .longest = num_max(longest, tokens)};
    longest = num_max(longest, KV_PAGE);
    model_kv_shape(m, &shape);
    shape.type = QUANT_F32;
    /* Short sequences fill half a page on average; a pair has to fit. */
    p->pages = num_max(2 * pages_of(tokens), 2 * pages_of(longest));
    p->most = 2 * pages_of(tokens);
    p->room = num_max(tokens, 2 * longest);
    /* Pages take memory when they are written for the first time; more than there is are of no use.
     */
    size_t page = num_max(kv_page_bytes(&shape), 1), have = quota_memory("");
    p->pages = num_min(p->pages, num_max(have / page, 2));
    if (kv_pool_new(&p->kv, &shape, p->pages, e))
        return err_set(e, ERR_NOMEM,
                       "no memory for keys and values of sequences of %zu tokens: give a smaller "
                       "--max-length or --pass-tokens",
                       p->longest);
    p->seq = calloc(p->most, sizeof *p->seq);
    p->runs = calloc(p->most, sizeof *p->runs);
    p->row = calloc(p->most + 1, sizeof *p->row);
    p->ids = calloc(p->room, sizeof *p->ids);
    p->next = calloc(p->room, sizeof *p->next);
    p->pos = calloc(p->room, sizeof *p->pos);
    p->want = calloc(p->room, sizeof *p->want);
    if (!p->seq || !p->runs || !p->row || !p->ids || !p->next || !p->pos || !p->want)
        return err_nomem(e, p->room * sizeof *p->ids, "a batch");
    return 0;
}

void pass_release(struct pass *p)
{
    for (size_t i = 0; p->seq && i < p->most; i++)
        if (p->seq[i].pool)
            kv_seq_release(&p->seq[i]);
    kv_pool_free(p->kv);
    free(p->seq);
    free(p->runs);
    free(p->row);
    free(p->ids);
    free(p->next);
    free(p->pos);
    free(p->want);
    *p = (struct pass){.kv = NULL};
}

uint64_t pass_cache_bytes(const struct pass *p, size_t tokens, size_t longest)
{
    longest = num_max(num_min(longest, tokens), 1);
    size_t pages = tokens / longest * pages_of(longest) + pages_of(tokens % longest);
    return num_min(pages, p->pages) * kv_page_bytes(kv_pool_shape(p->kv));
}

int pass_fits(uint64_t bytes, size_t tokens, struct err *e)
{
    size_t have = quota_memory("");
    char a[32], b[32];
    if (bytes <= have)
        return 0;
    return err_set(e, ERR_NOMEM,
                   "sequences that have %zu tokens together need %s and %s are free: give a "
                   "smaller --max-length or --pass-tokens",
                   tokens, progress_bytes(a, sizeof a, (double)bytes),
                   progress_bytes(b, sizeof b, (double)have));
}

int pass_cut(const struct pass *p, const struct data_batch *b, size_t first, size_t end,
             size_t unit, size_t *out, struct err *e)
{
    size_t n = 0, tokens = 0, pages = 0;
    while (first + n + unit <= end) {
        size_t more = 0, sheets = 0;
        for (size_t i = 0; i < unit; i++) {
            size_t len = b->seq[first + n + i].n;
            if (len > p->longest)
                return err_set(e, ERR_LIMIT,
                               "a sequence of %zu tokens is longer than the %zu that memory was "
                               "planned for: give a larger --max-length",
                               len, p->longest);
            more += len;
            sheets += pages_of(len);
        }
        if (n && (tokens + more > p->tokens || pages + sheets > p->pages || n + unit > p->most))
            break;
        tokens += more;
        pages += sheets;
        n += unit;
    }
    *out = n;
    return n ? 0 : err_set(e, ERR_USAGE, "a pair of the batch has one sequence");
}

/* A sequence's table of pages has room for the longest that it was. */
static int pass_seq(struct pass *p, size_t i, size_t tokens, struct err *e)
{
    struct kv_seq *s = &p->seq[i];
    int rc = 0;
    if (!s->pool || s->max_page < pages_of(tokens)) {
        kv_seq_release(s);
        rc = kv_seq_init(s, p->kv, num_max(2 * tokens, 16 * KV_PAGE), e);
    }
    return rc ? rc : kv_seq_reserve(s, 0, 0, tokens, e);
}

int pass_gather(struct pass *p, const struct data_seq *seq, size_t n, struct batch *b,
                struct err *e)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const struct data_seq *s = &seq[i];
        int rc = pass_seq(p, i, s->n, e);
        if (rc)
            return rc;
        p->runs[i] = (struct batch_run){.seq = &p->seq[i], .row = at, .n = s->n};
        p->row[i] = at;
        for (size_t k = 0; k < s->n; k++) {
            p->ids[at + k] = s->ids[k];
            p->next[at + k] = s->ids[k + 1 < s->n ? k + 1 : k];
            p->pos[at + k] = (uint32_t)k;
            p->want[at + k] = (uint32_t)(at + k);
        }
        at += s->n;
    }
    p->row[n] = at;
    *b = (struct batch){.n = at,
                        .ids = p->ids,
                        .pos = p->pos,
                        .want = p->want,
                        .n_want = at,
                        .runs = p->runs,
                        .n_runs = n};
    return 0;
}

void pass_done(struct pass *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p->seq[i].pool)
            kv_seq_truncate(&p->seq[i], 0);
}
