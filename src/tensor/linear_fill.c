/*
 * Inputs of products, in the forms that products read: rows as they are or their norms, whole
 * columns or those of their values that somebody has just made. Eight columns are quantized
 * together, because block-major arrays hold the same block of neighbours side by side. Every value
 * has one block, whoever fills it and in whatever pieces: that is why pieces are of 256 values.
 */
#include "base/num.h"
#include "tensor/linear_impl.h"

#include <string.h>

enum {
    LINEAR_SERIAL = 32768, /* fewer values than this are prepared by the caller */
    LINEAR_TOGETHER = 8,   /* columns that are quantized together: they share cache lines */
};

/* Columns from col0 on, and their values from k0 on, n of them. k0 is a multiple of 256. */
static struct kern_x fill_part(const struct kern_x *x, enum kern_act form, size_t col0, size_t k0,
                               size_t n)
{
    struct kern_x v = *x;
    size_t b32 = k0 / 32 * x->cols + col0, b256 = k0 / 256 * x->cols + col0;
    v.k = n;
    if (form == KERN_ACT_BF16) {
        v.h += b32 * 32;
        return v;
    }
    v.q += b32 * 32;
    v.d += form == KERN_ACT_Q32 ? b32 : b256;
    if (form == KERN_ACT_Q32) {
        v.s += b32;
        v.sum += b32;
    } else {
        v.sum16 += b256 * 16;
        v.sum32 += b256 * 8;
    }
    return v;
}

static void fill_form(const struct kern *k, struct kern_x *x, enum kern_act form, const float *data,
                      size_t ldx, size_t cols)
{
    if (form == KERN_ACT_Q32)
        k->quantize_q32(x, data, ldx, 0, cols);
    else if (form == KERN_ACT_Q256)
        k->quantize_q256(x, data, ldx, 0, cols);
    else
        k->quantize_bf16(x, data, ldx, 0, cols);
}

/* What the first int8 column leaves of x. */
static void fill_rest(const struct kern_x *x, enum kern_act form, const float *data, float *rest)
{
    size_t scaled = form == KERN_ACT_Q32 ? 1 : 8; /* blocks of 32 that share a scale */
    for (size_t b = 0; b * 32 < x->k; b++) {
        const int8_t *q = x->q + b * x->cols * 32;
        float d = x->d[b / scaled * x->cols];
        size_t n = num_min(32, x->k - b * 32);
        for (size_t i = 0; i < n; i++)
            rest[b * 32 + i] = data[b * 32 + i] - d * (float)q[i];
    }
}

void linear_fill(const struct kern *kern, const struct linear_x *x, unsigned forms,
                 const float *data, size_t ldx, size_t col0, size_t cols, size_t k0, size_t n,
                 float *rest)
{
    for (int form = KERN_ACT_Q32; form <= KERN_ACT_BF16; form++) {
        if (!(forms & 1u << form))
            continue;
        enum kern_act act = (enum kern_act)form;
        const struct kern_x *whole = &x->form[form - 1];
        if (!x->fine) {
            struct kern_x part = fill_part(whole, act, col0, k0, n);
            fill_form(kern, &part, act, data, ldx, cols);
            continue;
        }
        /* As pairs: column 2c is column c in int8, column 2c + 1 what rounding left of it. */
        for (size_t i = 0; i < cols; i++) {
            struct kern_x value = fill_part(whole, act, 2 * (col0 + i), k0, n);
            struct kern_x left = fill_part(whole, act, 2 * (col0 + i) + 1, k0, n);
            fill_form(kern, &value, act, data + i * ldx, 0, 1);
            fill_rest(&value, act, data + i * ldx, rest);
            fill_form(kern, &left, act, rest, 0, 1);
        }
    }
}

void linear_place(struct op_ctx *c, struct linear_x *x, const float *data, size_t ldx, size_t k,
                  size_t cols, unsigned forms)
{
    memset(x, 0, sizeof *x);
    x->fine = x->floats = c->fine;
    x->form[KERN_ACT_F32 - 1] = (struct kern_x){.k = k, .cols = cols, .f = data, .ldf = ldx};
    for (int form = KERN_ACT_Q32; form <= KERN_ACT_BF16; form++) {
        if (!(forms & 1u << form))
            continue;
        size_t wide = c->fine ? 2 * cols : cols;
        void *mem = op_alloc(c, kern_x_bytes((enum kern_act)form, k, wide));
        if (!c->dry && cols) /* 0: a chunk of a prompt whose logits nobody wants */
            kern_x_place(&x->form[form - 1], (enum kern_act)form, k, wide, mem);
    }
}

size_t linear_fill_columns(const struct op_ctx *c, size_t k, size_t cols)
{
    if (cols * k < LINEAR_SERIAL)
        return num_max(cols, 1);
    return num_round_up(num_max(1, cols / ((size_t)team_threads(c->team) * 4)), LINEAR_TOGETHER);
}

static void fill_chunk(void *arg, size_t chunk, int worker)
{
    const struct fill_job *j = arg;
    size_t k = j->in.cols, end = num_min(j->in.rows, (chunk + 1) * j->per), n;
    float *rest = j->scratch + (size_t)worker * j->scratch_floats;
    for (size_t c = chunk * j->per; c < end; c += n) {
        n = num_min(LINEAR_TOGETHER, end - c);
        const float *data = j->in.data + c * k;
        float *norms = j->keep ? j->keep + c * k : rest + j->rest;
        for (size_t i = 0; i < n && j->norm; i++)
            j->kern->rmsnorm(norms + i * k, data + i * k, j->norm, k, j->eps);
        linear_fill(j->kern, j->x, j->forms, j->norm ? norms : data, k, c, n, 0, k, rest);
    }
}

struct team_work linear_fill_work(struct op_ctx *c, struct fill_job *j, struct linear_x *x)
{
    size_t k = j->in.cols, rows = j->in.rows;
    linear_place(c, x, j->norm ? j->keep : j->in.data, k, k, rows, j->forms);
    j->kern = c->kern;
    j->x = x;
    j->per = linear_fill_columns(c, k, rows);
    j->rest = c->fine ? num_round_up(k, 16) : 0;
    j->scratch_floats = j->rest + (j->norm && !j->keep ? LINEAR_TOGETHER * num_round_up(k, 16) : 0);
    j->scratch = op_alloc(c, (size_t)team_threads(c->team) * j->scratch_floats * sizeof(float));
    bool any = (j->forms & ~(1u << KERN_ACT_F32)) || j->norm;
    return (struct team_work){fill_chunk, j, any ? (rows + j->per - 1) / j->per : 0, false};
}
