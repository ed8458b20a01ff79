/*
 * Training data: JSON lines in, batches of token sequences out.
 *
 * A *record* is a line of a file, in one of the forms that TRL knows:
 *     {"text": "…"}
 *     {"messages": [{"role": …, "content": …}, …]}       or "conversations": [{"from", "value"}, …]
 *     {"prompt": …, "completion": …}                     texts, or lists of messages
 *     {"prompt": …, "chosen": …, "rejected": …}          the same; without "prompt" what both share
 *     {"prompt": …}                                      and columns for whoever grades the answer
 * "problem" or "question" is a prompt of one user message, "solution" or "answer" its completion.
 * Texts are taken as they stand, with control tokens in them; messages go through the chat
 * template, where only "<think>" and "</think>" of an assistant become tokens. A thought stays in
 * what is learned (in "reasoning_content" or in tags), and is opened once where the template opens
 * it too. Prompt and completion are tokenized each on its own, as in generation.
 *
 * An *item* is what a batch has `batch` of: a sequence; a pair of them (chosen, rejected); or, with
 * packing, a pack: sequences of together at most max_length tokens. Sequences of a pack have
 * nothing to do with each other: each begins at position 0 (an engine's batch is a list of runs
 * anyway).
 *
 * Order. An epoch has weight × records of each source, to the record: the source's records are
 * passed through in a new order again and again, and an epoch takes up where the one before it
 * ended. Everything is a pure function of (seed, step), by counter-based random numbers: whoever
 * resumes needs the number of the step alone. A step's items are cut into DATA_SHARDS fixed shards,
 * which ranks and threads share out between them; that can change no sum.
 *
 * Memory: the file is mapped; 16 bytes a record and 24 an item of an epoch, and the tokens where
 * they all fit `keep` bytes; else records are tokenized when they are needed.
 *
 * Threads: opening and batches use the team; one caller at a time.
 */
#ifndef PONDER_TRAIN_DATA_H
#define PONDER_TRAIN_DATA_H

#include "base/team.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct data;

enum { DATA_SHARDS = 8 };

enum data_use {
    DATA_LEARN,  /* text, messages, prompt and completion: to be predicted */
    DATA_PAIRS,  /* chosen and rejected: two sequences an item */
    DATA_PROMPTS /* prompts to answer; other columns stay with the record */
};

enum data_packing {
    DATA_UNPACKED,
    DATA_BFD,       /* best fit decreasing; what is longer than a pack is truncated */
    DATA_BFD_SPLIT, /* what is longer goes on in other packs */
    DATA_WRAPPED    /* one after the other, cut where a pack is full */
};

enum data_overflow {
    DATA_TRUNCATE, /* the end of what is longer than max_length is cut off (prompts: dropped) */
    DATA_DROP      /* it is left out */
};

struct data_source {
    const char *path;
    double weight; /* how often its records come in an epoch: 1 once, 0.25 a quarter of them */
};

struct data_options {
    const struct data_source *sources;
    size_t n_sources;
    const struct tokenizer *tokenizer; /* this, the chat, text and system outlive the data */
    const struct chat *chat;           /* NULL: only texts can be read */
    enum data_use use;
    enum data_packing packing;
    enum data_overflow overflow;
    size_t max_length;   /* tokens of a sequence and of a pack; 0: no bound (and no packing) */
    size_t batch;        /* items a step */
    uint64_t seed;       /* of the order */
    bool ordered;        /* no shuffling: as in the files, one after the other */
    bool whole;          /* prompts are learned as well (TRL: completion_only_loss = False) */
    bool assistant_only; /* of "messages" only what the assistant says */
    const char *text;    /* the column of texts; NULL: "text" */
    const char *system;  /* a system message before conversations that have none, or NULL */
    double test_size; /* share of records that are for tests, by hash of what is asked; 0: none */
    bool test;        /* those, instead of all others */
    size_t keep;      /* bytes of tokens to keep in memory; 0: 1 GiB */
};

/* Called between pieces of work; false stops it (ERR_CANCELLED). */
typedef bool data_progress(void *arg, uint64_t done, uint64_t total);

/*
 * Reads, checks and counts all records. ERR_FORMAT names file, line and column of the first record
 * that is wrong, and how many are. ERR_USAGE: nothing is left to train on.
 */
int data_open(struct data **out, const struct data_options *o, struct team *team,
              data_progress *progress, void *arg, struct err *e);
void data_free(struct data *d); /* NULL is fine */

/* ---- batches ----------------------------------------------------------------------------------
 */

enum data_role { DATA_WHOLE, DATA_CHOSEN, DATA_REJECTED, DATA_PROMPT };

struct data_seq {
    const int32_t *ids;    /* (n), n ≥ 1 */
    const uint8_t *target; /* (n) 1: to be predicted from what is before it; target[0] = 0 */
    size_t n;
    size_t prompt;   /* tokens before the completion; 0: there is no prompt */
    float weight;    /* of its loss: the record's "weight", 1 without */
    uint64_t record; /* for data_record */
    enum data_role role;
    int label;     /* the record's "label": 1 wanted, 0 unwanted, -1 there is none */
    float margin;  /* the record's "margin": by how much the chosen one is better; 0 without */
    bool thinking; /* of a prompt: it ends in an open thought */
};

struct data_batch {
    struct data_seq *seq; /* in the order of items; a pair is chosen, rejected */
    size_t n, tokens, targets;
    size_t
        shard[DATA_SHARDS + 1]; /* shard s: seq[shard[s]] to seq[shard[s + 1] - 1]; may be empty */
    size_t items;
    uint64_t epoch;  /* that the step belongs to, from 0 */
    double progress; /* epochs done after this step */
    /* private */
    struct data_batch_mem *mem;
};

void data_batch_init(struct data_batch *b);
void data_batch_release(struct data_batch *b);

/* The batch of a step, counted from 0 for ever; the last of an epoch may be smaller. Memory of `b`
   is used again. */
int data_batch(struct data *d, uint64_t step, struct data_batch *b, struct err *e);

/* Steps of `epochs` epochs. */
int data_steps(struct data *d, uint64_t epochs, uint64_t *steps, struct err *e);

/* ---- records ----------------------------------------------------------------------------------
 */

uint64_t
data_records(const struct data *d); /* records have numbers below this, some of which are free */
/* The line as JSON, with all its columns; the caller owns *out. */
int data_record(const struct data *d, uint64_t record, json_t **out, struct err *e);
/* "gym.jsonl: line 17". Returns out. */
char *data_where(const struct data *d, uint64_t record, char *out, size_t cap);

/* ---- what is in it ----------------------------------------------------------------------------
 */

enum { DATA_BUCKETS = 24 };

struct data_stats {
    uint64_t records;   /* lines of the files, of this side of the split */
    uint64_t used;      /* of them; of the others: */
    uint64_t too_long;  /* dropped, longer than max_length */
    uint64_t empty;     /* dropped, nothing in them to learn */
    uint64_t truncated; /* used, but not all of them */
    uint64_t cut;       /* tokens that truncation took away */
    uint64_t turns; /* of assistants that are no targets, since the template changes them later */
    uint64_t sequences, tokens, targets; /* that are used, each record once */
    uint64_t epoch_records;              /* of an epoch, by the weights */
    size_t longest, mean;                /* tokens of a sequence, before truncation */
    uint64_t longest_record;
    uint64_t bucket[DATA_BUCKETS]; /* sequences before truncation of [2^i, 2^(i+1)) tokens */
};

void data_stats(const struct data *d, struct data_stats *s);

/* ---- which side of the split ------------------------------------------------------------------
 */

/*
 * A number in [0, 1) of what a record asks: its prompt (or first user message, or text), lower case
 * and with single blanks. So the same question is on the same side whatever file it is in and
 * whatever the answer. Records with a number below test_size are for tests. `text`: the column of
 * texts; NULL: "text".
 */
double data_split_point(const json_t *record, const char *text);

#endif
