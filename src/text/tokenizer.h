/*
 * Byte-level BPE tokenizers, from GGUF metadata or from Hugging Face's tokenizer.json.
 *
 * Text → normalizer (NFC where the tokenizer says so) → added tokens split off → pre-tokenizer
 * patterns (PCRE2 with JIT and match limits) → bytes mapped to the GPT-2 alphabet → merges by rank.
 * Both sources end in the same tables; the pre-tokenizer of a GGUF file is known by its name
 * (tokenizer.ggml.pre), that of a tokenizer.json by its parts. Merging is O(n log n) in the length
 * of a piece, so hostile text (10 MB of one letter) costs seconds at most.
 *
 * Control tokens in text that came from a user are the classic injection: so the caller says which
 * bytes may form added tokens (`trusted`), and by default none may.
 *
 * A tokenizer may be used from several threads: after opening nothing changes but a few sets of
 * working memory, which encoding takes and gives back under a lock.
 */
#ifndef PONDER_TEXT_TOKENIZER_H
#define PONDER_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/err.h"
#include "format/source.h"

#include <stdbool.h>
#include <stdint.h>

struct tokenizer;

/* Token ids, growing up to a maximum. */
struct ids {
    int32_t *v; /* owned */
    size_t n, cap, max;
};

void ids_init(struct ids *a, size_t max);
void ids_release(struct ids *a);
int ids_push(struct ids *a, int32_t id, struct err *e);
int ids_append(struct ids *a, const int32_t *id, size_t n, struct err *e);

/* From whatever the source has: GGUF metadata, tokenizer.json (+ tokenizer_config.json). */
int tokenizer_new(struct tokenizer **out, struct source *src, struct err *e);
/* From the text of a tokenizer.json alone. */
int tokenizer_new_json(struct tokenizer **out, const char *json, size_t n, struct err *e);
void tokenizer_free(struct tokenizer *t);

enum tokenizer_flags {
    TOKENIZER_SPECIAL = 1, /* added tokens are recognised everywhere in the text */
    TOKENIZER_BOS = 2,     /* put BOS in front where the model wants one */
};

/*
 * Appends the ids of text[0..n) to out. `trusted` (n bytes, or NULL) marks with non-zero the bytes
 * that may form added tokens: a token is recognised when all of its bytes are trusted (the flag
 * SPECIAL means: all bytes are). Invalid UTF-8 is replaced by U+FFFD (maximal subparts) first.
 * Without SPECIAL and `trusted`, no added token is recognised at all, whatever its flags. A byte
 * that the vocabulary cannot represent becomes its unknown token or, where it has none, is dropped.
 */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     const uint8_t *trusted, struct ids *out, struct err *e);

/* Number of ids; ids from 0 to count - 1, some may be unused. */
size_t tokenizer_count(const struct tokenizer *t);

/* The exact bytes of a token (added tokens: their content); n = 0 for unused ids. */
const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *n);

bool tokenizer_is_special(const struct tokenizer *t,
                          int32_t id); /* control tokens: hidden from users */
bool tokenizer_is_added(const struct tokenizer *t, int32_t id);
int32_t tokenizer_find(const struct tokenizer *t,
                       const char *text);         /* added token by content; -1 */
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 when there is none */
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);
bool tokenizer_adds_bos(const struct tokenizer *t);
/* Ends a generation: eos, eot, eom and what the files list (generation_config's eos_token_id). */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);

/* What GGUF files call the way this tokenizer cuts text (tokenizer.ggml.pre, pretok.def);
   ERR_UNSUPPORTED when no name does the same. */
int tokenizer_gguf_name(const struct tokenizer *t, const char **name, struct err *e);

/*
 * Streaming detokenization: bytes of tokens go in, whole characters come out. A byte that can no
 * longer become part of a character gives U+FFFD at once.
 */
struct detok {
    char pending[4];
    uint8_t n;
};

void detok_init(struct detok *d);
/* Appends what may be shown after this token. */
int detok_push(struct detok *d, const struct tokenizer *t, int32_t id, struct buf *out,
               struct err *e);
int detok_flush(struct detok *d, struct buf *out, struct err *e); /* what is left, at the end */

#endif
