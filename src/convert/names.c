/*
 * Which tensors the output has: the source's own, as long as the kind of files stays the same.
 */
#include "convert/plan.h"

#include <string.h>

/* The tensor as it is. */
static int add_whole(struct convert_plan *p, const struct source_tensor *s, struct err *e)
{
    if (!s->type)
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor \"%s\" has the type %s, which cannot be converted", s->name,
                       s->dtype);
    struct convert_tensor *t = plan_add(p, s->name, e);
    struct convert_run *u = t ? plan_runs(p, 1, e) : NULL;
    if (!u)
        return ERR_NOMEM;
    t->dims = s->dims;
    memcpy(t->shape, s->shape, sizeof t->shape);
    t->from = s->dtype;
    t->runs = u;
    t->n_runs = 1;
    *u = (struct convert_run){.t = s, .rows = plan_height(t)};
    return 0;
}

int plan_tensors(struct convert_plan *p, struct err *e)
{
    bool gguf = p->o.format == CONVERT_GGUF;
    int rc = 0;
    if (gguf != (source_kind(p->src) == SOURCE_GGUF))
        return err_set(e, ERR_UNSUPPORTED, "only GGUF files to GGUF files so far");
    for (size_t i = 0; !rc && i < source_tensor_count(p->src); i++)
        rc = add_whole(p, source_tensor_at(p->src, i), e);
    return rc;
}
