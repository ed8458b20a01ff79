/* OpenAI's API: what models there are; DeepSeek's balance. */
#include "server/openai.h"

#include <string.h>

/* The context is what a request may have here, not what the model was trained for. */
static json_t *model_object(const struct server *s, const struct hub_info *i, const char *name)
{
    size_t own = s->o.hub.engine.ctx, ctx = i->ctx_train;
    if (own && (!ctx || own < ctx))
        ctx = own;
    return json_pack("{ss ss sI ss ss ss* sI sI}", "id", name, "object", "model", "created",
                     (json_int_t)i->modified, "owned_by", "ponder", "root",
                     i->adapter ? i->adapter : i->name, "parent", i->parent, "max_model_len",
                     (json_int_t)ctx, "context_length", (json_int_t)ctx);
}

void openai_models(void *arg, struct http_exchange *x)
{
    struct server *s = arg;
    json_t *all = json_array();
    int bad = 0;
    for (size_t i = 0; i < hub_count(s->hub); i++) {
        const struct hub_model *m = hub_model(s->hub, i);
        for (size_t k = 0; hub_name(m, k); k++)
            bad |= json_array_append_new(all, model_object(s, hub_info(m), hub_name(m, k)));
    }
    if (bad)
        http_error(x, 503, NULL, NULL, NULL, "no memory for a list");
    else
        http_send_json(x, 200, json_pack("{ss sO}", "object", "list", "data", all));
    json_decref(all);
}

void openai_model(void *arg, struct http_exchange *x)
{
    struct server *s = arg;
    struct hub_model *m;
    struct err e = {0};
    int think;
    if (hub_find(s->hub, http_rest(x), &m, &think, &e))
        openai_error(x, "model", &e);
    else
        http_send_json(x, 200, model_object(s, hub_info(m), http_rest(x)));
}

/* DeepSeek's: programs ask before they begin. Nothing is charged here. */
void openai_balance(void *arg, struct http_exchange *x)
{
    (void)arg;
    http_send_json(x, 200,
                   json_pack("{sb s[{ss ss ss ss}]}", "is_available", 1, "balance_infos",
                             "currency", "CNY", "total_balance", "0.00", "granted_balance", "0.00",
                             "topped_up_balance", "0.00"));
}
