#include "train/plan.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What random numbers are for; streams of different purposes must not meet. */
enum { STREAM_PASS = 0x70617373, STREAM_EPOCH = 0x65706f63, STREAM_ITEMS = 0x6974656d };

static uint64_t stream_of(uint64_t purpose, uint64_t a, uint64_t b)
{
    return hash_u64(hash_u64(hash_u64(purpose) ^ a) ^ b);
}

/* ---- random order -----------------------------------------------------------------------------
 */

struct keyed {
    uint64_t key;
    uint32_t value, place;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

int plan_shuffle(uint32_t *v, size_t n, uint64_t seed, uint64_t stream, struct err *e)
{
    struct keyed *k;
    if (n < 2)
        return 0;
    if (!(k = calloc(n, sizeof *k)))
        return err_nomem(e, n * sizeof *k, "the order of records");
    for (size_t i = 0; i < n; i++) {
        uint32_t w[4];
        rng_block(seed, stream, i, w);
        k[i] = (struct keyed){(uint64_t)w[0] << 32 | w[1], v[i], (uint32_t)i};
    }
    qsort(k, n, sizeof *k, by_key);
    for (size_t i = 0; i < n; i++)
        v[i] = k[i].value;
    free(k);
    return 0;
}

/* ---- records of an epoch ----------------------------------------------------------------------
 */

uint64_t plan_share(const struct plan_part *p)
{
    uint64_t n = (uint64_t)llround(p->weight * (double)p->n);
    return p->n && !n ? 1 : n;
}

/* Appends to list[*n…) what an epoch takes of a part. */
static int take_part(const struct plan_part *p, size_t which, uint64_t epoch, uint64_t seed,
                     bool ordered, uint32_t *list, size_t *n, struct err *e)
{
    uint64_t share = plan_share(p), from = epoch * share, end = from + share;
    uint32_t *order = malloc((p->n + 1) * sizeof *order);
    int rc = order ? 0 : err_nomem(e, p->n * sizeof *order, "the order of records");
    while (!rc && from < end) {
        uint64_t pass = from / p->n;
        size_t at = (size_t)(from % p->n), take = (size_t)num_min(end - from, p->n - at);
        memcpy(order, p->record, p->n * sizeof *order);
        if (!ordered)
            rc = plan_shuffle(order, p->n, seed, stream_of(STREAM_PASS, which, pass), e);
        memcpy(list + *n, order + at, take * sizeof *order);
        *n += take;
        from += take;
    }
    free(order);
    return rc;
}

int plan_order(const struct plan_part *part, size_t parts, uint64_t epoch, uint64_t seed,
               bool ordered, uint32_t **list, size_t *n, struct err *e)
{
    uint64_t total = 0;
    *list = NULL;
    *n = 0;
    for (size_t i = 0; i < parts; i++)
        total += plan_share(&part[i]);
    if (total >= UINT32_MAX)
        return err_set(e, ERR_LIMIT, "an epoch has more than %u records: use smaller weights",
                       UINT32_MAX);
    if (epoch > UINT32_MAX)
        return err_set(e, ERR_LIMIT, "epoch %llu is too far away", (unsigned long long)epoch);
    uint32_t *v = malloc((total + 1) * sizeof *v);
    int rc = v ? 0 : err_nomem(e, total * sizeof *v, "the order of records");
    for (size_t i = 0; !rc && i < parts; i++)
        if (part[i].n)
            rc = take_part(&part[i], i, epoch, seed, ordered, v, n, e);
    if (!rc && !ordered)
        rc = plan_shuffle(v, *n, seed, stream_of(STREAM_EPOCH, epoch, 0), e);
    if (rc)
        free(v);
    else
        *list = v;
    return rc;
}

/* ---- pieces -----------------------------------------------------------------------------------
 */

struct pieces {
    struct plan_piece *v;
    size_t n, room;
};

static int add_piece(struct pieces *p, struct plan_piece piece, struct err *e)
{
    if (p->n >= UINT32_MAX - 1)
        return err_set(e, ERR_LIMIT, "more than %u sequences in an epoch", UINT32_MAX - 1);
    if (p->n == p->room) {
        size_t room = p->room ? p->room * 2 : 1024;
        struct plan_piece *v = realloc(p->v, room * sizeof *v);
        if (!v)
            return err_nomem(e, room * sizeof *v, "the order of records");
        p->v = v;
        p->room = room;
    }
    p->v[p->n++] = piece;
    return 0;
}

/* Records cut into pieces of at most `room` tokens; the first of them may be shorter (`first`). */
static int cut_record(struct pieces *p, uint32_t record, uint32_t n, uint32_t room, uint32_t first,
                      struct err *e)
{
    int rc = 0;
    for (uint32_t at = 0, size; !rc && at < n; at += size) {
        size = (uint32_t)num_min(n - at, at ? room : first);
        rc = add_piece(p, (struct plan_piece){record, at, size}, e);
    }
    return rc;
}

/* ---- packs with room left, by room ------------------------------------------------------------
 */

#define NONE UINT32_MAX

struct shelf {
    uint32_t room;
    uint64_t *bit, *word; /* room r has packs: bit r; words of `bit` that are not 0 */
    uint32_t *head;       /* (room + 1) the pack used last with that room left */
    uint32_t *next;       /* (packs) */
};

static void shelf_release(struct shelf *s)
{
    free(s->bit);
    free(s->word);
    free(s->head);
    free(s->next);
}

static int shelf_init(struct shelf *s, uint32_t room, size_t packs, struct err *e)
{
    size_t words = room / 64 + 1;
    *s = (struct shelf){.room = room,
                        .bit = calloc(words, 8),
                        .word = calloc(words / 64 + 1, 8),
                        .head = malloc(((size_t)room + 1) * sizeof *s->head),
                        .next = malloc((packs + 1) * sizeof *s->next)};
    if (s->bit && s->word && s->head && s->next) {
        memset(s->head, 0xff, ((size_t)room + 1) * sizeof *s->head);
        return 0;
    }
    shelf_release(s);
    return err_nomem(e, packs * sizeof *s->next, "packs");
}

static void shelf_put(struct shelf *s, uint32_t pack, uint32_t left)
{
    s->next[pack] = s->head[left];
    s->head[left] = pack;
    s->bit[left / 64] |= 1ull << left % 64;
    s->word[left / 4096] |= 1ull << left / 64 % 64;
}

/* The first set bit from `at` on of a bitmap of n bits; n when there is none. */
static size_t next_bit(const uint64_t *bit, size_t at, size_t n)
{
    for (size_t w = at / 64; w <= (n - 1) / 64; w++) {
        uint64_t x = bit[w] & (w == at / 64 ? ~0ull << at % 64 : ~0ull);
        if (x)
            return num_min(w * 64 + (size_t)__builtin_ctzll(x), n);
    }
    return n;
}

/* Takes the pack with the least room that has `need`; NONE when no pack has. */
static uint32_t shelf_take(struct shelf *s, uint32_t need, uint32_t *left)
{
    size_t rooms = (size_t)s->room + 1, words = s->room / 64 + 1, w = need / 64;
    uint64_t here = s->bit[w] & ~0ull << need % 64;
    if (!here && (w + 1 == words || (w = next_bit(s->word, w + 1, words)) == words))
        return NONE;
    size_t r = w * 64 + (size_t)__builtin_ctzll(here ? here : s->bit[w]);
    if (r >= rooms)
        return NONE;
    uint32_t pack = s->head[r];
    s->head[r] = s->next[pack];
    if (s->head[r] == NONE && !(s->bit[w] &= ~(1ull << r % 64)))
        s->word[w / 64] &= ~(1ull << w % 64);
    *left = (uint32_t)r;
    return pack;
}

/* ---- best fit decreasing ----------------------------------------------------------------------
 */

/* Indices of pieces, the longest first, those of a length in their order. */
static uint32_t *longest_first(const struct pieces *p, uint32_t room, struct err *e)
{
    size_t *begin = calloc((size_t)room + 2, sizeof *begin);
    uint32_t *order = malloc((p->n + 1) * sizeof *order);
    if (!begin || !order) {
        free(begin);
        free(order);
        err_nomem(e, p->n * sizeof *order, "the order of records");
        return NULL;
    }
    for (size_t i = 0; i < p->n; i++)
        begin[room - p->v[i].n + 1]++;
    for (size_t i = 0; i <= room; i++)
        begin[i + 1] += begin[i];
    for (size_t i = 0; i < p->n; i++)
        order[begin[room - p->v[i].n]++] = (uint32_t)i;
    free(begin);
    return order;
}

/* pack[i] of each piece i in `order`; returns how many packs there are. */
static uint32_t best_fit(struct shelf *s, const struct pieces *p, const uint32_t *order,
                         uint32_t *pack)
{
    uint32_t packs = 0;
    for (size_t k = 0; k < p->n; k++) {
        uint32_t i = order[k], n = p->v[i].n, left;
        uint32_t to = shelf_take(s, n, &left);
        if (to == NONE) {
            to = packs++;
            left = s->room;
        }
        pack[i] = to;
        if (left > n)
            shelf_put(s, to, left - n);
    }
    return packs;
}

/* Pieces pack by pack, those of a pack in the order in which they came to it. */
static int by_pack(struct plan *out, const struct pieces *p, const uint32_t *order,
                   const uint32_t *pack, uint32_t packs, struct err *e)
{
    out->piece = malloc((p->n + 1) * sizeof *out->piece);
    out->item = calloc((size_t)packs + 2, sizeof *out->item);
    if (!out->piece || !out->item)
        return err_nomem(e, p->n * sizeof *out->piece, "packs");
    /* item[k + 2] counts pack k; then item[k + 1] runs from its beginning to its end */
    for (size_t i = 0; i < p->n; i++)
        if (pack[i] + 2 <= packs)
            out->item[pack[i] + 2]++;
    for (size_t k = 2; k <= packs; k++)
        out->item[k] += out->item[k - 1];
    for (size_t k = 0; k < p->n; k++)
        out->piece[out->item[pack[order[k]] + 1]++] = p->v[order[k]];
    out->n_pieces = p->n;
    out->n_items = packs;
    return 0;
}

static int pack_best_fit(struct plan *out, const struct pieces *p, uint32_t room, struct err *e)
{
    struct shelf s;
    int rc = shelf_init(&s, room, p->n, e);
    if (rc)
        return rc;
    uint32_t *order = longest_first(p, room, e), *pack = malloc((p->n + 1) * sizeof *pack);
    if (order && pack) {
        uint32_t packs = best_fit(&s, p, order, pack);
        rc = by_pack(out, p, order, pack, packs, e);
    } else {
        rc = err_nomem(e, p->n * sizeof *pack, "packs");
    }
    free(order);
    free(pack);
    shelf_release(&s);
    return rc;
}

/* ---- the plan ---------------------------------------------------------------------------------
 */

/* Items of one piece each, or (room ≠ 0) as many as fill it. Takes over the pieces. */
static int in_order(struct plan *out, struct pieces *p, uint32_t room, struct err *e)
{
    uint32_t left = 0;
    out->item = calloc(p->n + 1, sizeof *out->item);
    if (!out->item)
        return err_nomem(e, p->n * sizeof *out->item, "packs");
    for (size_t i = 0; i < p->n; i++) {
        if (!left) {
            out->item[out->n_items++] = (uint32_t)i;
            left = room ? room : p->v[i].n;
        }
        left -= p->v[i].n;
    }
    out->item[out->n_items] = (uint32_t)p->n;
    out->piece = p->v;
    out->n_pieces = p->n;
    p->v = NULL;
    return 0;
}

int plan_new(struct plan *p, const uint32_t *record, size_t n, const uint32_t *tokens,
             enum data_packing packing, uint32_t room, struct err *e)
{
    struct pieces all = {0};
    uint32_t left = room;
    int rc = 0;
    *p = (struct plan){0};
    for (size_t i = 0; !rc && i < n; i++) {
        uint32_t r = record[i], size = tokens[r];
        if (packing == DATA_UNPACKED || packing == DATA_BFD)
            rc = add_piece(&all, (struct plan_piece){r, 0, size}, e);
        else
            rc = cut_record(&all, r, size, room, packing == DATA_WRAPPED ? left : room, e);
        if (packing == DATA_WRAPPED) /* of the pack that the record ends in, or of a new one */
            left = size < left ? left - size : room - (size - left) % room;
    }
    if (!rc)
        rc = packing == DATA_UNPACKED  ? in_order(p, &all, 0, e)
             : packing == DATA_WRAPPED ? in_order(p, &all, room, e)
                                       : pack_best_fit(p, &all, room, e);
    free(all.v);
    if (rc)
        plan_release(p);
    return rc;
}

int plan_shuffle_items(struct plan *p, uint64_t epoch, uint64_t seed, struct err *e)
{
    uint32_t *order = malloc((p->n_items + 1) * sizeof *order),
             *item = malloc((p->n_items + 1) * sizeof *item);
    struct plan_piece *piece = malloc((p->n_pieces + 1) * sizeof *piece);
    int rc = order && item && piece ? 0 : err_nomem(e, p->n_pieces * sizeof *piece, "packs");
    for (size_t i = 0; !rc && i < p->n_items; i++)
        order[i] = (uint32_t)i;
    if (!rc)
        rc = plan_shuffle(order, p->n_items, seed, stream_of(STREAM_ITEMS, epoch, 0), e);
    if (rc) {
        free(item);
        free(piece);
    } else {
        size_t at = 0;
        for (size_t i = 0; i < p->n_items; i++) {
            size_t from = p->item[order[i]], n = p->item[order[i] + 1] - from;
            item[i] = (uint32_t)at;
            memcpy(piece + at, p->piece + from, n * sizeof *piece);
            at += n;
        }
        item[p->n_items] = (uint32_t)at;
        free(p->item);
        free(p->piece);
        p->item = item;
        p->piece = piece;
    }
    free(order);
    return rc;
}

void plan_release(struct plan *p)
{
    free(p->piece);
    free(p->item);
    *p = (struct plan){0};
}
