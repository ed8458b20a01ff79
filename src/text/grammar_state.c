/*
 * States and masks. A state is a configuration of the matcher that all states of a grammar share
 * (grammar_match.h), behind its lock; so what one sequence has found out, steps and masks, serves
 * all others.
 *
 * A mask is one walk over the trie of the vocabulary with the configuration before each byte on a
 * path; a subtree that does not fit is skipped. It is kept under the configuration's canonical
 * form, in which counts of loops are cut to the longest token: so an array of up to a million items
 * has one mask for its middle.
 */
#include "base/num.h"
#include "text/grammar_match.h"

#include <stdlib.h>
#include <string.h>

struct grammar_state {
    struct gmatch *m;
    struct grammar *g; /* a reference */
    struct gcursor at;
    uint32_t *bits;
    bool fresh; /* bits are those of here */
    bool ended; /* an end token was accepted */
};

/* ---- the walk ------------------------------------------------------------------------------- */

/* Where a walk is: configurations before the bytes of a path. */
struct walk {
    struct gmatch *m;
    uint32_t path[1 + 512 + 1]; /* [0]: where the text is */
    const uint32_t *row[512 + 1];
};

static void set_token(const struct grammar_vocab *v, uint32_t *bits, int32_t id)
{
    for (; id >= 0; id = v->same[id])
        bits[id / 32] |= 1u << (id % 32);
}

/* The step that the tables do not have yet. */
static int walk_step(struct walk *w, size_t depth, uint8_t byte, uint32_t *out, struct err *e)
{
    int code = 0;
    if (gmatch_full(w->m)) {
        code = gmatch_collect(w->m, w->path, depth + 1, e);
        for (size_t i = 0; i <= depth; i++)
            w->row[i] = NULL;
    }
    code = code ? code : gmatch_step(w->m, w->path[depth], byte, out, e);
    for (size_t i = 0; i <= depth; i++)
        w->row[i] = w->m->t.config[w->path[i]].row;
    return code;
}

enum { LARGE = 32 }; /* nodes of a subtree that are worth a look at it as a whole */

/* Does all of the subtree at node i lead nowhere but back? Then all its tokens fit. */
static int walk_whole(struct walk *w, size_t i, uint32_t *bits, bool *whole, struct err *e)
{
    const struct grammar_vocab *v = w->m->v;
    const struct gtrie *t = &v->trie[i];
    uint64_t loops;
    *whole = false;
    if (t->height == 255 || gmatch_full(w->m))
        return 0;
    int code = gmatch_loops(w->m, w->path[t->depth], t->height, &loops, e);
    w->row[t->depth] = w->m->t.config[w->path[t->depth]].row;
    if (code || v->below[i] & ~loops)
        return code;
    for (uint32_t k = v->rank[i]; k < v->rank[i + t->skip]; k++)
        bits[v->order[k] / 32] |= 1u << (v->order[k] % 32);
    *whole = true;
    return 0;
}

static int walk_plain(struct walk *w, uint32_t *bits, struct err *e)
{
    const struct grammar_vocab *v = w->m->v;
    const struct gtrie *t = v->trie;
    w->row[0] = w->m->t.config[w->path[0]].row;
    for (size_t i = 0; i < v->n_trie;) {
        size_t depth = t[i].depth;
        if (t[i].skip >= LARGE) {
            bool whole;
            int code = walk_whole(w, i, bits, &whole, e);
            if (code)
                return code;
            if (whole) {
                i += t[i].skip;
                continue;
            }
        }
        const uint32_t *row = w->row[depth];
        uint32_t to = row ? row[t[i].byte] : UINT32_MAX;
        if (to == UINT32_MAX) {
            int code = walk_step(w, depth, t[i].byte, &to, e);
            if (code)
                return code;
        }
        if (to == GCONFIG_DEAD) {
            i += t[i].skip;
            continue;
        }
        if (t[i].token >= 0)
            set_token(v, bits, t[i].token);
        w->path[depth + 1] = to;
        w->row[depth + 1] = w->m->t.config[to].row;
        i++;
    }
    return 0;
}

/* Fills a mask for the configuration, whose number *config may change. */
static int fill(struct gmatch *m, uint32_t *config, uint32_t *bits, struct err *e)
{
    const struct grammar_vocab *v = m->v;
    struct walk w = {.m = m, .path = {*config}};
    memset(bits, 0, v->words * sizeof *bits);
    int code = walk_plain(&w, bits, e);
    *config = w.path[0];
    uint8_t flags = m->t.config[*config].flags;
    for (size_t i = 0; i < v->n_control && (flags & (GC_CONTROL | GC_FREE)) && !code; i++) {
        uint32_t to;
        code = gmatch_control(m, *config, i, &to, e);
        if (!code && to)
            bits[v->control[i].id / 32] |= 1u << (v->control[i].id % 32);
    }
    bool any = false;
    for (size_t i = 0; i < v->words && !any; i++)
        any = bits[i] != 0;
    for (size_t i = 0; i < v->n_end && (!any || (flags & GC_ACCEPT)); i++)
        bits[v->end[i] / 32] |= 1u << (v->end[i] % 32);
    return code;
}

/* The slot that was used longest ago. */
static int take_slot(struct gmatch *m, struct gmask **out, struct err *e)
{
    struct gmask *k = &m->mask[0];
    for (int i = 1; i < GMASKS; i++)
        if (m->mask[i].used < k->used)
            k = &m->mask[i];
    if (!k->bits && !(k->bits = malloc(num_max(m->v->words, 1) * sizeof *k->bits)))
        return err_nomem(e, m->v->words * sizeof *k->bits, "a mask");
    if (k->config != UINT32_MAX)
        m->t.config[k->config].mask = 0;
    k->config = UINT32_MAX;
    *out = k;
    return 0;
}

static int find_mask(struct gmatch *m, struct gcursor *at, const uint32_t **bits, struct err *e)
{
    uint32_t config;
    struct gmask *k = NULL;
    int code = gmatch_full(m) ? gmatch_collect(m, NULL, 0, e) : 0;
    code = code ? code : gmatch_canon(m, at->config, &config, e);
    if (code)
        return code;
    if (m->t.config[config].mask) {
        k = &m->mask[m->t.config[config].mask - 1];
    } else {
        code = take_slot(m, &k, e);
        code = code ? code : fill(m, &config, k->bits, e);
        if (code)
            return code;
        k->config = config;
        m->t.config[config].mask = (uint16_t)(k - m->mask + 1);
    }
    k->used = ++m->clock;
    *bits = k->bits;
    return 0;
}

static void only_ends(const struct grammar_vocab *v, uint32_t *bits)
{
    memset(bits, 0, v->words * sizeof *bits);
    for (size_t i = 0; i < v->n_end; i++)
        bits[v->end[i] / 32] |= 1u << (v->end[i] % 32);
}

int grammar_state_mask(struct grammar_state *s, const uint32_t **bits, struct err *e)
{
    int code = 0;
    *bits = s->bits;
    if (s->fresh)
        return 0;
    if (s->ended) {
        only_ends(s->m->v, s->bits);
    } else {
        const uint32_t *found = NULL;
        pthread_mutex_lock(&s->m->lock);
        s->m->spent = 0;
        code = find_mask(s->m, &s->at, &found, e);
        if (!code)
            memcpy(s->bits, found, s->m->v->words * sizeof *s->bits);
        pthread_mutex_unlock(&s->m->lock);
    }
    s->fresh = !code;
    return code;
}

/* ---- following a text ----------------------------------------------------------------------- */

static int follow(struct gmatch *m, uint32_t *config, int32_t id, struct err *e)
{
    const struct grammar_vocab *v = m->v;
    int code = 0;
    if (v->kind[id] == GKIND_CONTROL) {
        size_t i = 0;
        while (v->control[i].id != id)
            i++;
        return gmatch_control(m, *config, i, config, e);
    }
    if (v->kind[id] != GKIND_PLAIN)
        *config = GCONFIG_DEAD;
    for (uint32_t k = v->start[id]; k < v->start[id + 1] && *config && !code; k++)
        code = gmatch_step(m, *config, (uint8_t)v->bytes[k], config, e);
    return code;
}

/* Is the end allowed here, and is nothing else? */
static void at_end(const struct gmatch *m, uint32_t config, bool *may, bool *only)
{
    const struct gconfig *c = &m->t.config[config];
    *may = c->flags & GC_ACCEPT;
    *only = *may && c->n == 1;
}

static int refuse(const struct grammar_state *s, int32_t id, struct err *e)
{
    return err_set(e, ERR_FORMAT, "token %d does not fit the grammar here", (int)id);
}

int grammar_state_accept(struct grammar_state *s, int32_t id, struct err *e)
{
    struct gmatch *m = s->m;
    if (id < 0 || (size_t)id >= m->v->count)
        return err_set(e, ERR_USAGE, "token %d: the vocabulary has %zu tokens", (int)id,
                       m->v->count);
    bool end = m->v->kind[id] == GKIND_END;
    if (s->ended || end) {
        const uint32_t *bits;
        int code = grammar_state_mask(s, &bits, e);
        if (code)
            return code;
        if (!end || !(bits[id / 32] >> (id % 32) & 1))
            return refuse(s, id, e);
        s->ended = true;
        s->fresh = false;
        return 0;
    }
    pthread_mutex_lock(&m->lock);
    m->spent = 0;
    int code = gmatch_full(m) ? gmatch_collect(m, NULL, 0, e) : 0;
    uint32_t config = s->at.config;
    code = code ? code : follow(m, &config, id, e);
    if (!code && !config)
        code = refuse(s, id, e);
    if (!code) {
        s->at.config = config;
        s->fresh = false;
    }
    pthread_mutex_unlock(&m->lock);
    return code;
}

bool grammar_state_complete(struct grammar_state *s)
{
    bool may, only;
    pthread_mutex_lock(&s->m->lock);
    at_end(s->m, s->at.config, &may, &only);
    pthread_mutex_unlock(&s->m->lock);
    return s->ended || only;
}

/* ---- life
 * --------------------------------------------------------------------------------------------------
 */

static int state_make(struct grammar_state **out, struct grammar *g, struct gmatch *m,
                      struct err *e)
{
    struct grammar_state *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_nomem(e, sizeof *s, "a grammar's state");
    s->bits = malloc(num_max(m->v->words, 1) * sizeof *s->bits);
    if (!s->bits) {
        free(s);
        return err_nomem(e, m->v->words * sizeof *s->bits, "a mask");
    }
    s->g = grammar_ref(g);
    s->m = m;
    *out = s;
    return 0;
}

int grammar_state_new(struct grammar_state **out, struct grammar *g, struct grammar_vocab *v,
                      enum grammar_thought thought, struct err *e)
{
    struct grammar_state *s;
    struct gmatch *m;
    *out = NULL;
    int code = gmatch_get(&m, g, v, e);
    code = code ? code : state_make(&s, g, m, e);
    if (code)
        return code;
    pthread_mutex_lock(&m->lock);
    m->spent = 0;
    code = gmatch_start(m, thought, &s->at.config, e);
    gcursor_attach(m, &s->at);
    pthread_mutex_unlock(&m->lock);
    if (code)
        grammar_state_free(s);
    else
        *out = s;
    return code;
}

int grammar_state_copy(struct grammar_state **out, struct grammar_state *from, struct err *e)
{
    struct gmatch *m = from->m;
    int code = state_make(out, from->g, m, e);
    if (code)
        return code;
    pthread_mutex_lock(&m->lock);
    (*out)->at.config = from->at.config;
    (*out)->ended = from->ended;
    gcursor_attach(m, &(*out)->at);
    pthread_mutex_unlock(&m->lock);
    return 0;
}

void grammar_state_free(struct grammar_state *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->m->lock);
    gcursor_detach(&s->at);
    pthread_mutex_unlock(&s->m->lock);
    grammar_unref(s->g);
    free(s->bits);
    free(s);
}
