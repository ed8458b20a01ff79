/*
 * A hole in a text: prompts that give what stands before and after, with the control tokens that a
 * vocabulary has for it ("fill in the middle", Bavarian et al. 2022, order prefix, suffix, middle).
 */
#ifndef PONDER_TEXT_FIM_H
#define PONDER_TEXT_FIM_H

#include "text/tokenizer.h"

enum { FIM_FORMS = 4 };

struct fim_form {
    const char *begin, *hole, *end; /* begin PREFIX hole SUFFIX end → the middle */
};
extern const struct fim_form fim_forms[FIM_FORMS];

/* The form whose three tokens the vocabulary has, or NULL. */
const struct fim_form *fim_find(const struct tokenizer *t);

/* Appends the prompt. ERR_UNSUPPORTED when the vocabulary has no such tokens. */
int fim_encode(const struct tokenizer *t, const char *prefix, size_t n_prefix, const char *suffix,
               size_t n_suffix, struct ids *out, struct err *e);

#endif
