/*
 * Matching: where a text is in a grammar, for one grammar and one vocabulary; private.
 *
 * A stack is a chain of frames, each the place to return to with what is left of a loop's count.
 * Where a text is, is a set of (node, stack): a configuration. Frames and configurations are
 * interned, so equal ones have equal numbers, and the step from a configuration by a byte is
 * remembered: a DFA that is built as texts need it, as far as it fits. Numbers change when tables
 * are full and what no cursor needs is dropped.
 *
 * All functions here want the matcher's lock to be held.
 */
#ifndef PONDER_TEXT_GRAMMAR_MATCH_H
#define PONDER_TEXT_GRAMMAR_MATCH_H

#include "text/grammar_impl.h"

enum {
    GCONFIG_DEAD = 0, /* the configuration that nothing fits */
    GMASKS = 64,      /* masks kept */
};

enum gconfig_flags {
    GC_ACCEPT = 1,  /* the text may end here */
    GC_CONTROL = 2, /* has CTRL items */
    GC_FREE = 4,    /* has items of free text */
};

struct gitem {
    uint32_t node, frame; /* node 0: the end */
};

struct gframe {
    uint32_t node;     /* CALL or LOOP */
    uint32_t min, max; /* rounds of the loop that are still to come; 0, 0 for CALL */
    uint32_t parent;   /* 0: the bottom */
    uint32_t next;     /* in its hash chain */
    uint32_t depth;
    uint32_t lowest; /* count on this stack that is neither 0 nor GRAMMAR_INF; GRAMMAR_INF: none */
};

struct gconfig {
    uint32_t first, n; /* items, in order */
    uint32_t *row;     /* [256] next by byte, UINT32_MAX: not known; NULL: none is */
    uint32_t next;     /* in its hash chain */
    /* its canonical form, its items of free text, the same without counts; UINT32_MAX: not known */
    uint32_t canon, free, loose;
    uint32_t lowest; /* count of a loop on its stacks; GRAMMAR_INF: there is none */
    uint64_t loops;  /* classes of bytes that lead back to it, once looked at */
    bool looked;
    uint16_t mask; /* slot + 1 */
    uint8_t flags;
};

struct gtables {
    struct gframe *frame;
    struct gconfig *config;
    struct gitem *item;
    uint32_t *frame_head, *config_head; /* hash chains */
    size_t n_frames, cap_frames, n_configs, cap_configs, n_items, cap_items;
};

struct gmask {
    uint32_t *bits;
    uint32_t config;
    uint64_t used;
};

/* One text; linked, so that collecting can renumber it. */
struct gcursor {
    uint32_t config;
    struct gcursor *prev, *next;
};

struct gmatch {
    struct gmatch *next; /* of the grammar */
    struct grammar *g;   /* not counted: it owns this */
    struct grammar_vocab *v;
    pthread_mutex_t lock;
    int32_t *control; /* [texts of g] the token, -1: none */
    struct gtables t;
    struct gcursor live; /* head of a ring */
    struct gmask mask[GMASKS];
    uint64_t clock;
    uint64_t spent; /* work since the lock was taken: the owner of the lock sets it to 0 */
    /* of the closure under way */
    struct gitem *work, *done;
    size_t n_work, cap_work, n_done, cap_done;
    uint64_t *seen; /* node << 32 | frame, open addressing */
    uint32_t *stamp, now;
    size_t n_seen, cap_seen;
    struct gframe *loops; /* loops entered or left in this closure */
    size_t n_loops, cap_loops;
};

/* The grammar's matcher for a vocabulary, made when there is none yet. Takes the grammar's lock. */
int gmatch_get(struct gmatch **out, struct grammar *g, struct grammar_vocab *v, struct err *e);
void gmatch_free(struct gmatch *m); /* with those behind it */

void gcursor_attach(struct gmatch *m, struct gcursor *c);
void gcursor_detach(struct gcursor *c);

/* The configuration at the beginning. */
int gmatch_start(struct gmatch *m, enum grammar_thought thought, uint32_t *out, struct err *e);
/* By one byte; not beyond what the tables hold: see gmatch_full. */
int gmatch_step(struct gmatch *m, uint32_t config, uint8_t byte, uint32_t *out, struct err *e);
/* By control token i of the vocabulary's list. */
int gmatch_control(struct gmatch *m, uint32_t config, size_t i, uint32_t *out, struct err *e);
int gmatch_canon(struct gmatch *m, uint32_t config, uint32_t *out, struct err *e);
/* The classes of bytes all of which lead back here, for texts of fewer than `bytes` + 1 bytes. */
int gmatch_loops(struct gmatch *m, uint32_t config, unsigned bytes, uint64_t *out, struct err *e);

/* Is it time to collect? Then drops all that cursors and root[0..n) do not need, and renumbers. */
bool gmatch_full(const struct gmatch *m);
int gmatch_collect(struct gmatch *m, uint32_t *root, size_t n, struct err *e);

#endif
