/*
 * The prefix cache: beginnings of prompts that were computed before, found instead of computed.
 *
 * The unit is a full page of the KV cache, 64 tokens. Because the bits of a token depend on the
 * tokens before it alone, a page is known by its own 64 ids, the page before it and a salt; pages
 * so form a tree, whose paths from the root are beginnings (after vLLM's automatic prefix caching).
 * Nothing rests on hashes: ids are compared, so a collision can't show one user's text to another,
 * and requests of different salts never share (nor can they find out, by the time it takes, what
 * others asked).
 *
 * The cache holds pages beside the sessions that use them. Those that only it holds are evicted
 * when pages are needed, the least recently used first, ends of paths before their beginnings. Who
 * computes a page that is there already gives its own back and holds that one.
 *
 * With a folder, pages of prompts are also kept on disk across restarts (engine/prefix_disk.h):
 * they are written behind by a thread of its own, and read back by it when a prompt asks for them.
 * What is on disk is believed only after its tokens, its head and its checksum were compared.
 *
 * Threads: all calls come from the thread that computes.
 */
#ifndef PONDER_ENGINE_PREFIX_H
#define PONDER_ENGINE_PREFIX_H

#include "engine/engine.h"

struct prefix;

struct prefix_opts {
    const char *disk;        /* folder, made when it is missing; NULL: memory only */
    uint64_t disk_bytes;     /* bound on all files in it, of all models; 0 = 10 GB */
    void (*wake)(void *arg); /* prefix_fetched may have become true; from another thread */
    void *wake_arg;
    const struct log *log;
};

/* One of an engine, at most. A folder that cannot be used is an error. `o` may be NULL. */
int prefix_new(struct prefix **out, struct engine *g, const struct prefix_opts *o, struct err *e);
/* Before the engine. Sessions keep what they hold; what is queued for the disk is written. */
void prefix_free(struct prefix *p);

/*
 * Asks the disk for more of the beginning of ids[0..n) than is in memory: up to `pages` pages, for
 * which others may be evicted. Returns a ticket for prefix_fetched, after which prefix_attach finds
 * what could be read; 0 when there is nothing to wait for.
 */
uint64_t prefix_fetch(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n,
                      size_t pages);
bool prefix_fetched(struct prefix *p, uint64_t ticket);

/*
 * Makes the longest beginning of ids[0..n) that is there the timeline of a session without tokens:
 * a multiple of 64 tokens, at most n - 1, for the last one's logits are wanted. Returns how many.
 */
size_t prefix_attach(struct prefix *p, struct session *s, const uint64_t salt[2],
                     const int32_t *ids, size_t n);
/* How many it would be. */
size_t prefix_find(struct prefix *p, const uint64_t salt[2], const int32_t *ids, size_t n);

/*
 * Takes in the full pages that a session got since the last time; its tokens all had this salt. For
 * after every step. (The prediction layer completes a page in the step after.) Those of its first
 * `prompt` tokens go to the disk too; those of answers when a later prompt begins with them.
 */
void prefix_note(struct prefix *p, struct session *s, const uint64_t salt[2], size_t prompt);

/* Evicts until the engine has `pages` unused pages or nothing is left to evict; returns how many
   are unused. */
size_t prefix_evict(struct prefix *p, size_t pages);
/* Pages that are unused or that prefix_evict could make so. */
size_t prefix_room(const struct prefix *p);

struct prefix_stats {
    uint64_t asked, hit;  /* tokens of prefix_attach: of its prompts, found */
    uint64_t disk_hit;    /* of these, read from disk since they were last in memory */
    size_t pages, idle;   /* held by the cache; of these, by nobody else */
    uint64_t disk_bytes;  /* of all files, as last counted */
    uint64_t disk_failed; /* tokens that were asked from the disk and could not be used */
};
void prefix_stats(struct prefix *p, struct prefix_stats *out);

#endif
