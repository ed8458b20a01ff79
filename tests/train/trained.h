/*
 * Models of tests/golden/train in a trainer: batches from the references' arrays, gradients and
 * values compared tensor by tensor. Another folder of the same form: trained_folder, from an
 * argument or PONDER_TRAIN_GOLDEN.
 */
#ifndef PONDER_TESTS_TRAINED_H
#define PONDER_TESTS_TRAINED_H

#include "support/golden.h"
#include "train/score.h"
#include "train/trainer.h"

#include <jansson.h>

/* "train" (in tests/golden) unless the command line or the environment names another. */
void trained_folder(int argc, char **argv);
char *trained_path(char path[600], const char *model, const char *file); /* file NULL: the folder */

struct trained_how {
    int threads;
    size_t pass_tokens;
    bool recompute, score; /* score: with a scalar head */
    double max_grad_norm, weight_decay, beta2;
};

struct trained {
    struct comm *comm;
    struct engine *engine;
    struct trainer *t;
    struct score *score;
};

void trained_open(struct trained *x, const char *path, const struct trained_how *how);
void trained_close(struct trained *x);

/* A batch whose memory lies in here. */
enum { TRAINED_SEQS = 8, TRAINED_TOKENS = 64 };
struct trained_batch {
    struct data_batch b;
    struct data_seq seq[TRAINED_SEQS];
    int32_t ids[TRAINED_SEQS][TRAINED_TOKENS];
    uint8_t target[TRAINED_SEQS][TRAINED_TOKENS];
};

/* The rows of a reference, in an order of their own: `ids` and `mask` (n, t); row i of the batch is
   row order[i]. With `completion` (n, t) its first 1 is where the prompt ends. The shards hold
   `unit` sequences or multiples. */
void trained_rows(struct trained_batch *b, const struct golden_tensor *ids,
                  const struct golden_tensor *mask, const struct golden_tensor *completion,
                  const size_t *order, size_t n, size_t unit);
/* Sequences of any tokens: half of each is its completion. */
void trained_made(struct trained_batch *b, const size_t *len, size_t n, size_t unit, size_t vocab);

/* train.json's object under a path of keys, "/"-separated; the caller frees *root. */
json_t *trained_json(json_t **root, const char *model, const char *path);
double trained_number(const json_t *o, const char *key);

/* Each gradient that g has under `prefix` + the tensor's name: |d| ≤ 1e-5 + 1e-3 |g|. Returns how
   many there were. */
size_t trained_check_gradients(struct trained *x, const struct golden *g, const char *prefix);
/* The same of values: all within `most`, and 99.9% of them within 2e-6. */
size_t trained_check_values(struct trained *x, const struct golden *g, double most);

/* A number of all bits of all values. */
uint64_t trained_hash(struct trained *x);

void trained_die(int rc, const struct err *e);

#endif
