/*
 * Tells when a text of tokens runs in a circle.
 *
 * Small and quantized models get caught in their thoughts: the same words again and again, to the
 * end of the context. Such text has a period: from some point on every token is the one p tokens
 * before. For each p up to REPEAT_PERIOD a counter says for how many tokens that has been true; a
 * token costs one pass over the counters (512 of them: some tens of nanoseconds), whatever came
 * before, and nothing is searched.
 *
 * When is it a loop, and not a table or a list? Exactly repeated text is common in short pieces:
 * rules of tables, rows of an empty board, matrices of zeros. So there have to be four copies, of
 * REPEAT_WORDS tokens behind the first one together if the copies have words in them, and
 * REPEAT_SIGNS if they are digits, signs and blanks alone. Lists that count, or whose numbers
 * differ, have no period and are never taken for loops; nor are loops that count.
 */
#ifndef PONDER_ENGINE_REPEAT_H
#define PONDER_ENGINE_REPEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPEAT_PERIOD = 512, REPEAT_COPIES = 4, REPEAT_WORDS = 384, REPEAT_SIGNS = 2048 };

struct repeat {
    int32_t id[2 * REPEAT_PERIOD]; /* the last tokens end at n */
    bool word[2 * REPEAT_PERIOD];  /* whether they have words */
    uint32_t same[REPEAT_PERIOD];  /* [q]: tokens that were as those REPEAT_PERIOD - q before */
    size_t n;
};

void repeat_init(struct repeat *r);
/* The next token, and its text; true when the text has run in a circle for long enough. */
bool repeat_next(struct repeat *r, int32_t id, const char *text, size_t n);

#endif
