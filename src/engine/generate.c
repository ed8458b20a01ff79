/*
 * Generation: the loop from prompt to answer for one sequence.
 *
 * A token goes: sampler → end token? → bytes → whole characters (detok) → stop strings → think/tool
 * parser → the caller's emit. Each stage holds back only what a later byte could still change: the
 * detokenizer an unfinished character, the stop search the longest end of the text that begins a
 * stop string, the parser a possible tag. At the end all of it is released, whatever ended the
 * answer.
 *
 * The timeline: a token is appended to the session when its text did not complete a stop string, so
 * prompt and answer are in the cache when the next turn comes. An answer ends when prompt and
 * answer together fill the context.
 *
 * Control tokens are not shown, except those the parser reads (tags); stop strings may name them.
 */
#include "engine/generate.h"

#include "base/clock.h"
#include "base/num.h"

#include <string.h>

/* One token's text and what is held back: far above what any vocabulary holds. */
static const size_t text_max = 64 << 20;

struct run {
    const struct generate_params *p;
    struct session *s;
    const struct tokenizer *tok;
    size_t vocab; /* tokens to choose from */
    struct sampler *sampler;
    struct parser *parser; /* NULL when raw */
    struct detok detok;
    struct buf text; /* characters that may begin a stop string */
    int emit_rc;     /* what the caller's emit wanted to stop with */
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

/* ---- text ---------------------------------------------------------------------------------- */

static int run_emit(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct run *r = arg;
    r->emit_rc = r->p->emit(r->p->arg, ev, s, n);
    return r->emit_rc;
}

/* The first n held characters are certain: on to the parser. */
static int release(struct run *r, size_t n, struct err *e)
{
    int rc = 0;
    if (n && r->parser)
        rc = parser_feed(r->parser, r->text.data, n, run_emit, r, e);
    else if (n)
        rc = run_emit(r, PARSE_CONTENT, r->text.data, n);
    r->text.len -= n;
    memmove(r->text.data, r->text.data + n, r->text.len);
    return rc;
}

/* Where in s the first stop string begins; n when there is none. */
static size_t stop_find(const struct generate_params *p, const char *s, size_t n)
{
    size_t first = n;
    for (size_t i = 0; i < p->n_stop; i++) {
        const char *at = memmem(s, n, p->stop[i], strlen(p->stop[i]));
        if (at)
            first = num_min(first, (size_t)(at - s));
    }
    return first;
}

/* How many characters at the end of s begin a stop string. */
static size_t stop_prefix(const struct generate_params *p, const char *s, size_t n)
{
    size_t longest = 0;
    for (size_t i = 0; i < p->n_stop; i++)
        for (size_t k = num_min(strlen(p->stop[i]), n); k > longest; k--)
            if (memcmp(s + n - k, p->stop[i], k) == 0)
                longest = k;
    return longest;
}

/* Passes on what the held text allows; *stopped when it holds a stop string, which is dropped. */
static int settle(struct run *r, bool *stopped, struct err *e)
{
    size_t at = stop_find(r->p, r->text.data, r->text.len);
    *stopped = at < r->text.len;
    if (!*stopped)
        return release(r, r->text.len - stop_prefix(r->p, r->text.data, r->text.len), e);
    int rc = release(r, at, e);
    buf_clear(&r->text);
    detok_init(&r->detok);
    return rc;
}

/* Control tokens that are part of the answer's structure: the parser wants to see them. */
static bool is_tag(const char *s, size_t n)
{
    static const char *const tags[] = {
        "<think>", "</think>", "<tool", "</tool", "<｜tool", "<|tool", "<|python_tag|>",
    };
    for (size_t i = 0; i < NUM_COUNT(tags); i++)
        if (n >= strlen(tags[i]) && memcmp(s, tags[i], strlen(tags[i])) == 0)
            return true;
    return false;
}

static int token_text(struct run *r, int32_t id, bool *stopped, struct err *e)
{
    *stopped = false;
    if (!r->p->raw && tokenizer_is_special(r->tok, id)) {
        size_t n;
        const char *s = tokenizer_bytes(r->tok, id, &n);
        if (!is_tag(s, n)) {
            *stopped = stop_find(r->p, s, n) < n;
            return 0;
        }
    }
    int rc = detok_push(&r->detok, r->tok, id, &r->text, e);
    return rc ? rc : settle(r, stopped, e);
}

/* Releases everything that is held back. */
static int text_end(struct run *r, struct err *e)
{
    bool stopped;
    int rc = detok_flush(&r->detok, &r->text, e);
    rc = rc ? rc : settle(r, &stopped, e);
    rc = rc ? rc : release(r, r->text.len, e);
    return rc || !r->parser ? rc : parser_finish(r->parser, run_emit, r, e);
}

/* ---- the loop ------------------------------------------------------------------------------ */

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

static bool thinking(const struct run *r)
{
    return r->parser && parser_thinking(r->parser);
}

/* One token; *more is false when the answer has ended (st->stop says why). */
static int step(struct run *r, size_t ctx, double start, struct generate_stats *st, bool *more,
                struct err *e)
{
    *more = false;
    if (r->p->max_tokens && st->answer_tokens >= r->p->max_tokens) {
        st->stop = GENERATE_LENGTH;
        return 0;
    }
    if (session_len(r->s) >= ctx) {
        st->stop = GENERATE_CONTEXT;
        return 0;
    }
    const float *logits = session_logits(r->s);
    if (!logits)
        return err_set(e, ERR_FORMAT, "the session has no logits to continue from");
    int32_t id;
    int rc = sampler_next(r->sampler, logits, &id, e);
    if (rc)
        return rc;
    if (st->first_token_seconds == 0)
        st->first_token_seconds = clock_seconds() - start;
    if (tokenizer_is_end(r->tok, id)) {
        st->stop = GENERATE_END;
        return 0;
    }
    rc = sampler_accept(r->sampler, id, e);
    if (rc)
        return rc;
    st->answer_tokens++;
    bool was_thinking = thinking(r), stopped;
    rc = token_text(r, id, &stopped, e);
    st->reasoning_tokens += was_thinking || thinking(r);
    if (rc)
        return rc;
    if (stopped) {
        st->stop = GENERATE_STRING;
        return 0;
    }
    rc = session_append(r->s, &id, 1, e);
    if (rc)
        return rc;
    if (!keep_going(r))
        return cancelled(st, e);
    *more = true;
    return 0;
}

static int check_params(const struct generate_params *p, struct err *e)
{
    for (size_t i = 0; i < p->n_stop; i++)
        if (!p->stop[i] || !*p->stop[i])
            return err_set(e, ERR_USAGE, "stop string %zu is empty: leave it out", i + 1);
    return 0;
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
    for (size_t i = 0; i < n && !rc; i++)
        if ((size_t)prompt[i] < r->vocab)
            rc = sampler_accept(r->sampler, prompt[i], e);
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
    struct run r = {.p = p, .s = s, .tok = engine_tokenizer(g)};
    *st = (struct generate_stats){.prompt_tokens = n};
    buf_init(&r.text, text_max);
    detok_init(&r.detok);
    int rc = check_params(p, e);
    /* Models pad their last matrix: rows without a token are not for choosing. */
    r.vocab = num_min(info->vocab, tokenizer_count(r.tok));
    rc = rc ? rc : sampler_new(&r.sampler, &p->sampling, r.vocab, e);
    if (!rc && !p->raw)
        rc = parser_new(&r.parser, p->thinking_open, e);
    rc = rc ? rc : prefill(&r, prompt, n, st, e);
    if (rc)
        goto out;
    double begin = clock_seconds();
    for (bool more = true; more && !rc;)
        rc = step(&r, info->ctx, start, st, &more, e);
    st->answer_seconds = clock_seconds() - begin;
    /* A fault must not swallow text that the user would have seen; its own words come first. */
    if (!r.emit_rc) {
        int end = text_end(&r, rc ? NULL : e);
        rc = rc ? rc : end;
    }
    if (r.emit_rc)
        rc = err_set(e, r.emit_rc, "the receiver of the text stopped");
out:
    buf_release(&r.text);
    parser_free(r.parser);
    sampler_free(r.sampler);
    return rc;
}
