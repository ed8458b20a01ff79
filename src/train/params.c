/* See params.h. */
#include "train/params.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SLAB_CHUNK = 1 << 16, SLAB_HUGE = 1 << 21 };

struct params_walk {
    struct params *s;
    size_t room;
    params_choose *choose;
    void *arg;
    struct err *e;
};

/* As transformers' Trainer decides: no decay for norms and biases. */
static bool param_decays(const struct model_param *p)
{
    size_t n = strlen(p->name);
    bool bias = n > 5 && !strcmp(p->name + n - 5, ".bias");
    return !bias && !strstr(p->name, "norm") && !p->steers;
}

static int params_one(void *arg, const struct model_param *info)
{
    struct params_walk *w = arg;
    struct params *s = w->s;
    if (!info->weight->own || (w->choose && !w->choose(w->arg, info)))
        return 0;
    if (s->n == w->room) {
        size_t room = w->room ? w->room * 2 : 256, bytes;
        struct param *p = num_mul(&bytes, room, sizeof *p) ? realloc(s->p, bytes) : NULL;
        if (!p)
            return err_nomem(w->e, room * sizeof *p, "the list of weights");
        s->p = p;
        w->room = room;
    }
    struct param *p = &s->p[s->n++];
    *p = (struct param){.info = *info, .decay = param_decays(info), .same = info->same != NULL};
    p->own.n = weight_values(info->weight);
    p->own.value = info->weight->own;
    size_t *end = p->same ? &s->n_extra : &s->total;
    /* A steering bias is moved by the mean of its counts: nobody has a part of one. */
    if (info->steers && *end % PARAMS_UNIT + p->own.n > PARAMS_UNIT)
        *end = num_round_up(*end, PARAMS_UNIT);
    p->at = *end;
    *end += num_round_up(p->own.n, 16);
    if (!p->same && !info->steers)
        s->count +=
            info->weight->vec ? info->weight->cols : info->weight->rows * info->weight->cols;
    return 0;
}

static float *slab_map(size_t n, struct err *e)
{
    size_t bytes = num_round_up(num_max(n, 1) * sizeof(float), SLAB_HUGE);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        err_nomem(e, bytes, "gradients; train an adapter (--use-peft), or fewer --virtual-shards");
        return NULL;
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static void slab_unmap(float *p, size_t n)
{
    if (p)
        munmap(p, num_round_up(num_max(n, 1) * sizeof(float), SLAB_HUGE));
}

int params_init(struct params *s, struct model *m, params_choose *choose, void *arg,
                const struct model_param *extra, struct err *e)
{
    struct params_walk w = {.s = s, .choose = choose, .arg = arg, .e = e};
    *s = (struct params){.p = NULL};
    int rc = model_params_each(m, params_one, &w);
    w.choose = NULL;
    if (!rc && extra)
        rc = params_one(&w, extra);
    if (!rc && !s->n)
        rc = err_set(e, ERR_USAGE, "no weight of the model is to be trained");
    s->total = num_round_up(s->total, PARAMS_UNIT);
    if (!rc && s->n_extra && !(s->extra = slab_map(s->n_extra, e)))
        rc = ERR_NOMEM;
    /* Only now: the list does not move any more. */
    for (size_t i = 0; !rc && i < s->n; i++)
        s->p[i].info.weight->param = &s->p[i].own;
    if (rc)
        params_release(s);
    return rc;
}

void params_release(struct params *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->p[i].info.weight->param = NULL;
    slab_unmap(s->extra, s->n_extra);
    free(s->p);
    *s = (struct params){.p = NULL};
}

float *params_slab(const struct params *s, struct err *e)
{
    return slab_map(s->total, e);
}

void params_slab_free(const struct params *s, float *slab)
{
    slab_unmap(slab, s->total);
}

/* ---- work over a slab, in pieces ------------------------------------------------------------- */

struct slab_job {
    const struct kern *kern;
    float *a;
    const float *b;
    size_t n;
};

static void slab_clear(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct slab_job *j = arg;
    size_t at = chunk * SLAB_CHUNK;
    memset(j->a + at, 0, num_min(SLAB_CHUNK, j->n - at) * sizeof(float));
}

static void slab_add(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct slab_job *j = arg;
    size_t at = chunk * SLAB_CHUNK;
    j->kern->add(j->a + at, j->b + at, num_min(SLAB_CHUNK, j->n - at));
}

static void slab_run(struct team *team, void (*fn)(void *, size_t, int), struct slab_job *j)
{
    if (j->n)
        team_run(team, fn, j, (j->n + SLAB_CHUNK - 1) / SLAB_CHUNK);
}

void params_aim(struct params *s, struct team *team, float *slab)
{
    slab_run(team, slab_clear, &(struct slab_job){.a = slab, .n = s->total});
    slab_run(team, slab_clear, &(struct slab_job){.a = s->extra, .n = s->n_extra});
    for (size_t i = 0; i < s->n; i++)
        s->p[i].own.grad = (s->p[i].same ? s->extra : slab) + s->p[i].at;
}

/* The parameter whose values p shares; they came before it. */
static const struct param *param_main(const struct params *s, const struct param *p)
{
    for (const struct param *q = s->p; q < p; q++)
        if (!q->same && q->own.value == p->own.value)
            return q;
    return NULL; /* it is not trained */
}

void params_fold(struct params *s, float *slab)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct param *main = s->p[i].same ? param_main(s, &s->p[i]) : NULL;
        const float *from = s->extra + s->p[i].at;
        for (size_t k = 0; main && k < main->own.n; k++)
            slab[main->at + k] += from[k];
    }
}

void params_add(const struct params *s, struct team *team, const struct kern *k, float *a,
                const float *b)
{
    slab_run(team, slab_add, &(struct slab_job){.kern = k, .a = a, .b = b, .n = s->total});
}

void params_pieces(const struct params *s, size_t from, size_t to,
                   void (*fn)(void *arg, const struct param *p, size_t a, size_t b, size_t at),
                   void *arg)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct param *p = &s->p[i];
        size_t lo = num_max(p->at, from), hi = num_min(p->at + p->own.n, to);
        if (!p->same && lo < hi)
            fn(arg, p, lo - p->at, hi - p->at, lo);
    }
}

struct params_copy {
    float *to;
    const float *from;
};

static void copy_out(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    const struct params_copy *c = arg;
    memcpy(c->to + at, p->own.value + a, (b - a) * sizeof(float));
}

static void copy_in(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    const struct params_copy *c = arg;
    memcpy(p->own.value + a, c->from + at, (b - a) * sizeof(float));
}

void params_get(const struct params *s, float *slab, size_t from, size_t to)
{
    params_pieces(s, from, to, copy_out, &(struct params_copy){.to = slab});
}

void params_set(struct params *s, const float *slab, size_t from, size_t to)
{
    params_pieces(s, from, to, copy_in, &(struct params_copy){.from = slab});
}

bool params_finite(const float *slab, size_t n)
{
    uint32_t odd = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &slab[i], sizeof bits);
        odd |= (bits & 0x7f800000) == 0x7f800000;
    }
    return !odd;
}

static void swap_piece(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    float *slab = (float *)arg + at;
    for (size_t i = a; i < b; i++, slab++) {
        float was = p->own.value[i];
        p->own.value[i] = *slab;
        *slab = was;
    }
}

void params_swap(struct params *s, float *slab)
{
    params_pieces(s, 0, s->total, swap_piece, slab);
}
