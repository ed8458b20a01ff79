/*
 * Backward passes of mixtures of experts: op_route, op_moe. See tape_impl.h.
 *
 * Expert e, over its slots s (tokens that came to it, in their order), with h = silu(g) ⊙ u and
 * y += weight × down h:
 *   h' = dy down,  dweight = h' · h,  dh = weight × h',  ddown += (weight dy)ᵀ h
 *   (dg, du) from dh,  dgate += dgᵀ x,  dup += duᵀ x,  dx += dg gate + du up
 * Experts come in ascending order, each one product over all of its slots; the two products of the
 * forward pass were kept.
 *
 * The router: with scores s (sigmoid, or softmax over all experts) and the chosen ones C,
 *   w_k = scale × s_k / (Σ_C s + 1e-20), or scale × s_k without `norm`.
 * The choice itself is not differentiated, nor is the bias that steers it.
 *
 * The balance loss of a sequence of T tokens (DeepSeek-V3, equations 17 to 20): Σ f_e P_e, where
 * f_e = E / (k T) × tokens that chose e (a constant), P_e the mean of s_e / Σ s over its tokens.
 */
#include "tensor/route_impl.h"
#include "tensor/tape_impl.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

/* ---- experts --------------------------------------------------------------------------------- */

struct moe_back {
    const struct kern *kern;
    const struct op_record *r;
    const float *dy;
    float *dweight; /* as the routing's weights */
    size_t d, d_ff, s0, n;
    float *x, *dys, *dxs; /* (n, d) of the expert's slots */
    float *h, *dh;        /* (n, d_ff) */
    float *dg, *du;
};

/* Rows of slots: what goes in, and what comes back, times the slot's weight. */
static void moe_gather(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct moe_back *j = arg;
    const struct op_slots *s = &j->r->slots;
    (void)worker;
    for (size_t i = r0; i < r1; i++) {
        size_t token = s->token[j->s0 + i];
        memcpy(j->x + i * j->d, j->r->in[0].data + token * j->d, j->d * sizeof *j->x);
        memcpy(j->dys + i * j->d, j->dy + token * j->d, j->d * sizeof *j->dys);
        memset(j->dh + i * j->d_ff, 0, j->d_ff * sizeof *j->dh);
        memset(j->dxs + i * j->d, 0, j->d * sizeof *j->dxs);
    }
}

/* From h' in dh: the weight's gradient, dg and du; dy becomes weight × dy. */
static void moe_hidden(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct moe_back *j = arg;
    const struct op_slots *s = &j->r->slots;
    (void)worker;
    for (size_t i = r0; i < r1; i++) {
        size_t at = (j->s0 + i) * j->d_ff, place = s->place[j->s0 + i];
        float *h = j->h + i * j->d_ff, *dh = j->dh + i * j->d_ff;
        float weight = j->r->routing.weight[place];
        j->kern->swiglu(h, s->gate + at, s->up + at, j->d_ff);
        j->dweight[place] += j->kern->dot(dh, h, j->d_ff);
        for (size_t k = 0; k < j->d_ff; k++)
            dh[k] *= weight;
        for (size_t k = 0; k < j->d; k++)
            j->dys[i * j->d + k] *= weight;
        j->kern->swiglu_back(j->dg + i * j->d_ff, j->du + i * j->d_ff, dh, s->gate + at, s->up + at,
                             j->d_ff);
    }
}

static void moe_scatter(struct tape *t, const struct moe_back *j, float *dx)
{
    const struct op_slots *s = &j->r->slots;
    for (size_t i = 0; i < j->n; i++) /* a token comes to an expert once */
        t->c->kern->add(dx + s->token[j->s0 + i] * j->d, j->dxs + i * j->d, j->d);
}

static void moe_expert(struct tape *t, struct moe_back *j, size_t e, float *dx)
{
    const struct weight *gate = &j->r->w[0][e], *up = &j->r->w[1][e], *down = &j->r->w[2][e];
    tape_rows(t, j->n, 4 * j->d, (struct tape_job){moe_gather, j});
    tape_back_input(t, j->dh, j->d_ff, j->dys, j->d, j->n, down);
    tape_rows(t, j->n, 16 * j->d_ff, (struct tape_job){moe_hidden, j});
    tape_back_weight(t, down, j->dys, j->d, j->h, j->d_ff, j->n);
    tape_back_weight(t, gate, j->dg, j->d_ff, j->x, j->d, j->n);
    tape_back_weight(t, up, j->du, j->d_ff, j->x, j->d, j->n);
    tape_back_input(t, j->dxs, j->d, j->dg, j->d_ff, j->n, gate);
    tape_back_input(t, j->dxs, j->d, j->du, j->d_ff, j->n, up);
    moe_scatter(t, j, dx);
}

void back_moe(struct tape *t, const struct op_record *r)
{
    struct moe_back j = {.kern = t->c->kern,
                         .r = r,
                         .dy = tape_given(t, r->out),
                         .dweight = tape_grad(t, r->in[1]),
                         .d = r->out.cols,
                         .d_ff = r->w[0][0].rows};
    float *dx = tape_grad(t, r->in[0]);
    size_t most = 0;
    for (size_t e = 0; e < r->n_expert; e++)
        most = num_max(most, r->slots.end[e] - (e ? r->slots.end[e - 1] : 0));
    j.x = tape_alloc(t, 3 * most * j.d * sizeof(float));
    j.h = tape_alloc(t, 4 * most * j.d_ff * sizeof(float));
    if (!j.x || !j.h || !dx || !j.dweight)
        return;
    j.dys = j.x + most * j.d;
    j.dxs = j.dys + most * j.d;
    j.dh = j.h + most * j.d_ff;
    j.dg = j.dh + most * j.d_ff;
    j.du = j.dg + most * j.d_ff;
    for (size_t e = 0; e < r->n_expert && !t->failed; e++) {
        j.s0 = e ? r->slots.end[e - 1] : 0;
        j.n = r->slots.end[e] - j.s0;
        if (j.n)
            moe_expert(t, &j, e, dx);
    }
}

/* ---- router ---------------------------------------------------------------------------------- */

struct route_back {
    const struct kern *kern;
    const struct op_record *r;
    const float *dw; /* NULL: only the balance counts */
    float *dlogits;
    float *share;        /* (n, E) scores over their sum; NULL without a balance loss */
    const float *pull;   /* by sequence, (E): what P's gradient is for each token of it */
    const uint32_t *seq; /* (n) number of a token's sequence; UINT32_MAX: of none */
    float *tmp;          /* per worker: scores, their gradients */
};

/* The scores' gradient of the chosen ones. */
static void route_chosen(const struct route_back *j, size_t t, const float *s, float *ds)
{
    const struct router_args *a = &j->r->router;
    const uint32_t *expert = j->r->routing.expert + t * a->n_used;
    const float *dw = j->dw + t * a->n_used;
    float sum = 0, dot = 0;
    for (size_t k = 0; k < a->n_used; k++) {
        sum += s[expert[k]];
        dot += dw[k] * s[expert[k]];
    }
    sum += 1e-20f;
    for (size_t k = 0; k < a->n_used; k++)
        ds[expert[k]] += a->scale * (a->norm ? (dw[k] - dot / sum) / sum : dw[k]);
}

static void route_rows(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct route_back *j = arg;
    const struct router_args *a = &j->r->router;
    size_t n = a->n_expert;
    float *s = j->tmp + (size_t)worker * 2 * num_round_up(n, 16), *ds = s + num_round_up(n, 16);
    for (size_t t = r0; t < r1; t++) {
        memcpy(s, j->r->in[0].data + t * n, n * sizeof *s);
        route_scores(j->kern, a->score, s, n);
        memset(ds, 0, n * sizeof *ds);
        if (j->dw)
            route_chosen(j, t, s, ds);
        if (j->share && j->seq[t] != UINT32_MAX) {
            const float *share = j->share + t * n, *pull = j->pull + j->seq[t] * n;
            float sum = 0, dot = j->kern->dot(pull, share, n);
            for (size_t i = 0; i < n; i++)
                sum += s[i];
            for (size_t i = 0; i < n; i++)
                ds[i] += (pull[i] - dot) / sum;
        }
        float *dl = j->dlogits + t * n, dot = 0;
        if (a->score == ROUTER_SOFTMAX)
            dot = j->kern->dot(ds, s, n);
        for (size_t i = 0; i < n; i++)
            dl[i] +=
                a->score == ROUTER_SOFTMAX ? s[i] * (ds[i] - dot) : ds[i] * (s[i] * (1.0f - s[i]));
    }
}

static void route_shares(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct route_back *j = arg;
    size_t n = j->r->router.n_expert;
    (void)worker;
    for (size_t t = r0; t < r1; t++) {
        float *s = j->share + t * n, sum = 0;
        memcpy(s, j->r->in[0].data + t * n, n * sizeof *s);
        route_scores(j->kern, j->r->router.score, s, n);
        for (size_t i = 0; i < n; i++)
            sum += s[i];
        for (size_t i = 0; i < n; i++)
            s[i] /= sum;
    }
}

/* A balance loss for each of n sequences. */
static bool route_room(struct tape *t, size_t n)
{
    if (t->n_balance >= n)
        return true;
    if (t->cap_balance < n) {
        double *p = realloc(t->balance, n * sizeof *p);
        if (!p)
            return false;
        t->balance = p;
        t->cap_balance = n;
    }
    memset(t->balance + t->n_balance, 0, (n - t->n_balance) * sizeof *t->balance);
    t->n_balance = n;
    return true;
}

/* The balance losses of all sequences, and their gradients by the shares of a token. */
static bool route_balance(struct tape *t, struct route_back *j)
{
    const struct op_record *r = j->r;
    const struct batch *b = r->router.batch;
    size_t n = r->router.n_expert, k = r->router.n_used;
    float *share = tape_alloc(t, r->in[0].rows * n * sizeof *share);
    float *pull = tape_alloc(t, b->n_runs * n * sizeof *pull);
    uint32_t *seq = tape_alloc(t, r->in[0].rows * sizeof *seq);
    if (!seq)
        return false;
    if (!route_room(t, b->n_runs)) {
        t->failed = true;
        return false;
    }
    memset(seq, 0xff, r->in[0].rows * sizeof *seq);
    memset(pull, 0, b->n_runs * n * sizeof *pull);
    j->share = share;
    tape_rows(t, r->in[0].rows, 8 * n, (struct tape_job){route_shares, j});
    for (size_t i = 0; i < b->n_runs; i++) {
        const struct batch_run *run = &b->runs[i];
        float *count = pull + i * n;
        for (size_t s = run->row * k; s < (run->row + run->n) * k; s++)
            count[r->routing.expert[s]] += 1;
        double loss = 0;
        for (size_t e = 0; e < n; e++) {
            double mean = 0, f = (double)count[e] * (double)n / ((double)k * (double)run->n);
            for (size_t s = run->row; s < run->row + run->n; s++)
                mean += share[s * n + e];
            loss += f * mean / (double)run->n;
            count[e] = (float)(t->o.balance * f / (double)run->n);
        }
        for (size_t s = run->row; s < run->row + run->n; s++)
            seq[s] = (uint32_t)i;
        t->balance[i] += (double)t->o.balance * loss;
    }
    j->pull = pull;
    j->seq = seq;
    return true;
}

void back_route(struct tape *t, const struct op_record *r)
{
    const struct router_args *a = &r->router;
    struct route_back j = {
        .kern = t->c->kern, .r = r, .dw = tape_given(t, r->out), .dlogits = tape_grad(t, r->in[0])};
    if (a->bias && a->bias->param)
        for (size_t i = 0; i < r->routing.n * a->n_used; i++)
            a->bias->param->grad[r->routing.expert[i]] += 1;
    j.tmp = tape_alloc(t, (size_t)team_threads(t->c->team) * 2 * num_round_up(a->n_expert, 16) *
                              sizeof(float));
    if (!j.tmp || !j.dlogits)
        return;
    if (t->o.balance != 0 && a->batch && !route_balance(t, &j))
        return;
    if (j.dw || j.share)
        tape_rows(t, r->in[0].rows, 16 * a->n_expert, (struct tape_job){route_rows, &j});
}
