/* See schedule.h. Factors are computed with the operations of the reference in their order, so the
   rates agree to the last bit of a double or the one before. */
#include "train/schedule.h"

#include "base/num.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum schedule_shape { SHAPE_LINEAR, SHAPE_COSINE, SHAPE_SQRT };

static const char *const shape_names[] = {"linear", "cosine", "1-sqrt"};

struct schedule_kind {
    const char *name;
    double (*factor)(const struct schedule *s, int64_t step); /* after the warm-up */
    double (*rise)(const struct schedule *s, int64_t step);   /* during it; NULL: there is none */
    const char *args;                                         /* settings that it has */
    bool floor;                                               /* needs min_lr or min_lr_rate */
};

static double at_least_1(int64_t n)
{
    return n > 1 ? (double)n : 1.0;
}

static double at_least_0(double x)
{
    return x > 0 ? x : 0;
}

/* How much of the way from the end of the warm-up to the end of the run is done. */
static double progress(const struct schedule *s, int64_t step)
{
    return (double)(step - s->warmup) / at_least_1(s->total - s->warmup);
}

static double half_cosine(const struct schedule *s, double x)
{
    return 0.5 * (1.0 + cos(M_PI * s->num_cycles * 2.0 * x));
}

/* A factor of 0 to 1 moved to floor to 1. */
static double above(double factor, double floor)
{
    return factor * (1.0 - floor) + floor;
}

/* ---- warm-ups -------------------------------------------------------------------------------- */

static double rise_linear(const struct schedule *s, int64_t step)
{
    return (double)step / at_least_1(s->warmup);
}

/* From warmup_lr_rate, or the first step of as many as there are; no step has rate 0. */
static double rise_from(const struct schedule *s, int64_t step)
{
    if (isnan(s->warmup_lr_rate))
        return ((double)step + 1.0) / at_least_1(s->warmup);
    return s->warmup_lr_rate + (1.0 - s->warmup_lr_rate) * (double)step / at_least_1(s->warmup - 1);
}

static double rise_shape(const struct schedule *s, int64_t step)
{
    double x = rise_linear(s, step);
    if (s->warmup_type == SHAPE_COSINE)
        x = 0.5 * (1.0 - cos(M_PI * x));
    else if (s->warmup_type == SHAPE_SQRT)
        x = 1.0 - sqrt(1.0 - x);
    return at_least_0(above(x, s->min_lr_rate));
}

/* ---- what follows ---------------------------------------------------------------------------- */

static double constant(const struct schedule *s, int64_t step)
{
    return 1.0;
}

static double linear(const struct schedule *s, int64_t step)
{
    return at_least_0((double)(s->total - step) / at_least_1(s->total - s->warmup));
}

static double cosine(const struct schedule *s, int64_t step)
{
    return at_least_0(half_cosine(s, progress(s, step)));
}

static double cosine_with_restarts(const struct schedule *s, int64_t step)
{
    double x = progress(s, step);
    if (x >= 1.0)
        return 0.0;
    return at_least_0(0.5 * (1.0 + cos(M_PI * fmod(s->num_cycles * x, 1.0))));
}

static double cosine_with_min_lr(const struct schedule *s, int64_t step)
{
    return at_least_0(above(half_cosine(s, progress(s, step)), s->min_lr_rate));
}

/* One step ahead of the above: the last step has the smallest rate. */
static double cosine_warmup_with_min_lr(const struct schedule *s, int64_t step)
{
    return cosine_with_min_lr(s, step + 1);
}

static double polynomial(const struct schedule *s, int64_t step)
{
    double span = (double)(s->total - s->warmup);
    if (step > s->total || span <= 0)
        return s->lr_end / s->lr;
    double left = 1.0 - (double)(step - s->warmup) / span;
    return ((s->lr - s->lr_end) * pow(left, s->power) + s->lr_end) / s->lr;
}

static double inverse_sqrt(const struct schedule *s, int64_t step)
{
    int64_t scale = s->timescale > 0 ? s->timescale : s->warmup > 0 ? s->warmup : 10000;
    return 1.0 / sqrt((double)(step + (scale - s->warmup)) / (double)scale);
}

static double warmup_stable_decay(const struct schedule *s, int64_t step)
{
    int64_t stable =
        s->num_stable_steps >= 0 ? s->num_stable_steps : s->total - s->warmup - s->num_decay_steps;
    int64_t fall = s->warmup + stable;
    if (step < fall)
        return 1.0;
    if (step >= fall + s->num_decay_steps)
        return s->min_lr_rate;
    double x = (double)(step - fall) / at_least_1(s->num_decay_steps);
    x = s->decay_type == SHAPE_LINEAR   ? 1.0 - x
        : s->decay_type == SHAPE_COSINE ? half_cosine(s, x)
                                        : 1.0 - sqrt(x);
    return at_least_0(above(x, s->min_lr_rate));
}

static const struct schedule_kind kinds[] = {
    {"linear", linear, rise_linear, "", false},
    {"cosine", cosine, rise_linear, "num_cycles", false},
    {"cosine_with_restarts", cosine_with_restarts, rise_linear, "num_cycles", false},
    {"cosine_with_min_lr", cosine_with_min_lr, rise_linear, "num_cycles min_lr min_lr_rate", true},
    {"cosine_warmup_with_min_lr", cosine_warmup_with_min_lr, rise_from,
     "num_cycles min_lr min_lr_rate warmup_lr_rate", true},
    {"polynomial", polynomial, rise_linear, "lr_end power", false},
    {"constant", constant, NULL, "", false},
    {"constant_with_warmup", constant, rise_linear, "", false},
    {"inverse_sqrt", inverse_sqrt, rise_linear, "timescale", false},
    {"warmup_stable_decay", warmup_stable_decay, rise_shape,
     "num_decay_steps num_stable_steps warmup_type decay_type min_lr_ratio num_cycles", false},
};

/* ---- settings -------------------------------------------------------------------------------- */

enum setting_kind { SETTING_REAL, SETTING_COUNT, SETTING_SHAPE };

static const struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset;
    double min, max;
} settings[] = {
    {"num_cycles", SETTING_REAL, offsetof(struct schedule, num_cycles), 0, 1e6},
    {"min_lr", SETTING_REAL, offsetof(struct schedule, min_lr), 0, 1e6},
    {"min_lr_rate", SETTING_REAL, offsetof(struct schedule, min_lr_rate), 0, 1},
    {"min_lr_ratio", SETTING_REAL, offsetof(struct schedule, min_lr_rate), 0, 1},
    {"warmup_lr_rate", SETTING_REAL, offsetof(struct schedule, warmup_lr_rate), 0, 1},
    {"lr_end", SETTING_REAL, offsetof(struct schedule, lr_end), 0, 1e6},
    {"power", SETTING_REAL, offsetof(struct schedule, power), 0, 1e6},
    {"timescale", SETTING_COUNT, offsetof(struct schedule, timescale), 1, 1e15},
    {"num_decay_steps", SETTING_COUNT, offsetof(struct schedule, num_decay_steps), 0, 1e15},
    {"num_stable_steps", SETTING_COUNT, offsetof(struct schedule, num_stable_steps), 0, 1e15},
    {"warmup_type", SETTING_SHAPE, offsetof(struct schedule, warmup_type), 0, 0},
    {"decay_type", SETTING_SHAPE, offsetof(struct schedule, decay_type), 0, 0},
};

/* Whether `word` is one of the words of a list. */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; *p; p += strcspn(p, " "), p += *p == ' ')
        if (!strncmp(p, word, n) && (p[n] == ' ' || !p[n]))
            return true;
    return false;
}

static int set_one(struct schedule *s, const struct setting *row, const json_t *v, struct err *e)
{
    char *at = (char *)s + row->offset;
    if (row->kind == SETTING_SHAPE) {
        for (size_t i = 0; i < NUM_COUNT(shape_names); i++)
            if (json_is_string(v) && !strcmp(json_string_value(v), shape_names[i])) {
                *(int *)at = (int)i;
                return 0;
            }
        return err_set(e, ERR_USAGE, "%s: must be \"linear\", \"cosine\" or \"1-sqrt\"", row->name);
    }
    double x = json_number_value(v);
    if (row->kind == SETTING_REAL ? !json_is_number(v) : !json_is_integer(v))
        return err_set(e, ERR_USAGE, "%s: must be a %s", row->name,
                       row->kind == SETTING_REAL ? "number" : "whole number");
    if (!(x >= row->min && x <= row->max))
        return err_set(e, ERR_USAGE, "%s %g: must be between %g and %g", row->name, x, row->min,
                       row->max);
    if (row->kind == SETTING_REAL)
        *(double *)at = x;
    else
        *(int64_t *)at = (int64_t)json_integer_value(v);
    return 0;
}

static int set_all(struct schedule *s, const json_t *args, struct err *e)
{
    const char *key;
    json_t *v;
    if (args && !json_is_object(args))
        return err_set(e, ERR_USAGE, "its settings must be an object");
    json_object_foreach((json_t *)(uintptr_t)args, key, v)
    {
        const struct setting *row = NULL;
        for (size_t i = 0; i < NUM_COUNT(settings) && !row; i++)
            if (!strcmp(settings[i].name, key))
                row = &settings[i];
        if (!row || !has_word(s->kind->args, key))
            return err_set(e, ERR_USAGE, "has no setting \"%.60s\"; it has: %s", key,
                           *s->kind->args ? s->kind->args : "none");
        int rc = set_one(s, row, v, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* What settings have to fulfil together. */
static int check(struct schedule *s, struct err *e)
{
    const char *name = s->kind->name;
    bool lr = !isnan(s->min_lr), rate = !isnan(s->min_lr_rate);
    if (s->kind->floor && lr == rate)
        return err_set(e, ERR_USAGE, "needs %s of min_lr and min_lr_rate", lr ? "only one" : "one");
    if (lr && s->min_lr > s->lr)
        return err_set(e, ERR_USAGE, "min_lr %g is above the learning rate %g", s->min_lr, s->lr);
    if (lr)
        s->min_lr_rate = s->lr > 0 ? s->min_lr / s->lr : 0;
    if (isnan(s->min_lr_rate))
        s->min_lr_rate = 0;
    if (!strcmp(name, "polynomial") && !(s->lr > s->lr_end))
        return err_set(e, ERR_USAGE, "lr_end %g must be below the learning rate %g", s->lr_end,
                       s->lr);
    if (!strcmp(name, "warmup_stable_decay")) {
        if (s->num_decay_steps < 0)
            return err_set(e, ERR_USAGE, "needs num_decay_steps");
        if (s->num_stable_steps < 0 && s->warmup + s->num_decay_steps > s->total)
            return err_set(e, ERR_USAGE, "warm-up and decay take %lld steps and the run has %lld",
                           (long long)(s->warmup + s->num_decay_steps), (long long)s->total);
    }
    return 0;
}

int schedule_names(struct buf *out, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < NUM_COUNT(kinds) && !rc; i++)
        rc = buf_printf(out, e, "%s%s", i ? "|" : "", kinds[i].name);
    return rc;
}

static int unknown(const char *name, struct err *e)
{
    struct buf all;
    buf_init(&all, SCHEDULE_CHOICES_MAX);
    int rc = schedule_names(&all, e);
    if (!rc)
        rc = err_set(e, ERR_USAGE, "learning rate schedule \"%.60s\": there is none; there are %s",
                     name, all.data);
    buf_release(&all);
    return rc;
}

int schedule_init(struct schedule *s, const char *name, double lr, int64_t warmup, int64_t total,
                  const json_t *args, struct err *e)
{
    *s = (struct schedule){.lr = lr,
                           .warmup = warmup,
                           .total = total,
                           .min_lr = NAN,
                           .min_lr_rate = NAN,
                           .warmup_lr_rate = NAN,
                           .lr_end = 1e-7,
                           .power = 1,
                           .timescale = -1,
                           .num_decay_steps = -1,
                           .num_stable_steps = -1,
                           .warmup_type = SHAPE_LINEAR,
                           .decay_type = SHAPE_COSINE};
    for (size_t i = 0; i < NUM_COUNT(kinds); i++)
        if (!strcmp(kinds[i].name, name))
            s->kind = &kinds[i];
    if (!s->kind)
        return unknown(name, e);
    s->num_cycles = s->kind->factor == cosine_with_restarts ? 1 : 0.5;
    int rc = 0;
    if (!(lr >= 0) || isinf(lr))
        rc = err_set(e, ERR_USAGE, "learning rate %g: must be 0 or more", lr);
    else if (warmup < 0 || total < 0 || warmup > INT64_MAX / 4 || total > INT64_MAX / 4)
        rc = err_set(e, ERR_USAGE, "%lld steps of warm-up of %lld: must be 0 or more",
                     (long long)warmup, (long long)total);
    if (!rc)
        rc = set_all(s, args, e);
    if (!rc)
        rc = check(s, e);
    return rc ? err_ctx(e, "learning rate schedule \"%s\"", name) : 0;
}

double schedule_lr(const struct schedule *s, int64_t step)
{
    bool rises = s->kind->rise && step < s->warmup;
    return s->lr * (rises ? s->kind->rise : s->kind->factor)(s, step);
}

int64_t schedule_warmup(int64_t steps, double ratio, int64_t total)
{
    if (steps > 0)
        return steps;
    double x = ceil((double)total * ratio);
    return x > 0 ? (int64_t)x : 0;
}
