/*
 * The tree of pages (prefix.h).
 *
 * An entry is a page, so its number is the page's: no allocation, no map between the two. Entries
 * are found by a hash table over (parent, salt, ids) and hang on one list by last use. Whoever uses
 * a page uses all before it, and these are moved to the front after it; so on the list a page
 * stands always behind the page before it, and eviction from the end takes ends of paths first.
 *
 * The disk's thread reads into pages that nobody else knows, and they become entries when they come
 * back. Entries on their way to the disk stay until they were copied there; when pages run short,
 * what waits for that is forgotten.
 */
#include "engine/prefix.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/engine_private.h"
#include "engine/prefix_disk.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

enum {
    PREFIX_WRITES = 128,      /* pages that wait to be written, at most */
    PREFIX_SPARE = 256 << 20, /* bytes of the disk that stay free */
    PREFIX_AGAIN = 300,       /* seconds after which the disk is told again of a page's use */
};
_Static_assert((int)PREFIX_PAGE == (int)KV_PAGE, "files hold pages");

struct prefix_entry {
    bool used;
    uint32_t parent;       /* NONE: the first page of a timeline */
    uint32_t children;     /* entries whose parent this is */
    uint32_t next;         /* in its slot of the table */
    uint32_t newer, older; /* on the list */
    uint64_t salt[2];
    uint64_t key;     /* prefix_key, with a disk */
    uint32_t writing; /* jobs that read the page: it stays */
    bool from_disk;   /* and not yet attached */
    double told;      /* when the disk was told of its use */
    int32_t ids[KV_PAGE];
};

/* A timeline's tokens, for jobs that need them. */
struct prefix_ids {
    size_t jobs;
    int32_t id[];
};

struct prefix {
    struct engine *g;
    struct prefix_entry *entry; /* (pages of the pool) */
    size_t n_entry;
    uint32_t *slot; /* (n_slot), a power of two */
    size_t n_slot;
    uint64_t seed;
    uint32_t newest, oldest;
    uint32_t *path, *read_path; /* (pages of a context) */
    struct prefix_stats stats;

    struct prefix_disk *disk; /* NULL: none */
    uint64_t id[2];
    size_t page_bytes;
    uint64_t asked, done; /* reads queued and finished so far */
    uint64_t *reading;    /* (n_entry) keys of those between, by number modulo n_entry */
};

static int prefix_open_disk(struct prefix *p, const struct prefix_opts *o, struct err *e)
{
    engine_identity(p->g, p->id);
    p->page_bytes = kv_page_bytes(kv_pool_shape(p->g->kv));
    p->reading = calloc(p->n_entry, sizeof *p->reading);
    if (!p->reading)
        return err_nomem(e, p->n_entry * sizeof *p->reading, "the prefix cache");
    return prefix_disk_open(
        &p->disk,
        &(struct prefix_disk_opts){.dir = o->disk,
                                   .bytes = o->disk_bytes ? o->disk_bytes : 10000000000,
                                   .spare = PREFIX_SPARE,
                                   .id = {p->id[0], p->id[1]},
                                   .page_bytes = p->page_bytes,
                                   .max_ids = p->g->info.ctx,
                                   .reads = p->n_entry,
                                   .writes = PREFIX_WRITES,
                                   .wake = o->wake,
                                   .wake_arg = o->wake_arg,
                                   .log = o->log},
        e);
}

int prefix_new(struct prefix **out, struct engine *g, const struct prefix_opts *o, struct err *e)
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
    p->read_path = malloc((g->info.ctx / KV_PAGE + 1) * sizeof *p->path);
    if (!p->entry || !p->slot || !p->path || !p->read_path) {
        int rc = err_nomem(e, p->n_entry * sizeof *p->entry, "the prefix cache");
        prefix_free(p);
        return rc;
    }
    memset(p->slot, 0xff, p->n_slot * sizeof *p->slot);
    int rc = o && o->disk ? prefix_open_disk(p, o, e) : 0;
    if (rc)
        prefix_free(p);
    else
        *out = p;
    return rc;
}

static void prefix_poll(struct prefix *p);

void prefix_free(struct prefix *p)
{
    if (!p)
        return;
    if (p->disk) {
        prefix_disk_stop(p->disk);
        prefix_poll(p);
        prefix_disk_free(p->disk);
    }
    for (size_t i = 0; p->entry && i < p->n_entry; i++)
        if (p->entry[i].used)
            kv_page_forget(p->g->kv, (uint32_t)i);
    free(p->entry);
    free(p->slot);
    free(p->path);
    free(p->read_path);
    free(p->reading);
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

/* ---- the disk ------------------------------------------------------------------------------- */

static uint64_t prefix_parent_key(const struct prefix *p, uint32_t parent, const uint64_t salt[2])
{
    return parent == NONE ? prefix_root(p->id, salt) : p->entry[parent].key;
}

static struct prefix_ids *prefix_ids_new(const int32_t *ids, size_t n)
{
    struct prefix_ids *x = malloc(sizeof *x + n * sizeof *ids);
    if (x) {
        x->jobs = 0;
        memcpy(x->id, ids, n * sizeof *ids);
    }
    return x;
}

/* After the last job was given out or has come back. */
static void prefix_ids_done(struct prefix_ids *x)
{
    if (x && !x->jobs)
        free(x);
}

static struct prefix_job prefix_job_of(const struct prefix *p, struct prefix_ids *x, size_t n,
                                       const uint64_t salt[2], uint64_t key, uint64_t parent,
                                       uint32_t page)
{
    return (struct prefix_job){.page = {.id = {p->id[0], p->id[1]},
                                        .salt = {salt[0], salt[1]},
                                        .key = key,
                                        .parent = parent,
                                        .ids = x->id,
                                        .n = n,
                                        .data = kv_page_data(p->g->kv, page),
                                        .bytes = p->page_bytes},
                               .arg = x,
                               .number = page};
}

/*
 * Has the pages of a path written that the disk does not have: those in the first `k`. A page goes
 * there only after the one before it, without which nobody would find it. Memory or a place in the
 * queue may be lacking: then the rest is not written this time.
 */
static void prefix_store(struct prefix *p, const uint32_t *path, size_t k, const int32_t *ids)
{
    struct prefix_ids *x = NULL;
    bool room = p->disk;
    for (size_t i = 0; i < k && room; i++) {
        struct prefix_entry *t = &p->entry[path[i]];
        if (prefix_disk_has(p->disk, t->key, true))
            continue;
        if (!x && !(x = prefix_ids_new(ids, k * KV_PAGE)))
            break;
        struct prefix_job j = prefix_job_of(p, x, (i + 1) * KV_PAGE, t->salt, t->key,
                                            prefix_parent_key(p, t->parent, t->salt), path[i]);
        j.write = true;
        room = prefix_disk_push(p->disk, &j);
        if (!room)
            break;
        x->jobs++;
        t->writing++;
    }
    prefix_ids_done(x);
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
    t->from_disk = false;
    t->writing = 0;
    t->told = clock_seconds();
    if (p->disk)
        t->key = prefix_key(prefix_parent_key(p, parent, salt), ids);
    memcpy(t->salt, salt, sizeof t->salt);
    memcpy(t->ids, ids, sizeof t->ids);
    *slot = page;
    if (parent != NONE)
        p->entry[parent].children++;
    prefix_link(p, page);
    p->stats.pages++;
    kv_page_keep(p->g->kv, page);
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
    kv_page_forget(p->g->kv, i);
}

/* Entries of the beginning of ids, at most n pages, into a path. */
static size_t prefix_walk(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n,
                          uint32_t *path)
{
    size_t k = 0;
    uint32_t i = NONE;
    while (k < n && (i = prefix_lookup(p, i, salt, ids + k * KV_PAGE)) != NONE)
        path[k++] = i;
    return k;
}

/* Whole pages of a prompt without its last token. */
static size_t prefix_pages(const struct prefix *p, size_t n)
{
    return n ? num_min(n - 1, p->g->info.ctx) / KV_PAGE : 0;
}

/* ---- calls ---------------------------------------------------------------------------------- */

/* A page that was read becomes an entry, unless the one before it is gone or somebody computed the
   same meanwhile. */
static void prefix_take_in(struct prefix *p, const struct prefix_job *j)
{
    size_t k = j->page.n / KV_PAGE;
    p->done++;
    if (!j->ok)
        p->stats.disk_failed += KV_PAGE;
    else if (prefix_walk(p, j->page.salt, j->page.ids, k, p->read_path) == k - 1) {
        prefix_add(p, j->number, k > 1 ? p->read_path[k - 2] : NONE, j->page.salt,
                   j->page.ids + (k - 1) * KV_PAGE);
        p->entry[j->number].from_disk = true;
        prefix_touch(p, j->number);
    }
    kv_page_drop(p->g->kv, j->number);
}

/* What the disk's thread has done. */
static void prefix_poll(struct prefix *p)
{
    for (struct prefix_job j; p->disk && prefix_disk_next(p->disk, &j);) {
        struct prefix_ids *x = j.arg;
        if (j.write)
            p->entry[j.number].writing--;
        else
            prefix_take_in(p, &j);
        x->jobs--;
        prefix_ids_done(x);
    }
}

size_t prefix_find(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n)
{
    return prefix_walk(p, salt, ids, prefix_pages(p, n), p->path) * KV_PAGE;
}

size_t prefix_attach(struct prefix *p, struct session *s, const uint64_t salt[2],
                     const int32_t *ids, size_t n)
{
    prefix_poll(p);
    size_t k = prefix_walk(p, salt, ids, prefix_pages(p, n), p->path);
    p->stats.asked += n;
    if (!k || session_adopt(s, p->path, ids, k, NULL))
        return 0;
    struct prefix_entry *end = &p->entry[p->path[k - 1]];
    prefix_touch(p, p->path[k - 1]);
    p->stats.hit += k * KV_PAGE;
    for (size_t i = 0; i < k; i++) {
        p->stats.disk_hit += p->entry[p->path[i]].from_disk ? KV_PAGE : 0;
        p->entry[p->path[i]].from_disk = false;
    }
    prefix_store(p, p->path, k, ids);
    if (p->disk && clock_seconds() - end->told > PREFIX_AGAIN) {
        end->told = clock_seconds();
        prefix_disk_touch(p->disk, end->key, prefix_parent_key(p, end->parent, salt));
    }
    return k * KV_PAGE;
}

/* The number of the read that brings the page with this key, or 0. */
static uint64_t prefix_reading(const struct prefix *p, uint64_t key)
{
    for (uint64_t i = p->done; i < p->asked; i++)
        if (p->reading[i % p->n_entry] == key)
            return i + 1;
    return 0;
}

/* Makes up to n pages unused without evicting the first k of p->path. */
static size_t prefix_make_room(struct prefix *p, size_t k, size_t n)
{
    for (size_t i = 0; i < k; i++)
        kv_page_hold(p->g->kv, p->path[i]);
    size_t unused = prefix_evict(p, n);
    for (size_t i = 0; i < k; i++)
        kv_page_drop(p->g->kv, p->path[i]);
    return num_min(unused, n);
}

uint64_t prefix_fetch(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n,
                      size_t pages)
{
    uint64_t ticket = 0, number;
    size_t end = prefix_pages(p, n);
    if (!p->disk)
        return 0;
    prefix_poll(p);
    size_t k = prefix_walk(p, salt, ids, end, p->path), more = 0;
    uint64_t parent = prefix_parent_key(p, k ? p->path[k - 1] : NONE, salt);
    size_t first = k;
    /* Another's reads of the same beginning. */
    for (uint64_t key; first < end; first++, parent = key, ticket = number) {
        key = prefix_key(parent, ids + first * KV_PAGE);
        if (!(number = prefix_reading(p, key)))
            break;
    }
    uint64_t key = parent;
    while (first + more < end && more < pages &&
           prefix_disk_has(p->disk, key = prefix_key(key, ids + (first + more) * KV_PAGE), false))
        more++;
    more = more ? prefix_make_room(p, k, more) : 0;
    struct prefix_ids *x = more ? prefix_ids_new(ids, (first + more) * KV_PAGE) : NULL;
    uint64_t chain = p->asked + 1;
    for (size_t i = first; x && i < first + more; i++, parent = key) {
        uint32_t page;
        key = prefix_key(parent, ids + i * KV_PAGE);
        if (!kv_page_take(p->g->kv, &page))
            break;
        struct prefix_job j = prefix_job_of(p, x, (i + 1) * KV_PAGE, salt, key, parent, page);
        j.chain = chain;
        j.last = i + 1 == first + more;
        if (!prefix_disk_push(p->disk, &j)) {
            kv_page_drop(p->g->kv, page);
            break;
        }
        x->jobs++;
        p->reading[p->asked++ % p->n_entry] = key;
        ticket = p->asked;
    }
    prefix_ids_done(x);
    return ticket;
}

bool prefix_fetched(struct prefix *p, uint64_t ticket)
{
    prefix_poll(p);
    return p->done >= ticket;
}

void prefix_note(struct prefix *p, struct session *s, const uint64_t salt[2], size_t prompt)
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
    prefix_store(p, page, num_min(full, prompt / KV_PAGE), s->ids);
}

/* Evicts pages that nobody else holds. */
static void prefix_evict_oldest(struct prefix *p, size_t pages)
{
    for (uint32_t i = p->oldest, newer; i != NONE && kv_pool_unused(p->g->kv) < pages; i = newer) {
        const struct prefix_entry *t = &p->entry[i];
        newer = t->newer;
        if (kv_page_holders(p->g->kv, i) == 1 && !t->writing && !t->children)
            prefix_remove(p, i);
    }
}

size_t prefix_evict(struct prefix *p, size_t pages)
{
    prefix_poll(p);
    prefix_evict_oldest(p, pages);
    if (p->disk && kv_pool_unused(p->g->kv) < pages) {
        prefix_disk_cancel(p->disk);
        prefix_poll(p);
        prefix_evict_oldest(p, pages);
    }
    return kv_pool_unused(p->g->kv);
}

size_t prefix_room(const struct prefix *p)
{
    return kv_pool_unused(p->g->kv) + kv_pool_idle(p->g->kv);
}

void prefix_stats(struct prefix *p, struct prefix_stats *out)
{
    prefix_poll(p);
    *out = p->stats;
    out->idle = kv_pool_idle(p->g->kv);
    out->disk_bytes = p->disk ? prefix_disk_bytes(p->disk) : 0;
}
