/* See trained.h. */
#include "trained.h"

#include "base/num.h"
#include "engine/parts.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[400] = "train";

void trained_die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

void trained_folder(int argc, char **argv)
{
    const char *env = getenv("PONDER_TRAIN_GOLDEN");
    snprintf(folder, sizeof folder, "%s", argc > 1 ? argv[1] : env ? env : "train");
}

char *trained_path(char path[600], const char *model, const char *file)
{
    bool whole = folder[0] == '/';
    snprintf(path, 600, "%s%s%s/%s%s%s", whole ? "" : GOLDEN_DIR, whole ? "" : "/", folder, model,
             file ? "/" : "", file ? file : "");
    return path;
}

void trained_open(struct trained *x, const char *path, const struct trained_how *how)
{
    struct err e = {0};
    struct engine_opts eo;
    *x = (struct trained){NULL};
    trained_die(comm_open(&x->comm, &e), &e);
    engine_opts_init(&eo);
    eo.threads = how->threads;
    eo.ctx = eo.batch = 64;
    eo.kv_type = QUANT_F32;
    eo.act = ENGINE_ACT_F32;
    eo.place = ENGINE_PACKED;
    eo.train = true;
    trained_die(cpu_isa_parse(&eo.isa, "auto", &e), &e);
    trained_die(engine_open(&x->engine, path, &eo, &e), &e);
    if (how->score)
        trained_die(score_open(&x->score, x->engine, NULL, &e), &e);
    struct trainer_opts to = {.engine = x->engine,
                              .comm = x->comm,
                              .extra = x->score ? &x->score->param : NULL,
                              .pass_tokens = how->pass_tokens,
                              .longest = TRAINED_TOKENS,
                              .recompute = how->recompute,
                              .optim = {.beta1 = 0.9,
                                        .beta2 = how->beta2 > 0 ? how->beta2 : 0.999,
                                        .epsilon = 1e-8,
                                        .weight_decay = how->weight_decay,
                                        .max_grad_norm = how->max_grad_norm}};
    trained_die(trainer_new(&x->t, &to, &e), &e);
}

void trained_close(struct trained *x)
{
    trainer_free(x->t);
    score_free(x->score);
    engine_free(x->engine);
    comm_close(x->comm, 0);
}

/* ---- batches --------------------------------------------------------------------------------- */

static void batch_shards(struct trained_batch *b, size_t n, size_t unit)
{
    b->b.seq = b->seq;
    b->b.n = n;
    b->b.items = n / unit;
    for (size_t s = 0; s <= DATA_SHARDS; s++)
        b->b.shard[s] = n / unit * s / DATA_SHARDS * unit;
    for (size_t i = 0; i < n; i++) {
        b->b.tokens += b->seq[i].n;
        b->seq[i].ids = b->ids[i];
        b->seq[i].target = b->target[i];
        b->seq[i].weight = 1;
        b->seq[i].label = -1;
    }
}

void trained_rows(struct trained_batch *b, const struct golden_tensor *ids,
                  const struct golden_tensor *mask, const struct golden_tensor *completion,
                  const size_t *order, size_t n, size_t unit)
{
    memset(b, 0, sizeof *b);
    size_t wide = ids->dim[1];
    assert_in_range(n, 1, TRAINED_SEQS);
    assert_in_range(wide, 1, TRAINED_TOKENS);
    for (size_t i = 0; i < n; i++) {
        struct data_seq *s = &b->seq[i];
        for (size_t t = 0; t < wide; t++) {
            size_t at = order[i] * wide + t;
            if (!mask->i32[at])
                continue;
            bool said = completion && completion->i32[at];
            if (said && !s->prompt)
                s->prompt = s->n;
            b->target[i][s->n] = said;
            b->ids[i][s->n++] = ids->i32[at];
        }
    }
    batch_shards(b, n, unit);
}

void trained_made(struct trained_batch *b, const size_t *len, size_t n, size_t unit, size_t vocab)
{
    memset(b, 0, sizeof *b);
    for (size_t i = 0; i < n; i++) {
        b->seq[i].n = len[i];
        b->seq[i].prompt = len[i] / 2;
        for (size_t t = 0; t < len[i]; t++) {
            b->ids[i][t] = (int32_t)((i * 977 + t * t * 31 + t * 7919) % vocab);
            b->target[i][t] = t >= len[i] / 2 && t > 0;
        }
    }
    batch_shards(b, n, unit);
}

/* ---- references ------------------------------------------------------------------------------ */

json_t *trained_json(json_t **root, const char *model, const char *path)
{
    char file[600], key[64];
    size_t bytes;
    char *text = golden_file(trained_path(file, model, "train.json"), &bytes);
    *root = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(*root);
    json_t *o = *root;
    while (*path) {
        size_t n = strcspn(path, "/");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        o = json_object_get(o, key);
        if (!o)
            fail_msg("%s: train.json has no %s", model, key);
        path += n + (path[n] == '/');
    }
    return o;
}

double trained_number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v))
        fail_msg("train.json: %s is no number", key);
    return json_number_value(v);
}

typedef void check_one(void *arg, const char *name, size_t i, double got, double want);

/* Calls fn for every value of the tensors that g has. */
static size_t each_tensor(struct trained *x, const struct golden *g, const char *prefix,
                          bool gradient, check_one *fn, void *arg)
{
    const struct params *s = trainer_params(x->t);
    size_t tensors = 0;
    for (size_t i = 0, end; i < s->n; i = end) {
        const struct model_param *p = &s->p[i].info;
        for (end = i + 1; end < s->n && !strcmp(p->name, s->p[end].info.name);)
            end++;
        char name[256];
        struct golden_tensor want;
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        if (s->p[i].same || p->steers || !golden_find(g, name, &want))
            continue;
        size_t n = (p->rows ? p->rows : 1) * p->cols;
        float *got = calloc(n, sizeof *got);
        assert_non_null(got);
        assert_int_equal(want.count, n);
        for (size_t k = i; k < end; k++)
            model_param_to_rows(&s->p[k].info,
                                gradient ? trainer_gradient(x->t) + s->p[k].at : s->p[k].own.value,
                                got);
        for (size_t k = 0; k < n; k++)
            fn(arg, p->name, k, (double)got[k], (double)want.f32[k]);
        free(got);
        tensors++;
    }
    return tensors;
}

static void check_gradient(void *arg, const char *name, size_t i, double got, double want)
{
    double *worst = arg, most = 1e-5 + 1e-3 * fabs(want), off = fabs(got - want);
    *worst = fmax(*worst, off / most);
    if (!(off <= most))
        fail_msg("gradient of %s, value %zu, is %.8g, want %.8g", name, i, got, want);
}

size_t trained_check_gradients(struct trained *x, const struct golden *g, const char *prefix)
{
    double worst = 0;
    size_t n = each_tensor(x, g, prefix, true, check_gradient, &worst);
    print_message("# %s%zu tensors, largest deviation %.4f of what is allowed\n", prefix, n, worst);
    return n;
}

struct values {
    double most, worst, all, off;
};

static void check_value(void *arg, const char *name, size_t i, double got, double want)
{
    struct values *v = arg;
    double off = fabs(got - want);
    v->worst = fmax(v->worst, off);
    v->all++;
    v->off += off > 2e-6;
    if (!(off <= v->most))
        fail_msg("%s, value %zu, is %.9g, want %.9g", name, i, got, want);
}

size_t trained_check_values(struct trained *x, const struct golden *g, double most)
{
    struct values v = {.most = most};
    size_t n = each_tensor(x, g, "", false, check_value, &v);
    print_message("# %zu tensors, largest deviation %.3g, %.0f of %.0f values above 2e-6\n", n,
                  v.worst, v.off, v.all);
    if (v.off > v.all * 0.001)
        fail_msg("%.0f of %.0f values are off by more than 2e-6", v.off, v.all);
    return n;
}

uint64_t trained_hash(struct trained *x)
{
    const struct params *s = trainer_params(x->t);
    uint64_t h = 14695981039346656037U; /* FNV-1a */
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < s->p[i].own.n; k++) {
            uint32_t bits;
            memcpy(&bits, &s->p[i].own.value[k], sizeof bits);
            h = (h ^ bits) * 1099511628211U;
        }
    return h;
}
