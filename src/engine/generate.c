/*
 * Generation: the loop from prompt to answer for one sequence.
 *
 * The timeline: a token is appended to the session when its text did not complete a stop string, so
 * prompt and answer are in the cache when the next turn comes. An answer ends when prompt and
 * answer together fill the context.
 */
#include "engine/generate.h"

#include "base/clock.h"
#include "base/num.h"

struct run {
    const struct generate_params *p;
    struct session *s;
    struct answer *answer;
};

const char *generate_stop_name(enum generate_stop s)
{
    static const char *const names[] = {
        [GENERATE_END] = "stop",
        [GENERATE_STRING] = "stop",
        [GENERATE_LENGTH] = "length",
        [GENERATE_CONTEXT] = "context",
        [GENERATE_CANCELLED] = "cancelled",
    };
    return (size_t)s < NUM_COUNT(names) ? names[s] : "unknown";
}

static bool keep_going(const struct run *r)
{
    return !r->p->keep_going || r->p->keep_going(r->p->arg);
}

static bool prefill_progress(void *arg, size_t done, size_t total)
{
    return keep_going(arg);
}

static int cancelled(struct generate_stats *st, struct err *e)
{
    st->stop = GENERATE_CANCELLED;
    return err_set(e, ERR_CANCELLED, "stopped");
}

/* Whether the answer has ended, and why. */
static bool ended(const struct run *r, struct generate_stats *st)
{
    switch (answer_ended(r->answer)) {
    case ANSWER_GOES_ON:
        return false;
    case ANSWER_END:
    case ANSWER_TOKEN:
        st->stop = GENERATE_END;
        break;
    case ANSWER_STRING:
        st->stop = GENERATE_STRING;
        break;
    case ANSWER_LENGTH:
        st->stop = GENERATE_LENGTH;
        break;
    }
    return true;
}

/* One token; *more is false when the answer has ended (st->stop says why). */
static int step(struct run *r, size_t ctx, double start, struct generate_stats *st, bool *more,
                struct err *e)
{
    *more = false;
    if (ended(r, st))
        return 0;
    if (session_len(r->s) >= ctx) {
        st->stop = GENERATE_CONTEXT;
        return 0;
    }
    const float *logits = session_logits(r->s);
    if (!logits)
        return err_set(e, ERR_FORMAT, "the session has no logits to continue from");
    int32_t id;
    bool kept = false;
    int rc = answer_choose(r->answer, logits, &id, e);
    if (rc)
        return rc;
    if (st->first_token_seconds == 0)
        st->first_token_seconds = clock_seconds() - start;
    rc = answer_accept(r->answer, id, r->p->emit, r->p->arg, &kept, e);
    if (!rc && kept)
        rc = session_append(r->s, &id, 1, e);
    if (!rc && kept && !keep_going(r))
        rc = cancelled(st, e);
    *more = true;
    return rc;
}

/* The prompt into the session, and into the sampler's history. */
static int prefill(struct run *r, const int32_t *prompt, size_t n, struct generate_stats *st,
                   struct err *e)
{
    double start = clock_seconds();
    int rc = session_feed(r->s, prompt, n, prefill_progress, r, e);
    st->prompt_seconds = clock_seconds() - start;
    if (rc == ERR_CANCELLED)
        st->stop = GENERATE_CANCELLED;
    if (rc)
        return rc;
    st->reused_tokens = session_reused(r->s);
    rc = answer_prompt(r->answer, prompt, n, e);
    if (!rc && !keep_going(r))
        rc = cancelled(st, e);
    return rc;
}

int generate(struct session *s, const int32_t *prompt, size_t n, const struct generate_params *p,
             struct generate_stats *st, struct err *e)
{
    double start = clock_seconds();
    struct engine *g = session_engine(s);
    const struct engine_info *info = engine_info(g);
    const struct tokenizer *tok = engine_tokenizer(g);
    struct run r = {.p = p, .s = s};
    *st = (struct generate_stats){.prompt_tokens = n};
    /* Models pad their last matrix: rows without a token are not for choosing. */
    size_t vocab = num_min(info->vocab, tokenizer_count(tok));
    struct grammar_vocab *v = NULL;
    int rc = p->answer.grammar ? engine_grammar_vocab(g, &v, e) : 0;
    rc = rc ? rc : answer_new(&r.answer, tok, v, vocab, &p->sampling, &p->answer, e);
    rc = rc ? rc : prefill(&r, prompt, n, st, e);
    if (rc)
        goto out;
    double begin = clock_seconds();
    for (bool more = true; more && !rc;)
        rc = step(&r, info->ctx, start, st, &more, e);
    st->answer_seconds = clock_seconds() - begin;
    /* A fault must not swallow text that the user would have seen; its own words come first. */
    int end = answer_finish(r.answer, p->emit, p->arg, rc ? NULL : e);
    rc = rc ? rc : end;
    st->answer_tokens = answer_tokens(r.answer);
    st->reasoning_tokens = answer_thought(r.answer);
    st->thought_cut = answer_cut(r.answer);
out:
    answer_free(r.answer);
    return rc;
}
