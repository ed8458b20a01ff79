/* See perplexity.h. Rows of a window are scored by the compute threads into slots, then summed. */
#include "eval/perplexity.h"

#include "base/clock.h"
#include "base/num.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERPLEXITY_TOP = 256 };

/* Sums for a mean and its error. */
struct tally {
    double n, sum, squares;
};

static void tally_add(struct tally *t, double x)
{
    t->n++;
    t->sum += x;
    t->squares += x * x;
}

static struct mean tally_mean(const struct tally *t)
{
    struct mean m = {t->n > 0 ? t->sum / t->n : NAN, NAN};
    double var = t->squares / t->n - m.value * m.value;
    if (t->n > 1)
        m.error = var > 0 ? sqrt(var / (t->n - 1)) : 0;
    return m;
}

static struct mean mean_exp(struct mean m)
{
    double v = exp(m.value);
    return (struct mean){v, v * m.error};
}

struct scorer {
    const struct perplexity_params *p;
    struct engine *g;
    struct session *s;
    size_t vocab, top, total; /* total: windows */
    struct eval_window win;
    int32_t *ids;            /* (ctx) of the window */
    size_t row0;             /* of the window, among all rows */
    struct cells_diff *diff; /* (ctx) of the window's rows */
    uint8_t *rows;           /* (ctx) rows to save */
    size_t row_bytes;
    float *tmp; /* (threads, vocab) */
    float *kl;  /* (all rows) */
    size_t done_rows;
    struct tally nll, kls, dp, dp2, same, base, log_ratio;
    struct reference_writer out;
};

static void scorer_row(void *arg, size_t i, const float *logits, int worker)
{
    struct scorer *c = arg;
    struct cells_work w = {c->g, c->vocab, c->tmp + (size_t)worker * c->vocab};
    uint32_t right = (uint32_t)c->ids[i + 1];
    size_t k = i - c->win.from;
    struct cells_diff *d = &c->diff[k];
    if (c->p->reference) {
        const struct reference *r = c->p->reference;
        /* The cells are read only. */
        uint8_t *row = (uint8_t *)(uintptr_t)(r->rows + (c->row0 + k) * r->row_bytes);
        struct cells ref = reference_cells(row, r->head.top);
        cells_compare(&w, logits, right, r->head.top, &ref, d);
    } else if (!c->rows) {
        d->nll = cells_nll(&w, logits, right);
    }
    if (c->rows) {
        uint8_t *row = c->rows + k * c->row_bytes;
        struct cells cells = reference_cells(row, c->top);
        d->nll = cells_make(&w, logits, right, c->top, &cells);
        reference_cells_put(row, c->top, &cells);
    }
}

/* The window's rows join the sums, in order. */
static int scorer_fold(struct scorer *c, size_t rows, struct err *e)
{
    const struct reference *r = c->p->reference;
    for (size_t k = 0; k < rows; k++) {
        const struct cells_diff *d = &c->diff[k];
        if (isnan(d->nll))
            return err_set(e, ERR_FORMAT,
                           "the model's logits are no numbers after token %zu: its weights are "
                           "damaged, or made for another program",
                           c->win.start + c->win.from + k);
        tally_add(&c->nll, d->nll);
        if (!r)
            continue;
        double base =
            -reference_cells((uint8_t *)(uintptr_t)(r->rows + (c->row0 + k) * r->row_bytes),
                             r->head.top)
                 .right;
        tally_add(&c->kls, d->kl);
        tally_add(&c->dp, d->dp);
        tally_add(&c->dp2, d->dp * d->dp);
        tally_add(&c->same, d->same);
        tally_add(&c->base, base);
        tally_add(&c->log_ratio, d->nll - base);
        c->kl[c->row0 + k] = (float)d->kl;
    }
    c->row0 += rows;
    return c->rows ? reference_writer_rows(&c->out, c->rows, rows, e) : 0;
}

static int scorer_window(struct scorer *c, size_t i, struct err *e)
{
    const struct perplexity_params *p = c->p;
    c->win = eval_window_at(&p->cut, p->n, i);
    memcpy(c->ids, p->ids + c->win.start, c->win.n * sizeof *c->ids);
    if (!p->cut.stride && p->bos >= 0)
        c->ids[0] = p->bos;
    session_truncate(c->s, 0);
    int rc = session_score(c->s, c->ids, c->win.n - 1, c->win.from, scorer_row, c, e);
    return rc ? rc : scorer_fold(c, c->win.n - 1 - c->win.from, e);
}

static int float_order(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Quantile q of n sorted values, between neighbours where it falls between them. */
static double quantile(const float *v, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? v[i] + (at - (double)i) * ((double)v[i + 1] - v[i]) : v[i];
}

static void scorer_result(struct scorer *c, struct perplexity *out)
{
    out->scored = c->row0;
    out->nll = tally_mean(&c->nll);
    out->ppl = mean_exp(out->nll);
    if (!c->p->reference || !c->row0 || !c->kl)
        return;
    out->kl = tally_mean(&c->kls);
    out->dp = tally_mean(&c->dp);
    out->dp_rms = sqrt(c->dp2.sum / c->dp2.n);
    out->same = tally_mean(&c->same);
    out->reference_ppl = mean_exp(tally_mean(&c->base));
    out->ratio = mean_exp(tally_mean(&c->log_ratio));
    qsort(c->kl, c->row0, sizeof *c->kl, float_order);
    out->kl_median = quantile(c->kl, c->row0, 0.5);
    out->kl_p90 = quantile(c->kl, c->row0, 0.9);
    out->kl_p99 = quantile(c->kl, c->row0, 0.99);
    out->kl_max = c->kl[c->row0 - 1];
}

/* The reference is of the same text, cut the same way, over the same vocabulary. */
static int scorer_check(const struct scorer *c, struct err *e)
{
    const struct perplexity_params *p = c->p;
    const struct reference_head *h = &p->reference->head;
    if (h->vocab != c->vocab || h->tokenizer != reference_tokenizer(engine_tokenizer(c->g)))
        return err_set(e, ERR_FORMAT,
                       "the saved logits are of a model with another vocabulary (%.90s): the two "
                       "cannot be compared",
                       h->name);
    if (h->cut.ctx != p->cut.ctx || h->cut.stride != p->cut.stride || h->bos != p->bos)
        return err_set(e, ERR_USAGE,
                       "the saved logits are of windows of %zu tokens with a stride of %zu: leave "
                       "out --ctx and --stride, or save them again",
                       h->cut.ctx, h->cut.stride);
    if (h->n_ids != p->n || memcmp(p->reference->ids, p->ids, p->n * sizeof *p->ids))
        return err_set(e, ERR_FORMAT,
                       "the saved logits are of another text: leave the text out (it is in the "
                       "file), or save them again");
    if (c->total > h->windows)
        return err_set(e, ERR_USAGE,
                       "the saved logits have %zu windows, not %zu: give --chunks "
                       "%zu, or save more",
                       h->windows, c->total, h->windows);
    return 0;
}

static int scorer_save_open(struct scorer *c, size_t rows, struct err *e)
{
    const struct perplexity_params *p = c->p;
    const struct engine_info *i = engine_info(c->g);
    struct reference_head h = {.vocab = c->vocab,
                               .top = c->top,
                               .cut = p->cut,
                               .windows = c->total,
                               .rows = rows,
                               .n_ids = p->n,
                               .bos = p->bos,
                               .tokenizer = reference_tokenizer(engine_tokenizer(c->g)),
                               .model = engine_fingerprint(c->g)};
    snprintf(h.name, sizeof h.name, "%s", i->name);
    snprintf(h.type, sizeof h.type, "%s", i->file_type);
    return reference_writer_open(&c->out, p->save, &h, p->ids, e);
}

static int scorer_init(struct scorer *c, struct err *e)
{
    const struct perplexity_params *p = c->p;
    const struct engine_info *i = engine_info(c->g);
    size_t ctx = p->cut.ctx, rows, bytes, tmp;
    if (ctx > i->ctx)
        return err_set(e, ERR_USAGE, "windows of %zu tokens in a context of %zu", ctx, i->ctx);
    for (size_t k = 0; k < p->n; k++)
        if (p->ids[k] < 0 || (size_t)p->ids[k] >= c->vocab)
            return err_set(e, ERR_FORMAT,
                           "token %d of the text is not in the model's vocabulary of %zu: its "
                           "tokenizer is of another model",
                           p->ids[k], c->vocab);
    int rc = eval_windows(&c->total, &p->cut, p->n, e);
    if (!rc && p->reference)
        rc = scorer_check(c, e);
    if (!rc)
        rc = session_new(&c->s, c->g, e);
    if (rc)
        return rc;
    rows = eval_window_rows(&p->cut, p->n, c->total);
    c->top = num_min(p->top ? p->top : PERPLEXITY_TOP, c->vocab);
    c->row_bytes = reference_row_bytes(c->top);
    if (!num_mul(&bytes, ctx, c->row_bytes) ||
        !num_mul(&tmp, (size_t)i->threads * sizeof(float), c->vocab))
        return err_set(e, ERR_LIMIT, "%zu tokens a row are too many", c->top);
    c->ids = calloc(ctx, sizeof *c->ids);
    c->diff = calloc(ctx, sizeof *c->diff);
    c->tmp = malloc(tmp);
    c->kl = p->reference ? calloc(rows, sizeof *c->kl) : NULL;
    c->rows = p->save ? malloc(bytes) : NULL;
    if (!c->ids || !c->diff || !c->tmp || (p->reference && !c->kl) || (p->save && !c->rows))
        return err_nomem(e, bytes + tmp, "scores");
    return p->save ? scorer_save_open(c, rows, e) : 0;
}

int perplexity_run(struct perplexity *out, struct engine *g, const struct perplexity_params *p,
                   struct err *e)
{
    struct scorer c = {.p = p, .g = g, .vocab = engine_info(g)->vocab, .out = {.file = {.fd = -1}}};
    memset(out, 0, sizeof *out);
    int rc = scorer_init(&c, e);
    double t0 = clock_seconds();
    for (size_t i = 0; !rc && i < c.total; i++) {
        rc = scorer_window(&c, i, e);
        if (rc)
            break;
        out->windows = i + 1;
        out->tokens += c.win.n - 1;
        if (p->progress && !p->progress(p->arg, i + 1, c.total) && i + 1 < c.total)
            rc = err_set(e, ERR_CANCELLED, "stopped");
    }
    out->seconds = clock_seconds() - t0;
    out->of_windows = c.total;
    if (!p->cut.stride && !p->cut.limit && !rc)
        out->unused = p->n - c.total * p->cut.ctx;
    if (!rc && p->save)
        rc = reference_writer_commit(&c.out, e);
    if (!rc || rc == ERR_CANCELLED)
        scorer_result(&c, out);
    reference_writer_abort(&c.out);
    session_free(c.s);
    free(c.ids);
    free(c.diff);
    free(c.tmp);
    free(c.kl);
    free(c.rows);
    return rc;
}
