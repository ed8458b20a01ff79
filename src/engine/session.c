/*
 * Sessions: one timeline of tokens, its pages of KV cache, and the logits after its last token.
 *
 * Because results do not depend on how tokens are cut into batches, a timeline may be prefilled in
 * chunks, cut back and continued at will: what a prefix left in the cache is exactly what would be
 * computed again.
 */
#include "engine/engine_private.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

int session_new(struct session **out, struct engine *g, struct err *e)
{
    *out = NULL;
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, sizeof *s, "a session");
    s->g = g;
    s->ids = calloc(g->info.ctx, sizeof *s->ids);
    s->kept = calloc(g->info.vocab, sizeof *s->kept);
    bool ok = s->ids && s->kept;
    if (ok && g->mtp) {
        s->hidden = calloc(g->step.rows, model_config(g->model)->d_model * sizeof *s->hidden);
        s->ahead_logits = calloc(g->info.vocab, sizeof *s->ahead_logits);
        ok = s->hidden && s->ahead_logits;
    }
    int rc = ok ? kv_seq_init(&s->seq, g->kv, g->info.ctx, e)
                : err_nomem(e, g->info.ctx * sizeof *s->ids, "a session");
    if (rc)
        session_free(s);
    else
        *out = s;
    return rc;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    struct engine_step *t = &s->g->step;
    for (size_t i = 0; i < t->n_lent; i++)
        if (t->lent[i] == s)
            t->lent[i--] = t->lent[--t->n_lent];
    kv_seq_release(&s->seq);
    free(s->ids);
    free(s->kept);
    free(s->hidden);
    free(s->ahead_logits);
    free(s);
}

/* The first position that computing more will write: the prediction layer is behind. */
static size_t session_writes(const struct session *s)
{
    return s->g->mtp ? num_min(s->mtp_n, s->n) : s->n;
}

int session_reserve(struct session *s, size_t n, struct err *e)
{
    return kv_seq_reserve(&s->seq, session_writes(s), s->n, s->n + n, e);
}

size_t session_need(const struct session *s, size_t n)
{
    return kv_seq_need(&s->seq, session_writes(s), s->n + n);
}

size_t session_full_pages(const struct session *s)
{
    return session_writes(s) / KV_PAGE;
}

size_t engine_pages_unused(const struct engine *g)
{
    return kv_pool_unused(g->kv);
}

int session_adopt(struct session *s, const uint32_t *page, const int32_t *ids, size_t n,
                  struct err *e)
{
    if (s->n)
        return err_set(e, ERR_USAGE, "a session that has tokens cannot take over pages");
    kv_seq_truncate(&s->seq, 0);
    int rc = n * KV_PAGE > s->g->info.ctx
                 ? err_set(e, ERR_LIMIT, "%zu tokens are more than the context of %zu", n * KV_PAGE,
                           s->g->info.ctx)
                 : kv_seq_share(&s->seq, page, n, e);
    if (rc)
        return rc;
    memcpy(s->ids, ids, n * KV_PAGE * sizeof *ids);
    s->n = s->mtp_n = n * KV_PAGE;
    s->hidden_n = 0;
    return 0;
}

int session_fork(struct session **out, struct session *from, struct err *e)
{
    const struct engine *g = from->g;
    struct session *s;
    int rc = session_new(out, from->g, e);
    if (rc)
        return rc;
    s = *out;
    if ((rc = kv_seq_share(&s->seq, from->seq.page, from->seq.n_page, e))) {
        session_free(s);
        *out = NULL;
        return rc;
    }
    memcpy(s->ids, from->ids, from->n * sizeof *s->ids);
    s->n = from->n;
    s->reused = from->n;
    if (from->logits) {
        memcpy(s->kept, from->logits, g->info.vocab * sizeof *s->kept);
        s->logits = s->kept;
    }
    if (!g->mtp)
        return 0;
    s->mtp_n = from->mtp_n;
    s->hidden_pos = from->hidden_pos;
    s->hidden_n = from->hidden_n;
    memcpy(s->hidden, from->hidden,
           from->hidden_n * model_config(g->model)->d_model * sizeof *s->hidden);
    s->ahead = from->ahead;
    s->ahead_id = from->ahead_id;
    if (s->ahead)
        memcpy(s->ahead_logits, from->ahead_logits, g->info.vocab * sizeof *s->ahead_logits);
    return 0;
}

int session_step(struct session *s, const int32_t *ids, size_t n, size_t want, struct tensor *y,
                 struct err *e)
{
    struct session_part p = {.s = s, .ids = ids, .n = n, .want = want};
    return engine_forward(s->g, &p, 1, y, e);
}

int session_check(const struct session *s, const int32_t *ids, size_t n, struct err *e)
{
    const struct engine_info *i = &s->g->info;
    if (n > i->ctx - s->n)
        return err_set(
            e, ERR_LIMIT,
            "%zu tokens are more than the context of %zu: shorten the text, or give a larger --ctx",
            s->n + n, i->ctx);
    for (size_t k = 0; k < n; k++)
        if (ids[k] < 0 || (size_t)ids[k] >= i->vocab)
            return err_set(e, ERR_FORMAT, "token id %d is not in the model's vocabulary of %zu",
                           ids[k], i->vocab);
    return 0;
}

int session_append(struct session *s, const int32_t *ids, size_t n, struct err *e)
{
    struct tensor y;
    int rc = session_check(s, ids, n, e);
    if (!rc && n == 1 && s->g->mtp)
        return session_speculate(s, ids[0], e);
    for (size_t i = 0; i < n && !rc;) {
        size_t k = num_min(s->g->batch, n - i);
        rc = session_step(s, ids + i, k, i + k == n, &y, e);
        i += k;
    }
    return rc;
}

int session_append_all(struct session *s, const int32_t *ids, size_t n, float *logits,
                       struct err *e)
{
    struct tensor y;
    int rc = session_check(s, ids, n, e);
    for (size_t i = 0; i < n && !rc;) {
        size_t k = num_min(num_min(s->g->batch, s->g->want), n - i);
        rc = session_step(s, ids + i, k, k, &y, e);
        if (!rc)
            memcpy(logits + i * s->g->info.vocab, y.data, k * y.cols * sizeof *logits);
        i += k;
    }
    return rc;
}

struct score_job {
    void (*row)(void *arg, size_t i, const float *logits, int worker);
    void *arg;
    size_t first; /* index of row 0 */
    struct tensor y;
};

static void session_score_row(void *arg, size_t chunk, int worker)
{
    const struct score_job *j = arg;
    j->row(j->arg, j->first + chunk, j->y.data + chunk * j->y.cols, worker);
}

int session_score(struct session *s, const int32_t *ids, size_t n, size_t from,
                  void (*row)(void *arg, size_t i, const float *logits, int worker), void *arg,
                  struct err *e)
{
    struct score_job j = {.row = row, .arg = arg};
    int rc = session_check(s, ids, n, e);
    for (size_t i = 0; i < n && !rc;) {
        /* Tokens that are only context go in large batches. */
        size_t k = i < from ? num_min(s->g->batch, from - i)
                            : num_min(num_min(s->g->batch, s->g->want), n - i);
        rc = session_step(s, ids + i, k, i < from ? 0 : k, &j.y, e);
        j.first = i;
        if (!rc && i >= from)
            team_run(s->g->team, session_score_row, &j, k);
        i += k;
    }
    return rc;
}

void session_truncate(struct session *s, size_t n)
{
    if (n >= s->n)
        return;
    s->n = n;
    s->logits = NULL;
    s->ahead = false;
    s->mtp_n = num_min(s->mtp_n, n ? n - 1 : 0);
    kv_seq_truncate(&s->seq, n);
}

int session_feed(struct session *s, const int32_t *ids, size_t n,
                 bool (*progress)(void *arg, size_t done, size_t total), void *arg, struct err *e)
{
    const struct engine_info *info = &s->g->info;
    if (n == 0)
        return err_set(e, ERR_USAGE, "the prompt is empty");
    if (n > info->ctx)
        return err_set(e, ERR_LIMIT,
                       "the prompt has %zu tokens and the context is %zu: shorten it, or give "
                       "--ctx %zu (needs %.1f GB more)",
                       n, info->ctx, num_round_up(n + n / 8, 1024),
                       (double)(num_round_up(n + n / 8, 1024) - info->ctx) *
                           (double)info->kv_token_bytes / 1e9);
    size_t same = 0;
    while (same < s->n && same < n && s->ids[same] == ids[same])
        same++;
    /* The last token is computed again unless its logits are still here. */
    if (same == n && !(s->logits && s->n == n))
        same--;
    struct tensor y;
    /* The prediction layer needs the state of the token before: one more is computed for it, unless
       it is still here. What the layer kept up to there stays right. */
    size_t kept = 0;
    if (s->g->mtp && same && same < s->n &&
        !(same > s->hidden_pos && same - 1 < s->hidden_pos + s->hidden_n))
        kept = num_min(s->mtp_n, --same);
    session_truncate(s, same);
    s->mtp_n = num_max(s->mtp_n, kept);
    s->reused = same;
    int rc = session_check(s, ids + same, n - same, e);
    for (size_t i = same; i < n && !rc;) {
        size_t k = num_min(s->g->batch, n - i);
        rc = session_step(s, ids + i, k, i + k == n, &y, e);
        i += k;
        if (!rc && i < n && progress && !progress(arg, i - same, n - same))
            rc = err_set(e, ERR_CANCELLED, "stopped");
    }
    return rc;
}

struct engine *session_engine(const struct session *s)
{
    return s->g;
}

const float *session_logits(const struct session *s)
{
    return s->logits;
}

size_t session_len(const struct session *s)
{
    return s->n;
}

size_t session_reused(const struct session *s)
{
    return s->reused;
}

const int32_t *session_ids(const struct session *s)
{
    return s->ids;
}
