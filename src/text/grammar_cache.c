/* See grammar_cache.h. A list in the order of use: dozens of entries, each of which has cost more
   to compile than all lists that will be walked for it. */
#include "text/grammar_cache.h"

#include "text/grammar_match.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    struct grammar_key key;
    struct grammar *g; /* a reference */
    size_t bytes;      /* at its last use: matchers grow */
};

struct grammar_cache {
    pthread_mutex_t lock;
    struct entry *entry; /* (most) the last used first */
    size_t n, most, bytes, bytes_most;
    uint64_t hits, misses;
};

int grammar_cache_new(struct grammar_cache **out, size_t grammars, size_t bytes, struct err *e)
{
    struct grammar_cache *c = calloc(1, sizeof *c);
    *out = NULL;
    if (c)
        c->entry = calloc(grammars + 1, sizeof *c->entry);
    if (!c || !c->entry || pthread_mutex_init(&c->lock, NULL)) {
        if (c)
            free(c->entry);
        free(c);
        return err_nomem(e, grammars * sizeof(struct entry), "the cache of grammars");
    }
    c->most = grammars;
    c->bytes_most = bytes;
    *out = c;
    return 0;
}

void grammar_cache_free(struct grammar_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++)
        grammar_unref(c->entry[i].g);
    pthread_mutex_destroy(&c->lock);
    free(c->entry);
    free(c);
}

static size_t matcher_bytes(struct gmatch *m)
{
    pthread_mutex_lock(&m->lock);
    const struct gtables *t = &m->t;
    size_t n = sizeof *m + t->cap_frames * sizeof *t->frame + t->cap_configs * sizeof *t->config +
               t->cap_items * sizeof *t->item + m->cap_work * sizeof *m->work +
               m->cap_done * sizeof *m->done + m->cap_seen * (sizeof *m->seen + sizeof *m->stamp) +
               m->cap_loops * sizeof *m->loops;
    for (size_t i = 0; i < t->n_configs; i++)
        n += t->config[i].row ? 256 * sizeof *t->config[i].row : 0;
    for (size_t i = 0; i < GMASKS; i++)
        n += m->mask[i].bits ? m->v->words * sizeof *m->mask[i].bits : 0;
    pthread_mutex_unlock(&m->lock);
    return n;
}

static size_t grammar_bytes(struct grammar *g)
{
    size_t n = sizeof *g + g->n_nodes * (sizeof *g->node + sizeof *g->need) +
               g->n_edges * sizeof *g->edge + g->n_targets * sizeof *g->target +
               g->n_loops * sizeof *g->loop;
    for (size_t i = 0; i < g->n_texts; i++)
        n += sizeof *g->text + g->text[i].n;
    pthread_mutex_lock(&g->lock);
    for (struct gmatch *m = g->match; m; m = m->next)
        n += matcher_bytes(m);
    pthread_mutex_unlock(&g->lock);
    return n;
}

/* The entry of this key becomes the first, measured anew; NULL: there is none. */
static struct entry *touch(struct grammar_cache *c, const struct grammar_key *key)
{
    size_t i = 0;
    while (i < c->n && memcmp(&c->entry[i].key, key, sizeof *key) != 0)
        i++;
    if (i == c->n)
        return NULL;
    struct entry found = c->entry[i];
    c->bytes -= found.bytes;
    found.bytes = grammar_bytes(found.g);
    c->bytes += found.bytes;
    memmove(c->entry + 1, c->entry, i * sizeof *c->entry);
    c->entry[0] = found;
    return &c->entry[0];
}

static void evict(struct grammar_cache *c)
{
    while (c->n && (c->n > c->most || c->bytes > c->bytes_most)) {
        struct entry *last = &c->entry[--c->n];
        c->bytes -= last->bytes;
        grammar_unref(last->g);
    }
}

struct grammar *grammar_cache_find(struct grammar_cache *c, const struct grammar_key *key)
{
    struct grammar *g = NULL;
    pthread_mutex_lock(&c->lock);
    struct entry *found = touch(c, key);
    if (found)
        g = grammar_ref(found->g);
    c->hits += found != NULL;
    c->misses += !found;
    evict(c);
    pthread_mutex_unlock(&c->lock);
    return g;
}

struct grammar *grammar_cache_add(struct grammar_cache *c, const struct grammar_key *key,
                                  struct grammar *g)
{
    pthread_mutex_lock(&c->lock);
    struct entry *found = touch(c, key);
    if (found) {
        struct grammar *mine = g;
        g = grammar_ref(found->g);
        grammar_unref(mine);
    } else {
        memmove(c->entry + 1, c->entry, c->n * sizeof *c->entry); /* there is room for one more */
        c->entry[0] = (struct entry){*key, grammar_ref(g), grammar_bytes(g)};
        c->bytes += c->entry[0].bytes;
        c->n++;
    }
    evict(c);
    pthread_mutex_unlock(&c->lock);
    return g;
}

struct grammar_cache_stats grammar_cache_stats(struct grammar_cache *c)
{
    pthread_mutex_lock(&c->lock);
    struct grammar_cache_stats s = {c->n, c->bytes, c->hits, c->misses};
    pthread_mutex_unlock(&c->lock);
    return s;
}
