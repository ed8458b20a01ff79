/* The parameters of a job's requests: what the client said, else what the model's files recommend,
   else the server's defaults. */
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "server/job_impl.h"
#include "text/fim.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void take_float(float *to, float v)
{
    if (!isnan(v))
        *to = v;
}

static int sampling(struct job *j, struct err *e)
{
    const struct sampler_params *in = &j->spec->sampling;
    const struct server_opts *o = &j->server->o;
    struct sampler_params *out = &j->params.sampling;
    size_t vocab = engine_info(j->use.engine)->vocab;
    engine_sampling(j->use.engine, out);
    take_float(&out->temperature, in->temperature);
    take_float(&out->top_p, in->top_p);
    take_float(&out->min_p, in->min_p);
    take_float(&out->typical_p, in->typical_p);
    take_float(&out->repetition_penalty, in->repetition_penalty);
    take_float(&out->frequency_penalty, in->frequency_penalty);
    take_float(&out->presence_penalty, in->presence_penalty);
    if (in->top_k != INT_MIN)
        out->top_k = in->top_k;
    if (in->penalty_last != INT_MIN)
        out->penalty_last = in->penalty_last;
    out->seed = j->spec->seed_given ? in->seed : o->seed_given ? o->seed : rng_os_seed() >> 1;
    j->bias = calloc(in->n_bias + 1, sizeof *j->bias);
    if (!j->bias)
        return err_nomem(e, in->n_bias * sizeof *j->bias, "logit_bias");
    for (size_t i = 0; i < in->n_bias; i++) {
        if (in->bias[i].id < 0 || (size_t)in->bias[i].id >= vocab)
            return err_set(e, ERR_USAGE,
                           "logit_bias: token id %d is out of vocabulary: ids go from 0 to %zu",
                           in->bias[i].id, vocab - 1);
        j->bias[i] = in->bias[i];
    }
    out->bias = j->bias;
    out->n_bias = in->n_bias;
    /* The thought that its prompt closed may not be opened again. */
    int32_t think = tokenizer_find(engine_tokenizer(j->use.engine), "<think>");
    if (job_forbids_thinking(j) && think >= 0)
        j->bias[out->n_bias++] = (struct sampler_bias){think, -INFINITY};
    return sampler_params_check(out, e);
}

/* What a model that fills holes writes when it has filled one, besides the end. */
static int stop_tokens(struct job *j, struct err *e)
{
    static const char *const more[] = {"<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<file_sep>",
                                       "<fim_pad>"};
    const struct job_spec *s = j->spec;
    const struct tokenizer *t = engine_tokenizer(j->use.engine);
    const struct fim_form *f = s->prompt == JOB_FIM ? fim_find(t) : NULL;
    size_t n = s->n_stop_id;
    j->stop_id = calloc(n + 3 + NUM_COUNT(more), sizeof *j->stop_id);
    if (!j->stop_id)
        return err_nomem(e, n * sizeof *j->stop_id, "stop tokens");
    if (n)
        memcpy(j->stop_id, s->stop_id, n * sizeof *j->stop_id);
    const char *const own[3] = {f ? f->begin : NULL, f ? f->hole : NULL, f ? f->end : NULL};
    for (size_t i = 0; f && i < 3 + NUM_COUNT(more); i++) {
        int32_t id = tokenizer_find(t, i < 3 ? own[i] : more[i - 3]);
        if (id >= 0)
            j->stop_id[n++] = id;
    }
    j->params.answer.stop_id = j->stop_id;
    j->params.answer.n_stop_id = n;
    return 0;
}

/* Beginnings are shared among requests of one key and one cache_salt, without both among all. */
static void salt(struct job *j)
{
    uint64_t owner = http_owner(j->x);
    uint8_t out[SHA256_BYTES];
    const char *own = j->spec->salt ? j->spec->salt : "";
    const struct sha256_part parts[] = {{&owner, sizeof owner}, {own, strlen(own)}};
    if (!owner && !j->spec->salt)
        return;
    sha256_of_parts(parts, NUM_COUNT(parts), out);
    memcpy(j->params.salt, out, sizeof j->params.salt);
}

static void deadline(struct job *j)
{
    double wall = j->server->o.request_seconds, own = j->spec->deadline;
    double least = wall > 0 && own > 0 ? fmin(wall, own) : fmax(wall, own);
    j->params.deadline = least > 0 ? clock_seconds() + least : 0;
}

static int answer(struct job *j, struct err *e)
{
    const struct job_spec *s = j->spec;
    const struct server_opts *o = &j->server->o;
    struct answer_params *a = &j->params.answer;
    a->stop = s->stop;
    a->n_stop = s->n_stop;
    a->stop_shown = s->stop_shown;
    a->ban = s->ban;
    a->n_ban = s->n_ban;
    a->ignore_end = s->ignore_end;
    a->max_tokens = s->max_tokens ? s->max_tokens : o->max_tokens;
    a->min_tokens = s->min_tokens;
    a->raw = s->raw || s->prompt == JOB_FIM;
    a->no_calls = !job_shows_tools(s);
    a->special = s->special;
    a->stream_calls = s->stream_calls && job_shows_tools(s);
    a->think_max = s->think_max == -1 ? o->think_max : s->think_max < 0 ? -1 : s->think_max;
    a->think_loops = o->think_loops && !a->raw;
    if (a->max_tokens && a->min_tokens > a->max_tokens)
        return err_set(e, ERR_USAGE, "min_tokens is %zu: it can't be more than max_tokens, %zu",
                       a->min_tokens, a->max_tokens);
    int rc = stop_tokens(j, e);
    if (!rc)
        rc = job_grammar(j, &j->grammar, e);
    a->grammar = j->grammar;
    /* A model that thinks without being told may do so in front of what a grammar asks for. */
    a->thinking_may = s->prompt == JOB_CHAT && !s->go_on && j->think != JOB_THINK_OFF &&
                      a->think_max != 0 &&
                      chat_thinking(engine_chat(j->use.engine)) != CHAT_THINK_NONE;
    return rc;
}

int job_params(struct job *j, struct err *e)
{
    const struct job_spec *s = j->spec;
    struct request_params *p = &j->params;
    request_params_init(p);
    p->n = s->n ? s->n : 1;
    if (j->server->o.n_max && p->n > j->server->o.n_max)
        return err_set(e, ERR_USAGE, "n is %zu: it must be from 1 to %zu", p->n,
                       j->server->o.n_max);
    p->embed = s->embed;
    p->logprobs = s->logprobs;
    p->prompt_logprobs = s->prompt_logprobs;
    p->priority = s->priority;
    p->owner = http_owner(j->x);
    salt(j);
    deadline(j);
    int rc = sampling(j, e);
    return rc ? rc : answer(j, e);
}
