/*
 * Rotary position embedding: the angle per position of each pair, with the scalings in use.
 *
 *   plain   θ^(−2i/d)                                       (Su et al., "RoFormer", 2021)
 *   linear  plain / factor                                  (position interpolation)
 *   llama3  long waves / factor, short ones kept, a ramp between      (Llama 3.1's config)
 *   yarn    a ramp over dimensions between plain / factor and plain, and a magnitude correction
 *           on cos and sin                                   (Peng et al., "YaRN", 2023, section 3)
 *   file    GGUF's rope_freqs.weight: plain / factors[i], whatever they came from
 */
#include "model/arch.h"

#include <math.h>

static double rope_llama3(const struct model_config *f, double freq)
{
    double wave = 2 * M_PI / freq;
    if (wave < f->rope_ctx / f->rope_high)
        return freq;
    if (wave > f->rope_ctx / f->rope_low)
        return freq / f->rope_factor;
    double t = (f->rope_ctx / wave - f->rope_low) / (f->rope_high - f->rope_low);
    return (1 - t) * freq / f->rope_factor + t * freq;
}

/* The (fractional) dimension pair that turns `turns` times over the original context. */
static double rope_yarn_dim(const struct model_config *f, double turns)
{
    return (double)f->d_rope * log(f->rope_ctx / (turns * 2 * M_PI)) / (2 * log(f->rope_theta));
}

static double rope_yarn(const struct model_config *f, double freq, size_t i)
{
    double lo = fmax(0, floor(rope_yarn_dim(f, f->rope_beta_fast)));
    double hi = fmin((double)f->d_rope - 1, ceil(rope_yarn_dim(f, f->rope_beta_slow)));
    if (hi <= lo)
        hi = lo + 0.001;
    double ramp = fmin(1, fmax(0, ((double)i - lo) / (hi - lo)));
    return freq / f->rope_factor * ramp + freq * (1 - ramp);
}

int model_rope_freqs(double *out, const struct model_config *f, const struct source *src,
                     struct err *e)
{
    size_t n = f->d_rope / 2;
    for (size_t i = 0; i < n; i++) {
        double freq = pow(f->rope_theta, -2.0 * (double)i / (double)f->d_rope);
        switch (f->rope_scaling) {
        case ROPE_NONE:
            break;
        case ROPE_LINEAR:
            freq /= f->rope_factor;
            break;
        case ROPE_LLAMA3:
            freq = rope_llama3(f, freq);
            break;
        case ROPE_YARN:
            freq = rope_yarn(f, freq, i);
            break;
        }
        out[i] = freq;
    }
    const struct source_tensor *t = source_tensor(src, "rope_freqs.weight");
    if (source_kind(src) != SOURCE_GGUF || !t)
        return 0;
    if (!t->type || t->type->id != QUANT_F32 || t->dims != 1 || t->shape[0] != n)
        return err_set(e, ERR_FORMAT, "tensor \"rope_freqs.weight\": want %zu F32 values", n);
    for (size_t i = 0; i < n; i++) {
        float v;
        t->type->decode(&v, t->data + 4 * i, 1);
        if (!(v > 0) || isinf(v))
            return err_set(e, ERR_FORMAT,
                           "tensor \"rope_freqs.weight\": factor %zu is %g, must be positive", i,
                           (double)v);
        out[i] /= v;
    }
    return 0;
}
