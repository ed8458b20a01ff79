/* See options.h. */
#include "cli/options.h"

#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_TEMPLATE_MAX = 16 << 20 };

#define AT(field) offsetof(struct engine_options, field)
// clang-format off
const struct opt options_engine[OPTIONS_ENGINE_N] = {
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = TEAM_MAX,
     .shown = "one for each core that this process may use", .env = "PONDER_THREADS", .offset = AT(threads),
     .help = "compute threads; the result is the same for any number"},
    {.name = "ctx", .brief = 'c', .alias = "ctx-size num-ctx max-model-len context-length", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 30,
     .shown = "what the model was trained for, within limits", .env = "PONDER_CTX", .offset = AT(ctx),
     .help = "tokens of context: what was said and the answer together; 16k works too"},
    {.name = "batch", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 65536, .shown = "512",
     .env = "PONDER_BATCH", .offset = AT(batch),
     .help = "tokens of a prompt that are computed together"},
    {.name = "kv-type", .alias = "cache-type", .kind = OPT_ENUM, .arg = "TYPE", .choices = "auto|f16|f32|bf16|q8_0|fp8|fp8_e4m3|fp8_e5m2", .shown = "auto",
     .env = "PONDER_KV_TYPE", .offset = AT(kv_type),
     .help = "how keys and values of the context are stored; auto is f16, and q8_0 for latents (V2, V3, R1) where products read int8"},
    {.name = "weights", .kind = OPT_ENUM, .arg = "WHERE", .choices = "auto|packed|mapped", .value = "auto",
     .env = "PONDER_WEIGHTS", .offset = AT(weights),
     .help = "packed into memory for speed, or mapped: read from the file when used; auto maps what does not fit"},
    {.name = "activations", .kind = OPT_ENUM, .arg = "TYPE", .choices = "int8|int16|f32", .shown = "int16 below 300 million weights, else int8",
     .env = "PONDER_ACTIVATIONS", .offset = AT(activations),
     .help = "what products with quantized weights read: int8 (BF16 where weights are BF16 or FP8) is fast, int16 nearly exact, f32 exact and very slow"},
    {.name = "draft", .kind = OPT_ENUM, .arg = "HOW", .choices = "off|mtp", .value = "off",
     .env = "PONDER_DRAFT", .offset = AT(draft),
     .help = "guess tokens ahead with the model's prediction layer (V3, R1); the answer is the same"},
    {.name = "mla", .kind = OPT_ENUM, .arg = "FORM", .choices = "absorbed|mixed", .value = "absorbed",
     .env = "PONDER_MLA", .offset = AT(mla),
     .help = "latent attention (V2, V3, R1): absorbed is exact however a prompt is cut; mixed expands long prompts, faster, other last bits"},
    {.name = "lora", .alias = "adapter", .kind = OPT_LIST, .arg = "PATH", .env = "PONDER_LORA", .offset = AT(lora),
     .help = "LoRA adapter: a PEFT folder or a GGUF file"},
    {.name = "lora-merge", .kind = OPT_FLAG, .offset = AT(lora_merge),
     .help = "add the adapter to the weights at load, as F32, instead of to every product"},
    {.name = "pin", .kind = OPT_ENUM, .arg = "HOW", .choices = "auto|none|node|cpu", .value = "auto",
     .env = "PONDER_PIN", .offset = AT(pin),
     .help = "bind threads to memory nodes or to a processor each, which is for a machine (or taskset mask) of our own; auto binds to nodes where there are several"},
    {.name = "isa", .kind = OPT_ENUM, .arg = "NAME", .choices = "auto|scalar|avx2|avx512|avx512vnni", .value = "auto",
     .env = "PONDER_ISA", .offset = AT(isa),
     .help = "use only these instructions; the result is the same for any"},
    {.name = "template", .alias = "chat-template", .kind = OPT_STRING, .arg = "FILE", .shown = "the model's own", .offset = AT(template_file),
     .help = "chat template (Jinja) to use"},
    {.name = "log", .kind = OPT_ENUM, .arg = "LEVEL", .choices = "error|warn|info|debug", .value = "warn",
     .env = "PONDER_LOG", .offset = AT(log),
     .help = "what is told on standard error"},
};
#undef AT

#define AT(field) offsetof(struct sampling_options, field)
const struct opt options_sampling[OPTIONS_SAMPLING_N] = {
    {.name = "temperature", .alias = "temp", .kind = OPT_FLOAT, .arg = "T", .min = 0, .max = 2,
     .offset = AT(temperature),
     .help = "0 always takes the likeliest token; higher is more varied"},
    {.name = "top-k", .kind = OPT_INT, .arg = "K", .min = 0, .max = INT32_MAX, .offset = AT(top_k),
     .help = "only the K likeliest tokens; 0 = all"},
    {.name = "top-p", .kind = OPT_FLOAT, .arg = "P", .min = 0, .max = 1, .offset = AT(top_p),
     .help = "only the likeliest tokens that make up this probability; 1 = all"},
    {.name = "min-p", .kind = OPT_FLOAT, .arg = "P", .min = 0, .max = 1, .offset = AT(min_p),
     .help = "only tokens with this share of the likeliest one's probability; 0 = all"},
    {.name = "typical-p", .alias = "typical", .kind = OPT_FLOAT, .arg = "P", .min = 0, .max = 1, .offset = AT(typical_p),
     .help = "locally typical sampling; 1 = off"},
    {.name = "repeat-penalty", .alias = "repetition-penalty", .kind = OPT_FLOAT, .arg = "X", .min = 0.01, .max = 10,
     .offset = AT(repeat_penalty),
     .help = "above 1: tokens that were there already become less likely"},
    {.name = "frequency-penalty", .kind = OPT_FLOAT, .arg = "X", .min = -2, .max = 2, .offset = AT(frequency_penalty),
     .help = "taken from a token's logit for each time it was there"},
    {.name = "presence-penalty", .kind = OPT_FLOAT, .arg = "X", .min = -2, .max = 2, .offset = AT(presence_penalty),
     .help = "taken from a token's logit when it was there"},
    {.name = "repeat-last-n", .kind = OPT_INT, .arg = "N", .min = -1, .max = INT32_MAX, .offset = AT(repeat_last_n),
     .help = "how many last tokens the penalties look at; -1 = all, 0 = none"},
    {.name = "logit-bias", .kind = OPT_LIST, .arg = "ID=B", .offset = AT(logit_bias),
     .help = "adds B to the logit of token ID (-inf forbids it); may be repeated"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .shown = "random", .offset = AT(seed),
     .help = "the same seed gives the same answer"},
    {.name = "max-tokens", .brief = 'n', .alias = "num-predict", .kind = OPT_INT, .arg = "N", .min = -1, .max = INT32_MAX,
     .shown = "-1", .offset = AT(max_tokens),
     .help = "longest answer in tokens; -1 = as long as the context has room"},
    {.name = "stop", .kind = OPT_LIST, .arg = "TEXT", .offset = AT(stop),
     .help = "the answer ends before this text; may be repeated"},
};
// clang-format on
#undef AT

static void options_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    p->total = total;
    progress_update(p, done);
}

int options_engine_opts(struct engine_opts *out, struct engine_request *r, struct err *e)
{
    struct engine_opts o;
    const struct engine_options *u = r->o;
    buf_init(&r->template_text, OPTIONS_TEMPLATE_MAX);
    engine_opts_init(&o);
    if (u->log)
        log_level_parse(&r->log->level, u->log);
    o.log = r->log;
    o.threads = u->threads == OPT_UNSET ? 0 : (int)u->threads;
    o.ctx = u->ctx == OPT_UNSET ? r->ctx : (size_t)u->ctx;
    o.ctx_max = r->ctx_max;
    o.want = r->want;
    o.cache = r->cache;
    o.batch = u->batch == OPT_UNSET ? 0 : (size_t)u->batch;
    o.kv_type = r->kv_type;
    if (u->kv_type)
        engine_kv_parse(&o.kv_type, u->kv_type); /* one of the choices */
    if (u->lora.n > 1)
        return err_set(e, ERR_USAGE, "--lora %.200s: one adapter at a time", u->lora.v[1]);
    if (u->lora_merge > 0 && !u->lora.n)
        return err_set(e, ERR_USAGE, "--lora-merge needs --lora PATH");
    o.act = r->act;
    if (u->activations)
        o.act = !strcmp(u->activations, "int8")    ? ENGINE_ACT_INT8
                : !strcmp(u->activations, "int16") ? ENGINE_ACT_INT16
                                                   : ENGINE_ACT_F32;
    o.mtp = r->mtp || (u->draft && !strcmp(u->draft, "mtp"));
    o.mla_expanded = u->mla && !strcmp(u->mla, "mixed");
    o.adapter = u->lora.n ? u->lora.v[0] : NULL;
    o.adapter_merge = u->lora_merge > 0;
    if (u->weights && strcmp(u->weights, "auto") != 0)
        o.place = !strcmp(u->weights, "packed") ? ENGINE_PACKED : ENGINE_MAPPED;
    o.pin = !strcmp(u->pin, "none")   ? TEAM_PIN_NONE
            : !strcmp(u->pin, "node") ? TEAM_PIN_NODE
            : !strcmp(u->pin, "cpu")  ? TEAM_PIN_CPU
                                      : ENGINE_PIN_AUTO;
    if (cpu_isa_parse(&o.isa, u->isa, e))
        return err_ctx(e, "--isa");
    if (u->template_file) {
        if (file_read(&r->template_text, u->template_file, e))
            return err_ctx(e, "--template");
        o.template_text = r->template_text.data;
    }
    *out = o;
    return 0;
}

int options_open(struct engine **out, struct engine_request *r, struct err *e)
{
    struct engine_opts o;
    struct progress bar;
    *out = NULL;
    int rc = options_engine_opts(&o, r, e);
    if (rc)
        return rc;
    progress_init(&bar, stderr, "loading", PROGRESS_BYTES, 0);
    o.progress = options_progress;
    o.progress_arg = &bar;
    rc = engine_open(out, r->path, &o, e);
    progress_finish(&bar);
    return rc;
}

static int options_bias(const char *text, size_t vocab, struct sampler_bias *out, struct err *e)
{
    char *end;
    long long id = strtoll(text, &end, 10);
    if (end == text || *end != '=')
        return err_set(e, ERR_USAGE, "--logit-bias %.60s: must be ID=VALUE, like 13=-5", text);
    if (id < 0 || (size_t)id >= vocab)
        return err_set(e, ERR_USAGE, "--logit-bias %.60s: token ids go from 0 to %zu", text,
                       vocab - 1);
    const char *value = end + 1;
    double b = strtod(value, &end);
    if (end == value || *end || isnan(b))
        return err_set(e, ERR_USAGE, "--logit-bias %.60s: the value must be a number", text);
    *out = (struct sampler_bias){(int32_t)id, (float)b};
    return 0;
}

static void options_float(float *to, double v)
{
    if (!isnan(v))
        *to = (float)v;
}

int options_sampling_params(const struct sampling_options *o, const struct engine *g,
                            struct sampler_params *out, struct sampler_bias *bias, struct err *e)
{
    engine_sampling(g, out);
    options_float(&out->temperature, o->temperature);
    options_float(&out->top_p, o->top_p);
    options_float(&out->min_p, o->min_p);
    options_float(&out->typical_p, o->typical_p);
    options_float(&out->repetition_penalty, o->repeat_penalty);
    options_float(&out->frequency_penalty, o->frequency_penalty);
    options_float(&out->presence_penalty, o->presence_penalty);
    if (o->top_k != OPT_UNSET)
        out->top_k = (int)o->top_k;
    if (o->repeat_last_n != OPT_UNSET)
        out->penalty_last = (int)o->repeat_last_n;
    out->seed = o->seed == OPT_UNSET ? rng_os_seed() >> 1 : (uint64_t)o->seed;
    for (size_t i = 0; i < o->logit_bias.n; i++) {
        int rc = options_bias(o->logit_bias.v[i], engine_info(g)->vocab, &bias[i], e);
        if (rc)
            return rc;
    }
    out->bias = bias;
    out->n_bias = o->logit_bias.n;
    return sampler_params_check(out, e);
}
