/*
 * Multi-token prediction in a session: its cache kept in step, and tokens drafted with it.
 *
 * The prediction layer sees token i + 1 and the main model's state of token i, so it runs one token
 * behind: before a batch is computed, it catches up to the token before that batch.
 *
 * Drafting (Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023):
 * when a token is appended, the layer guesses the one after it, and the main model computes both in
 * one pass. If the guess is what is appended next, its logits are there already; if not, they are
 * forgotten. Nobody outside sees a difference: the logits of a token have the same bits in any
 * batch, and the sampler draws from them just as it would without drafts, so the output is token
 * for token that of plain decoding, greedy or sampled with a seed. A guess is right as often as the
 * sampler takes the layer's most likely token, which is also what rejection sampling would reach
 * with it.
 */
#include "engine/engine_private.h"

#include "base/num.h"

#include <string.h>

void session_catch_up(struct session *s, int32_t next, size_t want, struct tensor *y)
{
    struct engine *g = s->g;
    size_t d = model_config(g->model)->d_model, from = s->mtp_n;
    size_t to = next < 0 ? (s->n ? s->n - 1 : 0) : s->n;
    if (from >= to)
        return;
    /* States that are gone leave a gap: later guesses are worse for it, never wrong answers. */
    if (from < s->hidden_pos)
        from = s->hidden_pos;
    if (to > s->hidden_pos + s->hidden_n || from >= to) {
        s->mtp_n = to;
        return;
    }
    size_t n = to - from;
    want = num_min(want, n);
    for (size_t i = 0; i < n; i++) {
        g->step.pos[i] = (uint32_t)(from + i);
        g->step.ids[i] = from + i + 1 < s->n ? s->ids[from + i + 1] : next;
    }
    for (size_t i = 0; i < want; i++)
        g->step.want[i] = (uint32_t)(n - want + i);
    struct batch_run run = {.seq = &s->seq, .n = n, .pos = from};
    struct batch b = {.n = n,
                      .ids = g->step.ids,
                      .pos = g->step.pos,
                      .want = g->step.want,
                      .n_want = want,
                      .runs = &run,
                      .n_runs = 1};
    engine_keep_logits(g);
    g->ops.used = 0;
    struct tensor out =
        model_forward_mtp(g->model, &g->ops, &b, s->hidden + (from - s->hidden_pos) * d);
    g->ops.used = 0;
    s->mtp_n = to;
    if (y)
        *y = out;
}

int session_mtp_all(struct session *s, const int32_t *ids, size_t n, size_t chunk, float *logits,
                    struct err *e)
{
    struct engine *g = s->g;
    size_t vocab = g->info.vocab, row = 0;
    struct tensor y;
    int rc = 0;
    if (!g->mtp)
        return err_set(e, ERR_UNSUPPORTED, "the model was opened without its prediction layer");
    for (size_t i = 0; i < n && !rc;) {
        size_t k = num_min(num_min(num_min(g->batch, g->want), chunk), n - i);
        rc = session_check(s, ids + i, k, e);
        if (!rc)
            rc = session_step(s, ids + i, k, 0, &y, e);
        i += k;
        size_t rows = s->mtp_n;
        y.rows = 0;
        if (!rc)
            session_catch_up(s, i < n ? ids[i] : -1, k, &y);
        rows = s->mtp_n - rows;
        if (!rc && model_sound(g->model, e))
            rc = err_ctx(e, "%s", source_path(g->src));
        if (!rc && rows)
            memcpy(logits + row * vocab, y.data, rows * vocab * sizeof *logits);
        row += rows;
    }
    return rc;
}

static int32_t session_best(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

int session_speculate(struct session *s, int32_t id, struct err *e)
{
    struct engine *g = s->g;
    struct tensor y = {0};
    if (s->ahead && s->ahead_id == id) {
        s->ids[s->n++] = id;
        float *kept = s->kept;
        s->kept = s->ahead_logits;
        s->ahead_logits = kept;
        s->logits = s->kept;
        s->ahead = false;
        s->accepted++;
        return 0;
    }
    s->ahead = false;
    int rc = session_reserve(s, 1, e);
    if (rc)
        return rc;
    session_catch_up(s, id, 1, &y);
    int32_t pair[2] = {id, y.data ? session_best(y.data, y.cols) : 0};
    /* Without room for the guess (end of the context, pages taken by other sessions) none is made.
     */
    struct err full = {0};
    if (!y.data || s->n + 2 > g->info.ctx || session_reserve(s, 2, &full))
        return session_step(s, pair, 1, 1, &y, e);
    rc = session_step(s, pair, 2, 2, &y, e);
    if (rc)
        return rc;
    s->n--; /* the guess is not part of the timeline */
    s->ahead = true;
    s->ahead_id = pair[1];
    s->drafted++;
    memcpy(s->ahead_logits, y.data + y.cols, y.cols * sizeof *s->ahead_logits);
    s->logits = y.data;
    return 0;
}

void session_drafts(const struct session *s, uint64_t *drafted, uint64_t *accepted)
{
    *drafted = s->drafted;
    *accepted = s->accepted;
}
