/*
 * The order of an epoch: records shuffled, and put into packs.
 *
 * Shuffling sorts by a random number for each place, a function of (seed, stream, place) alone
 * (base/rng.h): no state, the same on every machine.
 *
 * Best fit decreasing (Johnson, "Near-optimal bin packing algorithms", 1973): the longest first,
 * each into the pack with the least room that is left and enough; among equals the one used last.
 * Packs by room left are lists, and a bitmap of two levels finds the next list that is not empty,
 * so a sequence takes a few steps whatever the number of packs. How many packs there are depends on
 * the lengths alone, not on their order.
 */
#ifndef PONDER_TRAIN_PLAN_H
#define PONDER_TRAIN_PLAN_H

#include "train/data.h"

/* Records of one source, and how often each comes in an epoch. */
struct plan_part {
    const uint32_t *record; /* (n) */
    size_t n;
    double weight;
};

/* Tokens [from, from + n) of a record. */
struct plan_piece {
    uint32_t record, from, n;
};

struct plan {
    struct plan_piece *piece; /* in the order of items */
    size_t n_pieces;
    uint32_t *item; /* (n_items + 1) the first piece of each, and the number of pieces */
    size_t n_items;
};

/* How many records of a part an epoch has: weight × n, rounded, but not none of some. */
uint64_t plan_share(const struct plan_part *p);

/*
 * The records of an epoch in their order; the caller frees *list. Of each part the epoch takes
 * places [epoch × share, (epoch + 1) × share) of its records passed through again and again, in a
 * new order each time; then all parts are mixed. `ordered`: nothing is shuffled.
 */
int plan_order(const struct plan_part *part, size_t parts, uint64_t epoch, uint64_t seed,
               bool ordered, uint32_t **list, size_t *n, struct err *e);

/* Puts v[0..n) into a random order. */
int plan_shuffle(uint32_t *v, size_t n, uint64_t seed, uint64_t stream, struct err *e);

/*
 * Items of records in their order; tokens[record] is how long each is. `room`: tokens of a pack.
 * Without packing each record is an item.
 */
int plan_new(struct plan *p, const uint32_t *record, size_t n, const uint32_t *tokens,
             enum data_packing packing, uint32_t room, struct err *e);
/* The same items in a random order. */
int plan_shuffle_items(struct plan *p, uint64_t epoch, uint64_t seed, struct err *e);
void plan_release(struct plan *p);

#endif
