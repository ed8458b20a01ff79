/*
 * FP8 weights as DeepSeek-V3's checkpoints have them: e4m3 codes, and in X_scale_inv a float32 for
 * every 128 x 128 block of X, by which codes are multiplied: the block's largest magnitude / 448.
 *
 * Linear weights get them; embedding, head, norms, router and the prediction layer's projection
 * stay as they are, as in those checkpoints. Codes and scales are two tensors in the file, each
 * computed from the source on its own.
 */
#include "base/num.h"
#include "convert/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FP8_BLOCK = 128 };
static const float fp8_max = 448;

bool fp8_takes(const struct convert_tensor *t)
{
    static const char *const not [] = {"embed",           "lm_head", "norm",
                                       "mlp.gate.weight", "eh_proj", "shared_head"};
    size_t n = strlen(t->name);
    if (t->dims != 2 || n < 7 || strcmp(t->name + n - 7, ".weight") != 0)
        return false;
    for (size_t i = 0; i < NUM_COUNT(not ); i++)
        if (strstr(t->name, not [i]))
            return false;
    return true;
}

int fp8_tensors(struct convert_plan *p, struct err *e)
{
    size_t n = p->n;
    for (size_t i = 0; i < n; i++) {
        char name[300];
        if (p->tensors[i].type->id != QUANT_E4M3)
            continue;
        p->tensors[i].scheme = SCHEME_FP8_CODES;
        if (snprintf(name, sizeof name, "%s_scale_inv", p->tensors[i].name) >= (int)sizeof name)
            return err_set(e, ERR_LIMIT, "tensor \"%.80s…\": its name is too long",
                           p->tensors[i].name);
        struct convert_tensor *s = plan_add(p, name, e); /* the list may move */
        if (!s)
            return ERR_NOMEM;
        const struct convert_tensor *t = &p->tensors[i];
        const char *own = s->name;
        *s = *t;
        s->name = own;
        s->type = quant_by_id(QUANT_F32);
        s->scheme = SCHEME_FP8_SCALES;
        for (int d = 0; d < 2; d++) {
            s->of[d] = t->shape[d];
            s->shape[d] = (t->shape[d] + FP8_BLOCK - 1) / FP8_BLOCK;
        }
    }
    return 0;
}

/* The weight that scales belong to. */
static struct convert_tensor weight_of(const struct convert_tensor *t)
{
    struct convert_tensor w = *t;
    w.scheme = SCHEME_NONE;
    w.shape[0] = t->of[0];
    w.shape[1] = t->of[1];
    return w;
}

size_t fp8_scratch(const struct convert_tensor *t)
{
    return t->scheme == SCHEME_FP8_SCALES ? FP8_BLOCK * (size_t)t->of[1] : 0;
}

/* The scale of one block; 1 where all is 0. A NaN shows when the codes are made. */
static float block_scale(const float *v, size_t rows, size_t n, size_t stride)
{
    float most = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++)
            most = fmaxf(most, fabsf(v[r * stride + i]));
    return most > 0 ? most / fp8_max : 1;
}

void fp8_scales(const struct convert_plan *p, const struct convert_tensor *t, size_t r0, size_t n,
                float *out, float *scratch)
{
    const struct convert_tensor w = weight_of(t);
    size_t cols = (size_t)t->of[1], wide = plan_cols(t);
    float *more = scratch + fp8_scratch(t);
    for (size_t s = r0; s < r0 + n; s++, out += wide) {
        size_t first = s * FP8_BLOCK, rows = num_min(FP8_BLOCK, (size_t)t->of[0] - first);
        plan_rows(p, &w, first, rows, scratch, more);
        for (size_t b = 0; b < wide; b++)
            out[b] = block_scale(scratch + b * FP8_BLOCK, rows,
                                 num_min(FP8_BLOCK, cols - b * FP8_BLOCK), cols);
    }
}

void fp8_codes(uint8_t *out, const float *v, size_t rows, size_t cols)
{
    for (size_t r0 = 0; r0 < rows; r0 += FP8_BLOCK)
        for (size_t c0 = 0; c0 < cols; c0 += FP8_BLOCK) {
            size_t nr = num_min(FP8_BLOCK, rows - r0), nc = num_min(FP8_BLOCK, cols - c0);
            float scale = block_scale(v + r0 * cols + c0, nr, nc, cols);
            for (size_t r = r0; r < r0 + nr; r++)
                for (size_t c = c0; c < c0 + nc; c++)
                    out[r * cols + c] = quant_f32_to_e4m3(v[r * cols + c] / scale);
        }
}
