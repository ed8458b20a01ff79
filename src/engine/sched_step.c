/*
 * What a step computes, and how long it may take.
 *
 * First every sample that decodes gets its token. What is left of the budget goes to prompts: half
 * of it to the one whose turn it is, the rest to the shortest, so that a long prompt neither holds
 * up short ones nor starves.
 *
 * Pace. How many tokens of prompts a step takes is learned: after each step the number is scaled by
 * what the step should have taken over what it took. Beside samples that decode the aim is
 * opts.step_seconds, or twice a step of decoding alone where the model is so slow that half of the
 * time would not even be left for prompts. With nobody decoding it is SCHED_ALONE times that: also
 * a step of prompts alone ends soon, since a request can only be cancelled between steps.
 *
 * Pages. A sample that decodes gets its page before anything else; if there is none, the last
 * admitted of the lowest priority goes. A prompt takes what pages are left.
 */
#include "engine/sched_impl.h"

#include "base/clock.h"
#include "base/num.h"
#include "engine/engine_private.h"

static const double SCHED_ALONE = 4;

/* ---- the plan ------------------------------------------------------------------------------- */

/* Tokens that it has to compute. */
static size_t sample_lacks(const struct sample *x)
{
    return x->n - session_len(x->session);
}

/* Pages that the parts planned so far leave. */
static size_t plan_room(const struct sched *s)
{
    size_t room = sched_room(s);
    return room > s->takes ? room - s->takes : 0;
}

static void plan_add(struct sched *s, struct sample *x, size_t take)
{
    struct request *r = x->r;
    size_t have = session_len(x->session);
    bool last = have + take == x->n;
    x->take = take;
    s->takes += session_need(x->session, take);
    s->of[s->n_part] = x;
    s->part[s->n_part++] = (struct session_part){
        .s = x->session,
        .ids = x->ids + have,
        .n = take,
        .want = !x->answer                ? 0
                : r->rows && !r->prompted ? take
                                          : last,
        .show = !x->answer,
    };
}

/* One token for each that lacks no more. */
static void plan_decodes(struct sched *s)
{
    for (size_t i = 0; i < s->n_run; i++) {
        struct sample *x = s->run[i];
        if (sample_lacks(x) != 1)
            continue;
        while (i < s->n_run && session_need(x->session, 1) > plan_room(s))
            sched_preempt(s, s->run[s->n_run - 1]);
        if (i < s->n_run)
            plan_add(s, x, 1);
    }
}

/* Rows of logits that one more part may have, when each that has no part yet needs one. */
static size_t plan_rows(const struct sched *s)
{
    size_t rows = s->g->info.want - (s->n_run - s->n_part - 1);
    for (size_t i = 0; i < s->n_part; i++)
        rows -= s->part[i].want > 0 ? s->part[i].want : 1;
    return rows;
}

/* The most of `take` tokens that pages and rows of logits allow. */
static size_t plan_fit(const struct sched *s, const struct sample *x, size_t take)
{
    size_t room = plan_room(s);
    if (x->r->rows && !x->r->prompted)
        take = num_min(take, plan_rows(s));
    while (take && session_need(x->session, take) > room)
        take = take > KV_PAGE ? take - KV_PAGE : take > 1 ? 1 : 0;
    return take;
}

/* Samples with a prompt to compute into `list`: the one whose turn it is, then by what they lack.
 */
static size_t plan_prompts(const struct sched *s, struct sample **list)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_run; i++)
        if (sample_lacks(s->run[i]) > 1)
            list[n++] = s->run[i];
    for (size_t i = 1; i < n; i++)
        if (sched_before(list[i], list[0])) {
            struct sample *x = list[0];
            list[0] = list[i];
            list[i] = x;
        }
    for (size_t i = 2; i < n; i++) {
        struct sample *x = list[i];
        size_t k = i;
        for (; k > 1 && (list[k - 1]->r->p.priority > x->r->p.priority ||
                         (list[k - 1]->r->p.priority == x->r->p.priority &&
                          sample_lacks(list[k - 1]) > sample_lacks(x)));
             k--)
            list[k] = list[k - 1];
        list[k] = x;
    }
    return n;
}

/* Tokens of prompts that this step should take. */
static size_t plan_budget(const struct sched *s)
{
    double piece = s->n_part ? s->pace.busy : s->pace.alone;
    return num_min((size_t)piece, s->o.budget - s->n_part);
}

static void plan_pieces(struct sched *s)
{
    struct sample **list = s->draw; /* not in use yet */
    size_t n = plan_prompts(s, list), left = plan_budget(s);
    size_t rest = n > 1 ? left / 2 : 0, first;
    if (!n)
        return;
    /* What the others can't use is the first one's. */
    for (size_t i = 1, others = 0; i < n; i++) {
        others += sample_lacks(list[i]);
        if (i + 1 == n)
            rest = num_min(rest, others);
    }
    first = plan_fit(s, list[0], num_min(left - rest, sample_lacks(list[0])));
    if (first)
        plan_add(s, list[0], first);
    left -= first;
    for (size_t i = 1; i < n && left; i++) {
        size_t take = plan_fit(s, list[i], num_min(left, sample_lacks(list[i])));
        if (take)
            plan_add(s, list[i], take);
        left -= take;
    }
}

void sched_plan(struct sched *s)
{
    struct err e;
    for (;;) {
        s->n_part = s->n_draw = s->takes = 0;
        plan_decodes(s);
        plan_pieces(s);
        if (s->n_part || !s->n_run)
            return;
        /* Prompts hold each other up: the last one goes. */
        if (s->n_run > 1) {
            sched_preempt(s, s->run[s->n_run - 1]);
            continue;
        }
        err_set(&e, ERR_LIMIT, "the KV cache of %zu pages is full", s->pages);
        request_fail(s, s->run[0]->r, &e);
    }
}

/* ---- the pace ------------------------------------------------------------------------------- */

static void fade(double *sum, double by)
{
    *sum = *sum * 0.95 + by;
}

/* Learns from a step that took `t` seconds for so many tokens of prompts and of answers. */
static void pace_learn(struct sched *s, size_t prompt, size_t decodes, double t)
{
    struct pace *p = &s->pace;
    if (prompt) {
        fade(&s->prompt_tokens, (double)prompt);
        fade(&s->prompt_seconds, t);
    }
    if (decodes) {
        fade(&s->answer_tokens, (double)decodes);
        fade(&s->answer_seconds, t);
    }
    if (!prompt) {
        p->decode_seconds = p->decode_seconds > 0 ? 0.9 * p->decode_seconds + 0.1 * t : t;
        return;
    }
    double *piece = decodes ? &p->busy : &p->alone, aim = s->o.step_seconds;
    if (decodes)
        aim = aim > 2 * p->decode_seconds ? aim : 2 * p->decode_seconds;
    else
        aim *= SCHED_ALONE;
    double scale = t > 0 ? aim / t : 2, was = *piece < (double)prompt ? *piece : (double)prompt;
    scale = scale > 2 ? 2 : scale < 0.5 ? 0.5 : scale;
    /* A step that was shorter than it might have been says nothing about longer ones. */
    if (scale > 1 && (double)prompt < 0.75 * *piece)
        return;
    double to = was * scale, most = (double)s->o.budget;
    *piece = to < SCHED_PIECE_MIN ? SCHED_PIECE_MIN : to > most ? most : to;
}

/* ---- the step ------------------------------------------------------------------------------- */

/* One sequence alone: the session may guess tokens ahead. */
static int step_alone(struct sched *s, struct err *e)
{
    struct session_part *p = &s->part[0];
    int rc = session_append(p->s, p->ids, 1, e);
    p->logits = session_logits(p->s);
    return rc;
}

/* Memory ran out: the largest part's request ends, the others go on. */
static void step_shrink(struct sched *s, const struct err *e)
{
    size_t worst = 0;
    for (size_t i = 1; i < s->n_part; i++)
        if (s->part[i].n >= s->part[worst].n)
            worst = i;
    request_fail(s, s->of[worst]->r, e);
    s->n_part = 0;
}

/* Those whose next token the step decides: with the first sample of a request all of them. */
static void step_draws(struct sched *s)
{
    for (size_t i = 0; i < s->n_part; i++) {
        struct sample *x = s->of[i];
        struct request *r = x->r;
        const struct session_part *p = &s->part[i];
        if (!x->answer || session_len(x->session) < x->n)
            continue;
        for (size_t k = x->index; k < r->n; k++) {
            struct sample *y = &r->sample[k];
            if (y != x && y->state != SAMPLE_HELD)
                continue;
            y->logits = p->logits + (p->want - 1) * s->g->info.vocab;
            s->draw[s->n_draw++] = y;
        }
    }
}

int sched_compute(struct sched *s, struct err *e)
{
    size_t prompt = 0, decodes = 0;
    double t = clock_seconds();
    if (s->prefix)
        prefix_evict(s->prefix, s->takes);
    bool alone = s->n_part == 1 && s->part[0].n == 1 && s->part[0].want == 1 && s->g->mtp;
    int rc = alone ? step_alone(s, e) : engine_step(s->g, s->part, s->n_part, e);
    if (rc == ERR_NOMEM || rc == ERR_LIMIT) {
        step_shrink(s, e);
        return 0;
    }
    if (rc)
        return rc;
    for (size_t i = 0; i < s->n_part; i++) {
        bool decode = s->part[i].n == 1;
        *(decode ? &decodes : &prompt) += s->part[i].n;
    }
    pace_learn(s, prompt, decodes, clock_seconds() - t);
    s->tally.steps++;
    step_draws(s);
    return 0;
}
