/*
 * A tokenizer from Hugging Face's tokenizer.json (the format of the "tokenizers" library), with
 * tokenizer_config.json and generation_config.json for the roles of tokens.
 *
 * The file is read once from front to back: the vocabulary is taken over while scanning, the
 * merges wait as a slice until the vocabulary is complete, and the small members become JSON
 * values. What a member asks for and this program cannot do is refused with its name.
 */
#include "base/num.h"
#include "text/jsonscan.h"
#include "text/tokenizer_impl.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Small members have at most this many bytes: a tree of JSON values takes up to a hundred times it.
 */
enum { SMALL_MAX = 4 << 20 };

/* A token as read; text in the file, or in the arena when it had escapes. */
struct entry {
    const char *p;
    uint32_t n;
    int32_t id;
};

struct hf {
    struct tokenizer *t;
    struct entry *entry; /* the model's vocabulary */
    size_t entries, cap;
    size_t merges; /* number of them */
    struct jstr merge_text;
    /* members as slices; p = NULL: absent */
    struct jstr added, normalizer, pre_tokenizer, post_processor, decoder;
    struct jstr type, dropout, unk_token, prefix, suffix, fuse_unk, ignore_merges;
    bool model;
    json_t *added_json;
};

/* A slice as a JSON value (NULL for absent or null: then *out stays NULL). */
static int small(json_t **out, struct jstr s, const char *name, size_t flags, struct err *e)
{
    json_error_t je;
    *out = NULL;
    if (!s.p)
        return 0;
    if (s.n > SMALL_MAX)
        return err_set(e, ERR_LIMIT, "\"%s\" has %zu bytes: at most %d are supported", name, s.n,
                       SMALL_MAX);
    *out = json_loadb(s.p, s.n, flags | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    /* Jansson is silent about failed allocations: no text, and the code is not even set. */
    if (!*out)
        return je.text[0] ? err_set(e, ERR_FORMAT, "\"%s\": %s", name, je.text)
                          : err_nomem(e, s.n, name);
    if (json_is_null(*out)) {
        json_decref(*out);
        *out = NULL;
    }
    return 0;
}

static const char *type_of(const json_t *o)
{
    const char *s = json_string_value(json_object_get(o, "type"));
    return s ? s : "(no type)";
}

/* ---- scanning ------------------------------------------------------------------------------- */

static int push_entry(struct hf *h, struct jscan *j, struct jstr key, struct err *e)
{
    if (h->entries == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 4096, bytes;
        struct entry *v = num_mul(&bytes, cap, sizeof *v) ? realloc(h->entry, bytes) : NULL;
        if (!v)
            return err_nomem(e, cap, "the vocabulary");
        h->entry = v;
        h->cap = cap;
    }
    if (key.n > VOCAB_TOKEN_MAX)
        return jscan_fail(j, e, "a token that is too long");
    if (key.p == j->scratch.data && !(key.p = arena_strndup(&h->t->arena, key.p, key.n, e)))
        return ERR_NOMEM;
    struct entry *x = &h->entry[h->entries++];
    *x = (struct entry){key.p, (uint32_t)key.n, 0};
    int64_t id;
    int rc = jscan_int(j, &id, e);
    if (rc)
        return rc;
    if (id < 0 || id >= VOCAB_MAX)
        return err_set(e, ERR_FORMAT, "the token '%.*s' has id %lld, which is out of bounds",
                       (int)num_min(key.n, 80), key.p, (long long)id);
    x->id = (int32_t)id;
    return 0;
}

static int scan_vocab(struct hf *h, struct jscan *j, struct err *e)
{
    bool first = true, more;
    struct jstr key;
    h->entries = 0;
    int rc = jscan_enter(j, '{', e);
    while (!rc && !(rc = jscan_more(j, '}', &first, &more, e)) && more) {
        rc = jscan_key(j, &key, e);
        if (!rc)
            rc = push_entry(h, j, key, e);
    }
    return rc ? err_ctx(e, "vocab") : 0;
}

static int scan_merges(struct hf *h, struct jscan *j, struct err *e)
{
    bool first = true, more;
    jscan_peek(j);
    size_t start = j->at;
    h->merges = 0;
    int rc = jscan_enter(j, '[', e);
    while (!rc && !(rc = jscan_more(j, ']', &first, &more, e)) && more) {
        rc = jscan_skip(j, NULL, e);
        h->merges++;
    }
    h->merge_text = (struct jstr){j->s + start, j->at - start};
    return rc ? err_ctx(e, "merges") : 0;
}

struct member {
    const char *name;
    struct jstr *slice;
};

static bool is(struct jstr s, const char *word)
{
    return s.n == strlen(word) && memcmp(s.p, word, s.n) == 0;
}

/* Passes over a value; keeps its slice when the name is one of `m`. */
static int scan_member(struct jscan *j, struct jstr key, const struct member *m, size_t count,
                       struct err *e)
{
    struct jstr *to = NULL;
    for (size_t i = 0; i < count; i++)
        if (is(key, m[i].name))
            to = m[i].slice;
    return jscan_skip(j, to, e);
}

static int scan_model(struct hf *h, struct jscan *j, struct err *e)
{
    const struct member members[] = {
        {"type", &h->type},
        {"dropout", &h->dropout},
        {"unk_token", &h->unk_token},
        {"continuing_subword_prefix", &h->prefix},
        {"end_of_word_suffix", &h->suffix},
        {"fuse_unk", &h->fuse_unk},
        {"ignore_merges", &h->ignore_merges},
    };
    bool first = true, more;
    struct jstr key;
    h->model = true;
    int rc = jscan_enter(j, '{', e);
    while (!rc && !(rc = jscan_more(j, '}', &first, &more, e)) && more) {
        rc = jscan_key(j, &key, e);
        if (rc)
            break;
        if (is(key, "vocab"))
            rc = scan_vocab(h, j, e);
        else if (is(key, "merges"))
            rc = scan_merges(h, j, e);
        else
            rc = scan_member(j, key, members, NUM_COUNT(members), e);
    }
    return rc ? err_ctx(e, "model") : 0;
}

static int scan(struct hf *h, const char *text, size_t n, struct err *e)
{
    const struct member members[] = {
        {"added_tokens", &h->added},
        {"normalizer", &h->normalizer},
        {"pre_tokenizer", &h->pre_tokenizer},
        {"post_processor", &h->post_processor},
        {"decoder", &h->decoder},
    };
    bool first = true, more;
    struct jscan j;
    struct jstr key;
    jscan_init(&j, text, n);
    int rc = jscan_enter(&j, '{', e);
    while (!rc && !(rc = jscan_more(&j, '}', &first, &more, e)) && more) {
        rc = jscan_key(&j, &key, e);
        if (rc)
            break;
        if (is(key, "model") && jscan_peek(&j) == '{')
            rc = scan_model(h, &j, e);
        else
            rc = scan_member(&j, key, members, NUM_COUNT(members), e);
    }
    if (!rc)
        rc = jscan_end(&j, e);
    jscan_release(&j);
    if (!rc && !h->model)
        rc = err_set(e, ERR_FORMAT, "\"model\" is missing");
    return rc;
}

/* ---- the model ------------------------------------------------------------------------------ */

/* Refuses options of the model that would change its ids. */
static int check_model(const struct hf *h, struct err *e)
{
    const struct {
        struct jstr s;
        const char *name, *fine[3];
    } rows[] = {
        {h->dropout, "dropout", {"null", "0.0", "0"}},
        {h->prefix, "continuing_subword_prefix", {"null", "\"\"", "\"\""}},
        {h->suffix, "end_of_word_suffix", {"null", "\"\"", "\"\""}},
    };
    if (h->type.p && !is(h->type, "\"BPE\""))
        return err_set(e, ERR_UNSUPPORTED, "model type %.*s: only \"BPE\" is supported",
                       (int)num_min(h->type.n, 80), h->type.p);
    if (!h->entry || !h->merge_text.p)
        return err_set(e, ERR_FORMAT, "model: \"%s\" is missing or empty",
                       h->entry ? "merges" : "vocab");
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        bool fine = !rows[i].s.p;
        for (size_t k = 0; !fine && k < NUM_COUNT(rows[i].fine); k++)
            fine = is(rows[i].s, rows[i].fine[k]);
        if (!fine)
            return err_set(e, ERR_UNSUPPORTED, "model: %s %.*s is not supported", rows[i].name,
                           (int)num_min(rows[i].s.n, 80), rows[i].s.p);
    }
    return 0;
}

/* The content of an added token, its id and flags. */
static int added_fields(const json_t *a, const char **s, size_t *n, int64_t *id, struct err *e)
{
    const json_t *content = json_object_get(a, "content"), *k = json_object_get(a, "id");
    if (!json_is_string(content) || !json_is_integer(k))
        return err_set(e, ERR_FORMAT, "added_tokens: an entry without \"content\" or \"id\"");
    *s = json_string_value(content);
    *n = json_string_length(content);
    *id = json_integer_value(k);
    if (*id < 0 || *id >= VOCAB_MAX)
        return err_set(e, ERR_FORMAT, "added_tokens: '%.80s' has id %lld, which is out of bounds",
                       *s, (long long)*id);
    return 0;
}

static bool flag(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

/* How many ids there are; *bytes of added tokens. */
static int count_ids(const struct hf *h, size_t *count, size_t *bytes, struct err *e)
{
    size_t top = 0, used = h->entries + json_array_size(h->added_json), i;
    const json_t *a;
    *bytes = 0;
    for (i = 0; i < h->entries; i++)
        top = num_max(top, (size_t)h->entry[i].id + 1);
    json_array_foreach(h->added_json, i, a)
    {
        const char *s;
        size_t n;
        int64_t id;
        int rc = added_fields(a, &s, &n, &id, e);
        if (rc)
            return rc;
        top = num_max(top, (size_t)id + 1);
        *bytes += n;
    }
    if (top > 4 * used + (1 << 16))
        return err_set(e, ERR_FORMAT, "token ids go up to %zu, but there are only %zu tokens",
                       top - 1, used);
    *count = top;
    return 0;
}

static int set_added(struct hf *h, const json_t *a, struct err *e)
{
    struct tokenizer *t = h->t;
    const char *s;
    size_t n;
    int64_t id;
    int rc = added_fields(a, &s, &n, &id, e);
    if (rc || n == 0)
        return rc;
    struct vocab_token *k = &t->vocab.tok[id];
    if (k->flags & VOCAB_ADDED)
        return k->n == n && memcmp(k->p, s, n) == 0
                   ? 0
                   : err_set(e, ERR_FORMAT, "added_tokens: id %lld is both '%.80s' and '%.80s'",
                             (long long)id, k->n ? k->p : "", s);
    if (!(k->flags & VOCAB_USED))
        rc = vocab_set_raw(&t->vocab, (int32_t)id, s, n, e);
    else if (vocab_find_written(&t->vocab, s, n) != id)
        rc = err_set(e, ERR_FORMAT, "added_tokens: '%.80s' has the id %lld of another token", s,
                     (long long)id);
    else if (k->n != n ||
             memcmp(k->p, s, n) != 0) /* in the vocabulary, but shown as written here */
        rc = vocab_set_raw(&t->vocab, (int32_t)id, s, n, e);
    k->flags |= VOCAB_ADDED | (flag(a, "special") ? VOCAB_SPECIAL : 0);
    unsigned how = (flag(a, "lstrip") ? ADDED_LSTRIP : 0) | (flag(a, "rstrip") ? ADDED_RSTRIP : 0) |
                   (flag(a, "single_word") ? ADDED_WORD : 0);
    if (rc || !flag(a, "normalized"))
        return rc ? rc : added_put(&t->raw, s, n, (int32_t)id, how, e);
    struct buf text;
    buf_init(&text, SMALL_MAX);
    rc = normalize_text(&t->normalizer, s, n, NULL, &text, NULL, e);
    if (!rc)
        rc = added_put(&t->normalized, text.data, text.len, (int32_t)id, how, e);
    buf_release(&text);
    return rc;
}

/* The normalizer must be known: some added tokens go through it. */
static int load_tokens(struct hf *h, struct err *e)
{
    struct tokenizer *t = h->t;
    size_t count = 0, bytes = 0, i;
    int rc = small(&h->added_json, h->added, "added_tokens", 0, e);
    if (!rc && h->added_json && !json_is_array(h->added_json))
        rc = err_set(e, ERR_FORMAT, "\"added_tokens\" is not an array");
    if (!rc)
        rc = count_ids(h, &count, &bytes, e);
    if (!rc)
        rc = vocab_init(&t->vocab, &t->arena, count, e);
    if (!rc)
        rc = added_init(&t->raw, &t->arena, bytes, e);
    if (!rc) /* normal forms may be longer than the text, by a factor of at most 18 */
        rc = added_init(&t->normalized, &t->arena, t->normalizer.forms ? 18 * bytes : bytes, e);
    for (i = 0; !rc && i < h->entries; i++) {
        const struct entry *x = &h->entry[i];
        if (t->vocab.tok[x->id].flags & VOCAB_USED)
            return err_set(e, ERR_FORMAT, "vocab: two tokens have the id %d", (int)x->id);
        rc = vocab_set_level(&t->vocab, x->id, x->p, x->n, e);
    }
    if (!rc)
        vocab_index(&t->vocab);
    const json_t *a;
    json_array_foreach(h->added_json, i, a)
    {
        if (!rc)
            rc = set_added(h, a, e);
    }
    return rc;
}

/* One element of "merges": "left right" or ["left", "right"]. */
static int load_merge(struct bpe *b, struct jscan *j, struct buf *left, struct err *e)
{
    struct jstr s;
    bool first = true, more;
    if (jscan_peek(j) == '"') {
        int rc = jscan_string(j, &s, e);
        if (rc || (s.n >= 8 && memcmp(s.p, "#version", 8) == 0))
            return rc;
        return bpe_merge_line(b, s.p, s.n, e);
    }
    int rc = jscan_enter(j, '[', e);
    for (int i = 0; !rc && i < 3; i++) {
        rc = jscan_more(j, ']', &first, &more, e);
        if (!rc && more != (i < 2))
            rc = jscan_fail(j, e, "a merge needs two tokens");
        if (rc || i == 2)
            break;
        rc = jscan_string(j, &s, e);
        if (!rc && i == 0) {
            buf_clear(left);
            rc = buf_append(left, s.p, s.n, e);
        } else if (!rc) {
            rc = bpe_merge(b, left->data, left->len, s.p, s.n, e);
        }
    }
    return rc;
}

static int load_merges(struct hf *h, struct err *e)
{
    struct bpe *b = &h->t->bpe;
    struct jscan j;
    struct buf left;
    bool first = true, more;
    jscan_init(&j, h->merge_text.p, h->merge_text.n);
    buf_init(&left, VOCAB_TOKEN_MAX);
    int rc = bpe_init(b, &h->t->vocab, &h->t->arena, h->merges, e);
    if (!rc)
        rc = jscan_enter(&j, '[', e);
    while (!rc && !(rc = jscan_more(&j, ']', &first, &more, e)) && more)
        rc = load_merge(b, &j, &left, e);
    if (!rc)
        rc = bpe_finish(b, e);
    jscan_release(&j);
    buf_release(&left);
    if (rc)
        return rc;
    b->whole = h->ignore_merges.p && is(h->ignore_merges, "true");
    b->fuse_unk = h->fuse_unk.p && is(h->fuse_unk, "true");
    json_t *unk;
    rc = small(&unk, h->unk_token, "unk_token", 0, e);
    if (!rc && unk) {
        if (json_is_string(unk))
            b->unk = vocab_find_written(b->vocab, json_string_value(unk), json_string_length(unk));
        if (b->unk < 0)
            rc = err_set(e, ERR_FORMAT, "model: unk_token is not in the vocabulary");
    }
    json_decref(unk);
    return rc;
}

/* ---- normalizer, pre-tokenizer, decoder -------------------------------------------------------
 */

struct loader {
    const char *type;
    int (*load)(struct tokenizer *t, const json_t *o, struct err *e);
};

static int by_type(struct tokenizer *t, const json_t *o, const struct loader *rows, size_t count,
                   const char *what, struct err *e)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].type, type_of(o)) == 0)
            return rows[i].load(t, o, e);
    return err_set(e, ERR_UNSUPPORTED, "%s of type '%.80s' is not supported", what, type_of(o));
}

static int load_normalizer(struct tokenizer *t, const json_t *o, struct err *e)
{
    static const struct {
        const char *type;
        enum normal_form form;
    } forms[] = {
        {"NFC", NORMAL_NFC}, {"NFD", NORMAL_NFD}, {"NFKC", NORMAL_NFKC}, {"NFKD", NORMAL_NFKD}};
    for (size_t i = 0; i < NUM_COUNT(forms); i++)
        if (strcmp(forms[i].type, type_of(o)) == 0)
            return normalizer_add(&t->normalizer, forms[i].form, e);
    if (strcmp(type_of(o), "Sequence") != 0)
        return err_set(e, ERR_UNSUPPORTED, "normalizer of type '%.80s' is not supported",
                       type_of(o));
    const json_t *list = json_object_get(o, "normalizers"), *item;
    size_t i;
    int rc =
        json_is_array(list) ? 0 : err_set(e, ERR_FORMAT, "normalizer: a Sequence without a list");
    json_array_foreach(list, i, item) /* depth: bounded when the file was scanned */
    {
        if (!rc)
            rc = load_normalizer(t, item, e);
    }
    return rc;
}

static int load_split(struct tokenizer *t, const json_t *o, struct err *e)
{
    static const char *const names[] = {
        [PRETOK_ISOLATED] = "Isolated",
        [PRETOK_REMOVED] = "Removed",
        [PRETOK_MERGED_PREVIOUS] = "MergedWithPrevious",
        [PRETOK_MERGED_NEXT] = "MergedWithNext",
        [PRETOK_CONTIGUOUS] = "Contiguous",
    };
    const json_t *pattern = json_object_get(o, "pattern"), *s = json_object_get(pattern, "Regex");
    const char *how = json_string_value(json_object_get(o, "behavior"));
    bool literal = !s;
    if (literal)
        s = json_object_get(pattern, "String");
    if (!json_is_string(s) || !how)
        return err_set(e, ERR_FORMAT, "pre_tokenizer: a Split without pattern or behavior");
    for (size_t i = 0; i < NUM_COUNT(names); i++)
        if (strcmp(names[i], how) == 0)
            return pretok_add(&t->pretok, json_string_value(s), json_string_length(s), literal,
                              (enum pretok_behavior)i, flag(o, "invert"), e);
    return err_set(e, ERR_UNSUPPORTED, "pre_tokenizer: behavior '%.80s' is not supported", how);
}

static int load_digits(struct tokenizer *t, const json_t *o, struct err *e)
{
    const char *p = flag(o, "individual_digits") ? "\\p{N}" : "\\p{N}+";
    return pretok_add(&t->pretok, p, strlen(p), false, PRETOK_ISOLATED, false, e);
}

static int load_byte_level(struct tokenizer *t, const json_t *o, struct err *e)
{
    int rc = flag(o, "add_prefix_space") ? pretok_add_prefix_space(&t->pretok, e) : 0;
    /* use_regex is younger than the format: absent means yes */
    if (!rc && !json_is_false(json_object_get(o, "use_regex")))
        rc = pretok_add_gpt2(&t->pretok, e);
    return rc;
}

static int load_pre_sequence(struct tokenizer *t, const json_t *o, struct err *e);

static int load_pre_tokenizer(struct tokenizer *t, const json_t *o, struct err *e)
{
    static const struct loader rows[] = {
        {"Sequence", load_pre_sequence},
        {"Split", load_split},
        {"Digits", load_digits},
        {"ByteLevel", load_byte_level},
    };
    return by_type(t, o, rows, NUM_COUNT(rows), "pre_tokenizer", e);
}

static int load_pre_sequence(struct tokenizer *t, const json_t *o, struct err *e)
{
    const json_t *list = json_object_get(o, "pretokenizers"), *item;
    size_t i;
    int rc = json_is_array(list)
                 ? 0
                 : err_set(e, ERR_FORMAT, "pre_tokenizer: a Sequence without a list");
    json_array_foreach(list, i, item)
    {
        if (!rc)
            rc = load_pre_tokenizer(t, item, e);
    }
    return rc;
}

/* Does a ByteLevel occur in o, alone or in a Sequence? */
static bool has_byte_level(const json_t *o, const char *list)
{
    const json_t *item;
    size_t i;
    if (strcmp(type_of(o), "ByteLevel") == 0)
        return true;
    json_array_foreach(json_object_get(o, list), i, item)
    {
        if (has_byte_level(item, list))
            return true;
    }
    return false;
}

static int load_pipeline(struct hf *h, struct err *e)
{
    struct tokenizer *t = h->t;
    json_t *normalizer = NULL, *pre = NULL, *decoder = NULL;
    int rc = small(&normalizer, h->normalizer, "normalizer", 0, e);
    if (!rc && normalizer)
        rc = load_normalizer(t, normalizer, e);
    if (!rc)
        rc = small(&pre, h->pre_tokenizer, "pre_tokenizer", 0, e);
    if (!rc)
        rc = small(&decoder, h->decoder, "decoder", 0, e);
    if (!rc && pre)
        rc = load_pre_tokenizer(t, pre, e);
    if (!rc && !has_byte_level(pre, "pretokenizers"))
        rc = err_set(e, ERR_UNSUPPORTED,
                     "not a byte-level tokenizer (pre_tokenizer has no ByteLevel): SentencePiece "
                     "and word-piece models are not supported");
    if (!rc && decoder && !has_byte_level(decoder, "decoders"))
        rc = err_set(e, ERR_UNSUPPORTED, "decoder of type '%.80s' is not supported",
                     type_of(decoder));
    json_decref(normalizer);
    json_decref(pre);
    json_decref(decoder);
    return rc;
}

/* ---- roles of tokens ------------------------------------------------------------------------ */

/* What a post-processor puts in front: *name (in `o`) or NULL. */
static const char *template_bos(const json_t *o)
{
    const json_t *item;
    size_t i;
    if (strcmp(type_of(o), "TemplateProcessing") == 0) {
        const json_t *first = json_array_get(json_object_get(o, "single"), 0);
        const json_t *special = json_object_get(first, "SpecialToken");
        return json_string_value(json_object_get(special, "id"));
    }
    json_array_foreach(json_object_get(o, "processors"), i, item)
    {
        const char *s = template_bos(item);
        if (s)
            return s;
    }
    return NULL;
}

static int32_t find_token(const struct tokenizer *t, const json_t *v)
{
    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (!json_is_string(v))
        return -1;
    int32_t id = tokenizer_find(t, json_string_value(v));
    return id >= 0 ? id
                   : vocab_find_written(&t->vocab, json_string_value(v), json_string_length(v));
}

/* A file beside tokenizer.json as JSON object; *out stays NULL when there is none. */
static int config(json_t **out, struct source *src, const char *name, struct err *e)
{
    const char *text;
    size_t n;
    *out = NULL;
    if (!src)
        return 0;
    int rc = source_text(src, name, &text, &n, e);
    if (rc || !text)
        return rc;
    struct jscan j;
    jscan_init(&j, text, n);
    rc = jscan_enter(&j, '{', e); /* an object, not too deep, nothing behind it */
    j.at = 0;
    if (!rc)
        rc = jscan_skip(&j, NULL, e);
    if (!rc)
        rc = jscan_end(&j, e);
    jscan_release(&j);
    if (!rc)
        rc = small(out, (struct jstr){text, n}, name, JSON_DECODE_INT_AS_REAL, e); /* 1e30 occurs */
    return rc ? err_ctx(e, "%s", name) : 0;
}

static int add_end(struct tokenizer *t, const json_t *v, struct err *e)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || x < 0 || x > INT32_MAX || x != (int32_t)x)
        return err_set(e, ERR_FORMAT, "generation_config.json: eos_token_id is not a token id");
    return tokenizer_add_end(t, (int32_t)x, e);
}

static int add_ends(struct tokenizer *t, const json_t *v, struct err *e)
{
    const json_t *item;
    size_t i;
    int rc = 0;
    if (json_is_number(v))
        return add_end(t, v, e);
    json_array_foreach(v, i, item)
    {
        if (!rc)
            rc = add_end(t, item, e);
    }
    return rc;
}

/* eos_token_id of config.json, for models without a generation_config.json. */
static int add_config_ends(struct tokenizer *t, struct source *src, struct err *e)
{
    const struct source_value *v = src ? source_value(src, "eos_token_id") : NULL;
    struct source_value item;
    int rc = 0;
    if (!v)
        return 0;
    uint64_t count = v->type == SOURCE_ARRAY ? v->count : 1;
    for (uint64_t i = 0; !rc && i < count; i++) {
        item = *v;
        if (v->type == SOURCE_ARRAY)
            rc = source_array_get(src, v, i, &item, e);
        if (!rc && item.type == SOURCE_INT)
            rc = tokenizer_add_end(t, item.i, e);
        else if (!rc && item.type == SOURCE_UINT && item.u <= INT32_MAX)
            rc = tokenizer_add_end(t, (int64_t)item.u, e);
    }
    return rc;
}

static int load_roles(struct hf *h, struct source *src, struct err *e)
{
    struct tokenizer *t = h->t;
    json_t *post = NULL, *conf = NULL, *gen = NULL;
    int rc = small(&post, h->post_processor, "post_processor", 0, e);
    if (!rc)
        rc = config(&conf, src, "tokenizer_config.json", e);
    if (!rc)
        rc = config(&gen, src, "generation_config.json", e);
    if (!rc) {
        const json_t *add = json_object_get(conf, "add_bos_token");
        const char *bos = template_bos(post);
        t->bos = find_token(t, json_object_get(conf, "bos_token"));
        t->eos = find_token(t, json_object_get(conf, "eos_token"));
        t->pad = find_token(t, json_object_get(conf, "pad_token"));
        int32_t front = bos ? tokenizer_find(t, bos) : -1;
        if (front >= 0)
            t->bos = front;
        /* The template of the post-processor says it; without one the configuration does. */
        t->add_bos = front >= 0 || json_is_true(add);
        if (t->eos >= 0)
            rc = tokenizer_add_end(t, t->eos, e);
    }
    if (!rc)
        rc =
            gen ? add_ends(t, json_object_get(gen, "eos_token_id"), e) : add_config_ends(t, src, e);
    if (!rc && t->ends == 0)
        rc = tokenizer_add_named_ends(t, e);
    if (!rc && t->eos < 0 && t->ends > 0 && (size_t)t->end[0] < t->vocab.count)
        t->eos = t->end[0];
    json_decref(post);
    json_decref(conf);
    json_decref(gen);
    return rc;
}

int tokenizer_load_json(struct tokenizer *t, const char *text, size_t n, struct source *src,
                        struct err *e)
{
    struct hf h = {.t = t};
    int rc = scan(&h, text, n, e);
    if (!rc)
        rc = check_model(&h, e);
    if (!rc)
        rc = load_pipeline(&h, e);
    if (!rc)
        rc = load_tokens(&h, e);
    if (!rc)
        rc = load_merges(&h, e);
    if (rc)
        err_ctx(e, "tokenizer.json");
    else
        rc = load_roles(&h, src, e);
    free(h.entry);
    json_decref(h.added_json);
    return rc;
}

int tokenizer_load_hf(struct tokenizer *t, struct source *src, struct err *e)
{
    const char *text;
    size_t n;
    int rc = source_text(src, "tokenizer.json", &text, &n, e);
    if (rc)
        return rc;
    if (!text)
        return err_set(e, ERR_FORMAT, "%s: no tokenizer.json here", source_path(src));
    return tokenizer_load_json(t, text, n, src, e);
}
