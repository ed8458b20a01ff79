/*
 * What is in the folder of the prefix cache: its folders, the keys of its pages, and their bound.
 * Private to engine/; threads are prefix_disk.c's affair.
 */
#ifndef PONDER_ENGINE_PREFIX_SCAN_H
#define PONDER_ENGINE_PREFIX_SCAN_H

#include "engine/prefix_file.h"

/* A set of keys (none of them 0), each of a page that is there or soon will be. */
struct prefix_keys {
    uint64_t *key; /* (cap), a power of two; 0: free */
    bool *stored;
    size_t cap, n;
    uint64_t seed;
};

enum { PREFIX_KEYS = 1 << 20 }; /* keys of a set, at most */

void prefix_keys_release(struct prefix_keys *k);
bool prefix_keys_has(const struct prefix_keys *k, uint64_t key, bool soon);
/* Sets `stored` if the key is there already. False: no room. */
bool prefix_keys_add(struct prefix_keys *k, uint64_t key, bool stored);
void prefix_keys_remove(struct prefix_keys *k, uint64_t key);

/* Opens the folder, made with those above it where it is missing. Returns a descriptor or -1:
   ERR_IO, ERR_USAGE when others may write to it. */
int prefix_scan_root(const char *dir, struct err *e);
/* The same for the folder of a model in it. */
int prefix_scan_folder(int root, const uint64_t id[2], struct err *e);

/* Adds the keys of a model's folder. */
int prefix_scan_keys(int dir, struct prefix_keys *k, struct err *e);

/* Sets the modification time of a page's file, if there is one. */
void prefix_scan_touch(int dir, uint64_t key, uint64_t parent);

struct prefix_scan_key {
    uint64_t key;
    bool gone; /* removed by this scan */
};

struct prefix_scan {
    int root;
    uint64_t id[2];              /* whose keys are told */
    uint64_t bound;              /* bytes */
    uint64_t bytes;              /* out: of all models' pages that are left */
    struct prefix_scan_key *key; /* out: for free() */
    size_t n_key;
};

/*
 * Counts the pages of all models; if they are more than the bound, removes the longest unused ones
 * until nine tenths of it are left. Names that are not ours stay, except what writers left behind
 * ten minutes ago or before.
 */
int prefix_scan(struct prefix_scan *s, struct err *e);

#endif
