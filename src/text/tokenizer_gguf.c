/*
 * A tokenizer from GGUF metadata (tokenizer.ggml.*). The file names its pre-tokenizer; the patterns
 * are ours (pretok.def). Tokens that the file marks as control or user-defined are the added
 * tokens.
 */
#include "base/num.h"
#include "text/tokenizer_impl.h"

#include <string.h>

/* Values of tokenizer.ggml.token_type. */
enum gguf_token {
    GGUF_TOKEN_UNDEFINED,
    GGUF_TOKEN_NORMAL,
    GGUF_TOKEN_UNKNOWN,
    GGUF_TOKEN_CONTROL,
    GGUF_TOKEN_USER,
    GGUF_TOKEN_UNUSED,
    GGUF_TOKEN_BYTE,
};

static bool as_int(const struct source_value *v, int64_t *out)
{
    if (v->type == SOURCE_INT)
        *out = v->i;
    else if (v->type == SOURCE_UINT && v->u <= INT64_MAX)
        *out = (int64_t)v->u;
    else
        return false;
    return true;
}

/* An array of `item`s (SOURCE_INT: any whole numbers); NULL when absent and not needed. */
static int array(struct source *src, const char *key, bool strings, bool needed,
                 const struct source_value **out, struct err *e)
{
    const struct source_value *v = source_value(src, key);
    *out = v;
    if (!v)
        return needed ? err_set(e, ERR_FORMAT, "%s is missing", key) : 0;
    bool good =
        v->type == SOURCE_ARRAY &&
        (strings ? v->item == SOURCE_STRING : v->item == SOURCE_INT || v->item == SOURCE_UINT);
    if (!good && !(v->type == SOURCE_ARRAY && v->count == 0))
        return err_set(e, ERR_FORMAT, "%s is not an array of %s", key,
                       strings ? "strings" : "whole numbers");
    if (v->count > VOCAB_MAX)
        return err_set(e, ERR_LIMIT, "%s has %llu elements: at most %d are supported", key,
                       (unsigned long long)v->count, VOCAB_MAX);
    return 0;
}

/* "<0x41>" → 0x41, or -1. */
static int byte_token(const char *s, size_t n)
{
    int v = 0;
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* One token; *extra grows by the bytes of an added token. */
static int set_token(struct vocab *v, int32_t id, int64_t type, const char *s, size_t n,
                     size_t *extra, struct err *e)
{
    int byte = type == GGUF_TOKEN_BYTE ? byte_token(s, n) : -1;
    if (type == GGUF_TOKEN_UNUSED)
        return 0;
    if (byte >= 0) {
        char c = (char)byte;
        return vocab_set_raw(v, id, &c, 1, e);
    }
    if (type != GGUF_TOKEN_CONTROL && type != GGUF_TOKEN_USER && type != GGUF_TOKEN_UNKNOWN)
        return vocab_set_level(v, id, s, n, e);
    /* Written as it is, even where all its characters are of the byte alphabet. */
    int rc = vocab_set_raw(v, id, s, n, e);
    if (rc)
        return rc;
    v->tok[id].flags |= VOCAB_ADDED | (type == GGUF_TOKEN_USER ? 0 : VOCAB_SPECIAL);
    *extra += n;
    return 0;
}

static int load_tokens(struct tokenizer *t, struct source *src, size_t *extra, struct err *e)
{
    const struct source_value *tokens, *types;
    int rc = array(src, "tokenizer.ggml.tokens", true, true, &tokens, e);
    if (!rc)
        rc = array(src, "tokenizer.ggml.token_type", false, false, &types, e);
    if (rc)
        return rc;
    if (types && types->count != tokens->count)
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.token_type has %llu elements, tokenizer.ggml.tokens %llu",
                       (unsigned long long)types->count, (unsigned long long)tokens->count);
    rc = vocab_init(&t->vocab, &t->arena, (size_t)tokens->count, e);
    *extra = 0;
    for (uint64_t i = 0; !rc && i < tokens->count; i++) {
        struct source_value s, k;
        int64_t type = GGUF_TOKEN_NORMAL;
        rc = source_array_get(src, tokens, i, &s, e);
        if (!rc && types) {
            rc = source_array_get(src, types, i, &k, e);
            if (!rc && !as_int(&k, &type))
                rc = err_set(e, ERR_FORMAT, "tokenizer.ggml.token_type holds no whole numbers");
        }
        if (!rc)
            rc = set_token(&t->vocab, (int32_t)i, type, s.s.p, s.s.n, extra, e);
        if (rc)
            return err_ctx(e, "token %llu", (unsigned long long)i);
    }
    if (!rc)
        vocab_index(&t->vocab);
    return rc;
}

static int load_added(struct tokenizer *t, size_t extra, struct err *e)
{
    int rc = added_init(&t->raw, &t->arena, extra, e);
    for (size_t i = 0; !rc && i < t->vocab.count; i++) {
        const struct vocab_token *k = &t->vocab.tok[i];
        if (k->flags & VOCAB_ADDED && k->n > 0)
            rc = added_put(&t->raw, k->p, k->n, (int32_t)i, 0, e);
    }
    return rc;
}

static int load_merges(struct tokenizer *t, struct source *src, struct err *e)
{
    const struct source_value *merges;
    int rc = array(src, "tokenizer.ggml.merges", true, true, &merges, e);
    if (!rc)
        rc = bpe_init(&t->bpe, &t->vocab, &t->arena, (size_t)merges->count, e);
    t->bpe.lenient = true; /* converters of models with a cut vocabulary keep all merges */
    for (uint64_t i = 0; !rc && i < merges->count; i++) {
        struct source_value s;
        rc = source_array_get(src, merges, i, &s, e);
        if (!rc)
            rc = bpe_merge_line(&t->bpe, s.s.p, s.s.n, e);
    }
    return rc ? rc : bpe_finish(&t->bpe, e);
}

/* A key that holds a token id; *out stays when the key is absent. */
static int token_key(const struct tokenizer *t, struct source *src, const char *key, int32_t *out,
                     struct err *e)
{
    const struct source_value *v = source_value(src, key);
    int64_t id;
    if (!v)
        return 0;
    if (!as_int(v, &id))
        return err_set(e, ERR_FORMAT, "%s is not a whole number", key);
    if (id < 0 || (uint64_t)id >= t->vocab.count) {
        if (id == -1 || id == UINT32_MAX) /* how some files say "none" */
            return 0;
        return err_set(e, ERR_FORMAT, "%s is %lld, but the vocabulary has %zu tokens", key,
                       (long long)id, t->vocab.count);
    }
    *out = (int32_t)id;
    return 0;
}

static int load_roles(struct tokenizer *t, struct source *src, struct err *e)
{
    int32_t eot = -1, eom = -1;
    const struct {
        const char *key;
        int32_t *id;
        bool end;
    } rows[] = {
        {"tokenizer.ggml.bos_token_id", &t->bos, false},
        {"tokenizer.ggml.eos_token_id", &t->eos, true},
        {"tokenizer.ggml.padding_token_id", &t->pad, false},
        {"tokenizer.ggml.eot_token_id", &eot, true},
        {"tokenizer.ggml.eom_token_id", &eom, true},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < NUM_COUNT(rows); i++) {
        rc = token_key(t, src, rows[i].key, rows[i].id, e);
        if (!rc && rows[i].end && *rows[i].id >= 0)
            rc = tokenizer_add_end(t, *rows[i].id, e);
    }
    const struct source_value *v = source_value(src, "tokenizer.ggml.add_bos_token");
    if (!rc && v && v->type != SOURCE_BOOL)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.add_bos_token is not true or false");
    if (v)
        t->add_bos = v->b;
    return rc ? rc : tokenizer_add_named_ends(t, e);
}

static int load_pretok(struct tokenizer *t, struct source *src, struct err *e)
{
    static const char key[] = "tokenizer.ggml.pre";
    const struct source_value *v = source_value(src, key);
    unsigned flags;
    if (v && v->type != SOURCE_STRING)
        return err_set(e, ERR_FORMAT, "%s is not a string", key);
    /* Files from before the key existed: what their converter meant is "default". */
    int rc = v ? pretok_add_named(&t->pretok, v->s.p, v->s.n, &flags, e)
               : pretok_add_named(&t->pretok, "default", 7, &flags, e);
    if (rc)
        return rc;
    t->bpe.whole = flags & PRETOK_WHOLE;
    t->add_bos = flags & PRETOK_BOS;
    return flags & PRETOK_NFC ? normalizer_add(&t->normalizer, NORMAL_NFC, e) : 0;
}

int tokenizer_load_gguf(struct tokenizer *t, struct source *src, struct err *e)
{
    static const char key[] = "tokenizer.ggml.model";
    const struct source_value *model = source_value(src, key);
    if (!model || model->type != SOURCE_STRING)
        return err_set(e, ERR_FORMAT, "the file has no tokenizer (%s is missing)", key);
    if (model->s.n != 4 || memcmp(model->s.p, "gpt2", 4) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s is '%.*s': only byte-level BPE ('gpt2') is supported", key,
                       (int)num_min(model->s.n, 60), model->s.p);
    size_t extra = 0;
    int rc = load_tokens(t, src, &extra, e);
    if (!rc)
        rc = load_added(t, extra, e);
    if (!rc)
        rc = load_merges(t, src, e);
    if (!rc)
        rc = load_pretok(t, src, e);
    return rc ? rc : load_roles(t, src, e);
}
