/*
 * See grammar_match.h. A step has two halves: the items of a configuration whose edges take the
 * byte give new places, and the closure follows calls, returns and branches from these until all
 * are at a byte, a control token or the end. It ends because no rule is left-recursive, a place is
 * entered once, and of a loop entered with different counts only those count that allow something
 * which others do not.
 *
 * Dead ends never come to be: a place is only entered when the frames on its stack and those that
 * its shortest way back needs are within the depth (grammar_link.c).
 */
#include "text/grammar_match.h"

#include "base/hash.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

enum {
    HASH_BITS = 14,
    HASH_SIZE = 1 << HASH_BITS,
    FRAMES_FULL = 1 << 18,
    CONFIGS_FULL = 8192,
    ITEMS_FULL = 1 << 20,
    CLOSURE_MAX = 1 << 16, /* places of one closure */
    WORK_MAX = 20000000,   /* places, and frames compared, for one mask or token */
};

#define UNKNOWN UINT32_MAX

static int too_many(struct err *e)
{
    return err_set(e, ERR_LIMIT,
                   "the grammar is too ambiguous: this text fits it in too many ways at once");
}

static int grow(void *array, size_t need, size_t *cap, size_t size, struct err *e)
{
    void *p;
    if (need <= *cap)
        return 0;
    size_t want = num_max(*cap ? 2 * *cap : 256, need);
    memcpy(&p, array, sizeof p);
    p = realloc(p, want * size);
    if (!p)
        return err_nomem(e, want * size, "the places of a grammar");
    memcpy(array, &p, sizeof p);
    *cap = want;
    return 0;
}

/* ---- frames and configurations -----------------------------------------------------------------
 */

static uint32_t hash_frame(uint32_t node, uint32_t min, uint32_t max, uint32_t parent)
{
    uint64_t h = hash_u64((uint64_t)node << 32 | parent) + ((uint64_t)min << 32 | max);
    return (uint32_t)(hash_u64(h) >> (64 - HASH_BITS));
}

static int frame_get(struct gtables *t, uint32_t node, uint32_t min, uint32_t max, uint32_t parent,
                     uint32_t *out, struct err *e)
{
    uint32_t h = hash_frame(node, min, max, parent);
    for (uint32_t i = t->frame_head[h]; i; i = t->frame[i].next) {
        const struct gframe *f = &t->frame[i];
        if (f->node == node && f->parent == parent && f->min == min && f->max == max) {
            *out = i;
            return 0;
        }
    }
    int code = grow(&t->frame, t->n_frames + 1, &t->cap_frames, sizeof *t->frame, e);
    if (code)
        return code;
    *out = (uint32_t)t->n_frames++;
    uint32_t lowest = t->frame[parent].lowest;
    lowest = min && min < lowest ? min : lowest;
    lowest = max && max < lowest ? max : lowest;
    t->frame[*out] = (struct gframe){.node = node,
                                     .min = min,
                                     .max = max,
                                     .parent = parent,
                                     .next = t->frame_head[h],
                                     .depth = t->frame[parent].depth + 1,
                                     .lowest = lowest};
    t->frame_head[h] = *out;
    return 0;
}

static uint8_t flags_of(const struct grammar *g, const struct gitem *it, size_t n)
{
    uint8_t flags = 0;
    for (size_t i = 0; i < n; i++) {
        const struct gnode *x = &g->node[it[i].node];
        if (x->op == GOP_RET)
            flags |= GC_ACCEPT;
        else if (x->op == GOP_CTRL)
            flags |= GC_CONTROL;
        else if (x->flags & GF_FREE)
            flags |= GC_FREE;
    }
    return flags;
}

/* The least count of a loop on the stacks of these items. */
static uint32_t lowest_count(const struct gtables *t, const struct gitem *it, size_t n)
{
    uint32_t lowest = GRAMMAR_INF;
    for (size_t i = 0; i < n; i++)
        if (t->frame[it[i].frame].lowest < lowest)
            lowest = t->frame[it[i].frame].lowest;
    return lowest;
}

static int by_place(const void *a, const void *b)
{
    const struct gitem *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* The configuration of these items, which are put in order. */
static int config_get(struct gtables *t, const struct grammar *g, struct gitem *it, size_t n,
                      uint32_t *out, struct err *e)
{
    if (n > 1)
        qsort(it, n, sizeof *it, by_place);
    uint32_t h = (uint32_t)(hash_bytes(it, n * sizeof *it, 0) >> (64 - HASH_BITS));
    for (uint32_t i = t->config_head[h]; i != UNKNOWN; i = t->config[i].next)
        if (t->config[i].n == n && !memcmp(t->item + t->config[i].first, it, n * sizeof *it)) {
            *out = i;
            return 0;
        }
    int code = grow(&t->config, t->n_configs + 1, &t->cap_configs, sizeof *t->config, e);
    code = code ? code : grow(&t->item, t->n_items + n, &t->cap_items, sizeof *t->item, e);
    if (code)
        return code;
    *out = (uint32_t)t->n_configs++;
    t->config[*out] = (struct gconfig){.first = (uint32_t)t->n_items,
                                       .n = (uint32_t)n,
                                       .next = t->config_head[h],
                                       .canon = UNKNOWN,
                                       .free = UNKNOWN,
                                       .loose = UNKNOWN,
                                       .lowest = lowest_count(t, it, n),
                                       .flags = flags_of(g, it, n)};
    t->config_head[h] = *out;
    if (n)
        memcpy(t->item + t->n_items, it, n * sizeof *it);
    t->n_items += n;
    return 0;
}

static void tables_release(struct gtables *t)
{
    for (size_t i = 0; i < t->n_configs; i++)
        free(t->config[i].row);
    free(t->frame);
    free(t->config);
    free(t->item);
    free(t->frame_head);
    free(t->config_head);
    memset(t, 0, sizeof *t);
}

/* With the frame at the bottom, and the configuration of nothing. */
static int tables_init(struct gtables *t, const struct grammar *g, struct err *e)
{
    memset(t, 0, sizeof *t);
    t->frame_head = calloc(HASH_SIZE, sizeof *t->frame_head);
    t->config_head = malloc(HASH_SIZE * sizeof *t->config_head);
    int code =
        t->frame_head && t->config_head ? 0 : err_nomem(e, HASH_SIZE * 8, "a grammar's tables");
    code = code ? code : grow(&t->frame, 1, &t->cap_frames, sizeof *t->frame, e);
    code = code ? code : grow(&t->item, 1, &t->cap_items, sizeof *t->item, e);
    if (!code) {
        uint32_t dead;
        t->frame[t->n_frames++] = (struct gframe){.lowest = GRAMMAR_INF};
        memset(t->config_head, 0xff, HASH_SIZE * sizeof *t->config_head);
        code = config_get(t, g, t->item, 0, &dead, e);
    }
    if (code)
        tables_release(t);
    return code;
}

/* ---- the closure ---------------------------------------------------------------------------- */

static void begin(struct gmatch *m)
{
    m->n_work = m->n_done = m->n_seen = m->n_loops = 0;
    if (++m->now == 0) { /* stamps have gone round */
        memset(m->stamp, 0, m->cap_seen * sizeof *m->stamp);
        m->now = 1;
    }
}

/* Puts the key into the set; *new tells whether it was not there. */
static size_t seen_slot(const struct gmatch *m, uint64_t key)
{
    size_t i = hash_u64(key) & (m->cap_seen - 1);
    while (m->stamp[i] == m->now && m->seen[i] != key)
        i = (i + 1) & (m->cap_seen - 1);
    return i;
}

static int seen_grow(struct gmatch *m, struct err *e)
{
    struct gmatch old = *m;
    size_t cap = m->cap_seen ? 2 * m->cap_seen : 1024;
    uint64_t *seen = malloc(cap * sizeof *seen);
    uint32_t *stamp = calloc(cap, sizeof *stamp);
    if (!seen || !stamp) {
        free(seen);
        free(stamp);
        return err_nomem(e, cap * 12, "the places of a grammar");
    }
    m->seen = seen;
    m->stamp = stamp;
    m->cap_seen = cap;
    for (size_t i = 0; i < old.cap_seen; i++)
        if (old.stamp[i] == m->now) {
            size_t k = seen_slot(m, old.seen[i]);
            m->seen[k] = old.seen[i];
            m->stamp[k] = m->now;
        }
    free(old.seen);
    free(old.stamp);
    return 0;
}

/* A place to go on from, once, and only if it can still come to its end. */
static int add(struct gmatch *m, uint32_t node, uint32_t frame, struct err *e)
{
    uint32_t depth = m->t.frame[frame].depth;
    if (m->g->need[node] > GRAMMAR_DEPTH_MAX - depth)
        return 0;
    int code = 2 * m->n_seen >= m->cap_seen ? seen_grow(m, e) : 0;
    if (code)
        return code;
    uint64_t key = (uint64_t)node << 32 | frame;
    size_t k = seen_slot(m, key);
    if (m->stamp[k] == m->now)
        return 0;
    if (m->n_seen >= CLOSURE_MAX || m->spent++ > WORK_MAX)
        return too_many(e);
    m->seen[k] = key;
    m->stamp[k] = m->now;
    m->n_seen++;
    code = grow(&m->work, m->n_work + 1, &m->cap_work, sizeof *m->work, e);
    if (!code)
        m->work[m->n_work++] = (struct gitem){node, frame};
    return code;
}

static int push(struct gmatch *m, uint32_t entry, uint32_t node, uint32_t min, uint32_t max,
                uint32_t parent, struct err *e)
{
    uint32_t frame;
    if (m->t.frame[parent].depth >= GRAMMAR_DEPTH_MAX)
        return 0;
    int code = frame_get(&m->t, node, min, max, parent, &frame, e);
    return code ? code : add(m, entry, frame, e);
}

/* Whatever may follow in frame b may also follow in frame a: the same places to return to, with
   no more rounds needed and no fewer allowed. */
static bool covers(struct gmatch *m, uint32_t a, uint32_t b)
{
    while (a != b) {
        m->spent++;
        const struct gframe *x = &m->t.frame[a], *y = &m->t.frame[b];
        if (!a || !b || x->node != y->node || x->min > y->min || x->max < y->max)
            return false;
        a = x->parent;
        b = y->parent;
    }
    return true;
}

/* A count after one round; GRAMMAR_INF stays: no bound, or (as a minimum) one that is far away. */
static uint32_t one_less(uint32_t count)
{
    return count && count != GRAMMAR_INF ? count - 1 : count;
}

/* At a loop with so many rounds still needed and allowed. */
static int at_loop(struct gmatch *m, uint32_t node, uint32_t min, uint32_t max, uint32_t parent,
                   struct err *e)
{
    const struct gnode *x = &m->g->node[node];
    for (size_t i = 0; i < m->n_loops; i++) {
        const struct gframe *l = &m->loops[i];
        m->spent++;
        if (l->node == node && l->min <= min && l->max >= max && covers(m, l->parent, parent))
            return 0; /* all that would follow follows already */
    }
    int code = grow(&m->loops, m->n_loops + 1, &m->cap_loops, sizeof *m->loops, e);
    if (code)
        return code;
    if (m->n_loops >= CLOSURE_MAX / 16)
        return too_many(e);
    m->loops[m->n_loops++] =
        (struct gframe){.node = node, .min = min, .max = max, .parent = parent};
    if (min == 0)
        code = add(m, x->b, parent, e);
    if (!code && max > 0)
        code = push(m, x->a, node, one_less(min), one_less(max), parent, e);
    return code;
}

static int expand(struct gmatch *m, struct gitem it, struct err *e)
{
    const struct grammar *g = m->g;
    const struct gnode *x = &g->node[it.node];
    int code = 0;
    switch (x->op) {
    case GOP_RET:
        if (it.frame) {
            struct gframe f = m->t.frame[it.frame];
            if (g->node[f.node].op == GOP_CALL)
                return add(m, g->node[f.node].b, f.parent, e);
            return at_loop(m, f.node, f.min, f.max, f.parent, e);
        }
        break;
    case GOP_SPLIT:
        for (uint32_t i = 0; i < x->b && !code; i++)
            code = add(m, g->target[x->a + i], it.frame, e);
        return code;
    case GOP_CALL:
        if (x->flags & GF_TAIL)
            return add(m, x->a, it.frame, e);
        return push(m, x->a, it.node, 0, 0, it.frame, e);
    case GOP_LOOP:
        return at_loop(m, it.node, g->loop[x->c].min, g->loop[x->c].max, it.frame, e);
    case GOP_CTRL:
        if (m->control[x->a] < 0)
            return add(m, x->c, it.frame, e);
        break;
    default:
        break;
    }
    code = grow(&m->done, m->n_done + 1, &m->cap_done, sizeof *m->done, e);
    if (!code)
        m->done[m->n_done++] = it;
    return code;
}

/* Drops places that others cover; where there are very many, they stay. */
static void prune(struct gmatch *m)
{
    enum { FEW = 64 };
    size_t w = 0;
    if (m->n_done < 2 || m->n_done > FEW)
        return;
    for (size_t i = 0; i < m->n_done; i++) {
        bool covered = false;
        for (size_t k = 0; k < m->n_done && !covered; k++)
            covered = k != i && m->done[k].node == m->done[i].node &&
                      m->done[k].frame != m->done[i].frame &&
                      covers(m, m->done[k].frame, m->done[i].frame);
        m->work[w] = m->done[i];
        w += !covered;
    }
    memcpy(m->done, m->work, w * sizeof *m->done);
    m->n_done = w;
}

static int finish(struct gmatch *m, uint32_t *out, struct err *e)
{
    int code = 0;
    while (m->n_work && !code)
        code = expand(m, m->work[--m->n_work], e);
    if (!code)
        code = grow(&m->work, m->n_done, &m->cap_work, sizeof *m->work, e);
    if (!code)
        prune(m);
    return code ? code : config_get(&m->t, m->g, m->done, m->n_done, out, e);
}

/* ---- steps ---------------------------------------------------------------------------------- */

int gmatch_start(struct gmatch *m, enum grammar_thought thought, uint32_t *out, struct err *e)
{
    begin(m);
    int code = add(m, m->g->start[thought], 0, e);
    return code ? code : finish(m, out, e);
}

/* Edges are in order; most nodes have few. */
static const struct gedge *edge_of(const struct grammar *g, const struct gnode *x, uint8_t byte)
{
    uint32_t lo = x->a, hi = x->a + x->b;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (g->edge[mid].hi < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < x->a + x->b && g->edge[lo].lo <= byte ? &g->edge[lo] : NULL;
}

int gmatch_step(struct gmatch *m, uint32_t config, uint8_t byte, uint32_t *out, struct err *e)
{
    struct gconfig *c = &m->t.config[config];
    int code = 0;
    if (c->row && c->row[byte] != UNKNOWN) {
        *out = c->row[byte];
        return 0;
    }
    if (!c->row) {
        c->row = malloc(256 * sizeof *c->row);
        if (!c->row)
            return err_nomem(e, 256 * sizeof *c->row, "a grammar's tables");
        memset(c->row, 0xff, 256 * sizeof *c->row);
    }
    uint32_t first = c->first, n = c->n, *row = c->row;
    begin(m);
    for (uint32_t i = first; i < first + n && !code; i++) {
        struct gitem it = m->t.item[i];
        const struct gnode *x = &m->g->node[it.node];
        const struct gedge *edge = x->op == GOP_EDGES ? edge_of(m->g, x, byte) : NULL;
        if (edge)
            code = add(m, edge->to, it.frame, e);
    }
    code = code ? code : finish(m, out, e);
    if (!code)
        row[byte] = *out;
    return code;
}

/* The items of free text alone. */
static int free_part(struct gmatch *m, uint32_t config, uint32_t *out, struct err *e)
{
    const struct gconfig *c = &m->t.config[config];
    if (c->free != UNKNOWN) {
        *out = c->free;
        return 0;
    }
    begin(m);
    int code = grow(&m->done, c->n, &m->cap_done, sizeof *m->done, e);
    for (uint32_t i = 0; i < c->n && !code; i++) {
        struct gitem it = m->t.item[c->first + i];
        if (m->g->node[it.node].flags & GF_FREE && m->g->node[it.node].op == GOP_EDGES)
            m->done[m->n_done++] = it;
    }
    code = code ? code : config_get(&m->t, m->g, m->done, m->n_done, out, e);
    if (!code)
        m->t.config[config].free = *out;
    return code;
}

int gmatch_control(struct gmatch *m, uint32_t config, size_t i, uint32_t *out, struct err *e)
{
    const struct gcontrol *t = &m->v->control[i];
    uint32_t after = GCONFIG_DEAD;
    uint8_t flags = m->t.config[config].flags;
    int code = flags & GC_FREE ? free_part(m, config, &after, e) : 0;
    for (uint32_t k = 0; k < t->n && after && !code; k++)
        code = gmatch_step(m, after, (uint8_t)m->v->bytes[t->at + k], &after, e);
    if (code || !(flags & GC_CONTROL)) {
        *out = after;
        return code;
    }
    begin(m);
    for (uint32_t k = 0; k < m->t.config[after].n && !code; k++) {
        struct gitem it = m->t.item[m->t.config[after].first + k];
        code = add(m, it.node, it.frame, e);
    }
    for (uint32_t k = 0; k < m->t.config[config].n && !code; k++) {
        struct gitem it = m->t.item[m->t.config[config].first + k];
        const struct gnode *x = &m->g->node[it.node];
        if (x->op == GOP_CTRL && m->control[x->a] == t->id)
            code = add(m, x->b, it.frame, e);
    }
    return code ? code : finish(m, out, e);
}

/* ---- canonical forms ------------------------------------------------------------------------ */

/* Counts that a token cannot bring to an end are as good as endless. */
static uint32_t cut(uint32_t count, size_t longest)
{
    return count > longest ? GRAMMAR_INF : count;
}

/* The frame with counts above `longest` endless; *out is its number. */
static int frame_cut(struct gmatch *m, uint32_t frame, size_t longest, uint32_t *out, struct err *e)
{
    uint32_t chain[GRAMMAR_DEPTH_MAX + 1], n = 0, to = 0;
    int code = 0;
    for (; frame; frame = m->t.frame[frame].parent)
        chain[n++] = frame;
    while (n && !code) {
        struct gframe f = m->t.frame[chain[--n]];
        code = frame_get(&m->t, f.node, cut(f.min, longest), cut(f.max, longest), to, &to, e);
    }
    *out = to;
    return code;
}

static int config_cut(struct gmatch *m, uint32_t config, size_t longest, uint32_t *out,
                      struct err *e)
{
    struct gconfig c = m->t.config[config];
    begin(m);
    int code = grow(&m->done, c.n, &m->cap_done, sizeof *m->done, e);
    for (uint32_t i = 0; i < c.n && !code; i++) {
        struct gitem it = m->t.item[c.first + i];
        code = frame_cut(m, it.frame, longest, &it.frame, e);
        m->done[i] = it;
    }
    if (code)
        return code;
    size_t k = 0; /* two that differed in counts may have become one */
    if (c.n > 1)
        qsort(m->done, c.n, sizeof *m->done, by_place);
    for (uint32_t i = 0; i < c.n; i++)
        if (!k || by_place(&m->done[k - 1], &m->done[i]) != 0)
            m->done[k++] = m->done[i];
    return config_get(&m->t, m->g, m->done, k, out, e);
}

int gmatch_canon(struct gmatch *m, uint32_t config, uint32_t *out, struct err *e)
{
    int code = 0;
    *out = m->t.config[config].canon;
    if (*out == UNKNOWN && !(code = config_cut(m, config, m->v->longest, out, e)))
        m->t.config[config].canon = *out;
    return code;
}

/* ---- bytes that change nothing -------------------------------------------------------------- */

/* Do all characters beyond ASCII lead back to config? */
static int loops_utf8(struct gmatch *m, uint32_t config, bool *yes, struct err *e)
{
    uint32_t at[8] = {config}, to;
    static const uint8_t order[8] = {0, 3, 2, 1,
                                     4, 5, 6, 7}; /* each is known when it is its turn */
    *yes = false;
    for (int i = 0; i < 8; i++)
        for (unsigned c = 0x80; c < 0x100; c++) {
            int state = order[i], next = gutf8_step(state, (uint8_t)c);
            if (next < 0)
                continue;
            int code = gmatch_step(m, at[state], (uint8_t)c, &to, e);
            if (code)
                return code;
            if (next && !at[next])
                at[next] = to;
            if (!to || at[next] != to)
                return 0;
        }
    *yes = true;
    return 0;
}

static int find_loops(struct gmatch *m, uint32_t config, uint64_t *out, struct err *e)
{
    const uint64_t high = 1ull << GCLASS_UTF8 | 1ull << GCLASS_BROKEN;
    static const uint8_t usual[] = {'e', '0', ' '};
    uint64_t leave = high;
    uint32_t to;
    int code = 0;
    bool any = false; /* most places are no loops, and these tell soon */
    for (size_t i = 0; i < NUM_COUNT(usual) && !code && !any; i++) {
        code = gmatch_step(m, config, usual[i], &to, e);
        any = !code && to == config;
    }
    *out = 0;
    if (code || !any)
        return code;
    for (unsigned c = 0; c < 128 && !code; c++) {
        uint64_t bit = 1ull << gclass_of((uint8_t)c);
        if (leave & bit)
            continue;
        code = gmatch_step(m, config, (uint8_t)c, &to, e);
        leave |= !code && to != config ? bit : 0;
    }
    bool all = true, utf8 = false;
    for (unsigned c = 128; c < 256 && !code && all; c++) {
        code = gmatch_step(m, config, (uint8_t)c, &to, e);
        all = to == config;
    }
    if (!code && !all)
        code = loops_utf8(m, config, &utf8, e);
    *out = ~leave | (all ? high : utf8 ? 1ull << GCLASS_UTF8 : 0);
    return code;
}

int gmatch_loops(struct gmatch *m, uint32_t config, unsigned bytes, uint64_t *out, struct err *e)
{
    const struct gconfig *c = &m->t.config[config];
    int code = 0;
    *out = 0;
    if (c->lowest <= bytes)
        return 0;
    uint32_t loose = c->lowest == GRAMMAR_INF ? config : c->loose;
    if (loose == UNKNOWN && !(code = config_cut(m, config, 0, &loose, e)))
        m->t.config[config].loose = loose;
    if (!code && !m->t.config[loose].looked) {
        code = find_loops(m, loose, out, e);
        m->t.config[loose].loops = code ? 0 : *out;
        m->t.config[loose].looked = !code;
    }
    *out = code ? 0 : m->t.config[loose].loops;
    return code;
}

/* ---- collecting
 * -----------------------------------------------------------------------------------------------
 */

bool gmatch_full(const struct gmatch *m)
{
    return m->t.n_frames > FRAMES_FULL || m->t.n_configs > CONFIGS_FULL ||
           m->t.n_items > ITEMS_FULL;
}

struct move {
    struct gmatch *m;
    struct gtables to;
    uint32_t *frame, *config; /* new numbers; UNKNOWN: not moved */
};

static int move_frame(struct move *v, uint32_t frame, uint32_t *out, struct err *e)
{
    uint32_t chain[GRAMMAR_DEPTH_MAX + 1], n = 0, to;
    int code = 0;
    for (; v->frame[frame] == UNKNOWN; frame = v->m->t.frame[frame].parent)
        chain[n++] = frame;
    to = v->frame[frame];
    while (n && !code) {
        const struct gframe *f = &v->m->t.frame[chain[--n]];
        code = frame_get(&v->to, f->node, f->min, f->max, to, &to, e);
        v->frame[chain[n]] = to;
    }
    *out = to;
    return code;
}

static int move_config(struct move *v, uint32_t *config, struct err *e)
{
    struct gmatch *m = v->m;
    const struct gconfig *c = &m->t.config[*config];
    int code = 0;
    if (v->config[*config] == UNKNOWN) {
        code = grow(&m->done, c->n, &m->cap_done, sizeof *m->done, e);
        for (uint32_t i = 0; i < c->n && !code; i++) {
            m->done[i] = m->t.item[c->first + i];
            code = move_frame(v, m->done[i].frame, &m->done[i].frame, e);
        }
        if (!code)
            code = config_get(&v->to, m->g, m->done, c->n, &v->config[*config], e);
    }
    if (!code)
        *config = v->config[*config];
    return code;
}

int gmatch_collect(struct gmatch *m, uint32_t *root, size_t n, struct err *e)
{
    struct move v = {.m = m};
    v.frame = malloc(m->t.n_frames * sizeof *v.frame);
    v.config = malloc(m->t.n_configs * sizeof *v.config);
    int code = tables_init(&v.to, m->g, e);
    if (!code && (!v.frame || !v.config)) {
        tables_release(&v.to);
        code = err_nomem(e, m->t.n_frames * sizeof *v.frame, "a grammar's tables");
    }
    if (code)
        goto out;
    memset(v.frame, 0xff, m->t.n_frames * sizeof *v.frame);
    memset(v.config, 0xff, m->t.n_configs * sizeof *v.config);
    v.frame[0] = v.config[0] = 0;
    /* all is copied before anything is renumbered, so that a failure changes nothing */
    for (int pass = 0; pass < 2 && !code; pass++) {
        for (struct gcursor *c = m->live.next; c != &m->live && !code; c = c->next) {
            uint32_t to = c->config;
            code = move_config(&v, &to, e);
            c->config = pass ? to : c->config;
        }
        for (size_t i = 0; i < n && !code; i++) {
            uint32_t to = root[i];
            code = move_config(&v, &to, e);
            root[i] = pass ? to : root[i];
        }
    }
    if (code) {
        tables_release(&v.to);
        goto out;
    }
    tables_release(&m->t);
    m->t = v.to;
    for (int i = 0; i < GMASKS; i++)
        m->mask[i].config = UNKNOWN;
out:
    free(v.frame);
    free(v.config);
    return code;
}

/* ---- life
 * ---------------------------------------------------------------------------------------------------------
 */

void gcursor_attach(struct gmatch *m, struct gcursor *c)
{
    c->prev = &m->live;
    c->next = m->live.next;
    c->prev->next = c->next->prev = c;
}

void gcursor_detach(struct gcursor *c)
{
    c->prev->next = c->next;
    c->next->prev = c->prev;
}

/* The token that is written like a text; -1 when it is no control token. */
static int32_t find_control(const struct grammar_vocab *v, const struct gtext *t)
{
    for (size_t i = 0; i < v->n_control; i++)
        if (v->control[i].n == t->n && !memcmp(v->bytes + v->control[i].at, t->s, t->n))
            return v->control[i].id;
    return -1;
}

static int match_new(struct gmatch **out, struct grammar *g, struct grammar_vocab *v, struct err *e)
{
    struct gmatch *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m)
        return err_nomem(e, sizeof *m, "a grammar's matcher");
    if (pthread_mutex_init(&m->lock, NULL)) {
        free(m);
        return err_nomem(e, 0, "a lock");
    }
    m->g = g;
    m->v = grammar_vocab_ref(v);
    m->live.prev = m->live.next = &m->live;
    for (int i = 0; i < GMASKS; i++)
        m->mask[i].config = UNKNOWN;
    m->control = malloc((g->n_texts + 1) * sizeof *m->control);
    int code =
        m->control ? 0 : err_nomem(e, g->n_texts * sizeof *m->control, "a grammar's matcher");
    for (size_t i = 0; i < g->n_texts && !code; i++)
        m->control[i] = find_control(v, &g->text[i]);
    code = code ? code : seen_grow(m, e);
    code = code ? code : tables_init(&m->t, g, e);
    if (code)
        gmatch_free(m);
    else
        *out = m;
    return code;
}

int gmatch_get(struct gmatch **out, struct grammar *g, struct grammar_vocab *v, struct err *e)
{
    int code = 0;
    pthread_mutex_lock(&g->lock);
    struct gmatch *m = g->match;
    while (m && m->v != v)
        m = m->next;
    if (!m && !(code = match_new(&m, g, v, e))) {
        m->next = g->match;
        g->match = m;
    }
    pthread_mutex_unlock(&g->lock);
    *out = m;
    return code;
}

void gmatch_free(struct gmatch *m)
{
    while (m) {
        struct gmatch *next = m->next;
        tables_release(&m->t);
        for (int i = 0; i < GMASKS; i++)
            free(m->mask[i].bits);
        grammar_vocab_unref(m->v);
        free(m->control);
        free(m->work);
        free(m->done);
        free(m->seen);
        free(m->stamp);
        free(m->loops);
        pthread_mutex_destroy(&m->lock);
        free(m);
        m = next;
    }
}
