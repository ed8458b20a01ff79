/*
 * Rows of an output tensor from the tensors of the source that it is made of.
 *
 * A tensor is a list of runs, each some rows of one source tensor: whole, as experts that are
 * stacked, as heads of a latent attention; in their order or in another (rotated halves beside each
 * other, or rows as columns). Rows that keep order and type are copied byte for byte.
 */
#include "base/num.h"
#include "base/rng.h"
#include "convert/plan.h"

#include <string.h>

size_t plan_cols(const struct convert_tensor *t)
{
    return t->dims ? (size_t)t->shape[t->dims - 1] : 1;
}

size_t plan_height(const struct convert_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i + 1 < t->dims; i++)
        n *= (size_t)t->shape[i];
    return n;
}

static size_t source_cols(const struct source_tensor *s)
{
    return s->dims ? (size_t)s->shape[s->dims - 1] : 1;
}

/* Rows of composed tensors are made this many at a time. */
enum { MADE_ROWS = 16 };

/* Floats of memory for the bytes of rows that have to be made. */
static size_t made_floats(const struct source_tensor *s)
{
    return s->data ? 0
                   : num_round_up(source_row_bytes(s) * MADE_ROWS, sizeof(float)) / sizeof(float);
}

size_t plan_scratch(const struct convert_tensor *t)
{
    size_t most = 0;
    for (size_t i = 0; i < t->n_runs; i++) {
        const struct convert_run *u = &t->runs[i];
        size_t turned = u->how == RUN_TRANSPOSED ? u->group * source_cols(u->t) : 0;
        most = num_max(most, turned + made_floats(u->t));
    }
    return most + fp8_scratch(t) + nf4_scratch(t);
}

/* Rows [r, r + n) of a tensor as floats. */
static void decode_rows(const struct convert_plan *p, const struct source_tensor *s, size_t r,
                        size_t n, float *out, float *scratch)
{
    size_t stride = source_row_bytes(s), cols = source_cols(s);
    while (n) {
        size_t take = s->data ? n : num_min(n, MADE_ROWS);
        const uint8_t *at = s->data ? s->data + r * stride : (const uint8_t *)scratch;
        if (!s->data)
            source_rows(s, r, take, (uint8_t *)scratch, stride);
        for (size_t i = 0; i < take; i++)
            s->type->decode(out + i * cols, at + i * stride, cols);
        plan_adapt(p, s, r, take, out, cols);
        out += take * cols;
        r += take;
        n -= take;
    }
}

size_t plan_row_order(enum convert_how how, size_t d, size_t r)
{
    size_t half = d / 2, head = how == RUN_PLAIN ? 0 : r / d * d, in = r - head;
    switch (how) {
    case RUN_TO_PAIRS:
        return head + in % 2 * half + in / 2;
    case RUN_TO_HALVES:
        return head + in % half * 2 + in / half;
    case RUN_PLAIN:
    case RUN_TRANSPOSED:
        break;
    }
    return r;
}

/* The row of the source's tensor that row r of the run is; not for transposed ones. */
static size_t run_row(const struct convert_run *u, size_t r)
{
    return u->row0 + plan_row_order(u->how, u->group, r);
}

/* Rows [r, r + n) of a run that turns rows into columns: out is (n, group). */
static void run_transpose(const struct convert_plan *p, const struct convert_run *u, size_t r,
                          size_t n, float *out, float *scratch)
{
    size_t cols = source_cols(u->t);
    decode_rows(p, u->t, u->row0, u->group, scratch, scratch + u->group * cols);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < u->group; c++)
            out[i * u->group + c] = scratch[c * cols + r + i];
}

/* The run that row r lies in; *first is the run's first row. */
static const struct convert_run *run_at(const struct convert_tensor *t, size_t r, size_t *first)
{
    const struct convert_run *u = t->runs;
    size_t at = 0;
    while (r >= at + u->rows)
        at += u++->rows;
    *first = at;
    return u;
}

bool plan_turns(const struct convert_tensor *t)
{
    for (size_t i = 0; i < t->n_runs; i++)
        if (t->runs[i].how == RUN_TRANSPOSED)
            return true;
    return false;
}

bool plan_copies(const struct convert_plan *p, const struct convert_tensor *t)
{
    if (t->raw)
        return true;
    if (!t->n_runs || t->scheme != SCHEME_NONE)
        return false;
    for (size_t i = 0; i < t->n_runs; i++) {
        const struct source_tensor *s = t->runs[i].t;
        bool rows = s->data || s->panels || t->type->id >= QUANT_INNER;
        if (s->type != t->type || t->runs[i].how == RUN_TRANSPOSED || !rows || plan_adapted(p, s))
            return false;
    }
    return true;
}

void plan_copy(const struct convert_tensor *t, size_t r0, size_t n, uint8_t *out)
{
    if (t->raw) {
        size_t row = plan_cols(t) * t->type->bytes;
        memcpy(out, t->raw + r0 * row, n * row);
        return;
    }
    for (size_t r = r0, take; r < r0 + n; r += take) {
        size_t first;
        const struct convert_run *u = run_at(t, r, &first);
        size_t stride = source_row_bytes(u->t);
        take = u->how == RUN_PLAIN ? num_min(first + u->rows, r0 + n) - r : 1;
        source_rows(u->t, run_row(u, r - first), take, out, stride);
        out += take * stride;
    }
}

/* Number i of the tensor is a function of seed, name and i alone. */
static void random_rows(const struct convert_plan *p, const struct convert_tensor *t, size_t first,
                        size_t n, float *out)
{
    struct rng r;
    rng_init(&r, p->seed, t->stream);
    r.index = (uint64_t)first * 4; /* a normal value takes four numbers */
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(t->deviation > 0 ? t->mean + t->deviation * rng_normal(&r) : t->mean);
}

void plan_rows(const struct convert_plan *p, const struct convert_tensor *t, size_t r0, size_t n,
               float *out, float *scratch)
{
    size_t cols = plan_cols(t);
    if (t->scheme == SCHEME_FP8_SCALES) {
        fp8_scales(p, t, r0, n, out, scratch);
        return;
    }
    if (t->scheme == SCHEME_NF4_ABSMAX) {
        nf4_absmax(p, t, r0, n, out, scratch);
        return;
    }
    if (!t->n_runs && !t->values) {
        random_rows(p, t, r0 * cols, n * cols, out);
        return;
    }
    if (!t->n_runs) {
        memcpy(out, t->values + r0 * cols, n * cols * sizeof *out);
        return;
    }
    for (size_t r = r0; r < r0 + n;) {
        size_t first;
        const struct convert_run *u = run_at(t, r, &first);
        size_t take = num_min(first + u->rows, r0 + n) - r;
        if (u->how == RUN_TRANSPOSED)
            run_transpose(p, u, r - first, take, out, scratch);
        else if (u->how == RUN_PLAIN)
            decode_rows(p, u->t, u->row0 + r - first, take, out, scratch);
        else
            for (size_t i = 0; i < take; i++)
                decode_rows(p, u->t, run_row(u, r - first + i), 1, out + i * cols, scratch);
        out += take * cols;
        r += take;
    }
}
