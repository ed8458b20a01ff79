/*
 * Paged KV cache.
 *
 * Keys and values of 64 consecutive positions of one sequence, for all layers, are one page; a
 * sequence is a list of pages. Attention is defined page by page (tensor/attention.c), so the page
 * size is part of the numerics and fixed.
 *
 * A page, in elements of the pool's type: for each layer, for each KV head
 *   K [d_k][64]         positions side by side: weight panels whose rows are positions
 *   V [64][d_v padded]  rows of positions, d_v padded to a multiple of 16
 * so that both products of attention are the strided tile product of the kernels. Latent caches
 * (MLA) hold one row of d_k values a position, whose first d_v values are the value too: [64][d_k].
 *
 * E4M3 and E5M2 (fp8) are as float types are, a byte a value, without scales: ±448 and ±57344 are
 * the most they hold.
 * Q8_0 stands for int8 with scales per 32 to 128 values, laid out for integer products
 * (tensor/kv_int8.c).
 *
 * Several sequences, and whoever else wants to keep one, may hold a page: it is unused again when
 * nobody does. Sequences with the same beginning so need its memory once. A page that others hold
 * too is not written; kv_seq_reserve gives the sequence that wants to write a copy of its own (copy
 * on write).
 *
 * Memory is reserved for all pages at once and touched as it is used. One thread changes pools and
 * sequences at a time.
 */
#ifndef PONDER_TENSOR_KV_H
#define PONDER_TENSOR_KV_H

#include "base/err.h"
#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_PAGE = 64 };

struct kv_shape {
    size_t n_layer, n_kv_head, d_k, d_v;
    enum quant_id type; /* QUANT_F32, _F16, _BF16, _E4M3, _E5M2 or _Q8_0 */
    bool latent;        /* the value is the first d_v values of the key; n_kv_head is 1 */
};

struct kv_pool;

struct kv_seq {
    struct kv_pool *pool;
    uint32_t *page; /* owned; n_page of them, room for max_page */
    size_t n_page, max_page;
};

/* Bytes of one page of the shape; 0 when the shape is impossible (too large). */
size_t kv_page_bytes(const struct kv_shape *s);

/* ERR_USAGE for a type that the shape cannot have, ERR_NOMEM when the pages do not fit. */
int kv_pool_new(struct kv_pool **out, const struct kv_shape *s, size_t pages, struct err *e);
void kv_pool_free(struct kv_pool *p);
const struct kv_shape *kv_pool_shape(const struct kv_pool *p);
size_t kv_pool_unused(const struct kv_pool *p); /* pages */
size_t kv_pool_pages(const struct kv_pool *p);

/*
 * Pages outside of sequences. A page taken has one holder and whatever content it had before: it is
 * for who fills it whole. False when none is unused.
 */
bool kv_page_take(struct kv_pool *p, uint32_t *page);
void kv_page_hold(struct kv_pool *p, uint32_t page); /* one more holder */
void kv_page_drop(struct kv_pool *p, uint32_t page); /* one less */
uint32_t kv_page_holders(const struct kv_pool *p, uint32_t page);
/* A holder who keeps pages in case somebody wants them, one of a page at most; and no more. */
void kv_page_keep(struct kv_pool *p, uint32_t page);
void kv_page_forget(struct kv_pool *p, uint32_t page);
size_t kv_pool_idle(const struct kv_pool *p);                  /* pages that nobody else holds */
uint8_t *kv_page_data(const struct kv_pool *p, uint32_t page); /* kv_page_bytes of the shape */

/* Between the two, pages that kv_seq_reserve takes are not zeros yet: all threads make them so
   together. At most as many as the pool has. */
struct team;
void kv_pool_later(struct kv_pool *p);
void kv_pool_ready(struct kv_pool *p, struct team *team);

int kv_seq_init(struct kv_seq *s, struct kv_pool *pool, size_t max_tokens, struct err *e);
void kv_seq_release(struct kv_seq *s); /* gives the pages back */
/* Makes sure that positions below `to` have pages, and that those from `from` on may be written:
   pages that others hold too are copied, positions below `used` with their content. ERR_LIMIT when
   the pool or the sequence is full; nothing has changed then. */
int kv_seq_reserve(struct kv_seq *s, size_t from, size_t used, size_t to, struct err *e);
/* Unused pages that kv_seq_reserve would take. */
size_t kv_seq_need(const struct kv_seq *s, size_t from, size_t to);
/* Gives back the pages that hold only positions ≥ tokens. */
void kv_seq_truncate(struct kv_seq *s, size_t tokens);
/* Holds n pages more, behind those that the sequence has. ERR_LIMIT when it is full. */
int kv_seq_share(struct kv_seq *s, const uint32_t *page, size_t n, struct err *e);
/* Holds `page`, whose content is the same, instead of its i-th. */
void kv_seq_swap(struct kv_seq *s, size_t i, uint32_t page);

/* Start of K or V of one head in the i-th page of a sequence. */
uint8_t *kv_k(const struct kv_seq *s, size_t i, size_t layer, size_t head);
uint8_t *kv_v(const struct kv_seq *s, size_t i, size_t layer, size_t head); /* not when latent */

#endif
