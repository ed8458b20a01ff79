/*
 * tokenizer.json of Hugging Face's "tokenizers" for a byte-level BPE vocabulary.
 */
#ifndef PONDER_TEXT_TOKENIZER_WRITE_H
#define PONDER_TEXT_TOKENIZER_WRITE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What the file is made of. The JSON values stay the caller's. */
struct tokenizer_parts {
    const char *const *patterns; /* of the pre-tokenizer (pretok_patterns), NULL at the end */
    unsigned flags;              /* pretok_flags that go with them */
    json_t *vocab;               /* {token: id}, all of them */
    json_t *merges;              /* ["left right", …] */
    json_t *added;               /* of tokenizer_write_added */
    const char *bos;             /* the token that is put in front, or NULL */
    int32_t bos_id;
};

/* An entry of "added_tokens". NULL: no memory. */
json_t *tokenizer_write_added(const char *text, size_t n, int64_t id, bool control);

/* The whole file; NULL: no memory. */
json_t *tokenizer_write(const struct tokenizer_parts *p);

#endif
