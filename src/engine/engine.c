/*
 * The engine: opening a model with all that belongs to it, and the plan of its memory.
 *
 * Memory: weights as the kernels read them (the file's pages are given back tensor by tensor), the
 * KV cache (reserved for the whole context, touched as it fills), and the scratch of activations,
 * whose size comes from dry runs of the forward pass at its largest batches. The sum is compared
 * with what the machine can give before anything is loaded.
 */
#include "engine/engine_private.h"
#include "engine/head.h"
#include "engine/parts.h"

#include "base/num.h"
#include "base/quota.h"
#include "text/chat.h"
#include "text/grammar.h"
#include "text/grammar_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENGINE_CTX_MAX = 32768, ENGINE_BATCH = 512, GRAMMARS = 64, GRAMMAR_BYTES = 128 << 20 };

bool engine_kv_parse(enum quant_id *out, const char *name)
{
    static const struct {
        const char *name;
        enum quant_id id;
    } rows[] = {{"auto", ENGINE_KV_AUTO}, {"f16", QUANT_F16},      {"float16", QUANT_F16},
                {"f32", QUANT_F32},       {"float32", QUANT_F32},  {"bf16", QUANT_BF16},
                {"bfloat16", QUANT_BF16}, {"q8_0", QUANT_Q8_0},    {"fp8", QUANT_E4M3},
                {"fp8_e4m3", QUANT_E4M3}, {"fp8_e5m2", QUANT_E5M2}};
    for (size_t i = 0; i < NUM_COUNT(rows); i++)
        if (!strcmp(rows[i].name, name)) {
            *out = rows[i].id;
            return true;
        }
    return false;
}

void engine_opts_init(struct engine_opts *o)
{
    memset(o, 0, sizeof *o);
    o->isa = cpu_best();
    o->kv_type = ENGINE_KV_AUTO;
}

size_t engine_dry(struct engine *g, const struct batch *batch)
{
    struct op_ctx dry = g->ops;
    struct batch b = *batch;
    float state = 0; /* its place is enough: nothing is computed */
    dry.dry = true;
    dry.used = dry.peak = 0;
    b.hidden = g->mtp || batch->hidden ? &state : NULL;
    model_forward(g->model, &dry, &b);
    dry.used = 0;
    if (g->mtp)
        model_forward_mtp(g->model, &dry, &b, &state);
    return dry.peak;
}

/* Scratch of a pass over n tokens that end the context, with `want` rows of logits. */
static size_t engine_dry_run(struct engine *g, size_t n, size_t want)
{
    struct batch_run run = {.n = n, .pos = g->info.ctx - n};
    return engine_dry(g, &(struct batch){.n = n, .n_want = want, .runs = &run, .n_runs = 1});
}

/* The same of a step that decodes as many sessions as there may be, one of which fills the cache.
 */
static size_t engine_dry_step(struct engine *g)
{
    size_t n = num_min(g->want, g->step.rows);
    for (size_t i = 0; i < n; i++)
        g->step.runs[i] = (struct batch_run){.row = i, .n = 1};
    g->step.runs[0].pos = g->info.cache - 1;
    return engine_dry(g, &(struct batch){.n = n, .n_want = n, .runs = g->step.runs, .n_runs = n});
}

static int engine_plan(struct engine *g, struct err *e)
{
    size_t want = num_min(g->want, g->info.ctx), batch = num_min(g->batch, g->info.ctx);
    size_t n = num_max(engine_dry_run(g, batch, 1), engine_dry_run(g, want, want));
    /* A chunk too short for the expanded form may take more than a long one. */
    if (model_config(g->model)->mla_expanded) {
        n = num_max(n, engine_dry_run(g, num_min(batch, MODEL_EXPAND - 1), 1));
        want = num_min(want, MODEL_EXPAND - 1);
        n = num_max(n, engine_dry_run(g, want, want));
    }
    /* Small batches split the context between tasks and keep a part per page. */
    for (size_t i = 1; i <= 4 && i <= g->info.ctx; i++)
        n = num_max(n, engine_dry_run(g, i, i));
    n = num_max(n, engine_dry_step(g));
    g->info.scratch_bytes = n;
    return op_ctx_reserve(&g->ops, n, e);
}

/*
 * Latents in int8 where nearly all products read int8 anyway: what that costs is less than what
 * those round away (docs/performance.md), and their attention takes half of the time. Keys of heads
 * stay in F16: some models (Qwen2.5) have a few values in them that are far larger than the others.
 */
static enum quant_id engine_kv_auto(const struct engine *g, const struct engine_opts *o)
{
    const struct model_counts *count = model_counts(g->model);
    uint64_t floats = count->layer_macs[MODEL_MATH_BF16] + count->layer_macs[MODEL_MATH_F32];
    struct kv_shape shape;
    model_kv_shape(g->model, &shape);
    shape.type = QUANT_Q8_0;
    bool int8 = o->act != ENGINE_ACT_F32 && !g->ops.fine &&
                floats <= count->layer_macs[MODEL_MATH_INT8] / 4;
    return shape.latent && int8 && kv_page_bytes(&shape) ? QUANT_Q8_0 : QUANT_F16;
}

/* The context: what was asked for, else what the model knows, bounded by memory. */
static int engine_ctx(struct engine *g, const struct engine_opts *o, struct err *e)
{
    struct kv_shape shape;
    model_kv_shape(g->model, &shape);
    shape.type = o->kv_type == ENGINE_KV_AUTO ? engine_kv_auto(g, o) : o->kv_type;
    size_t page = kv_page_bytes(&shape), avail = quota_memory("");
    g->info.ctx_train = model_config(g->model)->ctx_train;
    g->info.kv_token_bytes = page / KV_PAGE;
    g->info.kv_type = shape.type;
    size_t ctx = o->ctx;
    if (ctx == 0) {
        ctx = num_min(g->info.ctx_train, o->ctx_max ? o->ctx_max : ENGINE_CTX_MAX);
        while (ctx > 2048 && page && avail != SIZE_MAX && ctx / KV_PAGE * page > avail / 2)
            ctx /= 2;
    }
    size_t cache = num_max(ctx, o->cache);
    size_t pages = cache / KV_PAGE + (cache % KV_PAGE != 0), need;
    if (page && num_mul(&need, pages, page) && avail != SIZE_MAX && need > avail)
        return err_set(e, ERR_NOMEM,
                       "a context of %zu tokens needs %.1f GB of KV cache, %.1f GB are free: give "
                       "%s",
                       cache, (double)need / 1e9, (double)avail / 1e9,
                       o->ctx_less ? o->ctx_less : "a smaller --ctx, or --kv-type q8_0");
    g->info.ctx = ctx;
    g->info.cache = cache;
    return kv_pool_new(&g->kv, &shape, pages, e);
}

static void engine_facts(struct engine *g)
{
    struct engine_info *i = &g->info;
    head_name(g->src, g->name, sizeof g->name);
    i->name = g->name;
    i->arch = model_arch_name(model_config(g->model)->arch);
    i->file_type = head_file_type(g->src);
    i->params = model_params(g->model);
    i->weight_bytes = model_weight_bytes(g->model);
    i->mapped_bytes = model_mapped_bytes(g->model);
    i->token_bytes = model_token_bytes(g->model);
    const struct model_config *cfg = model_config(g->model);
    const struct model_counts *count = model_counts(g->model);
    i->expert_bytes = count->expert_bytes;
    i->experts = cfg->n_expert;
    i->experts_used = cfg->n_expert_used;
    for (int m = 0; m < MODEL_MATH_COUNT; m++) {
        /* Two columns of int8 stand for one of int16; floats then stand for BF16. */
        enum engine_math as = m == MODEL_MATH_BF16 && !g->ops.fine ? ENGINE_MATH_BF16
                              : m != MODEL_MATH_INT8               ? ENGINE_MATH_F32
                              : g->ops.fine                        ? ENGINE_MATH_INT16
                                                                   : ENGINE_MATH_INT8;
        i->token_macs[as] += count->layer_macs[m];
        i->head_macs[as] += count->head_macs[m];
    }
    i->vocab = model_config(g->model)->n_vocab;
    i->layers = model_config(g->model)->n_layer;
    i->r1_family = g->chat && chat_thinking(g->chat) == CHAT_THINK_ALWAYS &&
                   tokenizer_find(g->tok, "<｜User｜>") >= 0;
}

static int engine_load(struct engine *g, const struct model_config *cfg,
                       const struct engine_opts *o, struct err *e)
{
    int rc;
    size_t avail = quota_memory("");
    if (o->place == ENGINE_PACKED && source_bytes(g->src) > avail)
        return err_set(e, ERR_NOMEM,
                       "the weights need %.1f GB, %.1f GB are free: leave --weights at auto, or "
                       "choose a smaller model or quantization",
                       (double)source_bytes(g->src) / 1e9, (double)avail / 1e9);
    static const enum model_place place[] = {
        [ENGINE_AUTO] = MODEL_AUTO, [ENGINE_PACKED] = MODEL_PACKED, [ENGINE_MAPPED] = MODEL_MAPPED};
    struct model_load_opts load = {.place = place[o->place],
                                   .memory = avail / 4 * 3,
                                   .later = o->place == ENGINE_AUTO,
                                   .mtp = o->mtp,
                                   .progress = o->progress,
                                   .arg = o->progress_arg};
    struct adapter *adapter = NULL;
    if (o->adapter && !(g->adapter = strdup(o->adapter)))
        return err_nomem(e, strlen(o->adapter) + 1, "a file name");
    if (o->adapter) {
        g->adapter_stamp = engine_path_identity(o->adapter);
        if ((rc = adapter_open(&adapter, o->adapter, e)))
            return rc;
        if (g->adapter_stamp != engine_path_identity(o->adapter)) {
            adapter_free(adapter);
            return err_set(e, ERR_BUSY, "%s: is being written", o->adapter);
        }
    }
    load.adapter = adapter;
    load.merge = o->adapter_merge;
    load.mla_expanded = o->mla_expanded;
    load.adapt = o->adapt;
    load.base = o->base ? o->base->model : NULL;
    load.train = o->train;
    load.bf16 = o->bf16;
    load.mtp = o->mtp || (o->train && cfg->n_mtp);
    rc = model_load(&g->model, g->src, cfg, &g->ops, &load, e);
    adapter_free(adapter);
    /* Small models are thrown off by what int8 rounds away; what it costs more is little for them.
     */
    g->ops.fine = !rc && (o->act == ENGINE_ACT_INT16 ||
                          (o->act == ENGINE_ACT_AUTO && model_params(g->model) < 300000000));
    if (rc || (rc = engine_ctx(g, o, e)))
        return rc;
    if (o->log && g->info.ctx_train && g->info.ctx > g->info.ctx_train)
        log_line(o->log, LOG_WARN,
                 "the context of %zu tokens is longer than the %zu that the model was trained for: "
                 "expect nonsense beyond them",
                 g->info.ctx, g->info.ctx_train);
    engine_facts(g);
    if (o->mla_expanded && !cfg->kv_lora && o->log)
        log_line(o->log, LOG_WARN, "--mla does nothing here: the model has no latent attention");
    if (g->info.mapped_bytes && o->place == ENGINE_AUTO && o->log)
        log_line(o->log, LOG_WARN,
                 "%.1f GB of weights do not fit into memory (%.1f GB are free) and are read from "
                 "the file when they are used",
                 (double)g->info.mapped_bytes / 1e9, (double)avail / 1e9);
    if ((rc = sampling_read(&g->sampling, g->src, g->info.r1_family, o->log, e)))
        return rc;
    if (g->tok && tokenizer_count(g->tok) > g->info.vocab && o->log)
        log_line(o->log, LOG_WARN,
                 "the tokenizer has %zu tokens, the model %zu: the others can't be used",
                 tokenizer_count(g->tok), g->info.vocab);
    rc = engine_step_init(g, e);
    return rc ? rc : engine_plan(g, e);
}

static int engine_team(struct engine *g, const struct engine_opts *o, struct err *e)
{
    int rc = topology_new(&g->topology, e);
    if (rc)
        return rc;
    g->info.pin = o->pin != ENGINE_PIN_AUTO ? (enum team_pin)o->pin
                  : g->topology->nodes > 1  ? TEAM_PIN_NODE
                                            : TEAM_PIN_NONE;
    if ((rc = team_new_on(&g->team, o->threads, g->topology, g->info.pin, e)))
        return rc;
    g->info.threads = team_threads(g->team);
    g->info.topology = g->topology;
    if (o->log) {
        char where[160];
        topology_describe(g->topology, where, sizeof where);
        log_line(o->log, LOG_INFO, "%d thread%s on %s, %s", g->info.threads,
                 g->info.threads == 1 ? "" : "s", where, team_pin_name(g->info.pin));
    }
    return 0;
}

int engine_open(struct engine **out, const char *path, const struct engine_opts *o, struct err *e)
{
    *out = NULL;
    struct engine *g = calloc(1, sizeof *g);
    if (!g)
        return err_nomem(e, sizeof *g, "the engine");
    atomic_init(&g->holders, 1);
    if (o->base) {
        g->base = o->base;
        atomic_fetch_add(&g->base->holders, 1);
    }
    g->batch = o->batch ? o->batch : ENGINE_BATCH;
    g->want = o->want ? o->want : ENGINE_WANT;
    g->mtp = o->mtp;
    g->act = o->act;
    g->adapter_merge = o->adapter_merge;
    sampling_default(&g->sampling);
    kern_init(&g->kern, o->isa);
    if (o->act == ENGINE_ACT_F32)
        kern_float(&g->kern);
    g->info.isa = o->isa;
    int rc = engine_team(g, o, e);
    if (rc)
        goto out;
    op_ctx_init(&g->ops, &g->kern, g->team);
    if (o->base)
        g->src = o->base->src; /* the path may name other files by now */
    else if ((rc = source_open(&g->src, path, e)))
        goto out;
    struct model_config cfg;
    const char *arch = NULL;
    if (!o->tokenizer_only) {
        if ((rc = model_check(g->src, &cfg, e)))
            goto named;
        arch = model_arch_name(cfg.arch);
    }
    /* A model without a tokenizer still computes logits; it cannot chat. */
    const char *text = "";
    size_t n = 0;
    if (!o->tokenizer_only && source_kind(g->src) == SOURCE_GGUF)
        text = source_value(g->src, "tokenizer.ggml.model") ? text : NULL;
    else if (!o->tokenizer_only && (rc = source_text(g->src, "tokenizer.json", &text, &n, e)))
        goto named;
    if (text) {
        if ((rc = tokenizer_new(&g->tok, g->src, e)))
            goto named;
        rc = o->template_text
                 ? chat_new_text(&g->chat, g->tok, o->template_text, strlen(o->template_text), e)
                 : chat_new(&g->chat, g->src, g->tok, arch, e);
        rc = rc ? rc : grammar_cache_new(&g->grammars, GRAMMARS, GRAMMAR_BYTES, e);
        if (rc)
            goto named;
    }
    if (!o->tokenizer_only)
        rc = engine_load(g, &cfg, o, e);
named:
    if (rc)
        err_ctx(e, "%s", path);
out:
    if (rc)
        engine_free(g);
    else
        *out = g;
    return rc;
}

int engine_settle(struct engine *g, struct err *e)
{
    int rc = model_settle(g->model, &g->ops, e);
    return rc ? err_ctx(e, "%s", source_path(g->src)) : 0;
}

void engine_free(struct engine *g)
{
    if (!g || atomic_fetch_sub(&g->holders, 1) > 1)
        return;
    op_ctx_release(&g->ops);
    engine_step_release(g);
    kv_pool_free(g->kv);
    model_free(g->model);
    chat_free(g->chat);
    grammar_cache_free(g->grammars);
    grammar_vocab_unref(g->grammar_vocab);
    tokenizer_free(g->tok);
    if (!g->base)
        source_free(g->src);
    team_free(g->team);
    topology_free(g->topology);
    free(g->adapter);
    engine_free(g->base);
    free(g);
}

void engine_parts(struct engine *g, struct engine_parts *out)
{
    *out = (struct engine_parts){&g->kern, g->team, g->model};
}

const struct engine_info *engine_info(const struct engine *g)
{
    return &g->info;
}

uint64_t engine_regions(const struct engine *g)
{
    return team_regions(g->team);
}

struct source *engine_source(struct engine *g)
{
    return g->src;
}

const struct tokenizer *engine_tokenizer(const struct engine *g)
{
    return g->tok;
}

const struct chat *engine_chat(const struct engine *g)
{
    return g->chat;
}

struct grammar_cache *engine_grammars(struct engine *g)
{
    return g->grammars;
}

int engine_grammar_vocab(struct engine *g, struct grammar_vocab **out, struct err *e)
{
    struct grammar_vocab *v = atomic_load(&g->grammar_vocab), *none = NULL;
    int rc = 0;
    if (!v && !g->tok)
        return err_set(e, ERR_UNSUPPORTED, "a model without a tokenizer has no grammars");
    if (!v && !(rc = grammar_vocab_new(&v, g->tok, e)) &&
        !atomic_compare_exchange_strong(&g->grammar_vocab, &none, v)) {
        grammar_vocab_unref(v); /* another thread was first */
        v = none;
    }
    *out = v;
    return rc;
}

/* ---- looking inside
 * -------------------------------------------------------------------------------- */

/* One matrix of a record, number in.mat of its stack. The halves of an adapter, which no table
   names, are not the model's. */
static void engine_tell(const struct engine *g, const struct weight *w, struct engine_input in)
{
    char name[160];
    in.name = name;
    in.cols = w->cols;
    if (in.rows && model_gguf_name(g->model, w, name, sizeof name, &(size_t){0}))
        g->observer(g->observer_arg, &in);
}

static void engine_watch(void *arg, const struct op_record *r)
{
    const struct engine *g = arg;
    struct engine_input x = {
        .rows = r->in[0].rows, .mats = 1, .x = r->in[0].data, .ld = r->in[0].cols};
    switch (r->kind) {
    case OP_LINEAR: /* w[1] is the bias, which multiplies nothing */
        engine_tell(g, r->w[0], x);
        break;
    case OP_SWIGLU:
        engine_tell(g, r->w[0], x);
        engine_tell(g, r->w[1], x);
        break;
    case OP_LINEAR_HEADS: /* a matrix for each head's part of a row */
        x.mats = r->heads;
        for (; x.mat < x.mats; x.mat++, x.x += r->in[0].cols / x.mats)
            engine_tell(g, &r->w[0][x.mat], x);
        break;
    case OP_EXPERT: {
        struct engine_input h = {
            .rows = r->in[1].rows, .mats = 1, .x = r->in[1].data, .ld = r->in[1].cols};
        x.rows = h.rows;
        x.index = r->rows;
        x.mat = h.mat = r->expert;
        x.mats = h.mats = r->n_expert;
        engine_tell(g, r->w[0], x);
        engine_tell(g, r->w[1], x);
        engine_tell(g, r->w[2], h);
        break;
    }
    default:
        break;
    }
}

void engine_observe(struct engine *g, void (*fn)(void *arg, const struct engine_input *in),
                    void *arg)
{
    g->observer = fn;
    g->observer_arg = arg;
    g->watch = (struct op_tape){.record = engine_watch, .arg = g};
    g->ops.tape = fn ? &g->watch : NULL;
}

uint64_t engine_fingerprint(const struct engine *g)
{
    return head_identity(g->src);
}

void engine_exp(const struct engine *g, float *y, const float *x, size_t n)
{
    g->kern.exp(y, x, n);
}

/* ---- sampling
 * -------------------------------------------------------------------------------- */

void engine_sampling(const struct engine *g, struct sampler_params *out)
{
    *out = g->sampling;
}
