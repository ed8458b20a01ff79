/* See stage.h. */
#include "train/stage.h"

#include "base/num.h"

#include <math.h>
#include <string.h>

static const struct train_stage *const stages[] = {
#define STAGE(name, n, help, about) &train_stage_##name,
#include "train/stage.def"
#undef STAGE
};

size_t train_stage_count(void)
{
    return NUM_COUNT(stages);
}

const struct train_stage *train_stage_at(size_t i)
{
    return stages[i];
}

const struct train_stage *train_stage_find(const char *name)
{
    for (size_t i = 0; i < NUM_COUNT(stages); i++)
        if (!strcmp(stages[i]->name, name))
            return stages[i];
    return NULL;
}

/* Of options whose default differs between stages, where a stage says nothing: transformers'. */
static const char *const common[] = {"num-train-epochs",
                                     "3",
                                     "lr-scheduler-type",
                                     "linear",
                                     "warmup-ratio",
                                     "0",
                                     "weight-decay",
                                     "0",
                                     "adam-beta2",
                                     "0.999",
                                     "lora-dropout",
                                     "0.05",
                                     NULL};

/* Of adapters that are new: others have theirs. */
static const char *const adapter[] = {"lora-r",     "16", "lora-alpha", "32", "lora-target-modules",
                                      "all-linear", NULL};

static bool unset(const struct opt *o, const void *target, size_t base)
{
    const char *at = (const char *)target + base + o->offset;
    double x;
    int64_t i;
    const char *s;
    switch (o->kind) {
    case OPT_FLOAT:
        memcpy(&x, at, sizeof x);
        return isnan(x);
    case OPT_INT:
    case OPT_SIZE:
        memcpy(&i, at, sizeof i);
        return i == OPT_UNSET;
    case OPT_STRING:
    case OPT_ENUM:
        memcpy(&s, at, sizeof s);
        return !s;
    case OPT_FLAG:
    case OPT_SWITCH:
    case OPT_LIST:
        break;
    }
    return false;
}

static int fill(const struct train_stage *s, const char *const *list, struct train_options *o,
                struct err *e)
{
    for (; list && *list; list += 2) {
        size_t base;
        const struct opt *row = opt_find(&s->spec, list[0], strlen(list[0]), &base);
        if (!row || !unset(row, o, base))
            continue;
        int rc = opt_assign(&s->spec, o, list[0], list[1], e);
        if (rc)
            return rc;
    }
    return 0;
}

int train_stage_fill(const struct train_stage *s, struct train_options *o, struct err *e)
{
    int rc = fill(s, s->defaults, o, e);
    rc = rc ? rc : fill(s, common, o, e);
    if (rc || !o->lora)
        return rc ? rc : fill(s, adapter, o, e);
    o->use_peft = 1;
    return 0;
}
