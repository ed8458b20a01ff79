/* vLLM's /tokenize and /detokenize. */
#include "server/openai.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t tokens_max = (size_t)1 << 26;

struct tokens_request {
    struct http_exchange *x; /* kept */
    json_t *body, *messages; /* owned */
    bool back;               /* detokenize */
    int32_t *ids;            /* owned */
    size_t n_ids;
};

static void tokens_free(struct tokens_request *r)
{
    json_decref(r->messages);
    json_decref(r->body);
    free(r->ids);
    http_drop(r->x);
    free(r);
}

static json_t *id_array(const int32_t *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(a, json_integer(v[i]))) {
            json_decref(a);
            return NULL;
        }
    return a;
}

static json_t *strings(const struct tokenizer *t, const int32_t *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        const char *s = tokenizer_bytes(t, v[i], &k);
        json_t *text = json_stringn(s ? s : "", s ? k : 0);
        json_array_append_new(a, text ? text : json_string("\xef\xbf\xbd"));
    }
    return a;
}

/* The request as a template sees it. */
static int encode_chat(struct tokens_request *r, const struct hub_use *u, struct ids *out,
                       struct err *e)
{
    bool opening = true, more = false, open;
    json_t *vars = NULL, *tools = NULL;
    struct fields f = fields_of(r->body, "", e);
    field_bool(&f, "add_generation_prompt", &opening);
    field_bool(&f, "continue_final_message", &more);
    field_object(&f, "chat_template_kwargs", &vars);
    field_array(&f, "tools", &tools, 1024);
    if (!f.code)
        f.code = job_messages(field(&f, "messages"), &r->messages, e);
    if (f.code)
        return f.code;
    json_t *request = vars ? json_copy(vars) : json_object();
    int bad = json_object_set(request, "messages", r->messages);
    bad |= json_object_set_new(request, "add_generation_prompt", json_boolean(opening && !more));
    bad |= json_object_set_new(request, "continue_final_message", json_boolean(more));
    if (json_array_size(tools))
        bad |= json_object_set(request, "tools", tools);
    else
        json_object_del(request, "tools");
    int rc = bad ? err_nomem(e, 0, "a conversation")
                 : chat_encode(engine_chat(u->engine), request, out, &open, e);
    json_decref(request);
    return rc;
}

static int tokenize(struct tokens_request *r, const struct hub_use *u, struct err *e)
{
    const struct tokenizer *t = engine_tokenizer(u->engine);
    bool special = true, show = false;
    const char *text = NULL;
    size_t n = 0;
    struct ids ids;
    struct fields f = fields_of(r->body, "", e);
    ids_init(&ids, tokens_max);
    field_bool(&f, "add_special_tokens", &special);
    field_bool(&f, "return_token_strs", &show);
    field_string(&f, "prompt", &text, &n, tokens_max);
    int rc = f.code;
    if (!rc && !text && !field(&f, "messages"))
        rc = field_fail(&f, "prompt", "is missing");
    if (!rc && text)
        rc = tokenizer_encode(t, text, n, TOKENIZER_SPECIAL | (special ? TOKENIZER_BOS : 0), NULL,
                              &ids, e);
    else if (!rc)
        rc = encode_chat(r, u, &ids, e);
    if (!rc) {
        json_t *o =
            json_pack("{sI sI so}", "count", (json_int_t)ids.n, "max_model_len",
                      (json_int_t)engine_info(u->engine)->ctx, "tokens", id_array(ids.v, ids.n));
        json_object_set_new(o, "token_strs", show ? strings(t, ids.v, ids.n) : json_null());
        http_send_json(r->x, 200, o);
    }
    ids_release(&ids);
    return rc;
}

static int detokenize(struct tokens_request *r, const struct hub_use *u, struct err *e)
{
    struct detok d;
    struct buf text;
    struct fields f = fields_of(r->body, "", e);
    if (!field(&f, "tokens"))
        return field_fail(&f, "tokens", "is missing");
    field_ids(&f, "tokens", &r->ids, &r->n_ids, tokens_max, engine_info(u->engine)->vocab);
    int rc = f.code;
    detok_init(&d);
    buf_init(&text, (size_t)256 << 20);
    for (size_t i = 0; i < r->n_ids && !rc; i++)
        rc = detok_push(&d, engine_tokenizer(u->engine), r->ids[i], &text, e);
    if (!rc)
        rc = detok_flush(&d, &text, e);
    if (!rc)
        http_send_json(r->x, 200, json_pack("{so}", "prompt", json_stringn(text.data, text.len)));
    buf_release(&text);
    return rc;
}

static void ready(void *arg, const struct hub_use *u, const struct err *why)
{
    struct tokens_request *r = arg;
    struct err e = {0};
    int rc = 0;
    if (u)
        rc = r->back ? detokenize(r, u, &e) : tokenize(r, u, &e);
    else
        e = *why;
    if (!u || rc)
        openai_error(r->x, NULL, &e);
    if (u)
        hub_put(u, NAN);
    tokens_free(r);
}

static void run(struct server *s, struct http_exchange *x, bool back)
{
    struct err e = {0};
    const char *name = NULL;
    struct hub_model *m = NULL;
    int think;
    json_t *body = http_json(x);
    if (!body)
        return;
    struct fields f = fields_of(body, "", &e);
    field_string(&f, "model", &name, NULL, 512);
    int rc = f.code;
    if (!rc && !name && hub_count(s->hub)) /* as vLLM, which has one model */
        m = hub_model(s->hub, 0);
    else if (!rc)
        rc = hub_find(s->hub, name, &m, &think, &e);
    struct tokens_request *r = rc ? NULL : calloc(1, sizeof *r);
    if (!r) {
        json_decref(body);
        if (!rc)
            err_nomem(&e, sizeof *r, "a request");
        openai_error(x, f.param, &e);
        return;
    }
    http_keep(x);
    r->x = x;
    r->body = body;
    r->back = back;
    hub_get(s->hub, m, 0, ready, r);
}

void openai_tokenize(void *arg, struct http_exchange *x)
{
    run(arg, x, false);
}

void openai_detokenize(void *arg, struct http_exchange *x)
{
    run(arg, x, true);
}
