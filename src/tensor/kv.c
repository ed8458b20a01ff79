/*
 * Paged KV cache: see kv.h. The free list is a stack of page numbers; holders are counted.
 *
 * Memory is the system's until it is written for the first time. That takes long (a huge page is
 * cleared, on a virtual machine the host has to find it too: 2 ms were seen), and sequences that
 * began together need their next pages in the same step: so a step gathers them, and all threads
 * make them ready (kv_pool_later).
 */
#include "tensor/kv.h"

#include "base/num.h"
#include "base/team.h"
#include "tensor/kv_int8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { KV_HUGE = 2 << 20, KV_SMALL = 4 << 10 };

struct kv_blank {
    uint32_t page;
    bool fresh; /* zero already, but perhaps not there yet */
};

struct kv_pool {
    struct kv_shape shape;
    size_t page_bytes, layer_bytes, k_bytes, v_bytes; /* k_, v_: of one head */
    uint8_t *map;                                     /* what mem lies in */
    size_t map_bytes;
    uint8_t *mem; /* at a boundary of huge pages */
    size_t n_pages;
    uint32_t *unused; /* stack of page numbers */
    size_t n_unused;
    uint32_t *holders;      /* (n_pages) */
    bool *kept;             /* (n_pages) one of the holders only keeps it */
    size_t n_idle;          /* pages whose one holder does */
    size_t fresh;           /* pages from here on were never used: still zero */
    struct kv_blank *blank; /* (n_pages) taken and not zeros yet, while `later` */
    size_t n_blank;
    bool later;
};

/* Bytes of one head's share of a page. */
static bool kv_head_bytes(const struct kv_shape *s, size_t *k, size_t *v)
{
    const struct quant_type *t = quant_by_id(s->type);
    size_t dv = s->latent ? 0 : num_round_up(s->d_v, 16);
    if (!t || s->d_k > 1 << 16 || s->d_v > 1 << 16 ||
        (s->latent && (s->n_kv_head != 1 || s->d_v > s->d_k)))
        return false;
    if (s->type == QUANT_Q8_0) {
        struct kern_page_shape ks = kv_int8_k(s), vs = kv_int8_v(s);
        *v = 0;
        return kv_int8_bytes(&ks, k) && (s->latent || kv_int8_bytes(&vs, v));
    }
    return quant_size(t, s->d_k * KV_PAGE, k) && quant_size(t, dv * KV_PAGE, v);
}

size_t kv_page_bytes(const struct kv_shape *s)
{
    size_t k, v, n;
    if (!kv_head_bytes(s, &k, &v) ||
        !num_mul(&n, num_round_up(k, 64) + num_round_up(v, 64), s->n_kv_head) ||
        !num_mul(&n, n, s->n_layer))
        return 0;
    return n;
}

int kv_pool_new(struct kv_pool **out, const struct kv_shape *s, size_t pages, struct err *e)
{
    struct kv_pool *p = NULL;
    size_t k, v, bytes;
    *out = NULL;
    if (s->type != QUANT_F32 && s->type != QUANT_F16 && s->type != QUANT_BF16 &&
        s->type != QUANT_Q8_0 && s->type != QUANT_E4M3 && s->type != QUANT_E5M2)
        return err_set(e, ERR_USAGE,
                       "a KV cache can be f32, f16, bf16, q8_0, fp8_e4m3 or fp8_e5m2");
    if (!kv_head_bytes(s, &k, &v))
        return err_set(
            e, ERR_USAGE,
            "a Q8_0 KV cache needs heads of a multiple of 4 values, this model has %zu: use f16",
            s->d_k);
    size_t page = kv_page_bytes(s);
    if (page == 0 || pages == 0 || pages > UINT32_MAX || !num_mul(&bytes, page, pages) ||
        !num_add(&bytes, bytes, 2 * KV_HUGE + 4096))
        return err_set(e, ERR_LIMIT, "a KV cache of %zu pages does not fit into memory", pages);
    p = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, sizeof *p, "the KV cache");
    p->shape = *s;
    p->k_bytes = num_round_up(k, 64);
    p->v_bytes = num_round_up(v, 64);
    p->layer_bytes = (p->k_bytes + p->v_bytes) * s->n_kv_head;
    p->page_bytes = page;
    p->n_pages = pages;
    p->unused = malloc(pages * sizeof *p->unused);
    p->holders = calloc(pages, sizeof *p->holders);
    p->kept = calloc(pages, sizeof *p->kept);
    p->blank = malloc(pages * sizeof *p->blank);
    if (!p->unused || !p->holders || !p->kept || !p->blank) {
        kv_pool_free(p);
        return err_nomem(e, pages * sizeof *p->unused, "the KV cache");
    }
    /* One spare page of the machine behind it: tiles may read a padded row past the end. */
    void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (m == MAP_FAILED) {
        kv_pool_free(p);
        return err_nomem(e, bytes, "the KV cache; give a smaller --ctx or --kv-type q8_0");
    }
    p->map = m;
    p->map_bytes = bytes;
    p->mem = (uint8_t *)m + (-(uintptr_t)m & (KV_HUGE - 1));
    /* A head's share of a page is some KiB: with small pages of the machine each of them costs
       misses in the page tables. */
    (void)madvise(p->mem, num_round_up(page * pages, KV_HUGE), MADV_HUGEPAGE);
    for (size_t i = 0; i < pages; i++)
        p->unused[i] = (uint32_t)(pages - 1 - i);
    p->n_unused = pages;
    *out = p;
    return 0;
}

void kv_pool_free(struct kv_pool *p)
{
    if (!p)
        return;
    if (p->map)
        munmap(p->map, p->map_bytes);
    free(p->unused);
    free(p->holders);
    free(p->kept);
    free(p->blank);
    free(p);
}

const struct kv_shape *kv_pool_shape(const struct kv_pool *p)
{
    return &p->shape;
}

size_t kv_pool_unused(const struct kv_pool *p)
{
    return p->n_unused;
}

size_t kv_pool_pages(const struct kv_pool *p)
{
    return p->n_pages;
}

/* ---- pages ---------------------------------------------------------------------------------- */

/* The next unused page, which there is. */
static uint32_t kv_page_next(struct kv_pool *p)
{
    uint32_t page = p->unused[--p->n_unused];
    p->holders[page] = 1;
    p->fresh = num_max(p->fresh, (size_t)page + 1);
    return page;
}

bool kv_page_take(struct kv_pool *p, uint32_t *page)
{
    if (!p->n_unused)
        return false;
    *page = kv_page_next(p);
    return true;
}

void kv_page_hold(struct kv_pool *p, uint32_t page)
{
    p->n_idle -= p->kept[page] && p->holders[page] == 1;
    p->holders[page]++;
}

void kv_page_drop(struct kv_pool *p, uint32_t page)
{
    if (--p->holders[page] == 0)
        p->unused[p->n_unused++] = page;
    p->n_idle += p->kept[page] && p->holders[page] == 1;
}

void kv_page_keep(struct kv_pool *p, uint32_t page)
{
    p->holders[page]++;
    p->kept[page] = true;
}

void kv_page_forget(struct kv_pool *p, uint32_t page)
{
    p->n_idle -= p->holders[page] == 1;
    p->kept[page] = false;
    kv_page_drop(p, page);
}

size_t kv_pool_idle(const struct kv_pool *p)
{
    return p->n_idle;
}

uint32_t kv_page_holders(const struct kv_pool *p, uint32_t page)
{
    return p->holders[page];
}

uint8_t *kv_page_data(const struct kv_pool *p, uint32_t page)
{
    return p->mem + page * p->page_bytes;
}

/* An unused page of zeros, now or by kv_pool_ready. Attention multiplies masked positions by zero,
   so they must be finite: a page that another sequence used could hold its NaN. Pages leave the
   stack in ascending order at first. */
static uint32_t kv_page_clean(struct kv_pool *p)
{
    size_t fresh = p->fresh;
    uint32_t page = kv_page_next(p);
    if (p->later)
        p->blank[p->n_blank++] = (struct kv_blank){page, page >= fresh};
    else if (page < fresh)
        memset(kv_page_data(p, page), 0, p->page_bytes);
    return page;
}

/* A huge page's worth of a blank page. */
static void blank_chunk(void *arg, size_t chunk, int worker)
{
    const struct kv_pool *p = arg;
    size_t parts = (p->page_bytes + KV_HUGE - 1) / KV_HUGE, at = chunk % parts * KV_HUGE;
    const struct kv_blank *b = &p->blank[chunk / parts];
    uint8_t *to = kv_page_data(p, b->page) + at;
    size_t n = num_min(p->page_bytes - at, KV_HUGE);
    (void)worker;
    if (!b->fresh)
        memset(to, 0, n);
    for (size_t i = 0; b->fresh && i < n; i += KV_SMALL)
        *(volatile uint8_t *)(to + i) = 0;
}

void kv_pool_later(struct kv_pool *p)
{
    p->later = true;
}

void kv_pool_ready(struct kv_pool *p, struct team *team)
{
    /* near: two that touch the same huge page at the same time would both clear one */
    if (p->n_blank)
        team_run_near(team, blank_chunk, p, p->n_blank * ((p->page_bytes + KV_HUGE - 1) / KV_HUGE));
    p->n_blank = 0;
    p->later = false;
}

/* Makes the positions from `at` on zeros. `units` columns of 64 positions side by side … */
static void kv_clear_columns(uint8_t *p, size_t units, size_t bytes, size_t at)
{
    for (size_t i = 0; i < units; i++)
        memset(p + (i * KV_PAGE + at) * bytes, 0, (KV_PAGE - at) * bytes);
}

/* … and 64 rows. */
static void kv_clear_rows(uint8_t *p, size_t bytes, size_t at)
{
    memset(p + at * bytes, 0, (KV_PAGE - at) * bytes);
}

static void kv_page_clear(const struct kv_pool *p, uint32_t page, size_t at)
{
    const struct kv_shape *s = &p->shape;
    bool int8 = s->type == QUANT_Q8_0;
    size_t bytes = int8 ? 4 : quant_by_id(s->type)->bytes;
    struct kern_page_shape ks = kv_int8_k(s), vs = kv_int8_v(s);
    for (size_t i = 0; i < s->n_layer * s->n_kv_head; i++) {
        uint8_t *k = kv_page_data(p, page) + i / s->n_kv_head * p->layer_bytes +
                     i % s->n_kv_head * p->k_bytes;
        uint8_t *v = kv_page_data(p, page) + i / s->n_kv_head * p->layer_bytes +
                     s->n_kv_head * p->k_bytes + i % s->n_kv_head * p->v_bytes;
        if (int8) /* four values side by side, and the scales */
            kv_clear_columns(k, s->d_k / 4 + kern_page_blocks(&ks), bytes, at);
        else if (s->latent)
            kv_clear_rows(k, s->d_k * bytes, at);
        else
            kv_clear_columns(k, s->d_k, bytes, at);
        if (int8 && !s->latent)
            kv_clear_columns(v, s->d_v / 4 + kern_page_blocks(&vs), bytes, at);
        else if (!s->latent)
            kv_clear_rows(v, num_round_up(s->d_v, 16) * bytes, at);
    }
}

/* ---- sequences ------------------------------------------------------------------------------ */

int kv_seq_init(struct kv_seq *s, struct kv_pool *pool, size_t max_tokens, struct err *e)
{
    memset(s, 0, sizeof *s);
    s->pool = pool;
    s->max_page = max_tokens / KV_PAGE + (max_tokens % KV_PAGE != 0);
    s->page = calloc(s->max_page ? s->max_page : 1, sizeof *s->page);
    if (!s->page)
        return err_nomem(e, s->max_page * sizeof *s->page, "a sequence");
    return 0;
}

void kv_seq_release(struct kv_seq *s)
{
    if (!s->page)
        return;
    kv_seq_truncate(s, 0);
    free(s->page);
    s->page = NULL;
}

static size_t kv_pages(size_t tokens)
{
    return tokens / KV_PAGE + (tokens % KV_PAGE != 0);
}

/* Page i of the sequence is to be written and not its own. */
static bool kv_seq_shared(const struct kv_seq *s, size_t i)
{
    return s->pool->holders[s->page[i]] > 1;
}

size_t kv_seq_need(const struct kv_seq *s, size_t from, size_t to)
{
    size_t want = kv_pages(to), n = want > s->n_page ? want - s->n_page : 0;
    for (size_t i = from / KV_PAGE; from < to && i < num_min(want, s->n_page); i++)
        n += kv_seq_shared(s, i);
    return n;
}

int kv_seq_reserve(struct kv_seq *s, size_t from, size_t used, size_t to, struct err *e)
{
    struct kv_pool *p = s->pool;
    size_t want = kv_pages(to);
    if (want > s->max_page)
        return err_set(e, ERR_LIMIT, "a sequence of %zu tokens is longer than the context of %zu",
                       to, s->max_page * KV_PAGE);
    if (kv_seq_need(s, from, to) > p->n_unused)
        return err_set(e, ERR_LIMIT, "the KV cache is full (%zu pages of %d tokens)", p->n_pages,
                       KV_PAGE);
    for (size_t i = from / KV_PAGE; from < to && i < num_min(want, s->n_page); i++) {
        uint32_t page = s->page[i];
        if (!kv_seq_shared(s, i))
            continue;
        size_t first = i * KV_PAGE, at = used > first ? num_min(used - first, KV_PAGE) : 0;
        s->page[i] = kv_page_next(p);
        if (at)
            memcpy(kv_page_data(p, s->page[i]), kv_page_data(p, page), p->page_bytes);
        if (at < KV_PAGE)
            kv_page_clear(p, s->page[i], at);
        kv_page_drop(p, page);
    }
    while (s->n_page < want)
        s->page[s->n_page++] = kv_page_clean(p);
    return 0;
}

void kv_seq_truncate(struct kv_seq *s, size_t tokens)
{
    size_t keep = kv_pages(tokens);
    while (s->n_page > keep)
        kv_page_drop(s->pool, s->page[--s->n_page]);
}

int kv_seq_share(struct kv_seq *s, const uint32_t *page, size_t n, struct err *e)
{
    if (n > s->max_page - s->n_page)
        return err_set(e, ERR_LIMIT, "a sequence of %zu pages is longer than the context of %zu",
                       s->n_page + n, s->max_page);
    for (size_t i = 0; i < n; i++) {
        kv_page_hold(s->pool, page[i]);
        s->page[s->n_page++] = page[i];
    }
    return 0;
}

void kv_seq_swap(struct kv_seq *s, size_t i, uint32_t page)
{
    kv_page_hold(s->pool, page);
    kv_page_drop(s->pool, s->page[i]);
    s->page[i] = page;
}

uint8_t *kv_k(const struct kv_seq *s, size_t i, size_t layer, size_t head)
{
    const struct kv_pool *p = s->pool;
    return p->mem + s->page[i] * p->page_bytes + layer * p->layer_bytes + head * p->k_bytes;
}

uint8_t *kv_v(const struct kv_seq *s, size_t i, size_t layer, size_t head)
{
    const struct kv_pool *p = s->pool;
    return p->mem + s->page[i] * p->page_bytes + layer * p->layer_bytes +
           p->shape.n_kv_head * p->k_bytes + head * p->v_bytes;
}
