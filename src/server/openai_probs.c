/*
 * OpenAI's API: log-probabilities, in the shape of chats, in that of completions, and vLLM's of
 * prompts. A token that is part of a character has no text of its own: it is shown as U+FFFD in
 * chats, whose "bytes" are exact, and as "bytes:\xNN" in the others, as OpenAI did.
 */
#include "base/utf8.h"
#include "server/openai.h"

#include <stdio.h>
#include <string.h>

static json_t *text_of(const struct tokenizer *t, int32_t id)
{
    size_t n = 0;
    const char *s = tokenizer_bytes(t, id, &n);
    if (!s || utf8_valid(s, n))
        return json_stringn(s ? s : "", n);
    char out[6 + 4 * 64] = "bytes:";
    size_t at = 6;
    for (size_t i = 0; i < n && i < 64; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "\\x%02x", (unsigned char)s[i]);
    return json_stringn(out, at);
}

static json_t *one(const struct tokenizer *t, const struct token_prob *p)
{
    size_t n = 0;
    const char *s = tokenizer_bytes(t, p->id, &n);
    json_t *bytes = json_array();
    json_t *text = s && utf8_valid(s, n) ? json_stringn(s, n) : json_string("\xef\xbf\xbd");
    for (size_t i = 0; s && i < n; i++)
        json_array_append_new(bytes, json_integer((unsigned char)s[i]));
    return json_pack("{so sf so}", "token", text, "logprob", (double)p->logprob, "bytes", bytes);
}

int openai_probs(json_t *list, const struct tokenizer *t, const struct request_event *ev,
                 struct err *e)
{
    int bad = !list;
    for (size_t i = 0; ev->info && i < ev->n_info && !bad; i++) {
        json_t *o = one(t, &ev->info[i].self), *top = json_array();
        for (size_t k = 0; k < ev->info[i].n_top; k++)
            bad |= json_array_append_new(top, one(t, &ev->info[i].top[k]));
        bad |= json_object_set_new(o, "top_logprobs", top);
        bad |= json_array_append_new(list, o);
    }
    return bad ? err_nomem(e, 0, "log-probabilities") : 0;
}

json_t *openai_legacy(void)
{
    return json_pack("{s[] s[] s[] s[]}", "tokens", "token_logprobs", "top_logprobs",
                     "text_offset");
}

/* `info` NULL: the first token of a prompt, which nothing predicts. */
static int legacy_row(struct openai_choice *c, const struct tokenizer *t, int32_t id,
                      const struct token_info *info)
{
    json_t *text = text_of(t, id), *top = info ? json_object() : json_null();
    int bad = 0;
    for (size_t k = 0; info && k < info->n_top; k++) {
        json_t *key = text_of(t, info->top[k].id);
        bad |= json_object_set_new(top, json_string_value(key),
                                   json_real((double)info->top[k].logprob));
        json_decref(key);
    }
    size_t n = json_string_length(text);
    bad |= json_array_append_new(json_object_get(c->probs, "tokens"), text);
    bad |= json_array_append_new(json_object_get(c->probs, "token_logprobs"),
                                 info ? json_real((double)info->self.logprob) : json_null());
    bad |= json_array_append_new(json_object_get(c->probs, "top_logprobs"), top);
    bad |= json_array_append_new(json_object_get(c->probs, "text_offset"),
                                 json_integer((json_int_t)c->offset));
    c->offset += n;
    return bad;
}

int openai_probs_legacy(struct openai_choice *c, const struct tokenizer *t,
                        const struct request_event *ev, struct err *e)
{
    int bad = 0;
    if (ev->info && !c->probs)
        bad = !(c->probs = openai_legacy());
    for (size_t i = 0; ev->info && i < ev->n_info && !bad; i++)
        bad = legacy_row(c, t, ev->info[i].self.id, &ev->info[i]);
    return bad ? err_nomem(e, 0, "log-probabilities") : 0;
}

/* {"ID": {"logprob", "rank", "decoded_token"}} of a token and of the likeliest. */
static json_t *prompt_row(const struct tokenizer *t, const struct token_info *info)
{
    json_t *row = json_object();
    for (size_t k = 0; k <= info->n_top; k++) {
        const struct token_prob *p = k ? &info->top[k - 1] : &info->self;
        char key[16];
        snprintf(key, sizeof key, "%d", p->id);
        json_t *o = json_pack("{sf si so}", "logprob", (double)p->logprob, "rank", (int)p->rank,
                              "decoded_token", text_of(t, p->id));
        if (json_object_set_new(row, key, o)) {
            json_decref(row);
            return NULL;
        }
    }
    return row;
}

int openai_probs_prompt(struct openai_choice *c, const struct tokenizer *t, const int32_t *prompt,
                        size_t n, const struct request_event *ev, struct err *e)
{
    bool legacy = c->probs != NULL;
    int bad = 0;
    if (!legacy && !c->prompt_probs)
        bad = !(c->prompt_probs = json_pack("[n]"));
    if (legacy && n)
        bad = legacy_row(c, t, prompt[0], NULL);
    for (size_t i = 0; ev->info && i < ev->n_info && !bad; i++)
        bad = legacy ? legacy_row(c, t, ev->info[i].self.id, &ev->info[i])
                     : json_array_append_new(c->prompt_probs, prompt_row(t, &ev->info[i]));
    return bad ? err_nomem(e, 0, "log-probabilities") : 0;
}
