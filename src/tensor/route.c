/*
 * The router of a mixture of experts: op_route.
 *
 * Sources: DeepSeek-V2 (arXiv:2405.04434, softmax, groups by their best expert) and DeepSeek-V3
 * (arXiv:2412.19437, 2.1.2: sigmoid, a bias for the choice alone, groups by the sum of their two
 * best). Groups that lose are masked with −inf, as in DeepSeek's own code.
 *
 * The choice has no sort: a value becomes an integer whose order is that of the floats, NaN taken
 * for −inf. The k-th largest integer is found bit by bit from the top (so many are at least as
 * large as a candidate, in loops without branches); all above it are chosen, and of its equals the
 * first ones. Reading them off by index gives the ascending order that sums want, and any input,
 * however broken, chooses exactly k different experts in a time that depends on E alone.
 *
 * Bits: softmax and exp are those of the kernel table, the rest is plain IEEE arithmetic in one
 * order, so the choice and the weights are the same at every instruction set.
 */
#include "base/num.h"
#include "tensor/route_impl.h"

#include <math.h>
#include <string.h>

enum {
    ROUTE_SERIAL = 2048,    /* fewer logits than this are the caller's work */
    ROUTE_EXPERTS = 1 << 16 /* more than any model has */
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
    float *scratch; /* per worker: scores, values to choose by, keys, keys of groups, groups kept */
    size_t scratch_floats;
};

/* A larger value has a larger key; NaN is −inf, −0 is 0. */
static uint32_t route_key(float v)
{
    uint32_t u;
    v = isnan(v) ? -INFINITY : v + 0.0f;
    memcpy(&u, &v, sizeof u);
    return u >> 31 ? ~u : u | 1u << 31;
}

/* Indices of the k (1 ≤ k ≤ n) largest keys, ascending; the first among equals. */
static void route_best(const uint32_t *key, size_t n, size_t k, uint32_t *out)
{
    uint32_t cut = 0; /* the largest key that k of them reach */
    for (int bit = 31; bit >= 0; bit--) {
        uint32_t next = cut | 1u << bit, reach = 0;
        for (size_t i = 0; i < n; i++)
            reach += key[i] >= next;
        cut = reach >= k ? next : cut;
    }
    size_t equals = k, m = 0;
    for (size_t i = 0; i < n; i++)
        equals -= key[i] > cut;
    for (size_t i = 0; i < n && m < k; i++)
        if (key[i] > cut || (key[i] == cut && equals && equals--))
            out[m++] = (uint32_t)i;
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
    return first + second;
}

void route_scores(const struct kern *k, enum router_score score, float *s, size_t n)
{
    if (score == ROUTER_SOFTMAX) {
        k->softmax(s, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        s[i] = -s[i];
    k->exp(s, s, n);
    for (size_t i = 0; i < n; i++)
        s[i] = 1.0f / (1.0f + s[i]);
}

/* Experts of the groups that lose get a key below that of −inf: even a broken one that is in goes
 * before them. */
static void route_groups(const struct router_args *a, const float *v, uint32_t *key,
                         uint32_t *group, uint32_t *kept)
{
    size_t size = a->n_expert / a->n_group, m = 0;
    for (size_t g = 0; g < a->n_group; g++)
        group[g] = route_key(route_group(v + g * size, size, a->group_top2));
    route_best(group, a->n_group, a->n_group_used, kept);
    for (size_t g = 0; g < a->n_group; g++)
        if (m < a->n_group_used && kept[m] == g)
            m++;
        else
            memset(key + g * size, 0, size * sizeof *key);
}

static void route_row(const struct route_job *j, size_t t, float *s)
{
    const struct router_args *a = j->a;
    size_t n = a->n_expert, k = a->n_used;
    float *v = s + n, sum = 0;
    uint32_t *key = (uint32_t *)(void *)(v + n);
    memcpy(s, j->logits.data + t * n, n * sizeof *s);
    route_scores(j->kern, a->score, s, n);
    for (size_t i = 0; i < n; i++) {
        v[i] = a->bias ? s[i] + a->bias->vec[i] : s[i];
        key[i] = route_key(v[i]);
    }
    if (a->n_group > 1)
        route_groups(a, v, key, key + n, key + n + a->n_group);
    uint32_t *expert = j->r.expert + t * k;
    float *weight = j->r.weight + t * k;
    route_best(key, n, k, expert);
    for (size_t i = 0; i < k; i++)
        sum += weight[i] = s[expert[i]];
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
    j.scratch_floats = num_round_up(3 * a->n_expert + 2 * a->n_group, KERN_ALIGN / sizeof(float));
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
