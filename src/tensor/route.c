/*
 * The router of a mixture of experts: op_route.
 *
 * Sources: DeepSeek-V2 (arXiv:2405.04434, softmax, groups by their best expert) and DeepSeek-V3
 * (arXiv:2412.19437, 2.1.2: sigmoid, a bias for the choice alone, groups by the sum of their two
 * best). Groups that lose are masked with −inf, as in DeepSeek's own code.
 *
 * The choice has no sort: experts are ordered by (value descending, index ascending), the k-th of
 * this order is the *cut*, and whoever is not after it is chosen. Reading them off by index gives
 * the ascending order that sums want. NaN is taken for −inf first, so that the order is total and
 * any input, however broken, chooses exactly k different experts.
 *
 * Bits: softmax and exp are those of the kernel table, the rest is plain IEEE arithmetic in one
 * order, so the choice and the weights are the same at every instruction set.
 */
#include "base/num.h"
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

enum {
    ROUTE_SERIAL = 2048,    /* fewer logits than this are the caller's work */
    ROUTE_EXPERTS = 1 << 16 /* more than any model has; the choice takes n_used × n_expert steps */
};

int router_check(const struct router_args *a, struct err *e)
{
    if (a->n_expert == 0 || a->n_expert > ROUTE_EXPERTS)
        return err_set(e, ERR_FORMAT,
                       "%zu experts: a mixture has from 1 to %d; the file is damaged", a->n_expert,
                       ROUTE_EXPERTS);
    if (a->n_used == 0 || a->n_used > a->n_expert)
        return err_set(e, ERR_FORMAT,
                       "%zu of %zu experts a token: from 1 to all of them can be used; the file is "
                       "damaged",
                       a->n_used, a->n_expert);
    if (a->bias && a->bias->cols != a->n_expert)
        return err_set(e, ERR_FORMAT, "tensor \"%s\": %zu values for %zu experts", a->bias->name,
                       a->bias->cols, a->n_expert);
    if (!isfinite(a->scale))
        return err_set(e, ERR_FORMAT, "the scale of expert weights is not a finite number");
    if (a->n_group <= 1)
        return 0;
    if (a->n_group > a->n_expert || a->n_expert % a->n_group)
        return err_set(e, ERR_FORMAT, "%zu experts cannot be cut into %zu equal groups",
                       a->n_expert, a->n_group);
    if (a->n_group_used == 0 || a->n_group_used > a->n_group)
        return err_set(e, ERR_FORMAT, "%zu of %zu groups of experts: from 1 to all can be used",
                       a->n_group_used, a->n_group);
    if (a->n_expert / a->n_group * a->n_group_used < a->n_used)
        return err_set(e, ERR_FORMAT,
                       "%zu experts a token, but %zu groups of %zu have fewer; the file is damaged",
                       a->n_used, a->n_group_used, a->n_expert / a->n_group);
    return 0;
}

struct route_job {
    const struct kern *kern;
    const struct router_args *a;
    struct tensor logits;
    struct routing r;
    size_t per;     /* tokens a chunk */
    float *scratch; /* per worker: scores, values to choose by, values of groups */
    size_t scratch_floats;
};

/* The k-th (k ≥ 1) of n values in the order of the choice. No value is NaN. */
struct route_cut {
    float value;
    size_t at;
};

static bool route_after(float v, size_t i, struct route_cut c)
{
    return v < c.value || (v == c.value && i > c.at);
}

static struct route_cut route_cut(const float *v, size_t n, size_t k)
{
    struct route_cut cut = {0};
    for (size_t j = 0; j < k; j++) {
        struct route_cut best = {.at = n};
        for (size_t i = 0; i < n; i++)
            if ((!j || route_after(v[i], i, cut)) && (best.at == n || v[i] > best.value))
                best = (struct route_cut){v[i], i};
        cut = best;
    }
    return cut;
}

/* What a group is worth: its best, or the sum of its two best. */
static float route_group(const float *v, size_t n, bool top2)
{
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (v[i] > first) {
            second = first;
            first = v[i];
        } else if (v[i] > second) {
            second = v[i];
        }
    if (!top2 || n < 2)
        return first;
    float sum = first + second;
    return isnan(sum) ? -INFINITY : sum;
}

static void route_scores(const struct route_job *j, float *s)
{
    size_t n = j->a->n_expert;
    if (j->a->score == ROUTER_SOFTMAX) {
        j->kern->softmax(s, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        s[i] = -s[i];
    j->kern->exp(s, s, n);
    for (size_t i = 0; i < n; i++)
        s[i] = 1.0f / (1.0f + s[i]);
}

static void route_row(const struct route_job *j, size_t t, float *s)
{
    const struct router_args *a = j->a;
    size_t n = a->n_expert, k = a->n_used, m = 0;
    float *v = s + n, *group = v + n, sum = 0;
    memcpy(s, j->logits.data + t * n, n * sizeof *s);
    route_scores(j, s);
    for (size_t i = 0; i < n; i++) {
        v[i] = a->bias ? s[i] + a->bias->vec[i] : s[i];
        v[i] = isnan(v[i]) ? -INFINITY : v[i];
    }
    if (a->n_group > 1) {
        size_t size = n / a->n_group;
        for (size_t g = 0; g < a->n_group; g++)
            group[g] = route_group(v + g * size, size, a->group_top2);
        struct route_cut cut = route_cut(group, a->n_group, a->n_group_used);
        for (size_t i = 0; i < size * a->n_group; i++)
            if (route_after(group[i / size], i / size, cut))
                v[i] = -INFINITY;
    }
    struct route_cut cut = route_cut(v, n, k);
    uint32_t *expert = j->r.expert + t * k;
    float *weight = j->r.weight + t * k;
    for (size_t i = 0; i < n; i++)
        if (!route_after(v[i], i, cut)) {
            expert[m] = (uint32_t)i;
            weight[m++] = s[i];
            sum += s[i];
        }
    for (size_t i = 0; i < k; i++) {
        if (a->norm)
            weight[i] /= sum + 1e-20f;
        weight[i] *= a->scale;
    }
}

static void route_chunk(void *arg, size_t chunk, int worker)
{
    const struct route_job *j = arg;
    size_t end = num_min(j->logits.rows, (chunk + 1) * j->per);
    for (size_t t = chunk * j->per; t < end; t++)
        route_row(j, t, j->scratch + (size_t)worker * j->scratch_floats);
}

struct routing op_route(struct op_ctx *c, struct tensor logits, const struct router_args *a)
{
    size_t n = logits.rows, k = a->n_used;
    struct route_job j = {.kern = c->kern, .a = a, .logits = logits, .per = n};
    j.r = (struct routing){.n = n, .n_used = k};
    j.r.expert = op_alloc(c, n * k * sizeof *j.r.expert);
    j.r.weight = op_alloc(c, n * k * sizeof *j.r.weight);
    size_t mark = c->used, threads = (size_t)team_threads(c->team);
    j.scratch_floats =
        num_round_up(2 * a->n_expert + num_max(a->n_group, 1), KERN_ALIGN / sizeof(float));
    j.scratch = op_alloc(c, j.scratch_floats * sizeof(float) * threads);
    c->used = mark;
    if (c->dry || !n)
        return j.r;
    if (n * a->n_expert >= ROUTE_SERIAL)
        j.per = num_max(1, n / (threads * 4));
    team_run(c->team, route_chunk, &j, (n + j.per - 1) / j.per);
    op_record(c, &(struct op_record){.kind = OP_ROUTE,
                                     .out = {j.r.weight, n, k},
                                     .in = {logits},
                                     .routing = j.r,
                                     .router = *a});
    return j.r;
}
