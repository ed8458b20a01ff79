/*
 * Weights: packing into panels, at once with the whole team, or by and by in the products.
 *
 * Packing reads the mapped file once and writes the panels once. When rows are read first their
 * scales are looked at: a NaN or infinity anywhere would spread silently through every later
 * answer, so it is refused with the tensor's name and row.
 *
 * Pending weights have a state for each panel. A worker that needs one claims it, packs it into the
 * store and gives it free (a release store; readers acquire). Whoever finds it claimed, which
 * happens when two chunks share rows, packs into its own scratch. When no panel is left the file's
 * pages can go: so weights are never in memory twice, but for the few that are half done.
 */
#include "tensor/weight.h"

#include "base/num.h"
#include "kernels/panel.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    WEIGHT_HUGE = 2 << 20,
    WEIGHT_ARENA_MAX = 1 << 29, /* what is pending: 12 MB for R1 */
    WEIGHT_TOKENS = 8,          /* all is packed after as many tokens */
    WEIGHT_PAGE = 4096,
    WEIGHT_PASS = 64 << 20, /* bytes a token packs at least: some 10 ms */
};

int weight_store_init(struct weight_store *s, size_t bytes, struct err *e)
{
    size_t n;
    memset(s, 0, sizeof *s);
    if (!num_add(&n, bytes, 2 * (size_t)WEIGHT_HUGE))
        return err_set(e, ERR_LIMIT, "weights of %zu bytes do not fit into memory", bytes);
    n = n / WEIGHT_PAGE * WEIGHT_PAGE; /* the end is aligned too: vectors are taken from it */
    void *m =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        return err_nomem(e, n, "the weights");
    /* Give back what lies before the first 2 MiB boundary, so that huge pages fit from the start.
     */
    uint8_t *p = m;
    size_t skip = (size_t)WEIGHT_HUGE - ((uintptr_t)p & (WEIGHT_HUGE - 1));
    if (skip == WEIGHT_HUGE)
        skip = 0;
    if (skip)
        munmap(p, skip);
    s->mem = p + skip;
    s->cap = n - skip;
    (void)madvise(s->mem, s->cap / WEIGHT_HUGE * WEIGHT_HUGE, MADV_HUGEPAGE);
    arena_init(&s->arena, WEIGHT_ARENA_MAX);
    s->tail = &s->pending;
    return 0;
}

void weight_store_release(struct weight_store *s)
{
    if (s->mem)
        munmap(s->mem, s->cap);
    arena_release(&s->arena);
    memset(s, 0, sizeof *s);
}

static void *store_take(struct weight_store *s, size_t bytes, bool vector)
{
    size_t n = num_round_up(bytes, KERN_ALIGN);
    if (n < bytes || s->cap - s->used - s->top < n)
        return NULL;
    if (vector) {
        s->top += n;
        return s->mem + s->cap - s->top;
    }
    void *p = s->mem + s->used;
    s->used += n;
    return p;
}

float *weight_store_floats(struct weight_store *s, size_t n)
{
    return store_take(s, n * sizeof(float), false);
}

size_t weight_matrix_bytes(const struct kern *k, const struct quant_type *t, size_t rows,
                           size_t cols)
{
    const struct kern_mul *m = &k->mul[t->id];
    if (m->act == KERN_ACT_NONE)
        return 0;
    return num_round_up(m->panel_bytes(cols), KERN_ALIGN) *
           (num_round_up(rows, KERN_ROWS) / KERN_ROWS);
}

size_t weight_vector_bytes(size_t n)
{
    return num_round_up(n * sizeof(float), KERN_ALIGN);
}

/* Where the fp16 scales of a block are; types without one (or without fp16) are not listed: their
   checks follow in weight_finite. */
static const struct {
    uint8_t id, n, at[2];
} weight_scales[] = {
    {QUANT_Q4_0, 1, {0, 0}},   {QUANT_Q4_1, 2, {0, 2}},    {QUANT_Q5_0, 1, {0, 0}},
    {QUANT_Q5_1, 2, {0, 2}},   {QUANT_Q8_0, 1, {0, 0}},    {QUANT_Q2_K, 2, {80, 82}},
    {QUANT_Q3_K, 1, {108, 0}}, {QUANT_Q4_K, 2, {0, 2}},    {QUANT_Q5_K, 2, {0, 2}},
    {QUANT_Q6_K, 1, {208, 0}}, {QUANT_IQ2_XXS, 1, {0, 0}}, {QUANT_IQ2_XS, 1, {0, 0}},
    {QUANT_IQ2_S, 1, {0, 0}},  {QUANT_IQ3_XXS, 1, {0, 0}}, {QUANT_IQ3_S, 1, {0, 0}},
    {QUANT_IQ1_S, 1, {0, 0}},  {QUANT_IQ4_NL, 1, {0, 0}},  {QUANT_IQ4_XS, 1, {0, 0}},
    {QUANT_F16, 1, {0, 0}},    {QUANT_Q4Z, 2, {0, 2}},     {QUANT_Q8Z, 2, {0, 2}},
};

/* Floats `step` bytes apart. */
static bool finite_f32(const uint8_t *p, size_t n, size_t step)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + step * i, 4);
        bad |= (v & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* 16-bit fields `step` bytes apart whose exponent is all ones under `mask`. */
static bool finite_u16(const uint8_t *p, size_t n, size_t step, uint16_t mask)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, p + step * i, 2);
        bad |= (v & mask) == mask;
    }
    return !bad;
}

/* Bytes that have all bits of `mask`: NaN codes of e4m3, infinities and NaN of e5m2. */
static bool finite_u8(const uint8_t *p, size_t n, uint8_t mask)
{
    uint8_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (p[i] & mask) == mask;
    return !bad;
}

static bool weight_finite(const struct quant_type *t, const uint8_t *row, size_t cols)
{
    size_t blocks = (cols + t->block - 1) / t->block;
    switch (t->id) {
    case QUANT_F32:
        return finite_f32(row, cols, 4);
    case QUANT_BF16:
        return finite_u16(row, cols, 2, 0x7f80);
    case QUANT_E4M3:
        return finite_u8(row, cols, 0x7f);
    case QUANT_E5M2:
        return finite_u8(row, cols, 0x7c);
    case QUANT_FP8: /* { float d; codes } */
        for (size_t i = 0; i < blocks; i++)
            if (!finite_u8(row + i * t->bytes + 4, t->block, 0x7f))
                return false;
        return finite_f32(row, blocks, t->bytes);
    case QUANT_I8:
    case QUANT_NF4:
    case QUANT_FP4:
        return finite_f32(row, blocks, t->bytes);
    default:
        break;
    }
    for (size_t i = 0; i < NUM_COUNT(weight_scales); i++)
        if (weight_scales[i].id == t->id)
            for (int j = 0; j < weight_scales[i].n; j++)
                if (!finite_u16(row + weight_scales[i].at[j], blocks, t->bytes, 0x7c00))
                    return false;
    return true;
}

bool weight_has_kernel(const struct kern *k, const struct quant_type *t)
{
    return k->mul[t->id].act != KERN_ACT_NONE;
}

const uint8_t *weight_rows_at(const struct weight *w, size_t r, size_t n, uint8_t *dst,
                              size_t *stride)
{
    *stride = w->row_bytes;
    if (w->from.at)
        return w->from.at + r * w->row_bytes;
    w->from.make(w->from.arg, w->from.row0 + r, n, dst, w->row_bytes);
    return dst;
}

/* ---- pending weights --------------------------------------------------------------------------
 */

const uint8_t *weight_panels(const struct weight *w)
{
    const struct weight_pending *p = w->pending;
    if (w->panels || !p || atomic_load_explicit(&p->left, memory_order_acquire))
        return w->panels;
    return p->mapped ? p->mapped : p->panels;
}

/* The first one that is found is told. */
static void pending_bad(const struct weight_pending *p, size_t row)
{
    const struct weight *none = NULL;
    if (atomic_compare_exchange_strong(&p->store->bad, &none, p->w))
        atomic_store(&p->store->bad_row, row);
}

static void pending_look(const struct weight_pending *p, const uint8_t *rows, size_t stride,
                         size_t r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!weight_finite(p->w->type, rows + i * stride, p->w->cols))
            pending_bad(p, r + i);
}

static void populate(const uint8_t *p, size_t n)
{
#ifdef MADV_POPULATE_READ
    uintptr_t at = (uintptr_t)p & ~(uintptr_t)(WEIGHT_PAGE - 1), end = (uintptr_t)p + n;
    (void)madvise((void *)at, end - at, MADV_POPULATE_READ); /* older systems: page by page then */
#else
    (void)p, (void)n;
#endif
}

void weight_prefault(const struct weight *w, size_t r0, size_t r1)
{
    const struct weight_pending *p = w->pending;
    if (p && w->from.at &&
        atomic_load_explicit(&p->state[r0 / KERN_ROWS], memory_order_relaxed) == WEIGHT_NEW)
        populate(w->from.at + r0 * w->row_bytes, (r1 - r0) * w->row_bytes);
}

void weight_see(const struct weight *w, size_t r, size_t n, uint8_t *made)
{
    struct weight_pending *p = w->pending;
    size_t stride;
    if (!p || atomic_load_explicit(&p->state[r / KERN_ROWS], memory_order_relaxed) != WEIGHT_NEW)
        return;
    const uint8_t *rows = weight_rows_at(w, r, n, made, &stride);
    pending_look(p, rows, stride, r, n);
    atomic_store_explicit(&p->state[r / KERN_ROWS], WEIGHT_SEEN, memory_order_relaxed);
}

/* May panel i go into the store now? Then it is the caller's to pack. */
static bool pending_claim(struct weight_pending *p, size_t i, uint8_t state)
{
    _Atomic int64_t *budget = &p->store->budget;
    if (state == WEIGHT_CLAIMED || atomic_load_explicit(budget, memory_order_relaxed) <= 0 ||
        !atomic_compare_exchange_strong(&p->state[i], &state, WEIGHT_CLAIMED))
        return false;
    atomic_fetch_sub_explicit(budget, (int64_t)p->w->panel_bytes, memory_order_relaxed);
    return true;
}

static void pending_packed(struct weight_pending *p, size_t i)
{
    atomic_store_explicit(&p->state[i], WEIGHT_PACKED, memory_order_release);
    if (atomic_fetch_sub_explicit(&p->left, 1, memory_order_acq_rel) == 1 && p->done.fn)
        p->done.fn(p->done.arg);
}

/* Looks at panel i of the file, unless somebody did. */
static void mapped_see(struct weight_pending *p, size_t i)
{
    const struct weight *w = p->w;
    uint8_t state = WEIGHT_NEW;
    if (!atomic_compare_exchange_strong(&p->state[i], &state, WEIGHT_CLAIMED))
        return;
    unsigned bad = panel_bad_rows(w->type->id, p->mapped + i * w->panel_bytes, w->cols);
    if (bad)
        pending_bad(p, i * KERN_ROWS + (size_t)__builtin_ctz(bad));
    pending_packed(p, i);
}

const uint8_t *weight_panels_of(const struct weight *w, size_t r0, size_t r1)
{
    const uint8_t *all = weight_panels(w);
    struct weight_pending *p = w->pending;
    if (all || !p || !p->mapped)
        return all;
    size_t i = r0 / KERN_ROWS, end = (r1 + KERN_ROWS - 1) / KERN_ROWS;
    if (atomic_load_explicit(&p->state[i], memory_order_relaxed) == WEIGHT_NEW)
        populate(p->mapped + i * w->panel_bytes, (end - i) * w->panel_bytes);
    for (; i < end; i++)
        if (atomic_load_explicit(&p->state[i], memory_order_relaxed) == WEIGHT_NEW)
            mapped_see(p, i);
    return p->mapped;
}

const uint8_t *weight_panel(const struct weight *w, const struct kern_mul *m, size_t r, size_t n,
                            uint8_t *made, uint8_t *panel)
{
    struct weight_pending *p = w->pending;
    size_t i = r / KERN_ROWS, stride;
    uint8_t state = WEIGHT_SEEN;
    if (p) {
        state = atomic_load_explicit(&p->state[i], memory_order_acquire);
        if (state == WEIGHT_PACKED)
            return p->panels + i * w->panel_bytes;
    }
    const uint8_t *rows = weight_rows_at(w, r, n, made, &stride);
    if (state == WEIGHT_NEW)
        pending_look(p, rows, stride, r, n);
    bool mine = p && pending_claim(p, i, state);
    if (mine)
        panel = p->panels + i * w->panel_bytes;
    m->pack(panel, rows, stride, n, w->cols);
    if (mine)
        pending_packed(p, i);
    else if (state == WEIGHT_NEW) /* or another has claimed it: that one has looked too */
        atomic_compare_exchange_strong(&p->state[i], &state, WEIGHT_SEEN);
    return panel;
}

void weight_store_pass(struct weight_store *s, size_t tokens)
{
    size_t token = num_max(s->used / WEIGHT_TOKENS, WEIGHT_PASS), all;
    if (!num_mul(&all, token, s->passes ? tokens : 0) || all > INT64_MAX)
        all = INT64_MAX;
    s->passes++;
    atomic_store(&s->budget, (int64_t)all);
}

static int weight_bad(const struct weight *w, size_t row, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "tensor \"%s\", row %zu: a weight is NaN or infinite; the file is damaged, get "
                   "it again",
                   w->name, row);
}

int weight_store_check(const struct weight_store *s, struct err *e)
{
    const struct weight *w = atomic_load(&s->bad);
    return w ? weight_bad(w, atomic_load(&s->bad_row), e) : 0;
}

/* ---- packing at once --------------------------------------------------------------------------
 */

enum { PACK_PANELS = 4 }; /* panels a chunk: 64 rows */

struct settle_job {
    const struct weight *w;
    const struct kern_mul *mul;
    uint8_t *made; /* per worker: room for the rows of a panel, when rows are made */
};

static void settle_chunk(void *arg, size_t chunk, int worker)
{
    const struct settle_job *j = arg;
    const struct weight *w = j->w;
    size_t r0 = chunk * PACK_PANELS * KERN_ROWS;
    size_t r1 = num_min(w->rows, r0 + PACK_PANELS * KERN_ROWS);
    uint8_t *made = j->made ? j->made + (size_t)worker * KERN_ROWS * w->row_bytes : NULL;
    if (weight_panels_of(w, r0, r1))
        return;
    weight_prefault(w, r0, r1);
    for (size_t r = r0; r < r1; r += KERN_ROWS)
        if (w->pending->panels)
            weight_panel(w, j->mul, r, num_min(KERN_ROWS, r1 - r), made, NULL);
        else
            weight_see(w, r, num_min(KERN_ROWS, r1 - r), made);
}

static int pending_settle(struct weight_pending *p, const struct kern *k, struct team *team,
                          struct err *e)
{
    const struct weight *w = p->w;
    struct settle_job j = {.w = w, .mul = &k->mul[w->type->id]};
    size_t per = (size_t)PACK_PANELS * KERN_ROWS, bytes;
    if (!w->from.at && !p->mapped) {
        if (!num_mul(&bytes, w->row_bytes, (size_t)KERN_ROWS * (size_t)team_threads(team)))
            return err_set(e, ERR_LIMIT, "tensor \"%s\" is too large", w->name);
        j.made = malloc(bytes);
        if (!j.made)
            return err_nomem(e, bytes, w->name);
    }
    atomic_store(&p->store->budget, INT64_MAX);
    team_run_near(team, settle_chunk, &j, (w->rows + per - 1) / per);
    free(j.made);
    return weight_store_check(p->store, e);
}

int weight_store_settle(struct weight_store *s, const struct kern *k, struct team *team,
                        void (*progress)(void *arg, uint64_t bytes), void *arg, struct err *e)
{
    for (struct weight_pending *p = s->pending; p; p = p->next) {
        int rc = weight_panels(p->w) ? 0 : pending_settle(p, k, team, e);
        if (rc)
            return rc;
        if (progress)
            progress(arg, (uint64_t)p->w->rows * p->w->row_bytes);
    }
    return 0;
}

static int weight_init(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                       size_t cols, const struct weight_rows *from, struct err *e)
{
    memset(w, 0, sizeof *w);
    w->name = name;
    w->type = t;
    w->rows = rows;
    w->cols = cols;
    w->from = *from;
    if (!quant_size(t, cols, &w->row_bytes))
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\": rows of %zu values are no multiple of %s's block of %u",
                       name, cols, t->name, t->block);
    return 0;
}

/* Gives the weight its place: `mapped`, or in the store. */
static int weight_place(struct weight *w, const struct kern *k, const uint8_t *mapped,
                        struct weight_store *store, struct err *e)
{
    size_t n = (w->rows + KERN_ROWS - 1) / KERN_ROWS;
    size_t bytes = weight_matrix_bytes(k, w->type, w->rows, w->cols);
    struct weight_pending *p = arena_alloc(&store->arena, sizeof *p, e);
    _Atomic uint8_t *state = p ? arena_array(&store->arena, n, sizeof *state, e) : NULL;
    if (!state)
        return ERR_NOMEM;
    *p = (struct weight_pending){
        .store = store, .w = w, .state = state, .left = n, .mapped = mapped};
    if (weight_has_kernel(k, w->type))
        w->panel_bytes = k->mul[w->type->id].panel_bytes(w->cols);
    if (weight_has_kernel(k, w->type) && !mapped) {
        p->panels = store_take(store, bytes, false);
        if (!p->panels)
            return err_nomem(e, bytes, w->name);
    }
    w->pending = p;
    return 0;
}

int weight_matrix(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const struct weight_rows *from, const struct kern *k,
                  struct team *team, struct weight_store *store, struct err *e)
{
    int rc = weight_init(w, name, t, rows, cols, from, e);
    if (rc || !store)
        return rc;
    rc = weight_place(w, k, NULL, store, e);
    if (!rc)
        rc = pending_settle(w->pending, k, team, e);
    if (!rc) {
        w->panels = w->pending->panels;
        if (t->id == QUANT_F32)
            w->own = (float *)(void *)w->pending->panels;
    }
    w->pending = NULL;
    atomic_store(&store->bad, NULL); /* the caller has been told */
    return rc;
}

static void pending_add(struct weight_store *store, struct weight_pending *p)
{
    *store->tail = p;
    store->tail = &p->next;
}

int weight_later(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                 size_t cols, const struct weight_rows *from, const struct kern *k,
                 struct weight_store *store, struct weight_done done, struct err *e)
{
    int rc = weight_init(w, name, t, rows, cols, from, e);
    if (!rc)
        rc = weight_place(w, k, NULL, store, e);
    if (rc)
        return rc;
    w->pending->done = done;
    pending_add(store, w->pending);
    return 0;
}

int weight_mapped(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const struct weight_rows *from, const uint8_t *panels,
                  const struct kern *k, struct weight_store *store, struct err *e)
{
    int rc = weight_init(w, name, t, rows, cols, from, e);
    if (!rc)
        rc = weight_place(w, k, panels, store, e);
    if (!rc)
        pending_add(store, w->pending);
    return rc;
}

int weight_vector(struct weight *w, const char *name, const struct quant_type *t, size_t n,
                  const struct weight_rows *from, struct weight_store *store, struct err *e)
{
    int rc = weight_init(w, name, t, 1, n, from, e);
    if (rc)
        return rc;
    float *v = store_take(store, weight_vector_bytes(n), true);
    if (!v)
        return err_nomem(e, weight_vector_bytes(n), name);
    uint8_t *made = NULL;
    if (!from->at && !(made = malloc(w->row_bytes)))
        return err_nomem(e, w->row_bytes, name);
    weight_row(w, 0, v, made);
    free(made);
    if (!finite_f32((const uint8_t *)v, n, 4))
        return err_set(
            e, ERR_FORMAT,
            "tensor \"%s\": a weight is NaN or infinite; the file is damaged, get it again", name);
    w->vec = w->own = v;
    return 0;
}

struct halve_job {
    const struct kern *kern;
    const struct weight *w;
    uint8_t *panels;
};

/* Panels of BF16 are pairs of values that follow one another, of 16 rows. */
static void halve_panel(void *arg, size_t i, int worker)
{
    const struct halve_job *j = arg;
    size_t cols = j->w->cols;
    const float *from = j->w->own + i * KERN_ROWS * cols;
    uint32_t *to = (uint32_t *)(void *)(j->panels + i * j->w->panel_bytes);
    (void)worker;
    for (size_t c = 0; c < cols; c += 2, from += 2 * (size_t)KERN_ROWS, to += KERN_ROWS)
        j->kern->pairs(to, from, c + 1 < cols ? from + KERN_ROWS : NULL, KERN_ROWS);
}

int weight_halve(struct weight *w, const struct kern *k, struct team *team,
                 struct weight_store *store, struct err *e)
{
    const struct quant_type *t = quant_by_id(QUANT_BF16);
    size_t bytes = weight_matrix_bytes(k, t, w->rows, w->cols);
    uint8_t *panels = store_take(store, bytes, false);
    if (!panels)
        return err_nomem(e, bytes, w->name);
    w->type = t;
    w->panels = panels;
    w->panel_bytes = k->mul[t->id].panel_bytes(w->cols);
    weight_refresh(w, k, team);
    return 0;
}

bool weight_halved(const struct weight *w)
{
    return w->own && !w->vec && w->type->id == QUANT_BF16;
}

void weight_refresh(struct weight *w, const struct kern *k, struct team *team)
{
    if (!weight_halved(w))
        return;
    struct halve_job j = {k, w, (uint8_t *)(uintptr_t)w->panels};
    team_run(team, halve_panel, &j, (w->rows + KERN_ROWS - 1) / KERN_ROWS);
}

size_t weight_values(const struct weight *w)
{
    return w->vec ? w->cols : num_round_up(w->rows, KERN_ROWS) * w->cols;
}

void weight_row(const struct weight *w, size_t row, float *out, uint8_t *tmp)
{
    size_t stride;
    if (w->own && w->panels) {
        const float *p = w->own + row / KERN_ROWS * KERN_ROWS * w->cols + row % KERN_ROWS;
        for (size_t c = 0; c < w->cols; c++)
            out[c] = p[c * KERN_ROWS];
        return;
    }
    w->type->decode(out, weight_rows_at(w, row, 1, tmp, &stride), w->cols);
}
