/*
 * libponder (include/ponder.h): the engine for other programs. Translates between the public
 * structs, whose layout is a promise, and those of the engine, whose is not. A caller's struct may
 * be older than the library: only the bytes that its size field vouches for are read or written.
 */
#include <ponder.h>

#include "base/num.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "engine/generate.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct ponder_model {
    struct engine *engine;
};

struct ponder_session {
    struct engine *engine; /* not owned */
    struct session *session;
    json_t *messages;
};

_Static_assert(sizeof(struct ponder_error) == sizeof(struct err), "errors are handed through");
_Static_assert((int)PONDER_CANCELLED == (int)ERR_CANCELLED, "codes are the same");
_Static_assert((int)PONDER_STOP_CANCELLED == (int)GENERATE_CANCELLED, "stops are the same");
_Static_assert((int)PONDER_TOOL_CALL == (int)PARSE_TOOL_CALL, "pieces are the same");
_Static_assert((int)PONDER_BOS == (int)TOKENIZER_BOS, "flags are the same");

enum { API_TEXT_MAX = 16 << 20, API_IDS_MAX = 1 << 28 };

/* The caller's error, or a place for one that nobody wants. */
static struct err *api_err(struct ponder_error *e, struct err *unwanted)
{
    return e ? (struct err *)(void *)e : unwanted;
}

/* A copy of a caller's struct, `own` bytes; what the caller's lacks stays as it is in `to`. */
static int api_read(void *to, size_t own, const void *from, const char *what, struct err *e)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size || size > 4096)
        return err_set(e, ERR_USAGE, "%s: size is %zu: use the initialiser of ponder.h", what,
                       size);
    memcpy(to, from, num_min(size, own));
    return 0;
}

static int api_write(void *to, void *from, size_t own, const char *what, struct err *e)
{
    size_t size;
    memcpy(&size, to, sizeof size);
    if (size < sizeof size || size > 4096)
        return err_set(e, ERR_USAGE, "%s: size is %zu: use the initialiser of ponder.h", what,
                       size);
    memcpy(from, &size, sizeof size);
    memcpy(to, from, num_min(size, own));
    return 0;
}

const char *ponder_version(void)
{
    return PONDER_VERSION;
}

int ponder_api_version(void)
{
    return PONDER_API_VERSION;
}

/* ---- models ---------------------------------------------------------------------------------- */

static int api_kv_type(enum quant_id *out, const char *name, struct err *e)
{
    if (engine_kv_parse(out, name))
        return 0;
    return err_set(
        e, ERR_USAGE,
        "kv_type \"%.40s\": auto, f16, f32, bf16, q8_0, fp8 (e4m3) and fp8_e5m2 are known", name);
}

int ponder_model_open(struct ponder_model **out, const char *path,
                      const struct ponder_model_options *o, struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    struct ponder_model_options mine = PONDER_MODEL_OPTIONS;
    struct engine_opts eo;
    *out = NULL;
    int rc = o ? api_read(&mine, sizeof mine, o, "ponder_model_options", e) : 0;
    engine_opts_init(&eo);
    eo.threads = mine.threads;
    eo.ctx = mine.context;
    eo.tokenizer_only = mine.tokenizer_only != 0;
    eo.template_text = mine.template_text;
    eo.progress = mine.progress;
    eo.progress_arg = mine.progress_arg;
    if (!rc && mine.kv_type)
        rc = api_kv_type(&eo.kv_type, mine.kv_type, e);
    if (rc)
        return rc;
    struct ponder_model *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, sizeof *m, "a model");
    rc = engine_open(&m->engine, path, &eo, e);
    if (rc) {
        free(m);
        return rc;
    }
    *out = m;
    return 0;
}

void ponder_model_close(struct ponder_model *m)
{
    if (m)
        engine_free(m->engine);
    free(m);
}

int ponder_model_info(const struct ponder_model *m, struct ponder_model_info *out,
                      struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    const struct engine_info *i = engine_info(m->engine);
    const struct tokenizer *t = engine_tokenizer(m->engine);
    struct ponder_model_info mine = {
        .name = i->name ? i->name : "",
        .arch = i->arch ? i->arch : "",
        .file_type = i->file_type ? i->file_type : "",
        .parameters = i->params,
        .weight_bytes = i->weight_bytes,
        .context = i->ctx,
        .trained_context = i->ctx_train,
        .vocabulary = i->vocab || !t ? i->vocab : tokenizer_count(t),
        .threads = i->threads,
    };
    return api_write(out, &mine, sizeof mine, "ponder_model_info", e);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static int api_tokenizer(const struct tokenizer **out, const struct ponder_model *m, struct err *e)
{
    *out = engine_tokenizer(m->engine);
    return *out ? 0
                : err_set(e, ERR_UNSUPPORTED,
                          "the model has no tokenizer: put tokenizer.json beside the weights");
}

int ponder_tokenize(const struct ponder_model *m, const char *text, size_t n, unsigned flags,
                    int32_t *ids, size_t cap, size_t *count, struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    const struct tokenizer *t;
    struct ids got;
    *count = 0;
    int rc = api_tokenizer(&t, m, e);
    if (rc)
        return rc;
    if (flags & ~(unsigned)(PONDER_SPECIAL | PONDER_BOS))
        return err_set(e, ERR_USAGE, "flags 0x%x: PONDER_SPECIAL and PONDER_BOS are known", flags);
    ids_init(&got, API_IDS_MAX);
    rc = tokenizer_encode(t, text, n, flags, NULL, &got, e);
    if (!rc) {
        *count = got.n;
        if (num_min(got.n, cap))
            memcpy(ids, got.v, num_min(got.n, cap) * sizeof *ids);
        if (got.n > cap)
            rc =
                err_set(e, ERR_LIMIT, "the text has %zu tokens, there is room for %zu", got.n, cap);
    }
    ids_release(&got);
    return rc;
}

int ponder_detokenize(const struct ponder_model *m, const int32_t *ids, size_t n, char *text,
                      size_t cap, size_t *length, struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    const struct tokenizer *t;
    size_t total = 0;
    *length = 0;
    int rc = api_tokenizer(&t, m, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        size_t k;
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer_count(t))
            return err_set(e, ERR_USAGE, "token %d: the vocabulary has %zu tokens", (int)ids[i],
                           tokenizer_count(t));
        const char *s = tokenizer_bytes(t, ids[i], &k);
        if (total < cap && k)
            memcpy(text + total, s, num_min(k, cap - total));
        if (!num_add(&total, total, k))
            return err_set(e, ERR_LIMIT, "the text is too long");
    }
    *length = total;
    if (total >= cap)
        return err_set(e, ERR_LIMIT, "the text and its end take %zu bytes, there is room for %zu",
                       total + 1, cap);
    text[total] = 0;
    return 0;
}

/* ---- generating ------------------------------------------------------------------------------ */

int ponder_session_new(struct ponder_session **out, struct ponder_model *m, struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    *out = NULL;
    if (!engine_info(m->engine)->ctx)
        return err_set(e, ERR_USAGE, "the model was opened with tokenizer_only: it has no weights");
    struct ponder_session *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, sizeof *s, "a session");
    s->engine = m->engine;
    s->messages = json_array();
    int rc =
        s->messages ? session_new(&s->session, m->engine, e) : err_nomem(e, 0, "the conversation");
    if (rc)
        ponder_session_free(s);
    else
        *out = s;
    return rc;
}

void ponder_session_free(struct ponder_session *s)
{
    if (!s)
        return;
    session_free(s->session);
    json_decref(s->messages);
    free(s);
}

/* What the callbacks of one generation need. */
struct api_run {
    const struct ponder_generation *g;
    struct buf thought, answer; /* of a chat */
    json_t *calls;              /* of a chat, or NULL */
    bool keep;
    struct err *e;
};

static int api_keep(struct api_run *r, enum parse_event ev, const char *s, size_t n)
{
    if (ev == PARSE_REASONING)
        return buf_append(&r->thought, s, n, r->e);
    if (ev == PARSE_CONTENT)
        return buf_append(&r->answer, s, n, r->e);
    if (!r->calls)
        r->calls = json_array();
    return json_array_append_new(r->calls, json_loadb(s, n, 0, NULL))
               ? err_nomem(r->e, n, "a tool call")
               : 0;
}

static int api_emit(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct api_run *r = arg;
    int rc = r->keep ? api_keep(r, ev, s, n) : 0;
    if (rc || !r->g->emit)
        return rc;
    return r->g->emit(r->g->arg, (enum ponder_piece)ev, s, n)
               ? err_set(r->e, ERR_CANCELLED, "stopped by emit")
               : 0;
}

static bool api_keep_going(void *arg)
{
    const struct api_run *r = arg;
    return !r->g->keep_going || r->g->keep_going(r->g->arg);
}

static void api_sampling(struct sampler_params *p, const struct engine *g,
                         const struct ponder_generation *o)
{
    engine_sampling(g, p);
    p->temperature = o->temperature < 0 ? p->temperature : o->temperature;
    p->top_p = o->top_p < 0 ? p->top_p : o->top_p;
    p->min_p = o->min_p < 0 ? p->min_p : o->min_p;
    p->top_k = o->top_k < 0 ? p->top_k : o->top_k;
    p->seed = o->seed < 0 ? rng_os_seed() : (uint64_t)o->seed;
}

static int api_generate(struct ponder_session *s, const struct ids *ids, bool open, bool raw,
                        struct api_run *r, struct ponder_result *out, struct err *e)
{
    struct generate_params p = {.keep_going = api_keep_going, .emit = api_emit, .arg = r};
    answer_params_init(&p.answer);
    p.answer.max_tokens = r->g->max_tokens;
    p.answer.stop = r->g->stop;
    p.answer.n_stop = r->g->n_stop;
    p.answer.thinking_open = open;
    p.answer.raw = p.answer.special = raw;
    struct generate_stats st = {0};
    struct err said = {0};
    r->e = &said;
    api_sampling(&p.sampling, s->engine, r->g);
    int rc = generate(s->session, ids->v, ids->n, &p, &st, e), rc2;
    if (rc && said.code)
        *e = said;
    if (!rc && st.stop == GENERATE_CANCELLED)
        rc = err_set(e, ERR_CANCELLED, "stopped by keep_going");
    struct ponder_result mine = {
        .prompt_tokens = st.prompt_tokens,
        .reused_tokens = st.reused_tokens,
        .answer_tokens = st.answer_tokens,
        .thought_tokens = st.reasoning_tokens,
        .prompt_seconds = st.prompt_seconds,
        .answer_seconds = st.answer_seconds,
        .stop = rc == ERR_CANCELLED ? PONDER_STOP_CANCELLED : (enum ponder_stop)st.stop,
    };
    if (out && (!rc || rc == ERR_CANCELLED) &&
        (rc2 = api_write(out, &mine, sizeof mine, "ponder_result", e)))
        rc = rc2;
    return rc;
}

/* The caller's wishes, and that its result can be written at the end. */
static int api_wishes(struct ponder_generation *to, const struct ponder_generation *from,
                      struct ponder_result *out, struct err *e)
{
    struct ponder_generation mine = PONDER_GENERATION;
    struct ponder_result none = {0};
    *to = mine;
    int rc = from ? api_read(to, sizeof *to, from, "ponder_generation", e) : 0;
    return rc || !out ? rc : api_write(out, &none, sizeof none, "ponder_result", e);
}

int ponder_generate(struct ponder_session *s, const int32_t *ids, size_t n,
                    const struct ponder_generation *g, struct ponder_result *out,
                    struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    struct ponder_generation mine;
    struct api_run r = {.g = &mine};
    const struct ids prompt = {.v = (int32_t *)(uintptr_t)ids, .n = n};
    int rc = api_wishes(&mine, g, out, e);
    if (rc)
        return rc;
    if (!engine_tokenizer(s->engine))
        return err_set(e, ERR_UNSUPPORTED, "the model has no tokenizer to write text with");
    if (!n)
        return err_set(e, ERR_USAGE, "there is nothing to continue: give at least one token");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= engine_info(s->engine)->vocab)
            return err_set(e, ERR_USAGE, "token %d: the vocabulary has %zu tokens", (int)ids[i],
                           engine_info(s->engine)->vocab);
    return api_generate(s, &prompt, false, true, &r, out, e);
}

/* ---- conversations --------------------------------------------------------------------------- */

static int api_message(json_t *messages, const char *role, const char *text, size_t n,
                       const struct api_run *r, struct err *e)
{
    if (!utf8_valid(role, strlen(role)) || (n && !utf8_valid(text, n)))
        return err_set(e, ERR_USAGE, "a message that is not UTF-8");
    json_t *m = json_object();
    int bad = json_object_set_new(m, "role", json_string(role)) ||
              json_object_set_new(m, "content", json_stringn(n ? text : "", n));
    if (r && r->thought.len)
        bad = bad || json_object_set_new(m, "reasoning_content",
                                         json_stringn(r->thought.data, r->thought.len));
    if (r && r->calls)
        bad = bad || json_object_set(m, "tool_calls", r->calls);
    if (bad || json_array_append(messages, m))
        bad = err_nomem(e, n, "the conversation");
    json_decref(m);
    return bad;
}

int ponder_chat_message(struct ponder_session *s, const char *role, const char *text, size_t n,
                        struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    if (n > API_TEXT_MAX)
        return err_set(e, ERR_LIMIT, "a message of %zu bytes: at most %d", n, API_TEXT_MAX);
    return api_message(s->messages, role, text, n, NULL, e);
}

int ponder_chat_clear(struct ponder_session *s, struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    return json_array_clear(s->messages) ? err_nomem(e, 0, "the conversation") : 0;
}

/* The ids of the conversation; they have to leave room for an answer. */
static int api_encode(struct ponder_session *s, struct ids *ids, bool *open, struct err *e)
{
    const struct chat *chat = engine_chat(s->engine);
    if (!chat)
        return err_set(e, ERR_UNSUPPORTED,
                       "the model has no tokenizer: put tokenizer.json beside the weights");
    json_t *request = json_object();
    int rc = json_object_set(request, "messages", s->messages)
                 ? err_nomem(e, 0, "the conversation")
                 : chat_encode(chat, request, ids, open, e);
    json_decref(request);
    size_t ctx = engine_info(s->engine)->ctx;
    if (!rc && ids->n >= ctx)
        rc = err_set(e, ERR_LIMIT,
                     "the conversation has %zu tokens and the context is %zu: clear it, or open "
                     "the model with a larger context",
                     ids->n, ctx);
    return rc;
}

int ponder_chat(struct ponder_session *s, const char *text, size_t n,
                const struct ponder_generation *g, struct ponder_result *out,
                struct ponder_error *pe)
{
    struct err local, *e = api_err(pe, &local);
    struct ponder_generation mine;
    struct api_run r = {.g = &mine, .keep = true};
    struct ids ids;
    bool open = false;
    size_t before = json_array_size(s->messages);
    ids_init(&ids, API_IDS_MAX);
    buf_init(&r.thought, API_TEXT_MAX);
    buf_init(&r.answer, API_TEXT_MAX);
    int rc = api_wishes(&mine, g, out, e);
    if (!rc)
        rc = ponder_chat_message(s, "user", text, n, (struct ponder_error *)(void *)e);
    if (!rc)
        rc = api_encode(s, &ids, &open, e);
    if (!rc)
        rc = api_generate(s, &ids, open, false, &r, out, e);
    if (!rc || rc == ERR_CANCELLED) {
        struct err lost;
        int kept = api_message(s->messages, "assistant", r.answer.data, r.answer.len, &r, &lost);
        if (kept) {
            *e = lost;
            rc = kept;
        }
    }
    while (rc && rc != ERR_CANCELLED && json_array_size(s->messages) > before)
        json_array_remove(s->messages, json_array_size(s->messages) - 1);
    json_decref(r.calls);
    buf_release(&r.thought);
    buf_release(&r.answer);
    ids_release(&ids);
    return rc;
}
