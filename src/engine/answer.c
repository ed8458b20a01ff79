/*
 * An answer: from logits to text.
 *
 * A token goes: forced, or sampler → end token? → bytes → whole characters (detok) → stop strings →
 * think/tool parser → the receiver. Each stage holds back only what a later byte could still
 * change: the detokenizer an unfinished character, the stop search the longest end of the text that
 * begins a stop string, the parser a possible tag. answer_finish releases all of it.
 *
 * Control tokens are not shown, except those the parser reads (tags); stop strings may name them.
 *
 * A thought that has used up its budget, or runs in a circle (engine/repeat.h), is closed by the
 * tokens of "\n</think>\n\n", as the vocabulary writes that: the model finds them in its context as
 * if it had written them itself, and answers. They count as tokens of the answer like all others.
 *
 * A grammar's state follows all tokens from the first on; it lets a thought pass (any text up to
 * its end) and then masks what does not fit. When nothing more may follow the answer has ended.
 */
#include "engine/answer.h"

#include "base/hash.h"
#include "base/num.h"
#include "engine/ban.h"
#include "engine/repeat.h"
#include "text/grammar.h"

#include <stdlib.h>
#include <string.h>

/* One token's text and what is held back: far above what any vocabulary holds. */
static const size_t answer_text_max = 64 << 20;

struct answer {
    const struct tokenizer *tok;
    size_t n_vocab;
    struct answer_params par; /* stop and stop_id are copies */
    struct sampler *sampler;
    struct parser *parser; /* NULL when raw */
    struct detok detok;
    struct buf text;                /* characters that may begin a stop string */
    struct ids closing;             /* what closes a thought */
    size_t forced;                  /* of these, already in the answer */
    struct repeat *repeat;          /* with think_loops */
    bool looped;                    /* what it said */
    bool cut;                       /* the thought is being closed, or was */
    struct grammar_state *grammar;  /* or NULL */
    struct ids ends;                /* with min_tokens: what may not come before */
    struct ban *ban;                /* or NULL */
    int32_t *forbidden;             /* with `ban`: room for all that may not come next */
    size_t tokens, thought, inside; /* thought: with its tags; inside: without the opening one */
    /* The first calls of the answer, and how often each came. */
    struct {
        uint64_t hash;
        size_t times;
    } call[16];
    size_t n_call;
    enum answer_end end;
    size_t end_string;
    int32_t end_id;
    answer_emit *emit; /* of the call that runs */
    void *arg;
    int refused; /* what the receiver stopped with */
};

void answer_params_init(struct answer_params *p)
{
    *p = (struct answer_params){.think_max = -1};
}

/* ---- life ---------------------------------------------------------------------------------- */

/* Pointers and strings in one block of memory. */
static int answer_copy_stops(struct answer *a, const struct answer_params *p, struct err *e)
{
    size_t bytes = p->n_stop * sizeof(char *);
    a->par.stop = NULL;
    for (size_t i = 0; i < p->n_stop; i++) {
        if (!p->stop[i] || !*p->stop[i])
            return err_set(e, ERR_USAGE, "stop string %zu is empty: leave it out", i + 1);
        bytes += strlen(p->stop[i]) + 1;
    }
    if (!p->n_stop)
        return 0;
    char **list = malloc(bytes);
    if (!list)
        return err_nomem(e, bytes, "stop strings");
    char *at = (char *)(list + p->n_stop);
    for (size_t i = 0; i < p->n_stop; i++) {
        size_t n = strlen(p->stop[i]) + 1;
        list[i] = memcpy(at, p->stop[i], n);
        at += n;
    }
    a->par.stop = (const char *const *)list;
    return 0;
}

static int answer_copy_ids(struct answer *a, const struct answer_params *p, struct err *e)
{
    size_t bytes = p->n_stop_id * sizeof *p->stop_id;
    a->par.stop_id = NULL;
    if (!bytes)
        return 0;
    int32_t *copy = malloc(bytes);
    if (!copy)
        return err_nomem(e, bytes, "stop tokens");
    memcpy(copy, p->stop_id, bytes);
    a->par.stop_id = copy;
    return 0;
}

static int answer_thoughts(struct answer *a, struct err *e)
{
    static const char closing[] = "\n</think>\n\n";
    const struct answer_params *p = &a->par;
    int rc = parser_new(&a->parser, p->thinking_open, e);
    if (!rc && p->stream_calls)
        parser_stream_calls(a->parser);
    if (!rc && (p->no_calls || (p->grammar && !grammar_has_calls(p->grammar))))
        parser_no_calls(a->parser);
    if (!rc && (p->think_max >= 0 || p->think_loops))
        rc = tokenizer_encode(a->tok, closing, sizeof closing - 1, TOKENIZER_SPECIAL, NULL,
                              &a->closing, e);
    if (rc || !p->think_loops)
        return rc;
    a->repeat = malloc(sizeof *a->repeat);
    if (!a->repeat)
        return err_nomem(e, sizeof *a->repeat, "the loop detector");
    repeat_init(a->repeat);
    return 0;
}

/* All that min_tokens forbids. */
static int answer_ends(struct answer *a, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < a->n_vocab && !rc && !a->par.ignore_end; i++)
        if (tokenizer_is_end(a->tok, (int32_t)i))
            rc = ids_push(&a->ends, (int32_t)i, e);
    for (size_t i = 0; i < a->par.n_stop_id && !rc; i++)
        if (a->par.stop_id[i] >= 0 && (size_t)a->par.stop_id[i] < a->n_vocab)
            rc = ids_push(&a->ends, a->par.stop_id[i], e);
    sampler_forbid(a->sampler, a->ends.v, a->ends.n);
    return rc;
}

static int answer_bans(struct answer *a, const struct answer_params *p, struct err *e)
{
    int rc = ban_new(&a->ban, a->tok, a->n_vocab, p->ban, p->n_ban, e);
    if (rc)
        return rc;
    size_t most = a->ends.n + ban_most(a->ban);
    a->forbidden = malloc((most + 1) * sizeof *a->forbidden);
    if (!a->forbidden)
        return err_nomem(e, most * sizeof *a->forbidden, "forbidden words");
    if (a->ends.n)
        memcpy(a->forbidden, a->ends.v, a->ends.n * sizeof *a->forbidden);
    return 0;
}

/* Is there a token in the mask that is none of ids[0..n)? */
static bool answer_has_other(const struct answer *a, const uint32_t *bits, const int32_t *ids,
                             size_t n)
{
    for (size_t id = 0; id < a->n_vocab; id++) {
        size_t k = 0;
        if (!(bits[id / 32] >> (id % 32) & 1))
            continue;
        while (k < n && ids[k] != (int32_t)id)
            k++;
        if (k == n)
            return true;
    }
    return false;
}

/* What may not come next. A word that has begun, and that the grammar lets end no other way, comes:
   an answer without its form would be worse. */
static void answer_forbid(struct answer *a, const uint32_t *bits)
{
    size_t ends = a->tokens < a->par.min_tokens ? a->ends.n : 0;
    int32_t *words = a->forbidden + a->ends.n;
    size_t n = ends + ban_list(a->ban, words);
    bool all = bits && !answer_has_other(a, bits, words - ends, n);
    sampler_forbid(a->sampler, words - ends, all ? ends : n);
}

static int answer_grammar(struct answer *a, struct grammar_vocab *v, struct err *e)
{
    const struct answer_params *p = &a->par;
    enum grammar_thought thought = p->raw             ? GRAMMAR_THOUGHT_NONE
                                   : p->thinking_open ? GRAMMAR_THOUGHT_OPEN
                                   : p->thinking_may  ? GRAMMAR_THOUGHT_MAYBE
                                                      : GRAMMAR_THOUGHT_NONE;
    return grammar_state_new(&a->grammar, p->grammar, v, thought, e);
}

int answer_new(struct answer **out, const struct tokenizer *tok, struct grammar_vocab *v,
               size_t n_vocab, const struct sampler_params *s, const struct answer_params *p,
               struct err *e)
{
    *out = NULL;
    struct answer *a = calloc(1, sizeof *a);
    if (!a)
        return err_nomem(e, sizeof *a, "an answer");
    a->tok = tok;
    a->n_vocab = n_vocab;
    a->par = *p;
    a->end_id = -1;
    a->end_string = p->n_stop;
    buf_init(&a->text, answer_text_max);
    detok_init(&a->detok);
    ids_init(&a->closing, 64);
    ids_init(&a->ends, n_vocab + p->n_stop_id);
    a->par.stop = NULL;
    a->par.stop_id = NULL;
    a->par.ban = NULL;
    int rc = answer_copy_stops(a, p, e);
    rc = rc ? rc : answer_copy_ids(a, p, e);
    rc = rc ? rc : sampler_new(&a->sampler, s, n_vocab, e);
    if (!rc && !p->raw)
        rc = answer_thoughts(a, e);
    if (!rc && p->grammar)
        rc = answer_grammar(a, v, e);
    if (!rc && p->min_tokens)
        rc = answer_ends(a, e);
    if (!rc && p->n_ban)
        rc = answer_bans(a, p, e);
    if (rc)
        answer_free(a);
    else
        *out = a;
    return rc;
}

void answer_free(struct answer *a)
{
    if (!a)
        return;
    free((void *)(uintptr_t)a->par.stop);
    free((void *)(uintptr_t)a->par.stop_id);
    sampler_free(a->sampler);
    parser_free(a->parser);
    buf_release(&a->text);
    ids_release(&a->closing);
    ids_release(&a->ends);
    ban_free(a->ban);
    free(a->forbidden);
    free(a->repeat);
    grammar_state_free(a->grammar);
    free(a);
}

int answer_prompt(struct answer *a, const int32_t *ids, size_t n, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        if (ids[i] >= 0 && (size_t)ids[i] < a->n_vocab)
            rc = sampler_accept(a->sampler, ids[i], e);
    return rc;
}

/* ---- text ---------------------------------------------------------------------------------- */

/*
 * Small models that have to call a tool know no end: they write the same calls again and again,
 * and with a grammar that allows more of them nothing else can follow. The same call twice may be
 * meant (two dice); one that comes a third time ends the answer.
 */
static void answer_call(struct answer *a, const char *s, size_t n)
{
    uint64_t h = hash_bytes(s, n, 0);
    size_t i = 0;
    while (i < a->n_call && a->call[i].hash != h)
        i++;
    if (i < a->n_call) {
        bool may = !a->par.ignore_end && a->tokens >= a->par.min_tokens;
        if (++a->call[i].times > 2 && may && a->end == ANSWER_GOES_ON)
            a->end = ANSWER_END;
    } else if (a->n_call < NUM_COUNT(a->call)) {
        a->call[a->n_call].hash = h;
        a->call[a->n_call++].times = 1;
    }
}

static int answer_pass(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct answer *a = arg;
    if (ev == PARSE_TOOL_CALL && n) /* not the end of one that can't be read */
        answer_call(a, s, n);
    a->refused = a->emit(a->arg, ev, s, n);
    return a->refused;
}

/* The first n held characters are certain: on to the parser. */
static int answer_release(struct answer *a, size_t n, struct err *e)
{
    int rc = 0;
    if (n && a->parser)
        rc = parser_feed(a->parser, a->text.data, n, answer_pass, a, e);
    else if (n)
        rc = answer_pass(a, PARSE_CONTENT, a->text.data, n);
    a->text.len -= n;
    memmove(a->text.data, a->text.data + n, a->text.len);
    return rc;
}

/* Where in s the first stop string begins, and which it is; n when there is none. */
static size_t stop_find(const struct answer_params *p, const char *s, size_t n, size_t *which)
{
    size_t first = n;
    for (size_t i = 0; i < p->n_stop; i++) {
        const char *at = memmem(s, n, p->stop[i], strlen(p->stop[i]));
        if (at && (size_t)(at - s) < first) {
            first = (size_t)(at - s);
            *which = i;
        }
    }
    return first;
}

/* How many characters at the end of s begin a stop string. */
static size_t stop_prefix(const struct answer_params *p, const char *s, size_t n)
{
    size_t longest = 0;
    for (size_t i = 0; i < p->n_stop; i++)
        for (size_t k = num_min(strlen(p->stop[i]), n); k > longest; k--)
            if (memcmp(s + n - k, p->stop[i], k) == 0)
                longest = k;
    return longest;
}

/* Passes on what the held text allows; a stop string in it ends the answer. */
static int answer_settle(struct answer *a, struct err *e)
{
    size_t which = 0, n = a->text.len;
    if (a->tokens < a->par.min_tokens)
        return answer_release(a, n, e);
    size_t at = stop_find(&a->par, a->text.data, n, &which);
    if (at == n)
        return answer_release(a, n - stop_prefix(&a->par, a->text.data, n), e);
    a->end = ANSWER_STRING;
    a->end_string = which;
    int rc = answer_release(a, at + (a->par.stop_shown ? strlen(a->par.stop[which]) : 0), e);
    buf_clear(&a->text);
    detok_init(&a->detok);
    return rc;
}

/* Control tokens that are part of the answer's structure: the parser wants to see them. */
static bool answer_is_tag(const char *s, size_t n)
{
    static const char *const tags[] = {
        "<think>", "</think>", "<tool", "</tool", "<｜tool", "<|tool", "<|python_tag|>",
    };
    for (size_t i = 0; i < NUM_COUNT(tags); i++)
        if (n >= strlen(tags[i]) && memcmp(s, tags[i], strlen(tags[i])) == 0)
            return true;
    return false;
}

static int answer_text(struct answer *a, int32_t id, struct err *e)
{
    size_t n;
    const char *s = tokenizer_bytes(a->tok, id, &n);
    if (!a->par.special && tokenizer_is_special(a->tok, id) && !answer_is_tag(s, n)) {
        size_t which = 0;
        if (a->tokens >= a->par.min_tokens && stop_find(&a->par, s, n, &which) < n) {
            a->end = ANSWER_STRING;
            a->end_string = which;
        }
        return 0;
    }
    int rc = detok_push(&a->detok, a->tok, id, &a->text, e);
    return rc ? rc : answer_settle(a, e);
}

/* The receiver's refusal instead of whatever words came with it. */
static int answer_result(const struct answer *a, int rc, struct err *e)
{
    return a->refused ? err_set(e, a->refused, "the receiver of the text stopped") : rc;
}

int answer_finish(struct answer *a, answer_emit *emit, void *arg, struct err *e)
{
    if (a->refused)
        return answer_result(a, 0, e);
    a->emit = emit;
    a->arg = arg;
    enum answer_end end = a->end; /* a stop string that only now is one says nothing new */
    size_t string = a->end_string;
    if (a->parser && (end == ANSWER_GOES_ON || end == ANSWER_LENGTH))
        parser_cut(a->parser);
    int rc = detok_flush(&a->detok, &a->text, e);
    rc = rc ? rc : answer_settle(a, e);
    rc = rc ? rc : answer_release(a, a->text.len, e);
    if (!rc && a->parser)
        rc = parser_finish(a->parser, answer_pass, a, e);
    a->end = end;
    a->end_string = string;
    return answer_result(a, rc, e);
}

/* ---- tokens -------------------------------------------------------------------------------- */

bool answer_thinking(const struct answer *a)
{
    return a->parser && parser_thinking(a->parser);
}

static bool answer_forces(const struct answer *a)
{
    return a->cut && a->forced < a->closing.n;
}

int answer_choose(struct answer *a, const float *logits, int32_t *id, struct err *e)
{
    if (!a->cut && answer_thinking(a) &&
        (a->looped || (a->par.think_max >= 0 && a->inside >= (uint64_t)a->par.think_max)))
        a->cut = true;
    if (answer_forces(a)) {
        *id = a->closing.v[a->forced];
        return 0;
    }
    const uint32_t *bits = NULL;
    if (a->grammar) {
        int rc = grammar_state_mask(a->grammar, &bits, e);
        if (rc)
            return rc;
        sampler_mask(a->sampler, bits);
    }
    if (a->ban)
        answer_forbid(a, bits);
    return sampler_next(a->sampler, logits, id, e);
}

/* Does the caller, or the model, end the answer with this token? */
static bool answer_stops(struct answer *a, int32_t id)
{
    for (size_t i = 0; i < a->par.n_stop_id; i++)
        if (a->par.stop_id[i] == id) {
            a->end = ANSWER_TOKEN;
            a->end_id = id;
            return true;
        }
    if (a->par.ignore_end || !tokenizer_is_end(a->tok, id))
        return false;
    a->end = ANSWER_END;
    return true;
}

static int answer_count(struct answer *a, int32_t id, bool was_thinking, struct err *e)
{
    a->tokens++;
    if (a->par.min_tokens && a->tokens == a->par.min_tokens)
        sampler_forbid(a->sampler, NULL, 0);
    if (a->ban)
        ban_accept(a->ban, id);
    a->inside += was_thinking;
    if (a->repeat && was_thinking && !a->cut) {
        size_t n;
        const char *s = tokenizer_bytes(a->tok, id, &n);
        a->looped |= repeat_next(a->repeat, id, s, n);
    }
    return sampler_accept(a->sampler, id, e);
}

int answer_accept(struct answer *a, int32_t id, answer_emit *emit, void *arg, bool *kept,
                  struct err *e)
{
    bool forced = answer_forces(a), was_thinking = answer_thinking(a);
    *kept = false;
    a->emit = emit;
    a->arg = arg;
    if (forced)
        a->forced++;
    else if (answer_stops(a, id))
        return a->par.stop_shown && a->end == ANSWER_TOKEN
                   ? answer_result(a, answer_text(a, id, e), e)
                   : 0;
    int rc = answer_count(a, id, was_thinking, e);
    if (!rc && a->grammar)
        rc = grammar_state_accept(a->grammar, id, e);
    rc = rc ? rc : answer_text(a, id, e);
    a->thought += was_thinking || answer_thinking(a);
    if (!rc && a->end == ANSWER_GOES_ON) {
        *kept = true;
        if (a->grammar && grammar_state_complete(a->grammar))
            a->end = ANSWER_END;
        else if (a->par.max_tokens && a->tokens >= a->par.max_tokens)
            a->end = ANSWER_LENGTH;
    }
    return answer_result(a, rc, e);
}

enum answer_end answer_ended(const struct answer *a)
{
    return a->end;
}

const char *answer_stop(const struct answer *a, int32_t *id)
{
    if (id)
        *id = a->end == ANSWER_TOKEN ? a->end_id : -1;
    return a->end == ANSWER_STRING ? a->par.stop[a->end_string] : NULL;
}

size_t answer_tokens(const struct answer *a)
{
    return a->tokens;
}

size_t answer_thought(const struct answer *a)
{
    return a->thought;
}

bool answer_cut(const struct answer *a)
{
    return a->cut;
}
