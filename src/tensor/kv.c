/* Paged KV cache: see kv.h. The free list is a stack of page numbers. */
#include "tensor/kv.h"

#include "base/num.h"
#include "tensor/kv_int8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { KV_HUGE = 2 << 20 };

struct kv_pool {
    struct kv_shape shape;
    size_t page_bytes, layer_bytes, k_bytes, v_bytes; /* k_, v_: of one head */
    uint8_t *map;                                     /* what mem lies in */
    size_t map_bytes;
    uint8_t *mem; /* at a boundary of huge pages */
    size_t n_pages;
    uint32_t *unused; /* stack of page numbers */
    size_t n_unused;
    size_t fresh; /* pages from here on were never used: still zero */
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
        s->type != QUANT_Q8_0 && s->type != QUANT_E4M3)
        return err_set(e, ERR_USAGE, "a KV cache can be f32, f16, bf16, q8_0 or fp8");
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
    if (!p->unused) {
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

int kv_seq_reserve(struct kv_seq *s, size_t tokens, struct err *e)
{
    struct kv_pool *p = s->pool;
    size_t want = tokens / KV_PAGE + (tokens % KV_PAGE != 0);
    if (want > s->max_page)
        return err_set(e, ERR_LIMIT, "a sequence of %zu tokens is longer than the context of %zu",
                       tokens, s->max_page * KV_PAGE);
    if (want > s->n_page && want - s->n_page > p->n_unused)
        return err_set(e, ERR_LIMIT, "the KV cache is full (%zu pages of %d tokens)", p->n_pages,
                       KV_PAGE);
    while (s->n_page < want) {
        uint32_t page = p->unused[--p->n_unused];
        /* Attention multiplies masked positions by zero, so they must be finite: a page that
           another sequence used could hold its NaN. Pages leave the stack in ascending order at
           first. */
        if (page < p->fresh)
            memset(p->mem + page * p->page_bytes, 0, p->page_bytes);
        else
            p->fresh = (size_t)page + 1;
        s->page[s->n_page++] = page;
    }
    return 0;
}

void kv_seq_truncate(struct kv_seq *s, size_t tokens)
{
    size_t keep = tokens / KV_PAGE + (tokens % KV_PAGE != 0);
    while (s->n_page > keep)
        s->pool->unused[s->pool->n_unused++] = s->page[--s->n_page];
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
