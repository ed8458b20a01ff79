/*
 * The tokenizer of Hugging Face files as GGUF metadata, so that text is cut the same: tokens and
 * merges as tokenizer.json writes them, the kind of each token as llama.cpp's converter sees it,
 * the name of the pre-tokenizer, the roles of tokens and the chat templates.
 *
 * Left out: what GGUF cannot say about added tokens (white space at their sides, whole words).
 */
#include "base/num.h"
#include "base/utf8.h"
#include "convert/write.h"
#include "format/gguf.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB_JSON_MAX = 128 << 20, VOCAB_IDS_MAX = 1 << 24 };

/* Values of tokenizer.ggml.token_type. */
enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5 };

struct vocab_out {
    const char **text;
    size_t *len;
    int32_t *type;
    char *pads; /* texts of unused ids, PAD_MAX each */
    size_t n;
};

enum { PAD_MAX = 24 };

static int parse(json_t **out, struct source *src, const char *name, struct err *e)
{
    const char *text;
    size_t n;
    json_error_t je;
    *out = NULL;
    int rc = source_text(src, name, &text, &n, e);
    if (rc || !text)
        return rc;
    if (n > VOCAB_JSON_MAX)
        return err_set(e, ERR_LIMIT, "%s has %zu bytes, at most %d are possible", name, n,
                       VOCAB_JSON_MAX);
    *out = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &je);
    if (*out)
        return 0;
    return je.text[0] ? err_set(e, ERR_FORMAT, "%s: %s", name, je.text) : err_nomem(e, n, name);
}

/* ---- tokens -----------------------------------------------------------------------------------
 */

static void vocab_set(struct vocab_out *v, const json_t *id, const char *s, size_t n, int32_t type)
{
    double d = json_number_value(id);
    if (!(d >= 0 && d < (double)v->n) || !s)
        return;
    v->text[(size_t)d] = s;
    v->len[(size_t)d] = n;
    v->type[(size_t)d] = type;
}

/* Added tokens that are not marked special, but are written like it. */
static bool looks_special(const char *s, size_t n)
{
    static const struct {
        const char *begin, *end;
    } brackets[] = {{"<|", "|>"}, {"<｜", "｜>"}, {"<unused", ">"}};
    static const char *const whole[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    for (size_t i = 0; i < NUM_COUNT(whole); i++)
        if (strlen(whole[i]) == n && memcmp(whole[i], s, n) == 0)
            return true;
    for (size_t i = 0; i < NUM_COUNT(brackets); i++) {
        size_t b = strlen(brackets[i].begin), k = strlen(brackets[i].end);
        if (n >= b + k && memcmp(s, brackets[i].begin, b) == 0 &&
            memcmp(s + n - k, brackets[i].end, k) == 0)
            return true;
    }
    return false;
}

static int vocab_init(struct vocab_out *v, size_t n, struct err *e)
{
    if (n > VOCAB_IDS_MAX)
        return err_set(e, ERR_LIMIT, "a vocabulary of %zu tokens", n);
    *v = (struct vocab_out){.text = calloc(n, sizeof(const char *)),
                            .len = calloc(n, sizeof(size_t)),
                            .type = calloc(n, sizeof(int32_t)),
                            .pads = calloc(n, PAD_MAX),
                            .n = n};
    if (!v->text || !v->len || !v->type || !v->pads)
        return err_nomem(e, n * (PAD_MAX + 20), "the vocabulary");
    for (size_t i = 0; i < n; i++) {
        char *pad = v->pads + i * PAD_MAX;
        v->len[i] = (size_t)snprintf(pad, PAD_MAX, "[PAD%zu]", i);
        v->text[i] = pad;
        v->type[i] = TOKEN_UNUSED;
    }
    return 0;
}

static void vocab_release(struct vocab_out *v)
{
    free(v->text);
    free(v->len);
    free(v->type);
    free(v->pads);
}

static void vocab_fill(struct vocab_out *v, json_t *root)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *id, *a;
    const char *key;
    size_t i;
    json_object_foreach(vocab, key, id)
    {
        vocab_set(v, id, key, strlen(key), TOKEN_NORMAL);
    }
    json_array_foreach(json_object_get(root, "added_tokens"), i, a)
    {
        const json_t *s = json_object_get(a, "content");
        const char *p = json_string_value(s);
        size_t n = json_string_length(s);
        bool special = json_is_true(json_object_get(a, "special")) || (p && looks_special(p, n));
        vocab_set(v, json_object_get(a, "id"), p, n, special ? TOKEN_CONTROL : TOKEN_USER);
    }
}

static int put_tokens(struct convert_plan *p, struct gguf_writer *w, json_t *root,
                      const struct tokenizer *t, struct err *e)
{
    struct vocab_out v = {0};
    int rc = vocab_init(&v, p->cfg.n_vocab, e);
    if (!rc) {
        vocab_fill(&v, root);
        rc = gguf_put_strings(w, "tokenizer.ggml.tokens", v.text, v.len, v.n, e);
    }
    if (!rc)
        rc = gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, v.type, v.n, e);
    if (!rc && tokenizer_count(t) > p->cfg.n_vocab)
        plan_note(p, "the tokenizer has %zu tokens, the model only %zu: the others are left out",
                  tokenizer_count(t), p->cfg.n_vocab);
    vocab_release(&v);
    return rc;
}

/* "left right", whether the file writes them as one string or as a pair. */
static int put_merges(struct gguf_writer *w, json_t *root, struct err *e)
{
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges"), *m;
    size_t n = json_array_size(merges), i, k = 0;
    const char **text = calloc(n ? n : 1, sizeof *text);
    size_t *len = calloc(n ? n : 1, sizeof *len);
    struct buf pairs; /* the strings made of pairs, one after another */
    buf_init(&pairs, VOCAB_JSON_MAX);
    int rc = text && len ? 0 : err_nomem(e, n * sizeof *text, "the merges");
    json_array_foreach(merges, i, m)
    {
        const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        if (rc)
            break;
        if (json_is_string(m)) {
            len[k] = json_string_length(m);
            text[k] = len[k] >= 8 && !memcmp(json_string_value(m), "#version", 8)
                          ? NULL
                          : json_string_value(m);
            k += text[k] != NULL;
            continue;
        }
        size_t at = pairs.len;
        if ((rc = buf_puts(&pairs, json_string_value(a) ? json_string_value(a) : "", e)) ||
            (rc = buf_putc(&pairs, ' ', e)) ||
            (rc = buf_puts(&pairs, json_string_value(b) ? json_string_value(b) : "", e)))
            break;
        len[k++] = pairs.len - at; /* its place is known when the buffer has stopped growing */
    }
    size_t at = 0;
    for (i = 0; !rc && i < k; i++)
        if (!text[i]) {
            text[i] = pairs.data + at;
            at += len[i];
        }
    if (!rc)
        rc = gguf_put_strings(w, "tokenizer.ggml.merges", text, len, k, e);
    free(text);
    free(len);
    buf_release(&pairs);
    return rc;
}

/* ---- roles and templates ----------------------------------------------------------------------
 */

static int put_role(struct gguf_writer *w, const char *role, int32_t id, size_t vocab,
                    struct err *e)
{
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", role);
    return id < 0 || (size_t)id >= vocab ? 0 : gguf_put_u32(w, key, (uint32_t)id, e);
}

static int put_roles(struct convert_plan *p, struct gguf_writer *w, const struct tokenizer *t,
                     struct err *e)
{
    static const char *const further[] = {"eot", "eom"};
    size_t n = p->cfg.n_vocab, more = 0;
    int rc = put_role(w, "bos", tokenizer_bos(t), n, e);
    if (!rc)
        rc = put_role(w, "eos", tokenizer_eos(t), n, e);
    if (!rc)
        rc = put_role(w, "padding", tokenizer_pad(t), n, e);
    /* Other tokens that end an answer, the last first: an end of turn comes behind the others. */
    for (size_t i = tokenizer_count(t); !rc && i-- > 0 && more < NUM_COUNT(further);)
        if ((int32_t)i != tokenizer_eos(t) && tokenizer_is_end(t, (int32_t)i))
            rc = put_role(w, further[more++], (int32_t)i, n, e);
    if (!rc)
        rc = gguf_put_bool(w, "tokenizer.ggml.add_bos_token", tokenizer_adds_bos(t), e);
    return rc ? rc : gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false, e);
}

static int put_template(struct gguf_writer *w, const char *name, const char *s, size_t n,
                        struct err *e)
{
    char key[100];
    if (strlen(name) > 60 || !utf8_valid(s, n))
        return err_set(e, ERR_FORMAT,
                       "the chat template \"%.60s\" has a name or text that GGUF "
                       "cannot hold",
                       name);
    bool main = strcmp(name, "default") == 0;
    snprintf(key, sizeof key, "tokenizer.chat_template%s%s", main ? "" : ".", main ? "" : name);
    return gguf_put_string(w, key, s, n, e);
}

static int put_templates(struct convert_plan *p, struct gguf_writer *w, const json_t *conf,
                         struct err *e)
{
    const json_t *v = json_object_get(conf, "chat_template"), *item;
    const char *text;
    size_t n, i;
    int rc = source_text(p->src, "chat_template.jinja", &text, &n, e);
    if (rc)
        return rc;
    if (text)
        return put_template(w, "default", text, n, e);
    if (json_is_string(v))
        return put_template(w, "default", json_string_value(v), json_string_length(v), e);
    json_array_foreach(v, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        const json_t *t = json_object_get(item, "template");
        if (!rc && name && json_is_string(t))
            rc = put_template(w, name, json_string_value(t), json_string_length(t), e);
    }
    return rc;
}

/* What generation_config.json advises, where sampling is meant. */
static int put_sampling(struct gguf_writer *w, const json_t *gen, struct err *e)
{
    static const struct {
        const char *hf, *gguf;
        bool whole;
    } rows[] = {{"temperature", "general.sampling.temp", false},
                {"top_p", "general.sampling.top_p", false},
                {"min_p", "general.sampling.min_p", false},
                {"top_k", "general.sampling.top_k", true},
                {"repetition_penalty", "general.sampling.penalty_repeat", false}};
    int rc = 0;
    if (!json_is_true(json_object_get(gen, "do_sample")))
        return 0;
    for (size_t i = 0; !rc && i < NUM_COUNT(rows); i++) {
        const json_t *v = json_object_get(gen, rows[i].hf);
        double d = json_number_value(v);
        if (!json_is_number(v) || !(d >= 0 && d < 1e6))
            continue;
        rc = rows[i].whole ? gguf_put_i32(w, rows[i].gguf, (int32_t)d, e)
                           : gguf_put_f32(w, rows[i].gguf, (float)d, e);
    }
    return rc;
}

int convert_gguf_vocab(struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    json_t *root = NULL, *conf = NULL, *gen = NULL;
    struct tokenizer *t = NULL;
    const char *name = NULL;
    int rc = parse(&root, p->src, "tokenizer.json", e);
    if (!rc)
        rc = parse(&conf, p->src, "tokenizer_config.json", e);
    if (!rc)
        rc = parse(&gen, p->src, "generation_config.json", e);
    if (!rc)
        rc = put_sampling(w, gen, e);
    if (!rc && !root)
        plan_note(p, "there is no tokenizer.json: the file has no tokenizer");
    if (!rc && root)
        rc = tokenizer_new(&t, p->src, e);
    if (!rc && root)
        rc = tokenizer_gguf_name(t, &name, e);
    if (!rc && root)
        rc = gguf_put_string(w, "tokenizer.ggml.model", "gpt2", 4, e);
    if (!rc && root)
        rc = gguf_put_string(w, "tokenizer.ggml.pre", name, strlen(name), e);
    if (!rc && root)
        rc = put_tokens(p, w, root, t, e);
    if (!rc && root)
        rc = put_merges(w, root, e);
    if (!rc && root)
        rc = put_roles(p, w, t, e);
    if (!rc)
        rc = put_templates(p, w, conf, e);
    tokenizer_free(t);
    json_decref(root);
    json_decref(conf);
    json_decref(gen);
    return rc;
}
