/*
 * Sequences that go through a model together: a pass of at most so many tokens, each sequence from
 * position 0, with its KV pages and the arrays that a batch points to. Whether gradients follow is
 * the caller's business.
 *
 * Threads: one caller.
 */
#ifndef PONDER_TRAIN_PASS_H
#define PONDER_TRAIN_PASS_H

#include "model/model.h"
#include "train/data.h"

struct pass {
    struct kv_pool *kv;
    struct kv_seq *seq;     /* (most) */
    struct batch_run *runs; /* (most) */
    size_t *row;            /* (most + 1) first row of each sequence */
    int32_t *ids, *next;    /* (room) tokens, and those after them */
    uint32_t *pos, *want;   /* (room); want: every row */
    size_t most, room, pages;
    size_t tokens, longest; /* as given */
};

/* `tokens` of a pass, at most, where sequences are not longer: those have at most `longest`. */
int pass_init(struct pass *p, const struct model *m, size_t tokens, size_t longest, struct err *e);
void pass_release(struct pass *p);
/* Of the KV cache, what `tokens` of sequences of `longest` tokens take. */
uint64_t pass_cache_bytes(const struct pass *p, size_t tokens, size_t longest);
/* Whether so many bytes more can be had for a pass over so many tokens; ERR_NOMEM, in words: it is
   said before the system ends the process. */
int pass_fits(uint64_t bytes, size_t tokens, struct err *e);

/* How many sequences from `first` on go into the next pass, `unit` at a time. ERR_LIMIT: one is too
   long. */
int pass_cut(const struct pass *p, const struct data_batch *b, size_t first, size_t end,
             size_t unit, size_t *n, struct err *e);
/* n sequences as a batch; p->row says where they are. */
int pass_gather(struct pass *p, const struct data_seq *seq, size_t n, struct batch *b,
                struct err *e);
/* Their pages are free again. */
void pass_done(struct pass *p, size_t n);

#endif
