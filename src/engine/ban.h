/*
 * Words that an answer may not hold ("bad_words"). A word is forbidden where it begins with a token
 * and ends with one, however tokens cut it, with a space before it or without: "cat" may not come
 * as "cat", " cat" or "c" + "at", but "concatenate" may, where its tokens cut it otherwise.
 *
 * What is followed are the words that have begun, by how much of them is there; a token whose bytes
 * are just the rest of one is forbidden. Nothing is allocated after ban_new.
 */
#ifndef PONDER_ENGINE_BAN_H
#define PONDER_ENGINE_BAN_H

#include "text/tokenizer.h"

struct ban;

enum { BAN_WORDS_MAX = 256, BAN_BYTES_MAX = 1024 /* of a word */ };

/* Words are copied. ERR_USAGE: one is empty or too long. */
int ban_new(struct ban **out, const struct tokenizer *tok, size_t n_vocab, const char *const *word,
            size_t n, struct err *e);
void ban_free(struct ban *b); /* NULL is fine */

/* The tokens that may not come next; `out` has room for ban_most, some may come twice. */
size_t ban_most(const struct ban *b);
size_t ban_list(const struct ban *b, int32_t *out);
void ban_accept(struct ban *b, int32_t id); /* the token that has come */

#endif
