/* See frozen.h. */
#include "train/frozen.h"

#include "engine/parts.h"
#include "tensor/kv.h"
#include "train/pass.h"

#include <stdlib.h>

struct frozen {
    struct engine *engine;
    struct engine_parts parts;
    struct op_ctx ops;
    struct pass pass;
};

int frozen_open(struct frozen **out, const struct frozen_opts *o, struct err *e)
{
    struct engine_opts eo;
    struct frozen *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f)
        return err_nomem(e, sizeof *f, o->path);
    engine_opts_init(&eo);
    eo.threads = o->threads;
    eo.log = o->log;
    eo.ctx = eo.batch = KV_PAGE;
    eo.place = ENGINE_PACKED;
    eo.adapter = o->adapter;
    int rc = cpu_isa_parse(&eo.isa, o->isa ? o->isa : "auto", e);
    rc = rc ? rc : engine_open(&f->engine, o->path, &eo, e);
    if (!rc) {
        engine_parts(f->engine, &f->parts);
        op_ctx_init(&f->ops, f->parts.kern, f->parts.team);
        rc = pass_init(&f->pass, f->parts.model, o->pass_tokens, o->longest, e);
    }
    if (rc) {
        frozen_free(f);
        return rc;
    }
    *out = f;
    return 0;
}

void frozen_free(struct frozen *f)
{
    if (!f)
        return;
    if (f->parts.model) {
        pass_release(&f->pass);
        op_ctx_release(&f->ops);
    }
    engine_free(f->engine);
    free(f);
}

struct engine *frozen_engine(const struct frozen *f)
{
    return f->engine;
}

const struct kern *frozen_kern(const struct frozen *f)
{
    return f->parts.kern;
}

int frozen_cut(const struct frozen *f, const struct data_batch *b, size_t first, size_t *n,
               struct err *e)
{
    return pass_cut(&f->pass, b, first, b->n, 1, n, e);
}

int frozen_look(struct frozen *f, const struct data_seq *seq, size_t n, struct frozen_states *out,
                struct err *e)
{
    struct batch b;
    pass_done(&f->pass, f->pass.most);
    int rc = pass_gather(&f->pass, seq, n, &b, e);
    if (rc)
        return rc;
    /* Scratch for the pass and the head, by a dry run. */
    f->ops.dry = true;
    f->ops.used = f->ops.peak = 0;
    out->hidden = model_states(f->parts.model, &f->ops, &b);
    loss_head(&f->ops, out->hidden, model_head(f->parts.model), NULL, NULL, NULL, NULL);
    f->ops.dry = false;
    f->ops.used = 0;
    if (f->ops.peak > f->ops.cap)
        rc = pass_fits(f->ops.peak + pass_cache_bytes(&f->pass, b.n, f->pass.longest), b.n, e);
    rc = rc ? rc : op_ctx_reserve(&f->ops, f->ops.peak, e);
    if (!rc)
        out->hidden = model_states(f->parts.model, &f->ops, &b);
    out->row = f->pass.row;
    return rc;
}

void frozen_head(struct frozen *f, struct tensor hidden, const bool *skip, loss_row *fn, void *arg)
{
    loss_head(&f->ops, hidden, model_head(f->parts.model), skip, fn, arg, NULL);
}
