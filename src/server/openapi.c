/* See openapi.h. */
#include "server/openapi.h"

#include "base/num.h"
#include "server/server.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const struct openapi_schema {
    const char *name, *json;
} schemas[] = {
#define SCHEMA(name, ...) {#name, #__VA_ARGS__},
#define DOC(fn, request, answer, stream, summary)
#include "server/openapi.def"
#undef SCHEMA
#undef DOC
};

static const struct openapi_doc {
    const char *fn, *request, *answer, *stream, *summary;
} docs[] = {
#define SCHEMA(name, ...)
#define DOC(fn, request, answer, stream, summary) {#fn, #request, #answer, stream, summary},
#include "server/openapi.def"
#undef SCHEMA
#undef DOC
};

static const struct openapi_route {
    const char *method, *path, *fn;
    enum http_api api;
    bool open;
    size_t body;
} routes[] = {
#define ROUTE(method, path, kind, api, open, body, fn) {method, path, #fn, api, open, body},
#include "server/route.def"
#undef ROUTE
};

static const struct openapi_doc *doc_of(const char *fn)
{
    for (size_t i = 0; i < NUM_COUNT(docs); i++)
        if (!strcmp(docs[i].fn, fn))
            return &docs[i];
    return NULL;
}

bool openapi_has(const struct http_route *r)
{
    for (size_t i = 0; i < NUM_COUNT(routes); i++)
        if (!strcmp(routes[i].path, r->path) && !strcmp(routes[i].method, r->method))
            return doc_of(routes[i].fn) != NULL;
    return false;
}

static json_t *ref(const char *name)
{
    return json_pack("{so}", "$ref", json_sprintf("#/components/schemas/%s", name));
}

static bool named(const char *schema)
{
    return strcmp(schema, "NULL") != 0;
}

static const char *error_schema(enum http_api api)
{
    return api == HTTP_OPENAI      ? "ErrorOpenAI"
           : api == HTTP_ANTHROPIC ? "ErrorAnthropic"
                                   : "ErrorOllama";
}

static json_t *error_answer(const struct openapi_route *r, const char *text)
{
    return json_pack("{ss s{s{so}}}", "description", text, "content", "application/json", "schema",
                     ref(error_schema(r->api)));
}

static json_t *answers(const struct openapi_route *r, const struct openapi_doc *d)
{
    json_t *content = json_object();
    if (named(d->answer))
        json_object_set_new(content, "application/json",
                            json_pack("{so}", "schema", ref(d->answer)));
    else
        json_object_set_new(content, "text/plain",
                            json_pack("{s{ss}}", "schema", "type", "string"));
    if (d->stream)
        json_object_set_new(content, d->stream, json_pack("{s{ss}}", "schema", "type", "string"));
    return json_pack("{s{ss so} so so}", "200", "description", "The answer", "content", content,
                     "4XX", error_answer(r, "The request is refused"), "5XX",
                     error_answer(r, "The server cannot answer now"));
}

/* "/v1/models/{model}" for "/v1/models/…" with a star. */
static void template_path(const char *path, char *out, size_t cap)
{
    size_t n = strlen(path);
    bool star = n && path[n - 1] == '*';
    snprintf(out, cap, "%.*s%s", (int)(n - star), path, star ? "{model}" : "");
}

static json_t *operation(const struct openapi_route *r, const struct openapi_doc *d)
{
    json_t *o = json_pack("{ss so}", "summary", d->summary, "responses", answers(r, d));
    size_t n = strlen(r->path);
    if (o && r->path[n - 1] == '*')
        json_object_set_new(o, "parameters",
                            json_pack("[{ss ss sb s{ss ss}}]", "name", "model", "in", "path",
                                      "required", 1, "schema", "type", "string", "pattern",
                                      "^[A-Za-z0-9._:-]+$"));
    if (o && named(d->request))
        json_object_set_new(o, "requestBody",
                            json_pack("{sb s{s{so}}}", "required", 1, "content", "application/json",
                                      "schema", ref(d->request)));
    if (o && r->open)
        json_object_set_new(o, "security", json_array());
    return o;
}

static json_t *paths(void)
{
    json_t *all = json_object();
    for (size_t i = 0; i < NUM_COUNT(routes); i++) {
        const struct openapi_route *r = &routes[i];
        const struct openapi_doc *d = doc_of(r->fn);
        char path[128], method[8] = "";
        if (!d)
            continue;
        template_path(r->path, path, sizeof path);
        for (size_t k = 0; r->method[k] && k + 1 < sizeof method; k++)
            method[k] = (char)tolower((unsigned char)r->method[k]);
        json_t *at = json_object_get(all, path);
        if (!at) {
            at = json_object();
            json_object_set_new(all, path, at);
        }
        if (json_object_set_new(at, method, operation(r, d))) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

/* What depends on the server: names of models, ids that all of them know, samples of a request. */
static int own_schemas(const struct server *s, json_t *all)
{
    size_t vocab = INT32_MAX;
    json_t *names = json_array();
    for (size_t i = 0; i < hub_count(s->hub); i++) {
        const struct hub_model *m = hub_model(s->hub, i);
        vocab = num_min(vocab, hub_info(m)->vocab);
        for (size_t k = 0; hub_name(m, k); k++)
            json_array_append_new(names, json_string(hub_name(m, k)));
    }
    json_t *any = json_pack("{ss si si ss}", "type", "string", "minLength", 1, "maxLength", 512,
                            "pattern", "^[^\\u0000]+$");
    json_t *name =
        json_array_size(names) ? json_pack("{s[{so} o]}", "anyOf", "enum", names, any) : any;
    if (name == any)
        json_decref(names);
    return json_object_set_new(all, "ModelName", name) ||
           json_object_set_new(all, "TokenId",
                               json_pack("{ss si sI}", "type", "integer", "minimum", 0, "maximum",
                                         (json_int_t)vocab - 1)) ||
           json_object_set_new(all, "Samples",
                               json_pack("{ss si sI}", "type", "integer", "minimum", 1, "maximum",
                                         (json_int_t)(s->o.n_max ? s->o.n_max : 16)));
}

json_t *openapi_document(const struct server *s)
{
    json_t *all = json_object();
    if (own_schemas(s, all)) {
        json_decref(all);
        return NULL;
    }
    for (size_t i = 0; i < NUM_COUNT(schemas); i++)
        if (json_object_set_new(all, schemas[i].name, json_loads(schemas[i].json, 0, NULL))) {
            json_decref(all);
            return NULL;
        }
    json_t *o = json_pack(
        "{ss s{ss ss ss} so s{so}}", "openapi", "3.1.0", "info", "title", "ponder", "version",
        PONDER_VERSION, "description",
        "Chat, completion and embedding with local models, as OpenAI's, DeepSeek's, Anthropic's "
        "and Ollama's clients ask for it",
        "paths", paths(), "components", "schemas", all);
    if (o && (s->o.http.n_api_key || s->o.http.key_file)) {
        json_object_set_new(json_object_get(o, "components"), "securitySchemes",
                            json_pack("{s{ss ss}}", "key", "type", "http", "scheme", "bearer"));
        json_object_set_new(o, "security", json_pack("[{s[]}]", "key"));
    }
    return o;
}

void openapi_send(void *arg, struct http_exchange *x)
{
    json_t *o = openapi_document(arg);
    if (o)
        http_send_json(x, 200, o);
    else
        http_error(x, 503, NULL, NULL, NULL, "no memory for the document");
}
