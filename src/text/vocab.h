/*
 * The vocabulary: the exact bytes of each token id, and the way back from bytes to id.
 *
 * Byte-level tokenizers write tokens in an alphabet of 256 printable characters, one for each byte
 * (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, and its published
 * encoder): bytes 33-126, 161-172 and 174-255 stand for themselves, the others follow from U+0100
 * on in order. Here tokens are kept as the bytes themselves; a token with a character outside the
 * alphabet stands for its own UTF-8 and no merge can form it.
 */
#ifndef PONDER_TEXT_VOCAB_H
#define PONDER_TEXT_VOCAB_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vocab_flags {
    VOCAB_USED = 1,
    VOCAB_LEVEL = 2,   /* written in the byte alphabet and in the map: merges may form it */
    VOCAB_ADDED = 4,   /* an added token: only formed where the caller trusts the text */
    VOCAB_SPECIAL = 8, /* a control token, hidden from users */
};

struct vocab_token {
    const char *p; /* in the arena */
    uint32_t n, flags;
};

/* Tokens of up to eight bytes are decided within the slot: one cache line touched. */
struct vocab_slot {
    uint64_t head; /* the first eight bytes, zero-padded */
    uint32_t id1;  /* id + 1; 0: the slot is empty */
    uint32_t tag;  /* length (at most 255) << 24 | bits of the hash */
};

struct vocab {
    struct arena *arena;
    struct vocab_token *tok;
    size_t count;
    struct vocab_slot *slot; /* open addressing, linear probing */
    size_t mask;
    uint64_t seed;
    char *chunk; /* where the bytes of the next token go */
    size_t left;
};

/* No token may have an id above this, whatever the file says. */
enum { VOCAB_MAX = 1 << 24, VOCAB_TOKEN_MAX = 1 << 20 };

/* `count` ids, all unused. */
int vocab_init(struct vocab *v, struct arena *a, size_t count, struct err *e);

/*
 * Tokens are set first; then vocab_index makes them findable. Gives id (< count) the token written
 * as s[0..n) in the byte alphabet.
 */
int vocab_set_level(struct vocab *v, int32_t id, const char *s, size_t n, struct err *e);
/* Gives id (< count) these very bytes; not in the map. */
int vocab_set_raw(struct vocab *v, int32_t id, const char *s, size_t n, struct err *e);

/* Builds the map of all tokens of the byte alphabet, and of added ones that are printable ASCII
   (merges may speak of them too). */
void vocab_index(struct vocab *v);

/* Where to look for p[0..n) in the map; its cache line is then on its way. */
struct vocab_key {
    uint64_t head;
    uint32_t tag;
    size_t at;
};
struct vocab_key vocab_key(const struct vocab *v, const char *p, size_t n);
int32_t vocab_find_key(const struct vocab *v, struct vocab_key k, const char *p, size_t n);

/* The id of a token of the map by its bytes; -1 when there is none. */
int32_t vocab_find(const struct vocab *v, const char *p, size_t n);

/* The id of any token by the way it is written in a file; slow. -1 when there is none. */
int32_t vocab_find_written(const struct vocab *v, const char *s, size_t n);

/* Bytes to alphabet: writes at most 2 × n bytes, returns how many. */
size_t vocab_write(char *out, const char *p, size_t n);

/* Alphabet to bytes: writes at most n bytes; SIZE_MAX when a character is not of the alphabet. */
size_t vocab_alphabet(char *out, const char *s, size_t n);

#endif
