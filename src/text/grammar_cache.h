/*
 * Compiled grammars, kept for the next one who asks for the same: programs send one schema with
 * every request. With the grammar its matchers are kept, so the steps and masks that earlier texts
 * needed are there too.
 *
 * What a grammar was made of is its key, a digest; so a key is the same grammar. Bounded by number
 * and by memory, matchers included; the least recently used goes first. Who holds a grammar keeps
 * it alive. Any thread may call.
 */
#ifndef PONDER_TEXT_GRAMMAR_CACHE_H
#define PONDER_TEXT_GRAMMAR_CACHE_H

#include "base/sha256.h"
#include "text/grammar.h"

struct grammar_cache;

struct grammar_key {
    uint8_t sum[SHA256_BYTES];
};

int grammar_cache_new(struct grammar_cache **out, size_t grammars, size_t bytes, struct err *e);
void grammar_cache_free(struct grammar_cache *c); /* NULL is fine */

/* A new reference, or NULL. */
struct grammar *grammar_cache_find(struct grammar_cache *c, const struct grammar_key *key);
/* Takes over g, and returns what is to be used instead: the one that is kept under this key, which
   another thread may have made first. */
struct grammar *grammar_cache_add(struct grammar_cache *c, const struct grammar_key *key,
                                  struct grammar *g);

struct grammar_cache_stats {
    size_t grammars, bytes; /* kept; bytes as they were at the last use of each */
    uint64_t hits, misses;
};
struct grammar_cache_stats grammar_cache_stats(struct grammar_cache *c);

#endif
