/* Private to the tasks of r1-gym: what a task is, and a pen that writes its texts. */
#ifndef PONDER_GRADE_GYM_IMPL_H
#define PONDER_GRADE_GYM_IMPL_H

#include "base/rng.h"
#include "grade/gym.h"

/* Writes in one language; after a failure it writes nothing more and keeps the code. */
struct gym_pen {
    struct buf *out;
    struct err *e;
    enum gym_language language;
    int rc;
};

void gym_put(struct gym_pen *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gym_gap(struct gym_pen *p); /* the space after a sentence: Chinese has none */
/* One of two formats for the same arguments. */
#define GYM_PUT(p, en, zh, ...)            \
    do {                                   \
        if ((p)->language == GYM_ZH)       \
            gym_put(p, zh, ##__VA_ARGS__); \
        else                               \
            gym_put(p, en, ##__VA_ARGS__); \
    } while (0)

struct gym_task {
    const char *name, *about;
    /* Sets kind, n and v; `level` is settled. */
    void (*draw)(struct gym_item *it, struct rng *r, int level, const struct gym_knobs *k);
    bool (*valid)(const struct gym_item *it); /* any numbers may come: is it a problem? */
    /* The problem's normal form; NULL: it is one already. */
    void (*normal)(struct gym_item *it);
    void (*prompt)(struct gym_pen *p, const struct gym_item *it);
    void (*think)(struct gym_pen *p, const struct gym_item *it, int style);
    void (*answer)(struct gym_pen *p, const struct gym_item *it);
    void (*gold)(struct gym_pen *p, const struct gym_item *it);
    enum grade (*verify)(const struct gym_item *it, struct span output);
    void (*worse)(struct gym_pen *p, const struct gym_item *it, uint32_t fault);
    bool (*unsafe)(const struct gym_item *it);                    /* NULL: never */
    void (*comply)(struct gym_pen *p, const struct gym_item *it); /* the thought before that */
};

/* lo to hi, both included. */
int32_t gym_range(struct rng *r, int32_t lo, int32_t hi);
/* A number below n from the item's wording; `salt` tells choices apart. */
uint32_t gym_pick(const struct gym_item *it, uint32_t salt, uint32_t n);

/* The gold answer against the output by answer_grade. */
enum grade gym_verify_value(const struct gym_item *it, struct span output);
/* The answer with a wrong value in its box. */
void gym_worse_value(struct gym_pen *p, const struct gym_item *it, uint32_t fault);

/* x op y, op one of + - * / (exact). */
int64_t gym_apply(char op, int64_t x, int64_t y);

#endif
