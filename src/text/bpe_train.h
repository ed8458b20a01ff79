/*
 * Making a byte-level BPE vocabulary from texts.
 *
 * Texts are cut at special tokens and by a pre-tokenizer (text/pretok.def); equal pieces are
 * counted once. Then, again and again, the pair of neighbouring tokens that is most frequent
 * becomes a new token (Gage, "A New Algorithm for Data Compression", 1994; Sennrich et al., ACL
 * 2016). Only counts around what was merged change: each pair knows the pieces it is in, and a heap
 * that is put right when something old comes out on top finds the best.
 *
 * Deterministic: of equally frequent pairs the one with the lower ids is merged; the order of the
 * texts does not matter. Ids: special tokens first, then the 256 bytes, then merges by rank.
 */
#ifndef PONDER_TEXT_BPE_TRAIN_H
#define PONDER_TEXT_BPE_TRAIN_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct bpe_trainer;

/* A token that texts are cut at. */
struct bpe_special {
    const char *text;
    int control; /* hidden from users; "<think>" is not */
};

struct bpe_train_options {
    const char *pretok; /* a name of text/pretok.def */
    const struct bpe_special *special;
    size_t n_special;
    size_t vocab_size;
    size_t max_token;   /* bytes; 0: no bound */
    uint64_t min_count; /* a pair that is rarer is not merged; at least 1 */
};

/* The options' texts outlive the trainer. */
int bpe_trainer_new(struct bpe_trainer **out, const struct bpe_train_options *o, struct err *e);
void bpe_trainer_free(struct bpe_trainer *t); /* NULL is fine */

/* Counts a text, which must be UTF-8. */
int bpe_trainer_add(struct bpe_trainer *t, const char *s, size_t n, struct err *e);

/* Merges until the vocabulary is full or no pair is frequent enough. */
int bpe_trainer_run(struct bpe_trainer *t, struct err *e);

size_t bpe_trainer_vocab(const struct bpe_trainer *t);   /* tokens so far */
uint64_t bpe_trainer_bytes(const struct bpe_trainer *t); /* of the texts, without special tokens */
uint64_t
bpe_trainer_tokens(const struct bpe_trainer *t); /* that they are after the merges so far */

/* The text of a tokenizer.json, as a JSON object that the caller owns. `bos`: the special token
   that is put in front, or NULL. */
int bpe_trainer_json(const struct bpe_trainer *t, const char *bos, json_t **out, struct err *e);

#endif
