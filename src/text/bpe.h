/*
 * Byte-pair merging: from the bytes of one piece of text to token ids.
 *
 * A merge is a pair of neighbouring tokens that becomes one; its rank is its place in the file. The
 * lowest rank present anywhere in the piece is applied first, of equal ones the leftmost, until no
 * pair is left (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", ACL
 * 2016, on bytes as in GPT-2).
 */
#ifndef PONDER_TEXT_BPE_H
#define PONDER_TEXT_BPE_H

#include "text/tokenizer.h"
#include "text/vocab.h"

struct bpe_merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank; /* BPE_NONE: the slot is empty */
    int32_t result;
};

#define BPE_NONE UINT32_MAX

/* Immutable after loading; the tables lie in the tokenizer's arena. */
struct bpe {
    const struct vocab *vocab;
    struct bpe_merge *slot;  /* open addressing, linear probing */
    size_t mask, room;       /* room: merges that bpe_merge may still add */
    unsigned shift;          /* from 64 bits of hash to a slot */
    uint32_t ranks;          /* ranks are below this */
    int32_t made;            /* what the last merge made */
    struct bpe_queue *queue; /* merges that are not in the table yet */
    int32_t byte_id[256];    /* the token of a single byte, or -1 */
    int32_t unk;             /* stands for bytes without a token; -1: they are dropped */
    bool fuse_unk;           /* neighbouring unknown bytes become one token */
    bool lenient;            /* merges with tokens that do not exist are dropped, not refused */
    bool whole;              /* a piece that is a token is taken before merging ("ignore_merges") */
};

/* The vocabulary must be complete. `merges` bounds the calls of bpe_merge. */
int bpe_init(struct bpe *b, const struct vocab *v, struct arena *a, size_t merges, struct err *e);

/*
 * Adds the merge written left, right (in the byte alphabet) with the next rank. A token that is
 * missing is an error, unless `lenient`. Merges that would form an added token are dropped, because
 * plain text must not become one. Errors may come with a later call; bpe_finish ends the list.
 */
int bpe_merge(struct bpe *b, const char *left, size_t nl, const char *right, size_t nr,
              struct err *e);
int bpe_finish(struct bpe *b, struct err *e);
/* The same for one string "left right". */
int bpe_merge_line(struct bpe *b, const char *s, size_t n, struct err *e);

enum { BPE_KNOWN_BYTES = 24, BPE_KNOWN_IDS = 9 };

/* A piece met before; one cache line. */
struct bpe_known {
    uint64_t key[BPE_KNOWN_BYTES / 8]; /* its bytes, some of them twice */
    uint8_t bytes, ids;                /* bytes = 0: the entry is empty */
    int32_t id[BPE_KNOWN_IDS];
};

/* Memory of merging, kept from piece to piece; one per thread and tokenizer. Zeroed = empty. */
struct bpe_work {
    /* Short pieces met before, each in the one entry that its bytes choose, where the last comer
       stays. */
    struct bpe_known *known;
    void *known_memory;
    /* long pieces */
    struct bpe_sym *sym;
    size_t syms;
    uint32_t *head, *tail; /* per rank: a queue of positions in ascending order */
    struct bpe_node *node;
    size_t nodes, used;
    uint32_t spare;  /* list of free nodes */
    uint32_t *ranks; /* heap of ranks whose queue is not empty */
    size_t nranks, crank;
    uint64_t *odd; /* heap of rank << 32 | position that came out of order */
    size_t nodd, codd;
};

void bpe_work_release(struct bpe_work *w);
/* Gives back what an unusually long piece took. */
void bpe_work_trim(struct bpe_work *w);

/* Appends the ids of the piece s[0..n). */
int bpe_encode(const struct bpe *b, struct bpe_work *w, const char *s, size_t n, struct ids *out,
               struct err *e);

#endif
