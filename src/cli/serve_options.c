/*
 * See serve_options.h. Names that Ollama's environment and vLLM's command line have are understood,
 * so that what people have in their unit files and deployment guides carries over. Those without
 * meaning on a CPU are named once and passed over.
 */
#include "cli/serve_options.h"

#include "base/file.h"
#include "base/num.h"
#include "server/fields.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* No step is larger. */
enum { SERVE_BUDGET_MAX = 65536 };

#define AT(field) offsetof(struct serve_options, field)
// clang-format off
static const struct opt serve_rows[] = {
    {.name = "host", .alias = "uds", .kind = OPT_STRING, .arg = "ADDRESS", .shown = "127.0.0.1: this machine only", .env = "OLLAMA_HOST", .offset = AT(host),
     .help = "where to listen: 0.0.0.0 or :: for everywhere, or the path of a Unix socket; HOST:PORT works too"},
    {.name = "port", .kind = OPT_INT, .arg = "N", .min = 0, .max = 65535, .shown = "11434", .offset = AT(port),
     .help = "port to listen on; 0 takes a free one and says which"},
    {.name = "models-dir", .kind = OPT_STRING, .arg = "DIR", .offset = AT(models_dir),
     .help = "serve all models in this folder"},
    {.name = "served-model-name", .kind = OPT_LIST, .arg = "NAME", .offset = AT(served),
     .help = "what the first model is called instead of its file's name; may be repeated"},
    {.name = "lora-modules", .kind = OPT_LIST, .arg = "NAME=PATH", .offset = AT(adapter),
     .help = "the first model with a LoRA adapter, as a model called NAME that shares its weights; may be repeated. --lora NAME=PATH is the same"},
    {.name = "tls-cert", .alias = "ssl-certfile", .kind = OPT_STRING, .arg = "FILE", .offset = AT(cert),
     .help = "certificate chain in PEM: HTTPS instead of HTTP"},
    {.name = "tls-key", .alias = "ssl-keyfile", .kind = OPT_STRING, .arg = "FILE", .offset = AT(key),
     .help = "its private key in PEM"},
    {.name = "connections", .kind = OPT_INT, .arg = "N", .min = 2, .max = 1 << 20, .shown = "4096", .offset = AT(connections),
     .help = "open connections, at most; idle ones make room for new ones"},
    {.name = "access-log", .kind = OPT_SWITCH, .shown = "on", .offset = AT(access_log),
     .help = "one line on standard error for each request"},
    {.name = "ascii", .kind = OPT_FLAG, .offset = AT(ascii),
     .help = "answers in ASCII, other characters as \\uXXXX, for clients that cut UTF-8 apart"},
};

static const struct opt serve_access_rows[] = {
    {.name = "api-key", .kind = OPT_LIST, .arg = "KEY", .env = "PONDER_API_KEY", .offset = AT(api_key),
     .help = "ask clients for this key (Authorization: Bearer KEY); may be repeated"},
    {.name = "key-file", .kind = OPT_STRING, .arg = "FILE", .offset = AT(key_file),
     .help = "ask for a key whose SHA-256 is in this file: lines of 64 hex digits and a name"},
    {.name = "allow-origin", .alias = "allowed-origins", .kind = OPT_LIST, .arg = "ORIGIN", .shown = "this machine; OLLAMA_ORIGINS", .offset = AT(origin),
     .help = "web pages that may use the server, like https://chat.example.com; * is all; may be repeated"},
    {.name = "key-requests", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1 << 20, .shown = "no bound", .offset = AT(owner_jobs),
     .help = "requests of one key at the same time, at most"},
};

static const struct opt serve_load_rows[] = {
    {.name = "keep-alive", .kind = OPT_STRING, .arg = "TIME", .value = "5m", .env = "OLLAMA_KEEP_ALIVE", .offset = AT(keep_alive),
     .help = "how long a model stays loaded after its last use: 30s, 5m, 1h; -1 for ever"},
    {.name = "memory", .kind = OPT_FLOAT, .arg = "GB", .min = 0.01, .max = 1e6, .shown = "three quarters of what is free", .offset = AT(memory),
     .help = "for all loaded models together"},
    {.name = "max-loaded-models", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1000, .shown = "as many as fit", .env = "OLLAMA_MAX_LOADED_MODELS", .offset = AT(max_loaded),
     .help = "models loaded at the same time, at most"},
    {.name = "max-num-seqs", .alias = "parallel max-running-requests", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .shown = "32", .env = "OLLAMA_NUM_PARALLEL", .offset = AT(max_seqs),
     .help = "answers that are computed at the same time, at most"},
    {.name = "max-num-batched-tokens", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 30, .shown = "--batch", .offset = AT(batched),
     .help = "tokens of one step: of all answers together and pieces of prompts"},
    {.name = "max-queue", .alias = "max-queued-requests", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1 << 20, .shown = "512", .env = "OLLAMA_MAX_QUEUE", .offset = AT(max_queue),
     .help = "requests that wait, at most; others get 503"},
    {.name = "kv-tokens", .kind = OPT_SIZE, .arg = "N", .min = 64, .max = 1 << 30, .shown = "an eighth of the memory, at least --ctx", .offset = AT(kv_tokens),
     .help = "tokens that all requests to a model hold together"},
    {.name = "request-timeout", .kind = OPT_FLOAT, .arg = "S", .min = 0, .max = OPT_NO_BOUND, .shown = "none", .offset = AT(request_seconds),
     .help = "seconds after which an answer ends with what there is"},
    {.name = "max-n", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .shown = "16", .offset = AT(n_max),
     .help = "answers to one prompt (n), at most"},
    {.name = "max-tokens", .kind = OPT_INT, .arg = "N", .min = 1, .max = INT32_MAX, .shown = "as the context has room", .offset = AT(max_tokens),
     .help = "longest answer of requests that say nothing of it"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .shown = "random", .offset = AT(seed),
     .help = "seed of requests that give none"},
};

static const struct opt serve_think_rows[] = {
    {.name = "think-budget", .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 30, .shown = "none", .offset = AT(think_budget),
     .help = "tokens of a thought, at most, where a request says nothing of it; then the answer begins"},
    {.name = "think-loops", .kind = OPT_SWITCH, .shown = "on", .offset = AT(think_loops),
     .help = "end thoughts that repeat themselves"},
    {.name = "ollama-think-default", .kind = OPT_ENUM, .arg = "HOW", .choices = "auto|inline|off", .value = "auto", .offset = AT(ollama_think),
     .help = "where a request to /api/ says nothing: auto gives thoughts a field of their own, inline puts <think> into the answer for old clients, off does not think"},
    {.name = "reasoning-field", .kind = OPT_ENUM, .arg = "NAME", .choices = "reasoning_content|reasoning|both", .value = "reasoning_content", .offset = AT(reasoning_field),
     .help = "what thoughts are called in OpenAI's answers"},
};

static const struct opt serve_prefix_rows[] = {
    {.name = "prefix-cache", .alias = "enable-prefix-caching", .kind = OPT_SWITCH, .shown = "on", .offset = AT(prefix),
     .help = "keep the beginnings of prompts, and share them among requests"},
    {.name = "kv-disk", .kind = OPT_STRING, .arg = "DIR", .shown = "~/.cache/ponder/kv", .env = "PONDER_KV_DISK", .offset = AT(disk),
     .help = "keep them in this folder too, over restarts"},
    {.name = "no-kv-disk", .kind = OPT_FLAG, .env = "PONDER_NO_KV_DISK", .offset = AT(no_disk),
     .help = "keep them in memory only"},
    {.name = "kv-disk-gb", .kind = OPT_FLOAT, .arg = "GB", .min = 0.001, .max = 1e6, .shown = "10", .offset = AT(disk_gb),
     .help = "at most so much of it"},
    {.name = "kv-cache-dtype", .kind = OPT_ENUM, .arg = "TYPE", .choices = "auto|float16|bfloat16|fp8|fp8_e4m3|fp8_e5m2|fp8_ds_mla|int8", .shown = "--kv-type", .offset = AT(kv_dtype),
     .help = "--kv-type in vLLM's words"},
};

static const struct opt serve_hidden_rows[] = {
    {.name = "model", .alias = "model-path", .kind = OPT_LIST, .offset = AT(model), .help = "MODEL"},
    {.name = "disable-log-requests", .alias = "no-enable-log-requests disable-uvicorn-access-log", .kind = OPT_FLAG, .offset = AT(quiet), .help = "--no-access-log"},
};

#define MOOT(id, n, a) {.name = n, .alias = a, .kind = OPT_STRING, .arg = "X", .offset = AT(moot.id), .help = "understood and passed over"},
#define MOOT_FLAG(id, n, a) {.name = n, .alias = a, .kind = OPT_FLAG, .offset = AT(moot.id), .help = "understood and passed over"},
static const struct opt serve_moot_rows[] = {
#include "cli/serve_moot.def"
};
#undef MOOT
#undef MOOT_FLAG
// clang-format on

const struct opt_group serve_groups[SERVE_GROUPS_N] = {
    {"Server", serve_rows, NUM_COUNT(serve_rows), 0},
    {"Who may use it", serve_access_rows, NUM_COUNT(serve_access_rows), 0},
    {"Load", serve_load_rows, NUM_COUNT(serve_load_rows), 0},
    {"Thinking", serve_think_rows, NUM_COUNT(serve_think_rows), 0},
    {"Prefix cache", serve_prefix_rows, NUM_COUNT(serve_prefix_rows), 0},
    {"Engine", options_engine, OPTIONS_ENGINE_N, AT(engine)},
    {NULL, serve_hidden_rows, NUM_COUNT(serve_hidden_rows), 0},
    {NULL, serve_moot_rows, NUM_COUNT(serve_moot_rows), 0},
};
#undef AT

/* ---- where to listen ------------------------------------------------------------------------- */

/* "host", "host:port", ":port", "[v6]:port", "http://…/" as OLLAMA_HOST may be written; a path is a
   Unix socket. *port is left alone where there is none. */
int serve_host(const char *text, char host[SERVE_HOST_MAX], int *port, struct err *e)
{
    const char *scheme = strstr(text, "://"), *s = scheme ? scheme + 3 : text;
    size_t n = strlen(s);
    if (scheme && strncasecmp(text, "http", 4) != 0)
        return err_set(e, ERR_USAGE, "--host %.100s: only http is served", text);
    if (!scheme && *s == '/') {
        if (n >= SERVE_HOST_MAX)
            return err_set(e, ERR_USAGE, "--host %.60s…: the path is too long", text);
        memcpy(host, s, n + 1);
        return 0;
    }
    n = strcspn(s, "/");
    const char *colon = memchr(s, ':', n), *name = s;
    size_t name_n = n;
    if (*s == '[') {
        const char *close = memchr(s, ']', n);
        if (!close)
            return err_set(e, ERR_USAGE, "--host %.100s: a \"]\" is missing", text);
        name = s + 1;
        name_n = (size_t)(close - name);
        colon = close[1] == ':' ? close + 1 : NULL;
    } else if (colon && memchr(colon + 1, ':', n - (size_t)(colon + 1 - s))) {
        colon = NULL; /* an IPv6 address alone */
    } else if (colon) {
        name_n = (size_t)(colon - s);
    }
    if (name_n >= SERVE_HOST_MAX)
        return err_set(e, ERR_USAGE, "--host %.60s…: the name is too long", text);
    memcpy(host, name, name_n);
    host[name_n] = 0;
    if (!name_n)
        memcpy(host, "127.0.0.1", 10);
    if (colon && colon[1] && colon + 1 < s + n) {
        char *end;
        unsigned long v = strtoul(colon + 1, &end, 10);
        if (end != s + n || v > 65535 || colon[1] == '-' || colon[1] == '+')
            return err_set(e, ERR_USAGE, "--host %.100s: the port must be a number up to 65535",
                           text);
        *port = (int)v;
    }
    return 0;
}

/* A socket that systemd has opened for us (sd_listen_fds(3)): descriptor 3, or -1. */
static int serve_activated(void)
{
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
    if (!pid || !n || strtol(pid, NULL, 10) != (long)getpid() || strtol(n, NULL, 10) < 1)
        return -1;
    unsetenv("LISTEN_PID"); /* not for processes that we may start */
    unsetenv("LISTEN_FDS");
    fcntl(3, F_SETFD, FD_CLOEXEC);
    fcntl(3, F_SETFL, fcntl(3, F_GETFL) | O_NONBLOCK);
    return 3;
}

/* ---- who may use it -------------------------------------------------------------------------- */

static int serve_origins(struct serve_setup *s, const struct serve_options *o, struct err *e)
{
    const char *env = getenv("OLLAMA_ORIGINS");
    size_t n = 0;
    for (size_t i = 0; i < o->origin.n; i++)
        s->origin[n++] = o->origin.v[i];
    if (env && *env) {
        s->origins = strdup(env);
        if (!s->origins)
            return err_nomem(e, strlen(env), "OLLAMA_ORIGINS");
        for (char *p = s->origins, *next; p && n < NUM_COUNT(s->origin); p = next) {
            next = strchr(p, ',');
            if (next)
                *next++ = 0;
            p += strspn(p, " ");
            p[strcspn(p, " ")] = 0;
            if (*p)
                s->origin[n++] = p;
        }
    }
    s->o.http.origin = s->origin;
    s->o.http.n_origin = n;
    return 0;
}

static int serve_http(struct serve_setup *s, const struct serve_options *o, struct err *e)
{
    struct http_opts *h = &s->o.http;
    int rc = 0;
    if (o->host && *o->host) {
        rc = serve_host(o->host, s->host, &h->port, e);
        h->host = s->host;
    }
    if (o->port != OPT_UNSET)
        h->port = (int)o->port;
    h->fd = serve_activated();
    h->cert = o->cert;
    h->key = o->key;
    h->api_key = o->api_key.v;
    h->n_api_key = o->api_key.n;
    h->key_file = o->key_file;
    h->connections = o->connections == OPT_UNSET ? 0 : (size_t)o->connections;
    h->ascii = o->ascii > 0;
    h->access_log = o->access_log != 0 && o->quiet <= 0;
    return rc ? rc : serve_origins(s, o, e);
}

/* ---- models ---------------------------------------------------------------------------------- */

/* The bundled model's names, when it is the first. */
static const char *const serve_bundled[] = {LOCATE_BUNDLED, "bundled"};

/* NAME=PATH, and no file of that name. */
static const char *serve_equals(const char *s)
{
    const char *eq = strchr(s, '=');
    return eq && eq > s && !memchr(s, '/', (size_t)(eq - s)) && file_kind(s) == FILE_NONE ? eq
                                                                                          : NULL;
}

static int serve_adapter(struct serve_setup *s, const char *text, struct err *e)
{
    const char *eq = serve_equals(text);
    if (s->n_adapter == OPT_LIST_MAX)
        return err_set(e, ERR_USAGE, "--lora-modules: at most %d adapters", OPT_LIST_MAX);
    char *name = strndup(text, (size_t)(eq - text));
    if (!name)
        return err_nomem(e, strlen(text), "an adapter's name");
    s->adapter[s->n_adapter++] = (struct hub_adapter){name, eq + 1};
    return 0;
}

/* Those with names are models of their own; one without is for every model. */
static int serve_adapters(struct serve_setup *s, const struct serve_options *o, struct err *e)
{
    struct opt_list *rest = &s->chosen.lora;
    int rc = 0;
    for (size_t i = 0; !rc && i < o->adapter.n; i++)
        rc = serve_equals(o->adapter.v[i])
                 ? serve_adapter(s, o->adapter.v[i], e)
                 : err_set(e, ERR_USAGE, "--lora-modules %.200s: must be NAME=PATH",
                           o->adapter.v[i]);
    rest->n = 0;
    for (size_t i = 0; !rc && i < o->engine.lora.n; i++)
        if (serve_equals(o->engine.lora.v[i]))
            rc = serve_adapter(s, o->engine.lora.v[i], e);
        else
            rest->v[rest->n++] = o->engine.lora.v[i];
    if (!rc && s->n_adapter && rest->n)
        rc = err_set(e, ERR_USAGE,
                     "--lora %.200s is for every model, so no other adapter goes with it: write "
                     "NAME=PATH",
                     rest->v[0]);
    return rc;
}

static int serve_models(struct serve_setup *s, const struct cli *c, const struct serve_options *o,
                        struct err *e)
{
    const char *env = getenv("PONDER_MODEL");
    int rc = 0;
    size_t n = (size_t)c->n_args + o->model.n;
    /* vLLM takes several behind one --lora-modules. */
    while (!rc && (o->adapter.n || s->n_adapter) && n > o->model.n &&
           serve_equals(c->args[n - o->model.n - 1]))
        rc = serve_adapter(s, c->args[--n - o->model.n], e);
    if (rc)
        return rc;
    if (n > OPT_LIST_MAX)
        return err_set(e, ERR_USAGE,
                       "more than %d models: put them into a folder and give "
                       "--models-dir",
                       OPT_LIST_MAX);
    for (size_t i = 0; !rc && i < n; i++)
        rc = locate_model(i < o->model.n ? o->model.v[i] : c->args[i - o->model.n],
                          s->path[s->n_path++], e);
    if (rc && o->served.n && n > 1)
        err_ctx(e, "MODEL (--served-model-name takes one name; repeat it for more)");
    bool none = !n && !o->models_dir;
    if (!rc && none && env && *env) {
        rc = locate_model(env, s->path[s->n_path++], e);
        if (rc)
            err_ctx(e, "PONDER_MODEL");
    }
    s->o.hub.dir = o->models_dir ? o->models_dir : none && locate_models(s->dir) ? s->dir : NULL;
    if (!rc && none && !s->n_path && !locate_has_models() && locate_bundled(s->path[0]))
        s->n_path = 1;
    for (size_t i = 0; i < s->n_path; i++)
        s->paths[i] = s->path[i];
    s->o.hub.path = s->paths;
    s->o.hub.n_path = s->n_path;
    s->o.hub.adapter = s->adapter;
    s->o.hub.n_adapter = s->n_adapter;
    s->o.hub.served = o->served.v;
    s->o.hub.n_served = o->served.n;
    if (!rc && s->n_path && !o->served.n && locate_is_bundled(s->path[0])) {
        s->o.hub.served = serve_bundled;
        s->o.hub.n_served = NUM_COUNT(serve_bundled);
    }
    return rc;
}

static int serve_kv(struct engine_opts *g, const char *dtype, struct err *e)
{
    static const struct {
        const char *name;
        enum quant_id id;
    } rows[] = {{"float16", QUANT_F16},   {"bfloat16", QUANT_BF16}, {"fp8", QUANT_E4M3},
                {"fp8_e4m3", QUANT_E4M3}, {"fp8_e5m2", QUANT_E5M2}, {"fp8_ds_mla", QUANT_E4M3},
                {"int8", QUANT_Q8_0}};
    for (size_t i = 0; dtype && i < NUM_COUNT(rows); i++)
        if (!strcmp(rows[i].name, dtype))
            g->kv_type = rows[i].id;
    return 0;
}

/* Where beginnings are kept on disk; NULL: nowhere. */
static const char *serve_disk(struct serve_setup *s, const struct serve_options *o,
                              const struct log *log)
{
    struct err e;
    if (o->no_disk || !o->prefix)
        return NULL;
    if (o->disk)
        return *o->disk ? o->disk : NULL;
    if (!locate_cache("kv", s->disk, &e))
        return s->disk;
    log_line(log, LOG_WARN,
             "beginnings of prompts are not kept on disk: %s; --kv-disk names a folder", e.text);
    return NULL;
}

/* Ollama's environment, where nothing else was said. */
static int serve_ollama(struct engine_options *o, struct err *e)
{
    const char *ctx = getenv("OLLAMA_CONTEXT_LENGTH"), *kv = getenv("OLLAMA_KV_CACHE_TYPE");
    if (kv && !o->kv_type && (!strcmp(kv, "f16") || !strcmp(kv, "q8_0")))
        o->kv_type = kv;
    if (!ctx || !*ctx || o->ctx != OPT_UNSET)
        return 0;
    char *end;
    long long n = strtoll(ctx, &end, 10);
    if (*end || n < 0 || n > 1 << 30)
        return err_set(e, ERR_USAGE, "OLLAMA_CONTEXT_LENGTH %.60s: must be a number of tokens",
                       ctx);
    o->ctx = n ? n : OPT_UNSET; /* 0: Ollama's own default */
    return 0;
}

static int serve_engine(struct serve_setup *s, const struct serve_options *o, struct log *log,
                        struct err *e)
{
    struct hub_opts *h = &s->o.hub;
    s->chosen = o->engine;
    s->engine = (struct engine_request){.o = &s->chosen, .log = log, .kv_type = ENGINE_KV_AUTO};
    int rc = serve_ollama(&s->chosen, e);
    rc = rc ? rc : serve_adapters(s, o, e);
    if (rc)
        return rc;
    rc = options_engine_opts(&h->engine, &s->engine, e);
    if (!rc && o->kv_dtype && !o->engine.kv_type)
        rc = serve_kv(&h->engine, o->kv_dtype, e);
    h->sched.seqs = o->max_seqs == OPT_UNSET ? 32 : (size_t)o->max_seqs;
    h->engine.want = num_max(h->sched.seqs, 16);
    h->engine.cache = o->kv_tokens == OPT_UNSET ? 0 : (size_t)o->kv_tokens;
    h->sched.budget = o->batched == OPT_UNSET ? 0 : num_min((size_t)o->batched, SERVE_BUDGET_MAX);
    h->sched.queue = o->max_queue == OPT_UNSET ? 0 : (size_t)o->max_queue;
    h->sched.prefix = o->prefix != 0;
    h->sched.disk = serve_disk(s, o, log);
    h->sched.disk_bytes = (uint64_t)((isnan(o->disk_gb) ? 10 : o->disk_gb) * 1e9);
    h->sched.log = h->log = log;
    h->memory = isnan(o->memory) ? 0 : (uint64_t)(o->memory * 1e9);
    h->loaded = o->max_loaded == OPT_UNSET ? 0 : (size_t)o->max_loaded;
    s->o.chat_template = h->engine.template_text;
    if (!rc && !fields_duration(o->keep_alive, &h->keep_alive))
        rc = err_set(e, ERR_USAGE, "--keep-alive %.60s: must be a time like 30s, 5m, 1h or -1",
                     o->keep_alive);
    return rc;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void serve_defaults(struct server_opts *s, const struct serve_options *o)
{
    s->reasoning = !strcmp(o->reasoning_field, "both")        ? SERVER_REASONING_BOTH
                   : !strcmp(o->reasoning_field, "reasoning") ? SERVER_REASONING
                                                              : SERVER_REASONING_CONTENT;
    s->ollama_think = !strcmp(o->ollama_think, "inline") ? SERVER_THINK_INLINE
                      : !strcmp(o->ollama_think, "off")  ? SERVER_THINK_OFF
                                                         : SERVER_THINK_AUTO;
    s->think_max = o->think_budget == OPT_UNSET ? -1 : o->think_budget;
    s->think_loops = o->think_loops != 0;
    s->max_tokens = o->max_tokens == OPT_UNSET ? 0 : (size_t)o->max_tokens;
    if (o->n_max != OPT_UNSET)
        s->n_max = (size_t)o->n_max;
    s->request_seconds = isnan(o->request_seconds) ? 0 : o->request_seconds;
    s->owner_jobs = o->owner_jobs == OPT_UNSET ? 0 : (size_t)o->owner_jobs;
    s->seed_given = o->seed != OPT_UNSET;
    s->seed = s->seed_given ? (uint64_t)o->seed : 0;
}

/* One line that names what was passed over. */
static void serve_note_moot(const struct serve_options *o, const struct log *log)
{
    char names[1200] = "";
    size_t n = 0, count = 0;
    for (size_t i = 0; i < NUM_COUNT(serve_moot_rows); i++) {
        const struct opt *r = &serve_moot_rows[i];
        const char *at = (const char *)o + r->offset;
        const char *text = NULL;
        int flag = 0;
        if (r->kind == OPT_STRING)
            memcpy(&text, at, sizeof text);
        else
            memcpy(&flag, at, sizeof flag);
        if (!text && !flag)
            continue;
        n += (size_t)snprintf(names + n, sizeof names - n, "%s--%s", n ? ", " : "", r->name);
        n = num_min(n, sizeof names - 1);
        count++;
    }
    if (count)
        log_bare(log, "note: %s: of no use here, passed over", names);
}

int serve_setup_init(struct serve_setup *s, const struct cli *c, const struct serve_options *o,
                     struct log *log, struct err *e)
{
    memset(s, 0, sizeof *s);
    server_opts_init(&s->o);
    s->o.http.log = log;
    serve_defaults(&s->o, o);
    int rc = serve_engine(s, o, log, e);
    if (!rc)
        rc = serve_models(s, c, o, e);
    if (!rc)
        rc = serve_http(s, o, e);
    if (!rc)
        serve_note_moot(o, log);
    return rc;
}

void serve_setup_release(struct serve_setup *s)
{
    buf_release(&s->engine.template_text);
    free(s->origins);
    for (size_t i = 0; i < s->n_adapter; i++)
        free((char *)(uintptr_t)s->adapter[i].name);
}
