#include "eval/imatrix_run.h"

#include "base/num.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct collector {
    struct insums *m;
    bool head;
    int rc;
    struct err *e;
};

static void collect(void *arg, const struct engine_input *in)
{
    struct collector *c = arg;
    struct insums_entry *x;
    /* A head that computes the last token's logits only would be weighed by that token. */
    bool head = !strcmp(in->name, "output.weight") || !strcmp(in->name, "token_embd.weight");
    if (c->rc || (head && !c->head))
        return;
    c->rc = insums_entry(&x, c->m, in->name, in->mats, in->cols, c->e);
    if (c->rc)
        return;
    double *sum = x->sum2 + in->mat * in->cols;
    for (size_t r = 0; r < in->rows; r++) {
        const float *v = in->x + (in->index ? in->index[r] : r) * in->ld;
        for (size_t i = 0; i < in->cols; i++)
            sum[i] += (double)v[i] * v[i];
    }
    x->counts[in->mat] += (double)in->rows;
    for (size_t i = 0; i < in->cols && !c->rc; i++)
        if (!isfinite(sum[i]))
            c->rc = err_set(c->e, ERR_FORMAT,
                            "%s: its inputs are no numbers: the weights are damaged, or made for "
                            "another program",
                            in->name);
}

int imatrix_run_chunks(size_t *out, const struct imatrix_params *p, struct err *e)
{
    size_t all = p->ctx ? p->n / p->ctx : 0;
    *out = 0;
    if (all == 0)
        return err_set(e, ERR_LIMIT,
                       "the text has %zu tokens and a chunk has %zu: give a longer text, or a "
                       "smaller --ctx",
                       p->n, p->ctx);
    if (p->skip >= all)
        return err_set(e, ERR_USAGE, "the text has %zu chunks: nothing is left from chunk %zu on",
                       all, p->skip);
    *out = p->limit ? num_min(p->limit, all - p->skip) : all - p->skip;
    return 0;
}

/* Logits that nobody looks at: asking for them makes the head compute. */
static void ignore_row(void *arg, size_t i, const float *logits, int worker)
{
    (void)arg, (void)i, (void)logits, (void)worker;
}

int imatrix_run(struct insums *m, struct engine *g, const struct imatrix_params *p, struct err *e)
{
    struct collector c = {.m = m, .head = p->head, .e = e};
    struct session *s = NULL;
    size_t total;
    int rc = imatrix_run_chunks(&total, p, e);
    if (!rc && m->chunk_size && m->chunk_size != p->ctx)
        rc = err_set(e, ERR_USAGE,
                     "the importance matrix so far is of chunks of %u tokens: give --ctx %u",
                     m->chunk_size, m->chunk_size);
    if (!rc)
        rc = session_new(&s, g, e);
    int32_t *ids = rc ? NULL : malloc(p->ctx * sizeof *ids);
    if (!rc && !ids)
        rc = err_nomem(e, p->ctx * sizeof *ids, "a chunk");
    m->chunk_size = (uint32_t)p->ctx;
    engine_observe(g, collect, &c);
    for (size_t i = 0; i < total && !rc; i++) {
        memcpy(ids, p->ids + (p->skip + i) * p->ctx, p->ctx * sizeof *ids);
        if (p->bos >= 0)
            ids[0] = p->bos;
        session_truncate(s, 0);
        rc = session_score(s, ids, p->ctx, p->head ? 0 : p->ctx, ignore_row, NULL, e);
        if (!rc)
            rc = c.rc;
        if (!rc)
            m->chunks++;
        if (!rc && p->progress)
            rc = p->progress(p->arg, i + 1, total, e);
    }
    engine_observe(g, NULL, NULL);
    session_free(s);
    free(ids);
    return rc;
}
