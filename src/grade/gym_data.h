/*
 * r1-gym as data sets: rows of JSON in the forms that trainers read.
 *
 * A row is a pure function of (what is wanted, its number), so sets need no files: a trainer can
 * make row n when it needs it. Forms:
 *
 *   prompt      {"prompt": [{role, content}]}, for reinforcement learning and evaluation; with a
 *               template a text, for models that know no chat (R1-Zero)
 *   sft         and "completion": thought and answer
 *   pretrain    {"text": …}: mostly a problem, its work and its answer as plain text; a tenth with
 *               the thought in tags, a tenth facts (small equations, weekdays, months) or the same
 *               in both languages
 *   preference  "prompt", "chosen", "rejected": answers without thoughts, for a reward model of
 *               helpfulness, which sees no thoughts
 *   safety      "prompt", "completion", "label" (TRL's unpaired preferences): is the output safe?
 *               Every other row is an unsafe request that is complied with, of tasks that have any;
 *               answers that are only bad are safe. With thoughts.
 *
 * All but pretrain carry "task", "language", "gold" and "id": reward_problem_read makes the problem
 * again from them.
 */
#ifndef PONDER_GRADE_GYM_DATA_H
#define PONDER_GRADE_GYM_DATA_H

#include "grade/reward.h"

#include <jansson.h>

#define GYM_FORMS "prompt|sft|pretrain|preference|safety"
enum gym_form { GYM_PROMPT, GYM_SFT, GYM_PRETRAIN, GYM_PREFERENCE, GYM_SAFETY };
bool gym_form_parse(enum gym_form *out, struct span name);

struct gym_data {
    const struct gym_task *task;
    enum gym_language language;
    uint64_t seed;
    enum gym_split split;
    struct gym_knobs knobs;
    enum gym_form form;
    int style;    /* of worked solutions; -1: all of them, mixed */
    double mixed; /* share of thoughts that are in the other language (sft) */
    /* NULL, or of GYM_PROMPT: the prompt is a text, this with the problem in the place of "{}" */
    const char *template;
};

/* The problem of row `row`. Of GYM_EVAL both languages have the same ones. */
int gym_data_item(const struct gym_data *d, uint64_t row, struct gym_item *out, struct err *e);
/* The row; the caller owns *out. */
int gym_data_row(const struct gym_data *d, uint64_t row, json_t **out, struct err *e);

/*
 * What a record of any file asks, for rewards: of r1-gym by its "id" (then `item` is filled and
 * pointed to), else the right answer from "gold", "solution", "answer" or "target", a text or a
 * number; of a text with "####" (GSM8K) what is behind it. "language" if it is there. What points
 * into the record lives as long as it; numbers are written to `number`. ERR_FORMAT: the "task" is
 * one of r1-gym and the id is none.
 */
struct reward_source {
    struct gym_item item;
    char number[32];
};
int reward_problem_read(struct reward_problem *p, struct reward_source *from, const json_t *record,
                        struct err *e);

#endif
