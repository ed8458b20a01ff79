/* OpenAI's API: from the JSON of chat and completion requests to a job: see openai.h. */
#include "server/openai.h"

#include "base/num.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 512, STOP_BYTES = 1024, TEXT_MAX = 64 << 20, BIAS_MAX = 4096 };

/* ---- sampling ------------------------------------------------------------------------------- */

static void read_bias(struct fields *f, struct openai_request *r)
{
    json_t *o = NULL, *v;
    const char *key;
    field_object(f, "logit_bias", &o);
    size_t n = json_object_size(o);
    if (f->code || !n)
        return;
    if (n > BIAS_MAX || !(r->bias = calloc(n, sizeof *r->bias))) {
        field_fail(f, "logit_bias", "has too many members");
        return;
    }
    n = 0;
    json_object_foreach(o, key, v)
    {
        char *end;
        long long id = strtoll(key, &end, 10);
        double b = json_is_number(v) ? json_number_value(v) : NAN;
        if (end == key || *end || id < 0 || id > INT32_MAX) {
            field_fail(f, "logit_bias", "must have token ids as keys");
            return;
        }
        if (!(b >= -100 && b <= 100)) {
            field_fail(f, "logit_bias", "must have numbers from -100 to 100 as values");
            return;
        }
        /* OpenAI's ends of the scale forbid and demand. */
        r->bias[n++] = (struct sampler_bias){(int32_t)id, b <= -100 ? -INFINITY : (float)b};
    }
    r->spec.sampling.bias = r->bias;
    r->spec.sampling.n_bias = n;
}

static void read_sampling(struct fields *f, struct openai_request *r)
{
    struct sampler_params *p = &r->spec.sampling;
    int64_t top_k = INT64_MIN, seed = 0;
    field_float(f, "temperature", &p->temperature, 0, 2);
    field_float(f, "top_p", &p->top_p, 0, 1);
    field_float(f, "min_p", &p->min_p, 0, 1);
    field_float(f, "typical_p", &p->typical_p, 0, 1);
    field_float(f, "repetition_penalty", &p->repetition_penalty, 0.01, 10);
    field_float(f, "frequency_penalty", &p->frequency_penalty, -2, 2);
    field_float(f, "presence_penalty", &p->presence_penalty, -2, 2);
    field_int(f, "top_k", &top_k, -1, INT32_MAX);
    if (top_k != INT64_MIN)
        p->top_k = top_k < 0 ? 0 : (int)top_k;
    if (field(f, "seed")) {
        field_int(f, "seed", &seed, INT64_MIN, INT64_MAX);
        p->seed = (uint64_t)seed;
        r->spec.seed_given = true;
    }
    read_bias(f, r);
}

/* ---- lengths, stops ------------------------------------------------------------------------- */

static void read_lengths(struct fields *f, struct openai_request *r)
{
    struct job_spec *s = &r->spec;
    bool zero = !r->chat && s->echo && json_is_integer(field(f, "max_tokens")) &&
                !json_integer_value(field(f, "max_tokens"));
    if (zero) { /* only the prompt's own log-probabilities are wanted */
        s->max_tokens = 1;
        r->echo_only = true;
    } else {
        field_size(f, "max_tokens", &s->max_tokens, 1, INT64_MAX);
        field_size(f, "max_completion_tokens", &s->max_tokens, 1, INT64_MAX);
    }
    if (!r->chat && !s->max_tokens && s->prompt != JOB_FIM)
        s->max_tokens = 16; /* OpenAI's default, on which clients of completions count */
    field_size(f, "min_tokens", &s->min_tokens, 0, INT32_MAX);
    field_size(f, "n", &s->n, 1, OPENAI_SAMPLES);
    size_t best = s->n;
    field_size(f, "best_of", &best, 1, OPENAI_SAMPLES);
    if (best != s->n)
        field_fail(f, "best_of", "must equal n: samples are not ranked here");
    int64_t cut = 0;
    field_int(f, "truncate_prompt_tokens", &cut, -1, INT32_MAX);
    s->truncate = cut != 0;
    s->prompt_max = cut > 0 ? (size_t)cut : 0;
    field_strings(f, "stop", r->stops, &s->n_stop, OPENAI_STOPS, STOP_BYTES);
    s->stop = r->stops;
    size_t n = 0;
    field_ids(f, "stop_token_ids", &r->stop_ids, &n, 256, INT32_MAX);
    s->stop_id = r->stop_ids;
    s->n_stop_id = n;
    field_bool(f, "ignore_eos", &s->ignore_end);
    field_bool(f, "include_stop_str_in_output", &s->stop_shown);
    bool skip = true;
    field_bool(f, "skip_special_tokens", &skip);
    s->special = !skip;
    field_strings(f, "bad_words", r->bans, &s->n_ban, BAN_WORDS_MAX, BAN_BYTES_MAX);
    s->ban = r->bans;
}

static void read_logprobs(struct fields *f, struct openai_request *r)
{
    int64_t top = -1, prompt = -1;
    if (r->chat) {
        bool on = false;
        field_bool(f, "logprobs", &on);
        field_int(f, "top_logprobs", &top, 0, 20);
        if (top >= 0 && !on)
            field_fail(f, "top_logprobs", "needs \"logprobs\": true");
        r->spec.logprobs = on ? (int)(top < 0 ? 0 : top) : -1;
    } else {
        field_int(f, "logprobs", &top, 0, 20);
        r->spec.logprobs = (int)top;
    }
    field_int(f, "prompt_logprobs", &prompt, 0, 20);
    if (prompt >= 0 && r->stream)
        field_fail(f, "prompt_logprobs", "can't be streamed");
    if (r->spec.echo && r->spec.logprobs > prompt)
        prompt = r->spec.logprobs;
    r->spec.prompt_logprobs = (int)prompt;
}

/* ---- thinking ------------------------------------------------------------------------------- */

static void set_think(struct openai_request *r, bool on)
{
    r->spec.think = on ? JOB_THINK_ON : JOB_THINK_OFF;
}

static void read_effort(struct fields *f, struct openai_request *r)
{
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    int effort = -1;
    field_word(f, "reasoning_effort", &effort, words, NUM_COUNT(words));
    if (effort >= 0)
        set_think(r, effort > 0);
}

static void read_budget(struct fields *f, struct openai_request *r, const char *key)
{
    int64_t n = INT64_MIN;
    field_int(f, key, &n, -1, INT64_MAX);
    if (n != INT64_MIN)
        r->spec.think_max = n < 0 ? -2 : n;
}

/* {"thinking": {"type": "disabled", "budget_tokens": n}}, or true or false. */
static void read_thinking(struct fields *f, struct openai_request *r)
{
    static const char *const types[] = {"disabled", "enabled", "auto", "adaptive"};
    json_t *v = field(f, "thinking");
    int type = -1;
    if (json_is_boolean(v)) {
        set_think(r, json_is_true(v));
        return;
    }
    json_t *o = NULL;
    field_object(f, "thinking", &o);
    if (!o)
        return;
    struct fields g = fields_of(o, "thinking.", f->e);
    field_word(&g, "type", &type, types, NUM_COUNT(types));
    read_budget(&g, r, "budget_tokens");
    if (type == 0 || type == 1)
        set_think(r, type == 1);
    if (g.code) {
        f->code = g.code;
        f->param = "thinking";
    }
}

/* OpenRouter's {"reasoning": {"effort", "max_tokens", "enabled", "exclude"}}. */
static void read_reasoning(struct fields *f, struct openai_request *r)
{
    json_t *o = field(f, "reasoning");
    if (!json_is_object(o))
        return;
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    struct fields g = fields_of(o, "reasoning.", f->e);
    bool on = true;
    int effort = -1;
    field_word(&g, "effort", &effort, words, NUM_COUNT(words));
    if (effort >= 0)
        set_think(r, effort > 0);
    field_bool(&g, "enabled", &on);
    if (field(&g, "enabled"))
        set_think(r, on);
    field_bool(&g, "exclude", &r->hide_thoughts);
    read_budget(&g, r, "max_tokens");
    if (g.code) {
        f->code = g.code;
        f->param = "reasoning";
    }
}

static void read_think(struct fields *f, struct openai_request *r)
{
    static const char *const switches[] = {"enable_thinking", "thinking"};
    static const char *const formats[] = {"parsed", "hidden", "auto", "deepseek"};
    json_t *vars = NULL;
    read_effort(f, r);
    read_reasoning(f, r);
    read_thinking(f, r);
    if (field(f, "enable_thinking")) {
        bool on = true;
        field_bool(f, "enable_thinking", &on);
        set_think(r, on);
    }
    read_budget(f, r, "thinking_budget");
    read_budget(f, r, "thinking_token_budget");
    bool include = true;
    field_bool(f, "include_reasoning", &include);
    int format = -1;
    field_word(f, "reasoning_format", &format, formats, NUM_COUNT(formats));
    r->hide_thoughts |= !include || format == 1;
    field_object(f, "chat_template_kwargs", &vars);
    if (f->code || !vars)
        return;
    r->vars = json_copy(vars);
    r->spec.template_vars = r->vars;
    for (size_t i = 0; i < NUM_COUNT(switches); i++) {
        json_t *v = json_object_get(vars, switches[i]);
        if (json_is_boolean(v))
            set_think(r, json_is_true(v));
        json_object_del(r->vars, switches[i]); /* set by the name that the template knows */
    }
}

/* ---- messages ------------------------------------------------------------------------------- */

/* "prefix": true of DeepSeek, or vLLM's continue_final_message. */
static void read_continuation(struct fields *f, struct openai_request *r)
{
    bool more = false, opening = true;
    size_t n = json_array_size(r->messages), i;
    json_t *m;
    field_bool(f, "continue_final_message", &more);
    field_bool(f, "add_generation_prompt", &opening);
    if (more && opening && field(f, "add_generation_prompt"))
        field_fail(f, "continue_final_message", "and add_generation_prompt exclude each other");
    if (!more && !opening)
        field_fail(f, "add_generation_prompt",
                   "can be false only with \"continue_final_message\": true");
    json_array_foreach(r->messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        if (!json_object_get(m, "prefix"))
            continue;
        if (i + 1 != n || strcmp(role, "assistant") != 0)
            field_fail(f, "messages",
                       "may have \"prefix\" only in the last one, of role assistant");
        more = true;
        json_object_del(m, "prefix");
    }
    const char *last =
        json_string_value(json_object_get(json_array_get(r->messages, n - 1), "role"));
    if (more && last && strcmp(last, "assistant") != 0)
        field_fail(f, "continue_final_message", "needs a last message of role assistant");
    r->spec.go_on = more;
}

static void read_messages(struct fields *f, struct openai_request *r)
{
    if (f->code)
        return;
    if (!field(f, "messages")) {
        field_fail(f, "messages", "is missing");
        return;
    }
    f->code = job_messages(field(f, "messages"), &r->messages, f->e);
    if (f->code) {
        f->param = "messages";
        return;
    }
    r->spec.prompt = JOB_CHAT;
    r->spec.messages = r->messages;
    field_bool(f, "echo", &r->spec.echo);
    if (field(f, "chat_template"))
        field_fail(f, "chat_template", "can't be given by a request");
    read_continuation(f, r);
}

/* ---- prompts -------------------------------------------------------------------------------- */

static bool is_ids(const json_t *a)
{
    int64_t first;
    return json_array_size(a) && fields_whole(json_array_get(a, 0), &first);
}

/* One input; ids go to the end of r->input_ids, which has room. */
static void read_input(struct fields *f, struct openai_request *r, const char *key, json_t *v,
                       struct job_input *in, size_t *n_ids)
{
    if (json_is_string(v)) {
        in->text = json_string_value(v);
        in->n = json_string_length(v);
        return;
    }
    if (!is_ids(v)) {
        field_fail(f, key, "must be a string, an array of strings, of token ids or of such arrays");
        return;
    }
    in->ids = r->input_ids + *n_ids;
    in->n_ids = json_array_size(v);
    for (size_t i = 0; i < in->n_ids && !f->code; i++) {
        int64_t id;
        if (!fields_whole(json_array_get(v, i), &id) || id < 0 || id > INT32_MAX) {
            field_fail(f, key, "holds a token id that is out of vocabulary");
            return;
        }
        r->input_ids[(*n_ids)++] = (int32_t)id;
    }
}

void openai_read_inputs(struct fields *f, struct openai_request *r, const char *key)
{
    json_t *v = field(f, key);
    if (!v && !f->code)
        field_fail(f, key, "is missing");
    if (f->code)
        return;
    bool many = json_is_array(v) && !is_ids(v);
    size_t n = many ? json_array_size(v) : 1, total = many ? 0 : json_array_size(v), n_ids = 0;
    if (!n || n > OPENAI_INPUTS) {
        field_fail(f, key, n ? "has too many elements" : "is empty");
        return;
    }
    for (size_t i = 0; many && i < n; i++)
        total += json_array_size(json_array_get(v, i));
    r->input = calloc(n, sizeof *r->input);
    r->input_ids = calloc(total + 1, sizeof *r->input_ids);
    if (!r->input || !r->input_ids) {
        f->code = err_nomem(f->e, total * sizeof *r->input_ids, "a prompt");
        return;
    }
    for (size_t i = 0; i < n && !f->code; i++)
        read_input(f, r, key, many ? json_array_get(v, i) : v, &r->input[i], &n_ids);
    r->spec.prompt = JOB_TEXT;
    r->spec.input = r->input;
    r->spec.n_input = n;
}

static void read_prompt(struct fields *f, struct openai_request *r)
{
    struct job_spec *s = &r->spec;
    size_t n = 0;
    openai_read_inputs(f, r, "prompt");
    field_bool(f, "echo", &s->echo);
    field_string(f, "suffix", &s->suffix, &n, TEXT_MAX);
    if (field(f, "prompt_embeds"))
        field_fail(f, "prompt_embeds", "is not supported");
    s->raw = true;
    if (!s->suffix || !n || f->code)
        return;
    for (size_t i = 0; i < s->n_input; i++)
        if (s->input[i].ids)
            field_fail(f, "suffix", "needs a prompt of text");
    if (s->echo)
        field_fail(f, "suffix", "and echo exclude each other");
    s->prompt = JOB_FIM;
    s->n_suffix = n;
}

/* ---- all ------------------------------------------------------------------------------------ */

static void read_stream(struct fields *f, struct openai_request *r)
{
    json_t *o = NULL;
    field_bool(f, "stream", &r->stream);
    field_object(f, "stream_options", &o);
    if (!o)
        return;
    struct fields g = fields_of(o, "stream_options.", f->e);
    field_bool(&g, "include_usage", &r->usage);
    field_bool(&g, "continuous_usage_stats", &r->continuous);
    if (g.code) {
        f->code = g.code;
        f->param = "stream_options";
    }
}

int openai_read(struct openai_request *r, const char **param, struct err *e)
{
    struct fields f = fields_of(r->body, "", e);
    int64_t priority = 0;
    size_t salt = 0;
    job_spec_init(&r->spec);
    field_string(&f, "model", &r->spec.model, NULL, NAME_MAX_BYTES);
    if (!r->spec.model && !f.code)
        field_fail(&f, "model", "is missing");
    read_stream(&f, r);
    if (r->chat)
        read_messages(&f, r);
    else
        read_prompt(&f, r);
    read_sampling(&f, r);
    read_lengths(&f, r);
    read_logprobs(&f, r);
    if (r->chat) {
        read_think(&f, r);
        openai_read_tools(&f, r);
        r->spec.stream_calls = true; /* one that is cut off is told as far as it came */
    }
    openai_read_format(&f, r);
    field_int(&f, "priority", &priority, INT32_MIN, INT32_MAX);
    r->spec.priority = (int)priority;
    field_string(&f, "cache_salt", &r->spec.salt, &salt, NAME_MAX_BYTES);
    if (r->spec.salt && !salt)
        field_fail(&f, "cache_salt", "is empty");
    field_bool(&f, "return_token_ids", &r->token_ids);
    size_t inputs = r->spec.n_input ? r->spec.n_input : 1;
    if (!f.code && inputs * r->spec.n > OPENAI_SAMPLES)
        field_fail(&f, "n", "asks for too many answers");
    if (f.code) {
        *param = f.param;
        return f.code;
    }
    r->n_choice = inputs * r->spec.n;
    r->choice = calloc(r->n_choice, sizeof *r->choice);
    return r->choice ? 0 : err_nomem(e, r->n_choice * sizeof *r->choice, "answers");
}
