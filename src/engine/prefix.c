/*
 * The tree of pages (prefix.h).
 *
 * An entry is a page, so its number is the page's: no allocation, no map between the two. Entries
 * are found by a hash table over (parent, salt, ids) and hang on one list by last use. Whoever uses
 * a page uses all before it, and these are moved to the front after it; so on the list a page
 * stands always behind the page before it, and eviction from the end takes ends of paths first.
 */
#include "engine/prefix.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/engine_private.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct prefix_entry {
    bool used;
    uint32_t parent;       /* NONE: the first page of a timeline */
    uint32_t children;     /* entries whose parent this is */
    uint32_t next;         /* in its slot of the table */
    uint32_t newer, older; /* on the list */
    uint64_t salt[2];
    int32_t ids[KV_PAGE];
};

struct prefix {
    struct engine *g;
    struct prefix_entry *entry; /* (pages of the pool) */
    size_t n_entry;
    uint32_t *slot; /* (n_slot), a power of two */
    size_t n_slot;
    uint64_t seed;
    uint32_t newest, oldest;
    uint32_t *path; /* (pages of a context) */
    struct prefix_stats stats;
};

int prefix_new(struct prefix **out, struct engine *g, struct err *e)
{
    *out = NULL;
    struct prefix *p = calloc(1, sizeof *p);
    if (!p)
        return err_nomem(e, sizeof *p, "the prefix cache");
    p->g = g;
    p->n_entry = kv_pool_pages(g->kv);
    p->n_slot = 16;
    while (p->n_slot < p->n_entry)
        p->n_slot *= 2;
    p->seed = rng_os_seed();
    p->newest = p->oldest = NONE;
    p->entry = calloc(p->n_entry, sizeof *p->entry);
    p->slot = malloc(p->n_slot * sizeof *p->slot);
    p->path = malloc((g->info.ctx / KV_PAGE + 1) * sizeof *p->path);
    if (!p->entry || !p->slot || !p->path) {
        int rc = err_nomem(e, p->n_entry * sizeof *p->entry, "the prefix cache");
        prefix_free(p);
        return rc;
    }
    memset(p->slot, 0xff, p->n_slot * sizeof *p->slot);
    *out = p;
    return 0;
}

void prefix_free(struct prefix *p)
{
    if (!p)
        return;
    for (size_t i = 0; p->entry && i < p->n_entry; i++)
        if (p->entry[i].used)
            kv_page_drop(p->g->kv, (uint32_t)i);
    free(p->entry);
    free(p->slot);
    free(p->path);
    free(p);
}

/* ---- the table ------------------------------------------------------------------------------ */

static uint32_t *prefix_slot(struct prefix *p, uint32_t parent, const uint64_t salt[2],
                             const int32_t *ids)
{
    uint64_t h = hash_u64(p->seed ^ parent) ^ salt[0];
    h = hash_u64(h) ^ salt[1];
    return &p->slot[hash_bytes(ids, KV_PAGE * sizeof *ids, h) & (p->n_slot - 1)];
}

static uint32_t prefix_lookup(struct prefix *p, uint32_t parent, const uint64_t salt[2],
                              const int32_t *ids)
{
    uint32_t i = *prefix_slot(p, parent, salt, ids);
    while (i != NONE) {
        const struct prefix_entry *t = &p->entry[i];
        if (t->parent == parent && !memcmp(t->salt, salt, sizeof t->salt) &&
            !memcmp(t->ids, ids, sizeof t->ids))
            break;
        i = t->next;
    }
    return i;
}

/* ---- the list ------------------------------------------------------------------------------- */

static void prefix_unlink(struct prefix *p, uint32_t i)
{
    const struct prefix_entry *t = &p->entry[i];
    *(t->newer == NONE ? &p->newest : &p->entry[t->newer].older) = t->older;
    *(t->older == NONE ? &p->oldest : &p->entry[t->older].newer) = t->newer;
}

static void prefix_link(struct prefix *p, uint32_t i)
{
    struct prefix_entry *t = &p->entry[i];
    t->newer = NONE;
    t->older = p->newest;
    *(p->newest == NONE ? &p->oldest : &p->entry[p->newest].newer) = i;
    p->newest = i;
}

/* An entry and all before it were used. */
static void prefix_touch(struct prefix *p, uint32_t i)
{
    for (; i != NONE; i = p->entry[i].parent) {
        prefix_unlink(p, i);
        prefix_link(p, i);
    }
}

/* ---- entries -------------------------------------------------------------------------------- */

static void prefix_add(struct prefix *p, uint32_t page, uint32_t parent, const uint64_t salt[2],
                       const int32_t *ids)
{
    struct prefix_entry *t = &p->entry[page];
    uint32_t *slot = prefix_slot(p, parent, salt, ids);
    t->used = true;
    t->parent = parent;
    t->children = 0;
    t->next = *slot;
    memcpy(t->salt, salt, sizeof t->salt);
    memcpy(t->ids, ids, sizeof t->ids);
    *slot = page;
    if (parent != NONE)
        p->entry[parent].children++;
    prefix_link(p, page);
    p->stats.pages++;
    kv_page_hold(p->g->kv, page);
}

static void prefix_remove(struct prefix *p, uint32_t i)
{
    struct prefix_entry *t = &p->entry[i];
    uint32_t *at = prefix_slot(p, t->parent, t->salt, t->ids);
    while (*at != i)
        at = &p->entry[*at].next;
    *at = t->next;
    if (t->parent != NONE)
        p->entry[t->parent].children--;
    prefix_unlink(p, i);
    t->used = false;
    p->stats.pages--;
    kv_page_drop(p->g->kv, i);
}

/* Entries of the beginning of ids, at most n pages, into p->path. */
static size_t prefix_walk(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n)
{
    size_t k = 0;
    uint32_t i = NONE;
    while (k < n && (i = prefix_lookup(p, i, salt, ids + k * KV_PAGE)) != NONE)
        p->path[k++] = i;
    return k;
}

/* Whole pages of a prompt without its last token. */
static size_t prefix_pages(const struct prefix *p, size_t n)
{
    return n ? num_min(n - 1, p->g->info.ctx) / KV_PAGE : 0;
}

/* ---- calls ---------------------------------------------------------------------------------- */

size_t prefix_find(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n)
{
    return prefix_walk(p, salt, ids, prefix_pages(p, n)) * KV_PAGE;
}

size_t prefix_attach(struct prefix *p, struct session *s, const uint64_t salt[2],
                     const int32_t *ids, size_t n)
{
    size_t k = prefix_walk(p, salt, ids, prefix_pages(p, n));
    p->stats.asked += n;
    if (!k || session_adopt(s, p->path, ids, k, NULL))
        return 0;
    prefix_touch(p, p->path[k - 1]);
    p->stats.hit += k * KV_PAGE;
    return k * KV_PAGE;
}

void prefix_note(struct prefix *p, struct session *s, const uint64_t salt[2])
{
    const uint32_t *page = s->seq.page;
    size_t full = session_full_pages(s), k = full;
    /* What it has in the cache is the beginning of what it has. */
    while (k && !p->entry[page[k - 1]].used)
        k--;
    if (k == full || (k && memcmp(p->entry[page[k - 1]].salt, salt, 2 * sizeof *salt)))
        return;
    for (; k < full; k++) {
        uint32_t parent = k ? page[k - 1] : NONE;
        const int32_t *ids = s->ids + k * KV_PAGE;
        uint32_t same = prefix_lookup(p, parent, salt, ids);
        if (same == NONE)
            prefix_add(p, page[k], parent, salt, ids);
        else
            kv_seq_swap(&s->seq, k, same);
    }
    prefix_touch(p, page[full - 1]);
}

static bool prefix_idle(const struct prefix *p, uint32_t i)
{
    return p->entry[i].used && kv_page_holders(p->g->kv, i) == 1;
}

size_t prefix_evict(struct prefix *p, size_t pages)
{
    for (uint32_t i = p->oldest, newer; i != NONE && kv_pool_unused(p->g->kv) < pages; i = newer) {
        newer = p->entry[i].newer;
        if (prefix_idle(p, i) && !p->entry[i].children)
            prefix_remove(p, i);
    }
    return kv_pool_unused(p->g->kv);
}

static size_t prefix_idle_count(const struct prefix *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_entry; i++)
        n += prefix_idle(p, (uint32_t)i);
    return n;
}

size_t prefix_room(const struct prefix *p)
{
    return kv_pool_unused(p->g->kv) + prefix_idle_count(p);
}

void prefix_stats(const struct prefix *p, struct prefix_stats *out)
{
    *out = p->stats;
    out->idle = prefix_idle_count(p);
}
