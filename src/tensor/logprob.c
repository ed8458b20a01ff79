/* See logprob.h. */
#include "tensor/logprob.h"

#include "base/num.h"

#include <math.h>

enum { LOGPROB_PIECE = 512, LOGPROB_CHAINS = 8 };

static float logprob_max(const float *x, size_t n)
{
    float lane[LOGPROB_CHAINS]; /* max does not depend on the order; NaN is seen by the sums */
    for (size_t k = 0; k < LOGPROB_CHAINS; k++)
        lane[k] = -INFINITY;
    size_t i = 0;
    for (; i + LOGPROB_CHAINS <= n; i += LOGPROB_CHAINS)
        for (size_t k = 0; k < LOGPROB_CHAINS; k++)
            lane[k] = x[i + k] > lane[k] ? x[i + k] : lane[k];
    for (; i < n; i++)
        lane[0] = x[i] > lane[0] ? x[i] : lane[0];
    for (size_t k = 1; k < LOGPROB_CHAINS; k++)
        lane[0] = lane[k] > lane[0] ? lane[k] : lane[0];
    return lane[0];
}

static double logprob_fold(const double c[LOGPROB_CHAINS])
{
    return ((c[0] + c[4]) + (c[2] + c[6])) + ((c[1] + c[5]) + (c[3] + c[7]));
}

/* `to` may be the logits, or NULL. */
static void logprob_row(const struct kern *k, const float *logits, size_t n, float temperature,
                        int32_t id, float *to, struct logprob *out)
{
    float scale = 1 / temperature, top = logprob_max(logits, n), max = top * scale;
    float own = logits[id], z[LOGPROB_PIECE], e[LOGPROB_PIECE];
    double sum[LOGPROB_CHAINS] = {0}, dot[LOGPROB_CHAINS] = {0};
    for (size_t at = 0; at < n; at += LOGPROB_PIECE) {
        size_t m = num_min(LOGPROB_PIECE, n - at), i = 0;
        float *p = to ? to + at : e;
        for (size_t j = 0; j < m; j++)
            z[j] = logits[at + j] * scale - max;
        k->exp(p, z, m);
        for (; i + LOGPROB_CHAINS <= m; i += LOGPROB_CHAINS)
            for (size_t j = 0; j < LOGPROB_CHAINS; j++) {
                sum[j] += (double)p[i + j];
                dot[j] += p[i + j] > 0 ? (double)p[i + j] * (double)z[i + j] : 0; /* z may be −∞ */
            }
        for (size_t j = 0; i < m; i++, j++) { /* pieces are multiples of 8: only at the end */
            sum[j] += (double)p[i];
            dot[j] += p[i] > 0 ? (double)p[i] * (double)z[i] : 0;
        }
    }
    out->sum = logprob_fold(sum);
    double log_sum = log(out->sum);
    out->value = (float)((double)(own * scale - max) - log_sum);
    out->entropy = (float)(log_sum - logprob_fold(dot) / out->sum);
    out->best = own == top;
}

void logprob_softmax(const struct kern *k, float *logits, size_t n, float temperature, int32_t id,
                     struct logprob *out)
{
    logprob_row(k, logits, n, temperature, id, logits, out);
}

void logprob_of(const struct kern *k, const float *logits, size_t n, float temperature, int32_t id,
                struct logprob *out)
{
    logprob_row(k, logits, n, temperature, id, NULL, out);
}
