/*
 * Tokenizers: opening, and what can be asked about ids. Loading is in tokenizer_gguf.c and
 * tokenizer_hf.c, encoding in tokenizer_encode.c, decoding in detok.c.
 */
#include "text/tokenizer.h"

#include "base/num.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* A vocabulary of 16 million ids fits; anything larger is not a tokenizer. */
#define TOKENIZER_MEMORY ((size_t)2 << 30)

static int begin(struct tokenizer **out, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    *out = t;
    if (!t)
        return err_nomem(e, sizeof *t, "the tokenizer");
    arena_init(&t->arena, TOKENIZER_MEMORY);
    t->bos = t->eos = t->pad = -1;
    return tokenizer_pool_new(&t->pool, e);
}

int tokenizer_new(struct tokenizer **out, struct source *src, struct err *e)
{
    int rc = begin(out, e);
    if (!rc)
        rc = source_kind(src) == SOURCE_GGUF ? tokenizer_load_gguf(*out, src, e)
                                             : tokenizer_load_hf(*out, src, e);
    if (rc) {
        tokenizer_free(*out);
        *out = NULL;
    }
    return rc;
}

int tokenizer_new_json(struct tokenizer **out, const char *json, size_t n, struct err *e)
{
    int rc = begin(out, e);
    if (!rc)
        rc = tokenizer_load_json(*out, json, n, NULL, e);
    if (rc) {
        tokenizer_free(*out);
        *out = NULL;
    }
    return rc;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    tokenizer_pool_free(t->pool);
    pretok_release(&t->pretok);
    arena_release(&t->arena);
    free(t);
}

int tokenizer_add_end(struct tokenizer *t, int64_t id, struct err *e)
{
    if (id < 0 || id > INT32_MAX)
        return err_set(e, ERR_FORMAT, "token id %lld is not a token", (long long)id);
    for (int i = 0; i < t->ends; i++)
        if (t->end[i] == id)
            return 0;
    if (t->ends == TOKENIZER_ENDS)
        return err_set(e, ERR_LIMIT, "more than %d end tokens", TOKENIZER_ENDS);
    t->end[t->ends++] = (int32_t)id;
    return 0;
}

int tokenizer_add_named_ends(struct tokenizer *t, struct err *e)
{
    static const char *const names[] = {
        "<｜end▁of▁sentence｜>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|EOT|>",
        "<|end|>",
        "<|return|>",
        "<end_of_turn>",
        "<EOT>",
        "</s>",
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < NUM_COUNT(names); i++) {
        int32_t id = tokenizer_find(t, names[i]);
        if (id >= 0)
            rc = tokenizer_add_end(t, id, e);
    }
    return rc;
}

size_t tokenizer_count(const struct tokenizer *t)
{
    return t->vocab.count;
}

static const struct vocab_token *token(const struct tokenizer *t, int32_t id)
{
    static const struct vocab_token none = {"", 0, 0};
    bool used = id >= 0 && (size_t)id < t->vocab.count && t->vocab.tok[id].flags & VOCAB_USED;
    return used ? &t->vocab.tok[id] : &none;
}

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *n)
{
    const struct vocab_token *k = token(t, id);
    *n = k->n;
    return k->p;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return token(t, id)->flags & VOCAB_SPECIAL;
}

bool tokenizer_is_added(const struct tokenizer *t, int32_t id)
{
    return token(t, id)->flags & VOCAB_ADDED;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    int32_t id = added_exact(&t->raw, text, strlen(text));
    return id >= 0 ? id : added_exact(&t->normalized, text, strlen(text));
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->add_bos && t->bos >= 0;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->ends; i++)
        if (t->end[i] == id)
            return true;
    return false;
}
