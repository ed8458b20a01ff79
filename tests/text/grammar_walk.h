/* Random texts of a grammar, by its masks over a vocabulary; and the other way: does it take a
 * text? */
#ifndef PONDER_TESTS_GRAMMAR_WALK_H
#define PONDER_TESTS_GRAMMAR_WALK_H

#include "base/buf.h"
#include "text/grammar.h"

struct vocab {
    struct tokenizer *tok;
    struct grammar_vocab *v;
};

/* Of a folder or a file; fails the test when it cannot be opened. */
struct vocab vocab_open(const char *path);
void vocab_close(struct vocab *v);

bool mask_has(const uint32_t *bits, int32_t id);

/* One text by random tokens of the masks; after a while mostly by those that end JSON. False when
   it had no end after 3,000 tokens. */
bool grammar_walk(const struct vocab *v, struct grammar *g, enum grammar_thought thought,
                  uint64_t seed, struct buf *out);

/* Does the grammar take text[0..n), byte by byte, as a whole? */
bool grammar_takes(const struct vocab *v, struct grammar *g, const char *text, size_t n);

#endif
