/*
 * Perplexity of a text: exp of the mean negative log-likelihood of its tokens, each given those
 * before it; and how far a model is from a reference whose log-probabilities were saved.
 *
 * Windows and what is scored in them: eval/windows.h. Figures do not depend on threads or batches:
 * every row has the bits of a full forward pass, and sums go over the rows in order.
 *
 * Standard errors are those of a mean over the scored tokens taken as independent (what others
 * print too); tokens of one text are not, so true errors are somewhat larger. That of the
 * perplexity is exp's derivative times that of the mean; the one of the ratio comes from the
 * differences token by token, which is why it is far smaller than those of the two perplexities.
 */
#ifndef PONDER_EVAL_PERPLEXITY_H
#define PONDER_EVAL_PERPLEXITY_H

#include "engine/engine.h"
#include "eval/reference.h"

struct perplexity_params {
    struct eval_cut cut;
    const int32_t *ids; /* (n) the text; with chunks each first one is replaced by `bos` */
    size_t n;
    int32_t bos;                       /* -1: nothing is replaced */
    const char *save;                  /* file for the log-probabilities, or NULL */
    size_t top;                        /* tokens a row in that file; 0 = 256 */
    const struct reference *reference; /* to be held against, or NULL; same text and cut */
    /* Asked after each window; false stops. May be NULL. */
    bool (*progress)(void *arg, size_t done, size_t total);
    void *arg;
};

struct mean {
    double value, error; /* standard error */
};

struct perplexity {
    size_t windows, of_windows; /* computed; what the text gives (or the limit) */
    size_t tokens, scored;      /* computed tokens; those that were held against the model */
    size_t unused;              /* at the end of the text, in no window although no limit says so */
    double seconds;
    struct mean nll, ppl;
    /* Against the reference. */
    struct mean kl, dp, same, reference_ppl, ratio; /* ratio: perplexity over the reference's */
    double dp_rms;
    double kl_median, kl_p90, kl_p99, kl_max;
};

/*
 * Runs it. The engine's context holds a window. ERR_CANCELLED: `out` has what was computed, no file
 * is written. ERR_FORMAT: the model gives no numbers, or the reference is of another text.
 */
int perplexity_run(struct perplexity *out, struct engine *g, const struct perplexity_params *p,
                   struct err *e);

#endif
