/*
 * Arenas: memory with one lifetime.
 *
 * What belongs together (everything that a loaded model, a parsed file or a template owns) comes
 * from one arena and goes with it. Blocks grow geometrically; an arena has a maximum, so a hostile
 * file meets an error instead of the machine's limits. Memory is zeroed and aligned to 16 bytes.
 * Not thread-safe: one owner at a time.
 */
#ifndef PONDER_BASE_ARENA_H
#define PONDER_BASE_ARENA_H

#include "base/err.h"

struct arena {
    struct arena_block *head; /* newest first */
    size_t used, max;         /* bytes handed out, and the most there may be */
};

/* Starts empty; `max` is the limit in bytes over the arena's life until reset. */
void arena_init(struct arena *a, size_t max);
void arena_release(struct arena *a); /* frees all; usable again */

/* `n` zeroed bytes (n = 0 gives a valid pointer). NULL with `e` filled when refused. */
void *arena_alloc(struct arena *a, size_t n, struct err *e);

/* count × size bytes, overflow checked. */
void *arena_array(struct arena *a, size_t count, size_t size, struct err *e);

/* A terminated copy of s[0..n). */
char *arena_strndup(struct arena *a, const char *s, size_t n, struct err *e);

#endif
