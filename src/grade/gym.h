/*
 * r1-gym: small problems made by rule, with answers that a program can check.
 *
 * A task (a row in gym.def) makes problems, says them in English and Chinese, works them out in
 * several styles and verifies answers. Everything about an item is a pure function of the few
 * numbers in struct gym_item, and those are a pure function of (task, language, seed, index,
 * knobs) by counter-based random numbers: no state, any item on its own, on any thread.
 *
 *   problem   kind and values: what is asked. The same in both languages (twins).
 *   wording   chooses names and phrases; never changes the problem.
 *   split     by a hash of the problem in normal form (47*6 and 6*47 are one), never by seed: what
 *             is held out cannot be trained on in other words, order or language.
 *   id        all of it as text: an item can be made again from its id, to verify an answer that
 *             was read back from a file.
 *
 * Worked solutions are right by construction: every equation in them is true. They are short,
 * because the contexts of small models are. The idea of synthetic tasks with verifiers: TinyZero's
 * countdown, reasoning-gym; of digit-wise work: Nye et al., "Show Your Work: Scratchpads for
 * Intermediate Computation with Language Models", 2021; of competing styles in pretraining: Zhao
 * et al., "Echo Chamber: RL Post-training Amplifies Behaviors Learned in Pretraining", 2025.
 */
#ifndef PONDER_GRADE_GYM_H
#define PONDER_GRADE_GYM_H

#include "base/buf.h"
#include "base/err.h"
#include "grade/answer.h"

#include <stdint.h>

enum gym_language { GYM_EN, GYM_ZH, GYM_LANGUAGES };
const char *gym_language_name(enum gym_language l); /* "en", "zh" */
bool gym_language_parse(enum gym_language *out, struct span name);

enum gym_split { GYM_TRAIN, GYM_EVAL };

/* Ways to work a problem out. The first is the one that a cold start teaches. */
enum { GYM_STYLES = 3 };

enum { GYM_VALUES = 8, GYM_LEVELS = 4, GYM_TEXT_MAX = 1 << 16, GYM_ID_MAX = 128 };

/* Difficulty; 0 everywhere is each task's own mixture of levels 1 to 3. */
struct gym_knobs {
    int level;      /* 1 (easiest) to GYM_LEVELS */
    int digits;     /* arithmetic: of the numbers that are added, 1 to 5 */
    int terms;      /* arithmetic: numbers in a problem, 2 or 3 */
    int numbers_to; /* countdown: numbers are 1 to this, at most 99 */
    int target_to;  /* countdown: targets are 1 to this, at most 999 */
    int days_to;    /* calendar: longest way in days, at most 999 */
};

struct gym_item {
    const struct gym_task *task;
    enum gym_language language;
    uint32_t kind;    /* of the task's kinds */
    uint32_t wording; /* a random number */
    size_t n;
    int32_t v[GYM_VALUES];
};

/* Tasks in the order of gym.def. */
size_t gym_count(void);
const struct gym_task *gym_task(size_t i);
const struct gym_task *gym_find(struct span name); /* NULL: none */
const char *gym_name(const struct gym_task *t);
const char *gym_about(const struct gym_task *t); /* a line for people */

/* Item `index` of a seed. The problem does not depend on the language. */
void gym_make(struct gym_item *out, const struct gym_task *t, enum gym_language l, uint64_t seed,
              uint64_t index, const struct gym_knobs *k);
/* The first of items index, index + 1, … that is in `split`; *index becomes the one after it. */
void gym_next(struct gym_item *out, const struct gym_task *t, enum gym_language l, uint64_t seed,
              uint64_t *index, const struct gym_knobs *k, enum gym_split split);

/* The problem in normal form: equal for equal problems, whatever language and wording. */
uint64_t gym_hash(const struct gym_item *it);
enum gym_split gym_split(const struct gym_item *it); /* a tenth is GYM_EVAL */

/* "arithmetic-en-8-47.6.128-1c9f". Reading checks everything: ids may come from anywhere. */
int gym_id(const struct gym_item *it, struct buf *out, struct err *e);
int gym_read(struct gym_item *out, struct span id, struct err *e);

/* Texts of an item, appended. The thought may be in another language than the item. */
int gym_prompt(const struct gym_item *it, struct buf *out, struct err *e);
int gym_think(const struct gym_item *it, enum gym_language l, int style, struct buf *out,
              struct err *e);
int gym_answer(const struct gym_item *it, struct buf *out,
               struct err *e); /* one or two sentences */
/* The answer alone, as it stands in the box; of tasks without one the name of what is expected. */
int gym_gold(const struct gym_item *it, struct buf *out, struct err *e);

/* "<think>\nTHOUGHT\n</think>\n\nANSWER": a whole completion. */
int gym_completion(const struct gym_item *it, enum gym_language l, int style, struct buf *out,
                   struct err *e);

/* Is the output (a completion, or an answer alone) right? Anything right is accepted, not only the
   gold answer. */
enum grade gym_verify(const struct gym_item *it, struct span output);

/*
 * A better and a worse answer to an item's prompt, for reward models: answers without thoughts.
 * `which` chooses among ways to be worse. On unsafe requests the worse one complies (a safety
 * pair), elsewhere it is wrong, off the point, cut off, repeated or in the other language.
 */
enum { GYM_FAULTS = 5 };
bool gym_unsafe(const struct gym_item *it);
bool gym_has_unsafe(const struct gym_task *t); /* some of its items are */
int gym_worse(const struct gym_item *it, uint32_t which, struct buf *out, struct err *e);
/* The same with a thought before it, which complies too. */
int gym_worse_completion(const struct gym_item *it, int style, uint32_t which, struct buf *out,
                         struct err *e);

#endif
