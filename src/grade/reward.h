/*
 * Rewards by rule: numbers that say how good an output is, as reinforcement learning wants them.
 *
 * A row in reward.def each. A reward looks at a whole group (the outputs sampled for one prompt),
 * because some compare them. It gives a number for each output and, where asked, words that say
 * why; NaN means that it does not apply, which is not the same as 0.
 *
 * Rules and names are those of open-r1 and TRL where they have them, exactly. All are linear in
 * the text (repetition: n log n), with no patterns that could backtrack; texts are any bytes.
 */
#ifndef PONDER_GRADE_REWARD_H
#define PONDER_GRADE_REWARD_H

#include "grade/gym.h"

/* What was asked. */
struct reward_problem {
    const struct gym_item *item; /* of r1-gym: its verifier judges; or NULL */
    struct span gold;            /* else the right answer; s = NULL: not known */
    int language;                /* enum gym_language that is expected, -1: not known */
    bool thinking_open;          /* the prompt ended with "<think>\n": outputs begin behind it */
};

/* One output. */
struct reward_sample {
    struct span text;
    size_t tokens;      /* its length; 0: not known, then characters count */
    const int32_t *ids; /* (tokens) or NULL */
};

/* Parameters with open-r1's names and defaults. */
struct reward_options {
    double cosine_min_value_wrong, cosine_max_value_wrong;
    double cosine_min_value_correct, cosine_max_value_correct;
    size_t cosine_max_len;
    size_t repetition_n_grams;
    double repetition_max_penalty;
    size_t max_completion_len, soft_punish_cache; /* of soft_overlong */
};
void reward_options_init(struct reward_options *o);

struct reward; /* a row */
size_t reward_count(void);
const struct reward *reward_at(size_t i);
const struct reward *reward_find(struct span name); /* NULL: none */
const char *reward_name(const struct reward *r);
const char *reward_about(const struct reward *r);

enum { REWARD_WHY_MAX = 120, REWARD_TEXT_MAX = 1 << 24 };
struct reward_why {
    char text[REWARD_WHY_MAX]; /* one line: "\boxed{7} is different from 8" */
};

/* The rewards of n outputs: out (n); why (n) or NULL. ERR_LIMIT: a text over REWARD_TEXT_MAX. */
int reward_group(const struct reward *r, const struct reward_options *o,
                 const struct reward_problem *p, const struct reward_sample *sample, size_t n,
                 float *out, struct reward_why *why, struct err *e);

/* The verdict that accuracy is made of. */
enum grade reward_verdict(const struct reward_problem *p, struct span text);

/*
 * The share of the target language's words among all words of a text: a run of Latin letters is a
 * word, and so is every Chinese character; digits, signs, single letters, \commands and what stands
 * in \boxed{} are of no language. 1 when there are no words.
 */
double reward_language_share(struct span text, enum gym_language target);

#endif
