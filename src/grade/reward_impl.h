/* Private to the rewards: what a rule gets to see of one output. */
#ifndef PONDER_GRADE_REWARD_IMPL_H
#define PONDER_GRADE_REWARD_IMPL_H

#include "grade/reward.h"

struct reward_case {
    const struct reward_options *o;
    const struct reward_problem *problem;
    const struct reward_sample *sample;
    struct span text;   /* the output from its <think> on, also where the prompt wrote that */
    enum grade verdict; /* and whether there is one: */
    bool has_verdict;
    size_t length;            /* tokens or characters */
    size_t shortest, longest; /* of the group */
    uint64_t *scratch;        /* of rows that ask for it */
    struct reward_why *why;   /* or NULL */
};

void reward_say(const struct reward_case *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The part between the first <think> and the first </think> after it; all when there is none. */
struct span reward_thought(struct span text);

#define REWARD(name, scratch, about) double reward_##name(const struct reward_case *c);
#include "grade/reward.def"
#undef REWARD

#endif
