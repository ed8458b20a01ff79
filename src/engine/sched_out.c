/*
 * What becomes of a step: states into embeddings, log-probabilities, the next token of each
 * sequence and its text, the ends of samples and requests.
 *
 * The next tokens are decided by the whole team, a sequence at a time by one of its threads:
 * sampling from 150,000 logits takes some tenths of a millisecond, which for 32 sequences one after
 * the other would be as long as the step. Events come from these threads; those of one request one
 * at a time. Everything else happens in the stepping thread before and after.
 *
 * Log-probabilities are those of the raw logits, before temperature, penalties and grammar, from
 * sums in double precision.
 */
#include "engine/sched_impl.h"

#include "base/clock.h"
#include "base/num.h"
#include "engine/engine_private.h"
#include "tensor/logprob.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- events --------------------------------------------------------------------------------- */

void request_tell(struct request *r, struct request_event *ev)
{
    if (ev->kind != REQUEST_SAMPLE)
        ev->stop_id = -1;
    pthread_mutex_lock(&r->lock);
    if (r->p.event)
        r->p.event(r->p.arg, ev);
    pthread_mutex_unlock(&r->lock);
}

static struct token_info row_info(const struct token_row *row, int n)
{
    return (struct token_info){.self = row->self, .top = row->top, .n_top = n > 0 ? (size_t)n : 0};
}

/* A piece of text, or none, with the tokens that were not delivered yet. */
static int sample_emit(void *arg, enum parse_event piece, const char *text, size_t n)
{
    struct sample *x = arg;
    struct request *r = x->r;
    struct token_info info = row_info(&x->row, r->p.logprobs);
    struct request_event ev = {.kind = REQUEST_PIECE,
                               .sample = x->index,
                               .piece = piece,
                               .text = text,
                               .n = n,
                               .n_info = x->upto - x->told};
    if (ev.n_info)
        ev.ids = x->ids + x->told;
    if (r->p.logprobs >= 0 && ev.n_info)
        ev.info = &info;
    x->told = x->upto;
    request_tell(r, &ev);
    return 0;
}

/* ---- log-probabilities ---------------------------------------------------------------------- */

/* The `n` largest of the row, falling; of equals the one with the lowest id first. */
static void row_top(struct token_row *row, const float *l, size_t vocab, double sum, size_t n)
{
    size_t have = 0;
    for (size_t i = 0; i < vocab && n; i++) {
        if (have == n && !(l[i] > row->top[n - 1].logprob))
            continue;
        size_t k = have < n ? have++ : n - 1;
        for (; k && l[i] > row->top[k - 1].logprob; k--)
            row->top[k] = row->top[k - 1];
        row->top[k] = (struct token_prob){.id = (int32_t)i, .logprob = l[i]};
    }
    for (size_t k = 0; k < n; k++) {
        row->top[k].rank = (uint32_t)k + 1;
        row->top[k].logprob = (float)((double)row->top[k].logprob - sum);
    }
}

static void row_fill(struct token_row *row, const float *l, size_t vocab, int32_t id, int n)
{
    double sum = sampler_logsum(l, vocab);
    uint32_t rank = 1;
    for (size_t i = 0; i < vocab; i++)
        rank += l[i] > l[id] || (l[i] == l[id] && i < (size_t)id);
    row->self =
        (struct token_prob){.id = id, .logprob = (float)((double)l[id] - sum), .rank = rank};
    row_top(row, l, vocab, sum, num_min(n > 0 ? (size_t)n : 0, vocab));
}

/* Rows of a piece of prompt. */
struct rows_job {
    struct sched *s;
    const struct sample *x;
    const struct session_part *part;
    size_t from; /* of the part's first token */
};

static void rows_run(void *arg, size_t chunk, int worker)
{
    const struct rows_job *j = arg;
    struct request *r = j->x->r;
    size_t i = j->from + chunk;
    if (i + 1 < r->p.n_prompt)
        row_fill(&r->rows[i], j->part->logits + chunk * j->s->g->info.vocab, j->s->vocab,
                 r->prompt[i + 1], r->p.prompt_logprobs);
}

/* ---- prompts -------------------------------------------------------------------------------- */

static void prompt_rows(struct sched *s, const struct sample *x, const struct session_part *part)
{
    struct rows_job j = {.s = s, .x = x, .part = part};
    j.from = session_len(x->session) - x->take;
    team_run(s->g->team, rows_run, &j, part->n);
}

/* The prompt is done: with log-probabilities, all of them in one event. */
static void prompt_done(struct sched *s, struct sample *x)
{
    struct request *r = x->r;
    struct request_event ev = {.kind = REQUEST_PROMPT, .done = x->n, .total = r->p.n_prompt};
    struct token_info *info = NULL;
    ev.done = ev.total;
    s->work.prompt += r->p.n_prompt;
    r->prompted = true;
    if (r->rows && r->p.n_prompt > 1) {
        info = calloc(r->p.n_prompt - 1, sizeof *info);
        for (size_t i = 0; info && i + 1 < r->p.n_prompt; i++)
            info[i] = row_info(&r->rows[i], r->p.prompt_logprobs);
        ev.ids = info ? r->prompt + 1 : NULL;
        ev.info = info;
        ev.n_info = info ? r->p.n_prompt - 1 : 0;
    }
    request_tell(r, &ev);
    free(info);
    free(r->rows);
    r->rows = NULL;
}

/* How far the prompt has come, of the sample that computes it for all. */
static void prompt_progress(struct sched *s, struct sample *x, const struct session_part *part)
{
    struct request *r = x->r;
    size_t have = session_len(x->session);
    if (x->index || r->prompted)
        return;
    if (r->rows)
        prompt_rows(s, x, part);
    s->tally.prompt_tokens += x->take;
    if (r->owner)
        r->owner->served += (double)x->take;
    if (have < r->p.n_prompt)
        request_tell(r, &(struct request_event){
                            .kind = REQUEST_PROGRESS, .done = have, .total = r->p.n_prompt});
    else
        prompt_done(s, x);
}

/* ---- embeddings ----------------------------------------------------------------------------- */

static void embed_add(const struct sched *s, struct sample *x, const struct session_part *part)
{
    size_t d = model_config(s->g->model)->d_model, have = session_len(x->session);
    for (size_t i = 0; i < part->n; i++) {
        size_t at = have - part->n + i;
        bool counts = s->pool == POOL_MEAN || at == (s->pool == POOL_FIRST ? 0 : x->n - 1);
        for (size_t k = 0; k < d && counts; k++)
            x->sum[k] += (double)part->states[i * d + k];
    }
}

/* The sum scaled to length 1; 0 stays 0. */
static void embed_finish(struct sched *s, struct sample *x)
{
    struct request *r = x->r;
    struct err e;
    size_t d = model_config(s->g->model)->d_model;
    double norm = 0;
    float *v = malloc(d * sizeof *v);
    if (!v) {
        err_nomem(&e, d * sizeof *v, "an embedding");
        request_fail(s, r, &e);
        return;
    }
    for (size_t k = 0; k < d; k++)
        norm += x->sum[k] * x->sum[k];
    norm = norm > 0 ? 1 / sqrt(norm) : 0;
    for (size_t k = 0; k < d; k++)
        v[k] = (float)(x->sum[k] * norm);
    request_tell(r, &(struct request_event){.kind = REQUEST_EMBEDDED, .vector = v, .n_vector = d});
    free(v);
    sample_finish(s, x, REQUEST_STOP);
}

/* ---- ends ----------------------------------------------------------------------------------- */

static void request_sum(struct request *r, const struct request_stats *st)
{
    struct request_stats *t = &r->stats;
    t->prompt_tokens = st->prompt_tokens;
    t->cached_tokens = num_max(t->cached_tokens, st->cached_tokens);
    t->answer_tokens += st->answer_tokens;
    t->thought_tokens += st->thought_tokens;
    t->queue_seconds = st->queue_seconds;
    t->prompt_seconds = fmax(t->prompt_seconds, st->prompt_seconds);
    t->answer_seconds = fmax(t->answer_seconds, st->answer_seconds);
    t->preemptions += st->preemptions;
}

static void request_end(struct sched *s, struct request *r, struct request_event *ev)
{
    /* The caller may free its handle inside; the scheduler's own is dropped after. */
    request_tell(r, ev);
    sched_forget(s, r);
}

int sample_flush(struct sample *x, struct err *e)
{
    x->upto = x->n;
    return x->answer ? answer_finish(x->answer, sample_emit, x, e) : 0;
}

void sample_finish(struct sched *s, struct sample *x, enum request_end end)
{
    struct request *r = x->r;
    double now = clock_seconds();
    struct request_event ev = {
        .kind = REQUEST_SAMPLE, .sample = x->index, .end = end, .stop_id = -1};
    if (!r->started)
        x->stats.queue_seconds = now - r->submitted;
    else if (x->first > 0)
        x->stats.answer_seconds = now - x->first;
    else
        x->stats.prompt_seconds = now - r->begun;
    if (x->answer) {
        ev.stop = answer_stop(x->answer, &ev.stop_id);
        ev.thought_cut = answer_cut(x->answer);
        x->stats.answer_tokens = answer_tokens(x->answer);
        x->stats.thought_tokens = answer_thought(x->answer);
        ev.n_info = x->n - x->told;
        ev.ids = ev.n_info ? x->ids + x->told : NULL;
    }
    ev.stats = &x->stats;
    sched_leave(s, x);
    x->state = SAMPLE_ENDED;
    request_sum(r, &x->stats);
    request_tell(r, &ev);
    if (--r->live == 0)
        request_end(s, r,
                    &(struct request_event){.kind = REQUEST_DONE, .end = end, .stats = &r->stats});
}

void request_fail(struct sched *s, struct request *r, const struct err *e)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->sample[i].state != SAMPLE_ENDED) {
            sched_leave(s, &r->sample[i]);
            r->sample[i].state = SAMPLE_ENDED;
        }
    request_end(s, r,
                &(struct request_event){.kind = REQUEST_FAILED, .error = e, .stats = &r->stats});
}

/* ---- next tokens ---------------------------------------------------------------------------- */

/* The token itself, for who wants no text. */
static void draw_tell(struct sched *s, struct sample *x, int32_t id)
{
    struct logprob lp = {0};
    if (x->r->p.policy)
        logprob_of(&s->g->kern, x->logits, s->vocab, x->r->p.sampling.temperature, id, &lp);
    request_tell(x->r, &(struct request_event){.kind = REQUEST_CHOSEN,
                                               .sample = x->index,
                                               .id = id,
                                               .logprob = lp.value,
                                               .entropy = lp.entropy});
}

/* Decides one sequence's next token and tells its text. */
static void draw_run(void *arg, size_t chunk, int worker)
{
    struct sched *s = arg;
    struct sample *x = s->draw[chunk];
    struct request *r = x->r;
    size_t before = answer_tokens(x->answer);
    bool kept;
    int32_t id;
    x->grew = 0;
    /* Without memory, or when the prompt fills the context, there is nothing to choose. */
    if (x->err.code || x->n >= x->cap)
        return;
    if (answer_choose(x->answer, x->logits, &id, &x->err))
        return;
    if (r->p.logprobs >= 0)
        row_fill(&x->row, x->logits, s->vocab, id, r->p.logprobs);
    if (r->p.chosen)
        draw_tell(s, x, id);
    x->ids[x->n] = id;
    x->upto = x->n + 1;
    answer_accept(x->answer, id, sample_emit, x, &kept, &x->err);
    x->grew = answer_tokens(x->answer) - before;
    if (x->grew)
        x->n++;
    x->told = num_min(x->told, x->n);
    x->upto = x->n;
    if (r->p.logprobs >= 0 && x->told < x->n && !x->err.code)
        sample_emit(x, PARSE_CONTENT, "", 0);
}

/* Has it ended, and how? */
static bool draw_ended(const struct sample *x, enum request_end *end)
{
    *end = REQUEST_STOP;
    switch (answer_ended(x->answer)) {
    case ANSWER_GOES_ON:
        *end = REQUEST_CONTEXT;
        return x->n >= x->cap;
    case ANSWER_LENGTH:
        *end = REQUEST_LENGTH;
        return true;
    default:
        return true;
    }
}

static void draw_note(struct sched *s, struct sample *x, double now)
{
    struct request *r = x->r;
    if (x->first == 0) {
        x->first = now;
        x->stats.prompt_seconds = now - r->begun;
    }
    s->tally.answer_tokens++;
    if (r->owner)
        r->owner->served += 2;
}

/* After the draws: forks, ends, failures. From the last to the first, because the first sample of a
   request comes before those that are forked from it. */
static void draw_settle(struct sched *s)
{
    double now = clock_seconds();
    for (size_t i = s->n_draw; i-- > 0;) {
        struct sample *x = s->draw[i];
        enum request_end end;
        if (!x)
            continue;
        struct request *r = x->r;
        draw_note(s, x, now);
        bool ended = !x->err.code && draw_ended(x, &end);
        if (ended)
            x->err.code = sample_flush(x, &x->err);
        if (x->err.code) {
            struct err e = x->err;
            for (size_t k = 0; k < i; k++)
                if (s->draw[k] && s->draw[k]->r == r)
                    s->draw[k] = NULL;
            request_fail(s, r, &e);
        } else if (ended) {
            sample_finish(s, x, end);
        } else if (x->state == SAMPLE_HELD && !sched_start(s, x, r->sample[0].session)) {
            sched_wait(s, x);
        }
    }
}

/* Samples that begin with this step need memory for their tokens. */
static void draw_prepare(struct sched *s)
{
    for (size_t i = 0; i < s->n_draw; i++) {
        struct sample *x = s->draw[i];
        x->err.code = 0;
        if (!x->ids)
            sample_timeline(s, x, &x->err);
    }
}

/* Pages that became full are the prefix cache's too, before anybody ends. */
static void prefix_share(struct sched *s)
{
    for (size_t i = 0; i < s->n_part && s->prefix; i++) {
        struct sample *x = s->of[i];
        if (x->answer)
            prefix_note(s->prefix, x->session, x->r->p.salt, x->r->p.n_prompt);
    }
}

static void work_tell(struct sched *s)
{
    for (size_t i = 0; i < s->n_part; i++)
        s->work.computed += s->part[i].n;
    for (size_t i = 0; i < s->n_draw; i++)
        s->work.answer += s->draw[i]->grew;
    if (s->o.step)
        s->o.step(s->o.step_arg, &s->work);
    s->work = (struct sched_work){0};
}

void sched_deliver(struct sched *s)
{
    prefix_share(s);
    for (size_t i = 0; i < s->n_part; i++)
        prompt_progress(s, s->of[i], &s->part[i]);
    draw_prepare(s);
    if (s->n_draw)
        team_run(s->g->team, draw_run, s, s->n_draw);
    work_tell(s); /* before anybody who sees an end can ask */
    for (size_t i = 0; i < s->n_part; i++)
        if (!s->of[i]->answer) {
            embed_add(s, s->of[i], &s->part[i]);
            if (session_len(s->of[i]->session) == s->of[i]->n)
                embed_finish(s, s->of[i]);
        }
    draw_settle(s);
}
