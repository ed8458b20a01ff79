/*
 * See bpe.h.
 *
 * Words repeat: short pieces that were merged before are kept with their ids in a table of fixed
 * size (512 KiB: it should stay in a core's own cache), and most pieces of a text are found there.
 *
 * Other short pieces (words) are merged in small arrays: finding the smallest rank by looking at
 * all of them is the fastest thing there is for a few bytes. Long pieces use a linked
 * list of symbols and a priority queue of (rank, position), so that 10 MB of one letter take
 * seconds.
 *
 * The queue makes use of how entries arrive: all pairs of the untouched piece come in ascending
 * position, and so do most of those that a sweep over one rank creates. So each rank has a FIFO
 * queue of its positions (nodes from one pool), a small heap holds the ranks whose queue is not
 * empty, and only what arrives out of order goes through a second, ordinary heap. An entry is stale
 * when the pair at its position has got another rank meanwhile; it is then skipped.
 */
#include "text/bpe.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct bpe_known) == 64, "one cache line");

enum {
    SHORT = 48,
    BATCH = 16,      /* merges that are looked up together while loading */
    KNOWN_BITS = 13, /* 2^13 pieces are kept */
    TRIM = 1 << 16,  /* bytes of a piece whose memory is kept for the next long one */
};
#define NIL UINT32_MAX

/* A symbol of the linked list; the index is the position of its first byte in the piece. */
struct bpe_sym {
    int32_t id;
    uint32_t rank; /* of the pair with the next symbol; BPE_NONE: no merge, or symbol gone */
    uint32_t prev, next;
};

struct bpe_node {
    uint32_t pos, next;
};

/*
 * While loading, merges are collected and looked up a batch at a time: the table slots they need
 * are far apart, and fetching many at once is several times faster than waiting for each.
 */
struct bpe_row {
    struct vocab_key left, right;
    uint32_t nl, nr;
    char bytes[128]; /* of left, then of right */
};

struct bpe_queue {
    struct bpe_row row[BATCH];
    int n;
};

/* Where a pair belongs in the table: one product, for this is on the way of every merge. */
static size_t place(const struct bpe *b, uint64_t pair)
{
    return (size_t)(pair * 0x9e3779b97f4a7c15u >> b->shift);
}

static const struct bpe_merge *find(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t i = place(b, pair);; i = (i + 1) & b->mask)
        if (b->slot[i].pair == pair || b->slot[i].rank == BPE_NONE)
            return &b->slot[i];
}

int bpe_init(struct bpe *b, const struct vocab *v, struct arena *a, size_t merges, struct err *e)
{
    *b = (struct bpe){.vocab = v, .unk = -1, .room = merges, .made = -1};
    if (merges > VOCAB_MAX)
        return err_set(e, ERR_LIMIT, "%zu merges: at most %d are supported", merges, VOCAB_MAX);
    size_t slots = 64;
    b->shift = 64 - 6;
    for (; slots < merges + merges / 2; slots *= 2)
        b->shift--;
    b->slot = arena_array(a, slots, sizeof *b->slot, e);
    b->queue = arena_alloc(a, sizeof *b->queue, e);
    if (!b->slot || !b->queue)
        return ERR_NOMEM;
    b->mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        b->slot[i] = (struct bpe_merge){UINT64_MAX, BPE_NONE, -1};
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        b->byte_id[i] = vocab_find(v, &c, 1);
    }
    return 0;
}

/*
 * The token p[0..n) that a merge makes. Mostly it is the one that the merge before made, or the
 * next one: looking there first spares the map.
 */
static int32_t made(const struct bpe *b, const char *p, size_t n)
{
    const struct vocab *v = b->vocab;
    for (int32_t id = b->made; id >= 0 && id <= b->made + 1 && (size_t)id < v->count; id++) {
        const struct vocab_token *t = &v->tok[id];
        if (t->flags & VOCAB_LEVEL && t->n == n && memcmp(t->p, p, n) == 0)
            return id;
    }
    return vocab_find(v, p, n);
}

static int no_token(const struct bpe *b, const char *verb, const char *p, size_t n, struct err *e)
{
    char s[2 * 60];
    size_t m = vocab_write(s, p, num_min(n, sizeof s / 2));
    return err_set(e, ERR_FORMAT, "merge %u %s '%.*s', which is not in the vocabulary", b->ranks,
                   verb, (int)m, s);
}

/* The tokens of a merge; p holds left and right, one behind the other. */
static int resolve(struct bpe *b, const char *p, size_t nl, size_t nr, struct vocab_key kl,
                   struct vocab_key kr, struct bpe_merge *out, struct err *e)
{
    int32_t l = vocab_find_key(b->vocab, kl, p, nl), r = vocab_find_key(b->vocab, kr, p + nl, nr);
    out->rank = BPE_NONE;
    int32_t id = l < 0 || r < 0 ? -1 : made(b, p, nl + nr);
    if (id < 0 && !b->lenient)
        return l < 0   ? no_token(b, "joins", p, nl, e)
               : r < 0 ? no_token(b, "joins", p + nl, nr, e)
                       : no_token(b, "makes", p, nl + nr, e);
    if (id >= 0) {
        b->made = id;
        if (!(b->vocab->tok[id].flags & VOCAB_ADDED)) {
            *out = (struct bpe_merge){(uint64_t)(uint32_t)l << 32 | (uint32_t)r, b->ranks, id};
            __builtin_prefetch(&b->slot[place(b, out->pair)]);
        }
    }
    b->ranks++;
    return 0;
}

static void insert(struct bpe *b, const struct bpe_merge *m)
{
    if (m->rank == BPE_NONE)
        return;
    size_t i = place(b, m->pair);
    while (b->slot[i].rank != BPE_NONE && b->slot[i].pair != m->pair)
        i = (i + 1) & b->mask;
    b->slot[i] = *m;
}

int bpe_finish(struct bpe *b, struct err *e)
{
    struct bpe_queue *q = b->queue;
    struct bpe_merge m[BATCH];
    int n = q->n;
    q->n = 0;
    for (int i = 0; i < n; i++) {
        struct bpe_row *r = &q->row[i];
        int rc = resolve(b, r->bytes, r->nl, r->nr, r->left, r->right, &m[i], e);
        if (rc)
            return rc;
    }
    for (int i = 0; i < n; i++)
        insert(b, &m[i]);
    return 0;
}

/* A merge of long tokens, at once. */
static int merge_now(struct bpe *b, const char *left, size_t nl, const char *right, size_t nr,
                     struct err *e)
{
    char *p = malloc(nl + nr + 1);
    struct bpe_merge m;
    if (!p)
        return err_nomem(e, nl + nr, "a merge");
    int rc = bpe_finish(b, e);
    size_t ml = vocab_alphabet(p, left, nl), mr = SIZE_MAX;
    if (ml != SIZE_MAX)
        mr = vocab_alphabet(p + ml, right, nr);
    if (!rc && mr == SIZE_MAX)
        rc = err_set(e, ERR_FORMAT, "merge %u has characters that are not of the byte alphabet",
                     b->ranks);
    if (!rc)
        rc = resolve(b, p, ml, mr, vocab_key(b->vocab, p, ml), vocab_key(b->vocab, p + ml, mr), &m,
                     e);
    if (!rc)
        insert(b, &m);
    free(p);
    return rc;
}

int bpe_merge(struct bpe *b, const char *left, size_t nl, const char *right, size_t nr,
              struct err *e)
{
    struct bpe_queue *q = b->queue;
    struct bpe_row *r = &q->row[q->n];
    if (nl > VOCAB_TOKEN_MAX || nr > VOCAB_TOKEN_MAX)
        return err_set(e, ERR_FORMAT, "merge %u is longer than a token may be", b->ranks);
    if (b->room == 0)
        return err_set(e, ERR_FORMAT, "more merges than announced");
    b->room--;
    if (nl + nr > sizeof r->bytes)
        return merge_now(b, left, nl, right, nr, e);
    size_t ml = vocab_alphabet(r->bytes, left, nl), mr = SIZE_MAX;
    if (ml != SIZE_MAX)
        mr = vocab_alphabet(r->bytes + ml, right, nr);
    if (mr == SIZE_MAX)
        return merge_now(b, left, nl, right, nr, e);
    r->nl = (uint32_t)ml;
    r->nr = (uint32_t)mr;
    r->left = vocab_key(b->vocab, r->bytes, ml);
    r->right = vocab_key(b->vocab, r->bytes + ml, mr);
    return ++q->n == BATCH ? bpe_finish(b, e) : 0;
}

int bpe_merge_line(struct bpe *b, const char *s, size_t n, struct err *e)
{
    const char *gap = memchr(s, ' ', n);
    if (!gap || gap == s || gap + 1 == s + n || memchr(gap + 1, ' ', (size_t)(s + n - gap - 1)))
        return err_set(e, ERR_FORMAT, "merge %u is '%.*s': two tokens and a space are needed",
                       b->ranks, (int)num_min(n, 80), s);
    return bpe_merge(b, s, (size_t)(gap - s), gap + 1, (size_t)(s + n - gap - 1), e);
}

/*
 * The symbol of a byte; false when there is none: the byte is dropped (as in the "tokenizers"
 * library: some vocabularies lack rare control bytes), or is fused into the unknown token before
 * it.
 */
static bool first_id(const struct bpe *b, unsigned char c, int32_t before, int32_t *id)
{
    *id = b->byte_id[c];
    if (*id >= 0)
        return true;
    *id = b->unk;
    return b->unk >= 0 && !(b->fuse_unk && before == b->unk);
}

/*
 * A short piece while it is merged. Symbols stay where they began and are linked, because moving
 * them costs more than looking at dead ones. A key is rank << 8 | position, so that the smallest
 * key is the lowest rank, and of equal ones the leftmost; NIL where there is nothing to merge.
 */
struct bpe_short {
    uint32_t key[SHORT]; /* of the pair that begins here */
    int32_t made[SHORT]; /* what it becomes */
    int32_t id[SHORT];
    uint8_t prev[SHORT], next[SHORT];
};

_Static_assert(((uint64_t)VOCAB_MAX - 1) << 8 < NIL - SHORT, "ranks fit into keys");

static void rank_pair(const struct bpe *b, struct bpe_short *p, size_t i, size_t j)
{
    const struct bpe_merge *m = find(b, p->id[i], p->id[j]);
    p->key[i] = m->rank == BPE_NONE ? NIL : m->rank << 8 | (uint32_t)i;
    p->made[i] = m->result;
}

static int encode_short(const struct bpe *b, const char *s, size_t len, struct ids *out,
                        struct err *e)
{
    struct bpe_short p;
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += first_id(b, (unsigned char)s[i], n ? p.id[n - 1] : -1, &p.id[n]);
    for (size_t i = 0; i < n; i++) {
        p.prev[i] = (uint8_t)(i - 1);
        p.next[i] = (uint8_t)(i + 1);
    }
    for (size_t i = 0; i + 1 < n; i++)
        rank_pair(b, &p, i, i + 1);
    for (;;) {
        size_t best = NIL; /* one by one: wide loads of keys just written would wait for them */
        for (size_t i = 0; i + 1 < n; i++)
            best = num_min(best, p.key[i]);
        if (best == NIL)
            break;
        size_t i = best & 0xff, gone = p.next[i], j = p.next[gone];
        p.id[i] = p.made[i];
        p.next[i] = (uint8_t)j;
        p.key[gone] = p.key[i] = NIL;
        if (j < n) {
            p.prev[j] = (uint8_t)i;
            rank_pair(b, &p, i, j);
        }
        if (i > 0)
            rank_pair(b, &p, p.prev[i], i);
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i = p.next[i])
        p.id[count++] = p.id[i];
    return ids_append(out, p.id, count, e);
}

/* ---- the priority queue --------------------------------------------------------------------- */

void bpe_work_release(struct bpe_work *w)
{
    free(w->known_memory);
    free(w->sym);
    free(w->head);
    free(w->tail);
    free(w->node);
    free(w->ranks);
    free(w->odd);
    *w = (struct bpe_work){0};
}

void bpe_work_trim(struct bpe_work *w)
{
    if (w->syms <= TRIM)
        return;
    struct bpe_work kept = {.known = w->known, .known_memory = w->known_memory};
    w->known_memory = NULL;
    bpe_work_release(w);
    *w = kept;
}

/* Makes room for `need` items of `size` bytes at *p, which has *cap. */
static int grow(void **p, size_t *cap, size_t need, size_t size, struct err *e)
{
    if (need <= *cap)
        return 0;
    size_t want = num_max(need, *cap + *cap / 2), bytes;
    if (!num_mul(&bytes, want, size))
        return err_nomem(e, SIZE_MAX, "text to tokenize");
    void *q = realloc(*p, bytes);
    if (!q)
        return err_nomem(e, bytes, "text to tokenize");
    *p = q;
    *cap = want;
    return 0;
}

static int work_begin(const struct bpe *b, struct bpe_work *w, size_t n, struct err *e)
{
    if (!w->head) { /* every queue is empty between pieces, so this is needed only once */
        size_t ranks = num_max(b->ranks, 1);
        w->head = malloc(ranks * sizeof *w->head);
        w->tail = malloc(ranks * sizeof *w->tail);
        if (!w->head || !w->tail)
            return err_nomem(e, 2 * ranks * sizeof *w->head, "text to tokenize");
        memset(w->head, 0xff, ranks * sizeof *w->head);
        w->spare = NIL;
    }
    return grow((void **)&w->sym, &w->syms, n, sizeof *w->sym, e);
}

static int heap_push_rank(struct bpe_work *w, uint32_t r, struct err *e)
{
    int rc = grow((void **)&w->ranks, &w->crank, w->nranks + 1, sizeof *w->ranks, e);
    if (rc)
        return rc;
    size_t i = w->nranks++;
    for (; i > 0 && w->ranks[(i - 1) / 2] > r; i = (i - 1) / 2)
        w->ranks[i] = w->ranks[(i - 1) / 2];
    w->ranks[i] = r;
    return 0;
}

static void heap_pop_rank(struct bpe_work *w)
{
    uint32_t last = w->ranks[--w->nranks];
    size_t i = 0, n = w->nranks;
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && w->ranks[k + 1] < w->ranks[k])
            k++;
        if (w->ranks[k] >= last)
            break;
        w->ranks[i] = w->ranks[k];
    }
    if (n > 0)
        w->ranks[i] = last;
}

static int heap_push_odd(struct bpe_work *w, uint64_t key, struct err *e)
{
    int rc = grow((void **)&w->odd, &w->codd, w->nodd + 1, sizeof *w->odd, e);
    if (rc)
        return rc;
    size_t i = w->nodd++;
    for (; i > 0 && w->odd[(i - 1) / 2] > key; i = (i - 1) / 2)
        w->odd[i] = w->odd[(i - 1) / 2];
    w->odd[i] = key;
    return 0;
}

static void heap_pop_odd(struct bpe_work *w)
{
    uint64_t last = w->odd[--w->nodd];
    size_t i = 0, n = w->nodd;
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && w->odd[k + 1] < w->odd[k])
            k++;
        if (w->odd[k] >= last)
            break;
        w->odd[i] = w->odd[k];
    }
    if (n > 0)
        w->odd[i] = last;
}

static int queue_push(struct bpe_work *w, uint32_t rank, uint32_t pos, struct err *e)
{
    uint32_t head = w->head[rank];
    if (head != NIL && w->node[w->tail[rank]].pos > pos)
        return heap_push_odd(w, (uint64_t)rank << 32 | pos, e);
    uint32_t k = w->spare;
    int rc = 0;
    if (k != NIL) {
        w->spare = w->node[k].next;
    } else {
        rc = grow((void **)&w->node, &w->nodes, w->used + 1, sizeof *w->node, e);
        if (rc)
            return rc;
        k = (uint32_t)w->used++;
    }
    w->node[k] = (struct bpe_node){pos, NIL};
    if (head != NIL) {
        w->node[w->tail[rank]].next = k;
    } else {
        rc = heap_push_rank(w, rank, e);
        if (!rc)
            w->head[rank] = k;
    }
    w->tail[rank] = k;
    return rc;
}

/* Takes the entry with the lowest (rank, position); false when there is none. */
static bool queue_pop(struct bpe_work *w, uint32_t *rank, uint32_t *pos)
{
    uint64_t a = UINT64_MAX, b = w->nodd ? w->odd[0] : UINT64_MAX;
    if (w->nranks)
        a = (uint64_t)w->ranks[0] << 32 | w->node[w->head[w->ranks[0]]].pos;
    uint64_t key = a < b ? a : b;
    if (key == UINT64_MAX)
        return false;
    *rank = (uint32_t)(key >> 32);
    *pos = (uint32_t)key;
    if (b == key) {
        heap_pop_odd(w);
        return true;
    }
    uint32_t k = w->head[*rank];
    w->head[*rank] = w->node[k].next;
    w->node[k].next = w->spare;
    w->spare = k;
    if (w->head[*rank] == NIL)
        heap_pop_rank(w);
    return true;
}

/* ---- long pieces ---------------------------------------------------------------------------- */

/* Ranks the pair that begins at symbol i anew, and queues it. */
static int repair(const struct bpe *b, struct bpe_work *w, uint32_t i, struct err *e)
{
    struct bpe_sym *s = &w->sym[i];
    s->rank = s->next == NIL ? BPE_NONE : find(b, s->id, w->sym[s->next].id)->rank;
    return s->rank == BPE_NONE ? 0 : queue_push(w, s->rank, i, e);
}

static int merge_long(const struct bpe *b, struct bpe_work *w, struct err *e)
{
    uint32_t rank, i;
    int rc = 0;
    while (!rc && queue_pop(w, &rank, &i)) {
        struct bpe_sym *s = &w->sym[i];
        if (s->rank != rank)
            continue; /* stale */
        struct bpe_sym *gone = &w->sym[s->next];
        s->id = find(b, s->id, gone->id)->result;
        s->next = gone->next;
        gone->rank = BPE_NONE;
        if (s->next != NIL)
            w->sym[s->next].prev = i;
        if (s->prev != NIL)
            rc = repair(b, w, s->prev, e);
        if (!rc)
            rc = repair(b, w, i, e);
    }
    return rc;
}

static int encode_long(const struct bpe *b, struct bpe_work *w, const char *s, size_t len,
                       struct ids *out, struct err *e)
{
    int rc = len < NIL ? work_begin(b, w, len, e)
                       : err_set(e, ERR_LIMIT, "a word of %zu bytes: too long to tokenize", len);
    uint32_t n = 0;
    for (size_t i = 0; !rc && i < len; i++) {
        int32_t id;
        if (first_id(b, (unsigned char)s[i], n ? w->sym[n - 1].id : -1, &id)) {
            w->sym[n] = (struct bpe_sym){id, BPE_NONE, n - 1, n + 1}; /* 0 - 1 is NIL */
            n++;
        }
    }
    if (!rc && n > 0)
        w->sym[n - 1].next = NIL;
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = repair(b, w, i, e);
    if (!rc)
        rc = merge_long(b, w, e);
    for (uint32_t i = n ? 0 : NIL; !rc && i != NIL; i = w->sym[i].next)
        rc = ids_push(out, w->sym[i].id, e);
    if (rc)
        bpe_work_release(w); /* queues may be half full */
    return rc;
}

/* ---- pieces met before ----------------------------------------------------------------------
 */

static uint64_t load8(const char *s)
{
    uint64_t x;
    memcpy(&x, s, 8);
    return x;
}

static uint64_t load4(const char *s)
{
    uint32_t x;
    memcpy(&x, s, 4);
    return x;
}

/*
 * The entry of the piece s[0..n), n ≤ BPE_KNOWN_BYTES, and its key: with the length the key tells
 * all bytes. Loads of fixed size that overlap are much faster than a copy of n bytes. Text that
 * is made to share an entry is only merged again.
 */
static struct bpe_known *known_entry(const struct bpe_work *w, const char *s, size_t n,
                                     uint64_t key[BPE_KNOWN_BYTES / 8])
{
    const unsigned char *u = (const unsigned char *)s;
    key[0] = key[1] = key[2] = 0;
    if (n >= 8) {
        key[0] = load8(s);
        key[1] = load8(s + n - 8);
        if (n > 16)
            key[2] = load8(s + 8);
    } else if (n >= 4) {
        key[0] = load4(s) | load4(s + n - 4) << 32;
    } else {
        key[0] = u[0] | (uint64_t)u[n / 2] << 8 | (uint64_t)u[n - 1] << 16;
    }
    uint64_t h = (key[0] + n) * 0x9e3779b97f4a7c15u;
    h = ((h ^ h >> 32) + key[1]) * 0xd6e8feb86659fd93u;
    h = ((h ^ h >> 32) + key[2]) * 0xa0761d6478bd642fu;
    return &w->known[h >> (64 - KNOWN_BITS)];
}

static bool known_has(const struct bpe_known *k, const uint64_t key[BPE_KNOWN_BYTES / 8], size_t n)
{
    return k->bytes == n && k->key[0] == key[0] && k->key[1] == key[1] && k->key[2] == key[2];
}

/* One cache line per entry needs more alignment than calloc gives. */
static int known_new(struct bpe_work *w, struct err *e)
{
    const size_t line = sizeof *w->known, bytes = (line << KNOWN_BITS) + line;
    w->known_memory = calloc(1, bytes);
    if (!w->known_memory)
        return err_nomem(e, bytes, "text to tokenize");
    char *p = w->known_memory;
    w->known = (struct bpe_known *)(p + (line - (uintptr_t)p % line) % line);
    return 0;
}

static int encode_anew(const struct bpe *b, struct bpe_work *w, const char *s, size_t n,
                       struct ids *out, struct err *e)
{
    int32_t id;
    if (b->whole && (id = vocab_find(b->vocab, s, n)) >= 0 &&
        !(b->vocab->tok[id].flags & VOCAB_ADDED))
        return ids_push(out, id, e);
    return n <= SHORT ? encode_short(b, s, n, out, e) : encode_long(b, w, s, n, out, e);
}

int bpe_encode(const struct bpe *b, struct bpe_work *w, const char *s, size_t n, struct ids *out,
               struct err *e)
{
    uint64_t key[BPE_KNOWN_BYTES / 8];
    size_t before = out->n;
    int rc = 0;
    if (n == 0 || n > BPE_KNOWN_BYTES)
        return encode_anew(b, w, s, n, out, e);
    if (!w->known)
        rc = known_new(w, e);
    if (rc)
        return rc;
    struct bpe_known *k = known_entry(w, s, n, key);
    if (known_has(k, key, n))
        return ids_append(out, k->id, k->ids, e);
    rc = encode_anew(b, w, s, n, out, e);
    size_t ids = out->n - before;
    if (!rc && ids <= BPE_KNOWN_IDS) {
        *k = (struct bpe_known){{key[0], key[1], key[2]}, (uint8_t)n, (uint8_t)ids, {0}};
        memcpy(k->id, out->v + before, ids * sizeof *k->id);
    }
    return rc;
}
