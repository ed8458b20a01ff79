/*
 * The tokenizer of a GGUF file as tokenizer.json and its companions: the way back of gguf_vocab.c.
 *
 * Every token that is in use goes into the model's vocabulary, the added ones too, so that all keep
 * their ids whoever reads the file. The patterns are those of the pre-tokenizer's name
 * (text/pretok.def), which are in the language that tokenizer.json has.
 */
#include "base/num.h"
#include "convert/hf_files.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/tokenizer_write.h"

#include <stdio.h>
#include <string.h>

/* Values of tokenizer.ggml.token_type. */
enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5 };

static int no_memory(struct err *e)
{
    return err_nomem(e, 0, "the tokenizer's files");
}

static json_t *text_value(const struct source_value *v)
{
    return v && v->type == SOURCE_STRING ? json_stringn(v->s.p, v->s.n) : NULL;
}

static int64_t whole(const struct source_value *v, int64_t none)
{
    if (v && v->type == SOURCE_INT)
        return v->i;
    return v && v->type == SOURCE_UINT && v->u <= INT64_MAX ? (int64_t)v->u : none;
}

/* ---- tokens and merges ------------------------------------------------------------------------
 */

static int add_token(json_t *vocab, json_t *added, const struct source_value *s, int64_t type,
                     uint64_t id, struct err *e)
{
    if (type == TOKEN_UNUSED)
        return 0;
    if (json_object_setn_new(vocab, s->s.p, s->s.n, json_integer((json_int_t)id)))
        return no_memory(e);
    if (type != TOKEN_CONTROL && type != TOKEN_USER)
        return 0;
    json_t *a = tokenizer_write_added(s->s.p, s->s.n, (int64_t)id, type == TOKEN_CONTROL);
    return a && !json_array_append_new(added, a) ? 0 : no_memory(e);
}

static int add_tokens(struct source *src, json_t *vocab, json_t *added, struct err *e)
{
    const struct source_value *tokens = source_value(src, "tokenizer.ggml.tokens"),
                              *types = source_value(src, "tokenizer.ggml.token_type");
    int rc = 0;
    for (uint64_t i = 0; !rc && i < tokens->count; i++) {
        struct source_value s, t = {.type = SOURCE_INT, .i = TOKEN_NORMAL};
        rc = source_array_get(src, tokens, i, &s, e);
        if (!rc && types)
            rc = source_array_get(src, types, i, &t, e);
        if (!rc)
            rc = add_token(vocab, added, &s, whole(&t, TOKEN_NORMAL), i, e);
    }
    return rc;
}

static int add_merges(struct source *src, json_t *merges, struct err *e)
{
    const struct source_value *list = source_value(src, "tokenizer.ggml.merges");
    int rc = 0;
    for (uint64_t i = 0; !rc && list && i < list->count; i++) {
        struct source_value s;
        rc = source_array_get(src, list, i, &s, e);
        if (!rc && json_array_append_new(merges, json_stringn(s.s.p, s.s.n)))
            rc = no_memory(e);
    }
    return rc;
}

/* ---- tokenizer.json ---------------------------------------------------------------------------
 */

static json_t *token_text(const struct tokenizer *t, int32_t id)
{
    size_t n = 0;
    const char *s = id >= 0 ? tokenizer_bytes(t, id, &n) : NULL;
    return s && n ? json_stringn(s, n) : NULL;
}

static int write_tokenizer(struct convert_plan *p, const struct tokenizer *t, const char *dir,
                           struct err *e)
{
    const struct source_value *pre = source_value(p->src, "tokenizer.ggml.pre");
    bool named = pre && pre->type == SOURCE_STRING;
    unsigned flags = 0;
    const char *const *patterns =
        pretok_patterns(named ? pre->s.p : "default", named ? pre->s.n : 7, &flags);
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array(), *root = NULL;
    json_t *bos = token_text(t, tokenizer_bos(t));
    int rc = vocab && merges && added && patterns ? 0 : no_memory(e);
    if (!rc)
        rc = add_tokens(p->src, vocab, added, e);
    if (!rc)
        rc = add_merges(p->src, merges, e);
    if (!rc) {
        struct tokenizer_parts parts = {.patterns = patterns,
                                        .flags = flags,
                                        .vocab = vocab,
                                        .merges = merges,
                                        .added = added,
                                        .bos =
                                            tokenizer_adds_bos(t) ? json_string_value(bos) : NULL,
                                        .bos_id = tokenizer_bos(t)};
        root = tokenizer_write(&parts);
        rc = root ? hf_write_json(dir, "tokenizer.json", root, e) : no_memory(e);
    }
    json_decref(root);
    json_decref(vocab);
    json_decref(merges);
    json_decref(added);
    json_decref(bos);
    return rc;
}

/* ---- tokenizer_config.json, generation_config.json --------------------------------------------
 */

/* One template is a string, several are a list with names. */
static int templates(struct convert_plan *p, json_t *conf, struct err *e)
{
    static const char key[] = "tokenizer.chat_template";
    json_t *main = text_value(source_value(p->src, key)), *list = json_array();
    int rc = list ? 0 : no_memory(e);
    for (size_t i = 0; !rc && i < source_value_count(p->src); i++) {
        const struct source_value *v;
        const char *k = source_value_at(p->src, i, &v);
        size_t n = sizeof key - 1;
        if (strncmp(k, key, n) != 0 || (k[n] && k[n] != '.') || v->type != SOURCE_STRING)
            continue;
        if (json_array_append_new(list, json_pack("{ss so}", "name", k[n] ? k + n + 1 : "default",
                                                  "template", text_value(v))))
            rc = no_memory(e);
    }
    size_t n = json_array_size(list);
    json_t *value = n == 1 && main ? main : list;
    if (!rc && n && json_object_set(conf, "chat_template", value))
        rc = no_memory(e);
    json_decref(main);
    json_decref(list);
    return rc;
}

static int write_config(struct convert_plan *p, const struct tokenizer *t, const char *dir,
                        struct err *e)
{
    const struct {
        const char *key;
        int32_t id;
    } roles[] = {{"bos_token", tokenizer_bos(t)},
                 {"eos_token", tokenizer_eos(t)},
                 {"pad_token", tokenizer_pad(t)}};
    json_t *conf =
        json_pack("{ss sb sb sb sI}", "tokenizer_class", "PreTrainedTokenizerFast", "add_bos_token",
                  tokenizer_adds_bos(t), "add_eos_token", 0, "clean_up_tokenization_spaces", 0,
                  "model_max_length", (json_int_t)p->cfg.ctx_train);
    int rc = conf ? 0 : no_memory(e);
    for (size_t i = 0; !rc && i < NUM_COUNT(roles); i++) {
        json_t *s = token_text(t, roles[i].id);
        if (s && json_object_set_new(conf, roles[i].key, s))
            rc = no_memory(e);
    }
    if (!rc)
        rc = templates(p, conf, e);
    if (!rc)
        rc = hf_write_json(dir, "tokenizer_config.json", conf, e);
    json_decref(conf);
    return rc;
}

static int write_generation(struct convert_plan *p, const struct tokenizer *t, const char *dir,
                            struct err *e)
{
    static const struct {
        const char *gguf, *hf;
    } rows[] = {{"general.sampling.temp", "temperature"},
                {"general.sampling.top_p", "top_p"},
                {"general.sampling.min_p", "min_p"},
                {"general.sampling.top_k", "top_k"},
                {"general.sampling.penalty_repeat", "repetition_penalty"}};
    json_t *o = json_object(), *ends = json_array();
    bool bad = !o || !ends, sample = false;
    for (size_t i = 0; !bad && t && i < tokenizer_count(t); i++)
        if (tokenizer_is_end(t, (int32_t)i))
            bad |= json_array_append_new(ends, json_integer((json_int_t)i)) != 0;
    if (!bad && t && tokenizer_bos(t) >= 0)
        bad |= json_object_set_new(o, "bos_token_id", json_integer(tokenizer_bos(t))) != 0;
    if (!bad && json_array_size(ends))
        bad |= json_object_set(o, "eos_token_id",
                               json_array_size(ends) == 1 ? json_array_get(ends, 0) : ends) != 0;
    for (size_t i = 0; !bad && i < NUM_COUNT(rows); i++) {
        const struct source_value *v = source_value(p->src, rows[i].gguf);
        if (!v || (v->type != SOURCE_FLOAT && v->type != SOURCE_INT && v->type != SOURCE_UINT))
            continue;
        char text[40];
        snprintf(text, sizeof text, "%.6g", v->type == SOURCE_FLOAT ? v->f : (double)whole(v, 0));
        json_t *number = json_loads(text, JSON_DECODE_ANY, NULL);
        bad |= json_object_set_new(o, rows[i].hf, number) != 0;
        sample = true;
    }
    if (!bad && sample)
        bad |= json_object_set_new(o, "do_sample", json_true()) != 0;
    int rc = bad ? no_memory(e) : hf_write_json(dir, "generation_config.json", o, e);
    json_decref(ends);
    json_decref(o);
    return rc;
}

int hf_vocab(struct convert_plan *p, const char *dir, struct err *e)
{
    struct tokenizer *t = NULL;
    if (!source_value(p->src, "tokenizer.ggml.tokens")) {
        plan_note(p, "the source has no tokenizer: the folder has none");
        return write_generation(p, NULL, dir, e);
    }
    int rc = tokenizer_new(&t, p->src, e);
    if (!rc)
        rc = write_tokenizer(p, t, dir, e);
    if (!rc)
        rc = write_config(p, t, dir, e);
    if (!rc)
        rc = write_generation(p, t, dir, e);
    tokenizer_free(t);
    return rc;
}
