/*
 * Added tokens: strings that become one token as a whole, before any pre-tokenizing (control
 * tokens, chat markers). Found leftmost first, of those the longest.
 */
#ifndef PONDER_TEXT_ADDED_H
#define PONDER_TEXT_ADDED_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum added_flags {
    ADDED_LSTRIP = 1, /* swallows white space in front */
    ADDED_RSTRIP = 2, /* and behind */
    ADDED_WORD = 4,   /* not inside a word */
};

struct added_edge {
    uint64_t key; /* node << 8 | byte, plus 1; 0: the slot is empty */
    uint32_t node;
};

struct added_leaf {
    int32_t id; /* -1: no token ends here */
    uint32_t flags;
};

/* A trie over bytes: nodes are numbers, edges lie in one hash table. Zeroed = empty. */
struct added {
    struct added_edge *edge;
    size_t mask, nodes, room;
    struct added_leaf *leaf;
    bool begins[256]; /* some token begins with this byte */
};

enum { ADDED_LENGTH = 1024 }; /* bytes that one added token may have */

/* Room for tokens of `bytes` bytes in all. */
int added_init(struct added *a, struct arena *arena, size_t bytes, struct err *e);
/* The first one wins when two have the same content. */
int added_put(struct added *a, const char *s, size_t n, int32_t id, unsigned flags, struct err *e);

/* The token that is exactly s[0..n), or -1. */
int32_t added_exact(const struct added *a, const char *s, size_t n);

struct added_match {
    size_t from, to; /* with the white space that it swallows */
    int32_t id;
};

/*
 * Goes through s[0..n): *at is where to search, *done where the text before is dealt with; both
 * begin at 0 and are moved behind what is found. False when no further token is in the text.
 * `trust`: only bytes with a mark may form tokens; NULL: all may.
 */
bool added_next(const struct added *a, const char *s, size_t n, const uint8_t *trust, size_t *at,
                size_t *done, struct added_match *m);

#endif
