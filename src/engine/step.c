/*
 * Steps: tokens of one or several sessions in one forward pass.
 *
 * A pass reads every weight once whatever it computes, so sessions that decode together share the
 * reading: their tokens lie side by side as the columns of each product, and only attention looks
 * at one session at a time. A step may hold single tokens of some sessions and pieces of others'
 * prompts; the bits are those of sessions alone (tests/model/test_invariance.c).
 *
 * States of tokens (for embeddings) are what the prediction layer reads too: with them the last
 * norm is taken of all rows before those whose logits are wanted are selected, the same bits.
 *
 * A step is added to all of its sessions or, when one has no room, to none. Logits stay where the
 * head wrote them until something else needs the scratch: a session that steps again, as all do in
 * turn, never copies its own (0.6 MB for a vocabulary of 152,000).
 *
 * Memory: the plan of
 * engine_open covers a step of single tokens; other mixtures are measured by a dry run of their
 * own (some microseconds), and the scratch grows when one needs more than any before.
 */
#include "engine/engine_private.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

int engine_step_init(struct engine *g, struct err *e)
{
    size_t n = num_max(num_max(g->batch, g->want), 2); /* 2: a token and its guess */
    struct engine_step *t = &g->step;
    t->rows = n;
    t->ids = calloc(n, sizeof *t->ids);
    t->pos = calloc(n, sizeof *t->pos);
    t->want = calloc(n, sizeof *t->want);
    t->runs = calloc(n, sizeof *t->runs);
    t->lent = calloc(n, sizeof(void *));
    bool ok = t->ids && t->pos && t->want && t->runs && t->lent;
    if (ok && g->mtp) {
        t->hidden = calloc(n, model_config(g->model)->d_model * sizeof *t->hidden);
        ok = t->hidden;
    }
    g->info.step = n;
    g->info.want = g->want;
    return ok ? 0 : err_nomem(e, n * sizeof *t->runs, "steps of sessions");
}

void engine_step_release(struct engine *g)
{
    struct engine_step *t = &g->step;
    free(t->ids);
    free(t->pos);
    free(t->want);
    free(t->runs);
    free(t->lent);
    free(t->hidden);
}

void engine_keep_logits(struct engine *g)
{
    struct engine_step *t = &g->step;
    for (size_t i = 0; i < t->n_lent; i++) {
        struct session *s = t->lent[i];
        if (!s->logits || s->logits == s->kept)
            continue;
        memcpy(s->kept, s->logits, g->info.vocab * sizeof *s->kept);
        s->logits = s->kept;
    }
    t->n_lent = 0;
}

/* Pages for all parts, or for none. */
static int step_reserve(struct engine *g, const struct session_part *part, size_t n, struct err *e)
{
    int rc = 0;
    kv_pool_later(g->kv);
    for (size_t k = 0; k < n && !rc; k++)
        rc = session_reserve(part[k].s, part[k].n, e);
    kv_pool_ready(g->kv, g->team);
    for (size_t k = 0; k < n && rc; k++) {
        kv_seq_truncate(&part[k].s->seq, part[k].s->n);
        part[k].s->ahead = false; /* its guess may have lost its page */
    }
    return rc;
}

/* Scratch for a batch that the plan may not have foreseen. */
static int step_scratch(struct engine *g, const struct batch *b, struct err *e)
{
    size_t need = engine_dry(g, b);
    if (need <= g->ops.cap)
        return 0;
    engine_keep_logits(g);
    return op_ctx_reserve(&g->ops, need, e);
}

/* The parts as one batch. */
static struct batch step_gather(struct engine *g, const struct session_part *part, size_t n)
{
    struct engine_step *t = &g->step;
    struct batch b = {.ids = t->ids, .pos = t->pos, .want = t->want, .runs = t->runs, .n_runs = n};
    bool show = false;
    for (size_t k = 0; k < n; k++) {
        const struct session_part *p = &part[k];
        show |= p->show;
        t->runs[k] = (struct batch_run){.seq = &p->s->seq, .row = b.n, .n = p->n, .pos = p->s->n};
        for (size_t i = 0; i < p->n; i++)
            t->pos[b.n + i] = (uint32_t)(p->s->n + i);
        for (size_t i = 0; i < p->want; i++)
            t->want[b.n_want++] = (uint32_t)(b.n + p->n - p->want + i);
        if (n > 1)
            memcpy(t->ids + b.n, p->ids, p->n * sizeof *t->ids);
        b.n += p->n;
    }
    if (n == 1)
        b.ids = part->ids;
    b.hidden = g->mtp && n == 1 ? part->s->hidden : g->mtp || show ? t->hidden : NULL;
    return b;
}

/* What the pass gave, into the sessions. */
static void step_scatter(struct engine *g, struct session_part *part, size_t n, struct tensor y,
                         const struct batch *b)
{
    size_t d = model_config(g->model)->d_model, row = 0;
    for (size_t k = 0; k < n; k++) {
        struct session_part *p = &part[k];
        struct session *s = p->s;
        p->logits = p->want ? y.data + row * y.cols : NULL;
        p->states = p->show ? b->hidden + g->step.runs[k].row * d : NULL;
        row += p->want;
        s->logits = p->want ? y.data + (row - 1) * y.cols : NULL;
        if (p->want)
            g->step.lent[g->step.n_lent++] = s;
        if (g->mtp && n > 1)
            memcpy(s->hidden, b->hidden + g->step.runs[k].row * d, p->n * d * sizeof *s->hidden);
        memcpy(s->ids + s->n, p->ids, p->n * sizeof *s->ids);
        s->hidden_pos = s->n;
        s->hidden_n = p->n;
        s->n += p->n;
    }
}

/* Memory for states, when somebody wants them for the first time. */
static int step_states(struct engine *g, const struct session_part *part, size_t n, bool *show,
                       struct err *e)
{
    size_t d = model_config(g->model)->d_model;
    *show = false;
    for (size_t k = 0; k < n; k++)
        *show |= part[k].show;
    if (!*show || g->step.hidden)
        return 0;
    g->step.hidden = calloc(g->step.rows, d * sizeof *g->step.hidden);
    return g->step.hidden ? 0 : err_nomem(e, g->step.rows * d * sizeof *g->step.hidden, "states");
}

int engine_forward(struct engine *g, struct session_part *part, size_t n, struct tensor *y,
                   struct err *e)
{
    bool show;
    int rc = step_states(g, part, n, &show, e);
    rc = rc ? rc : step_reserve(g, part, n, e);
    if (rc)
        return rc;
    struct batch b = step_gather(g, part, n);
    if ((n > 1 || show) && (rc = step_scratch(g, &b, e)))
        return rc;
    for (size_t k = 0; k < n; k++) {
        part[k].s->logits = NULL;
        part[k].s->ahead = false;
    }
    engine_keep_logits(g);
    for (size_t k = 0; k < n && g->mtp; k++)
        session_catch_up(part[k].s, part[k].ids[0], 0, NULL);
    if (g->mtp)
        b = step_gather(g, part, n); /* the layer used its memory */
    g->ops.used = 0;
    model_pass(g->model, b.n);
    *y = model_forward(g->model, &g->ops, &b);
    g->ops.used = 0;
    if (model_sound(g->model, e))
        return err_ctx(e, "%s", source_path(g->src));
    step_scatter(g, part, n, *y, &b);
    return 0;
}

/* Every part is possible, and all of them fit into one pass. */
static int step_check(struct engine *g, const struct session_part *part, size_t n, struct err *e)
{
    size_t tokens = 0, want = 0;
    for (size_t k = 0; k < n; k++) {
        const struct session_part *p = &part[k];
        if (p->s->g != g || !p->n || p->want > p->n)
            return err_set(e, ERR_USAGE, "part %zu of a step is impossible", k);
        for (size_t i = 0; i < k; i++)
            if (part[i].s == p->s)
                return err_set(e, ERR_USAGE, "parts %zu and %zu of a step are one session", i, k);
        if (!num_add(&tokens, tokens, p->n) || tokens > g->step.rows)
            return err_set(e, ERR_LIMIT, "a step takes at most %zu tokens", g->step.rows);
        want += p->want;
        if (want > g->want)
            return err_set(e, ERR_LIMIT, "a step gives logits of at most %zu tokens", g->want);
        int rc = session_check(p->s, p->ids, p->n, e);
        if (rc)
            return rc;
    }
    return n ? 0 : err_set(e, ERR_USAGE, "a step without sessions");
}

int engine_step(struct engine *g, struct session_part *part, size_t n, struct err *e)
{
    int rc = step_check(g, part, n, e);
    struct tensor y;
    return rc ? rc : engine_forward(g, part, n, &y, e);
}
