/*
 * From a record to token sequences with their targets.
 *
 * A sequence is made of *parts*: the prompt as generation would see it (the chat template's text,
 * with what opens the answer), then what the model should have said. Each part is tokenized on its
 * own: then the tokens of a prompt are those that generation feeds, whatever follows. An answer
 * ends with the token that ends a turn; it is learned too, and nothing after it.
 */
#ifndef PONDER_TRAIN_EXAMPLE_H
#define PONDER_TRAIN_EXAMPLE_H

#include "text/jinja.h"
#include "train/data.h"

/* How records become examples; the same for all of them. */
struct example_how {
    const struct tokenizer *tokenizer;
    const struct chat *chat; /* NULL: only texts */
    enum data_use use;
    bool whole, assistant_only;
    const char *text, *system; /* as in data_options */
    struct ids turn_end; /* what a template writes after an answer, to the token that ends it */
};

/* Takes over the options; the template is tried with a small conversation. */
int example_how_init(struct example_how *h, const struct data_options *o, struct err *e);
void example_how_release(struct example_how *h);

struct example_seq {
    struct ids ids;
    struct buf target; /* a byte each */
    size_t prompt;
};

struct example {
    struct example_seq seq[2];
    size_t n; /* 1, or 2 for pairs */
    float weight;
    int label;    /* as in struct data_seq */
    float margin; /* the same */
    bool thinking;
    uint32_t turns_left; /* turns of an assistant that could not be targets */
    /* private: scratch */
    struct jinja_result text, probe;
};

void example_init(struct example *x);
void example_release(struct example *x);

/* Errors name the column. Memory of `x` is used again. */
int example_make(const struct example_how *h, const json_t *row, struct example *x, struct err *e);

#endif
