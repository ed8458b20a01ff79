/* See score.h. */
#include "train/score.h"

#include "engine/parts.h"
#include "format/adapter.h"
#include "format/source.h"

#include <stdio.h>
#include <stdlib.h>

static int score_take(struct score *s, const struct source_tensor *t, struct err *e)
{
    if (!t)
        return 0;
    if (!t->type || t->dims != 2 || t->shape[0] != 1 || t->shape[1] != s->w.cols ||
        t->type->block != 1)
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\": a scalar head has one row of %zu float values", t->name,
                       s->w.cols);
    uint8_t *row = malloc(t->bytes);
    if (!row)
        return err_nomem(e, t->bytes, "the scalar head");
    source_rows(t, 0, 1, row, t->bytes);
    t->type->decode(s->value, row, s->w.cols);
    free(row);
    s->found = true;
    return 0;
}

/* The adapter's where it has one, else the model's. */
static int score_read(struct score *s, struct engine *g, const char *adapter, struct err *e)
{
    struct adapter *a = NULL;
    int rc = adapter ? adapter_open(&a, adapter, e) : 0;
    const struct source_tensor *own = a ? adapter_score(a) : NULL;
    if (!rc)
        rc = score_take(s, own ? own : source_tensor(engine_source(g), s->param.name), e);
    adapter_free(a);
    return rc;
}

int score_open(struct score **out, struct engine *g, const char *adapter, struct err *e)
{
    struct engine_parts parts;
    engine_parts(g, &parts);
    struct score *s = calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return err_nomem(e, sizeof *s, "the scalar head");
    s->w = (struct weight){.name = "score.weight",
                           .type = quant_by_id(QUANT_F32),
                           .rows = 1,
                           .cols = model_config(parts.model)->d_model};
    s->value = calloc(s->w.cols, sizeof *s->value);
    if (!s->value)
        return err_nomem(e, s->w.cols * sizeof *s->value, "the scalar head");
    s->w.vec = s->w.own = s->value;
    s->param = (struct model_param){.weight = &s->w, .cols = s->w.cols, .layer = SIZE_MAX};
    snprintf(s->param.name, sizeof s->param.name, "%s", s->w.name);
    return score_read(s, g, adapter, e);
}

void score_free(struct score *s)
{
    if (!s)
        return;
    free(s->value);
    free(s);
}

double score_of(const struct score *s, const float *state)
{
    double sum = 0;
    for (size_t i = 0; i < s->w.cols; i++)
        sum += (double)(s->value[i] * state[i]);
    return (double)(float)sum;
}

void score_back(const struct score *s, const float *state, double by, float *dstate)
{
    float g = (float)by, *dw = s->w.param ? s->w.param->grad : NULL;
    for (size_t i = 0; i < s->w.cols; i++) {
        dstate[i] += g * s->value[i];
        if (dw)
            dw[i] += g * state[i];
    }
}
