/*
 * Whole files of JSON lines into others: mixtures, splits, decontamination. Lines stay as they are,
 * to the byte; output appears under its name only when it is whole.
 */
#ifndef PONDER_TRAIN_DATA_TOOLS_H
#define PONDER_TRAIN_DATA_TOOLS_H

#include "base/arena.h"
#include "train/data.h"

/* "FILE" or "FILE:WEIGHT" (a file that is really called so is taken as it stands). The path is in
   the arena. */
int data_source_parse(struct data_source *out, const char *text, struct arena *a, struct err *e);

/* Weight × lines of each source in a random order (or, `ordered`, one file after the other): what
   an epoch of data_open has with that seed. */
int data_mix(const struct data_source *s, size_t n, uint64_t seed, bool ordered, const char *out,
             uint64_t *lines, struct err *e);

/* Each record to the one or the other file, by data_split_point. */
struct data_split {
    const char *path, *train, *test;
    const char *text; /* the column of texts, or NULL */
    double test_size;
    uint64_t n_train, n_test; /* found */
};
int data_split(struct data_split *s, struct err *e);

/*
 * Leaves out records whose question has `ngram` words in a row that are also in a question of the
 * files `against` (Open-R1 does it so, with 8). A word is what lies between blanks, lower case;
 * each Chinese or Japanese character is one. A question with fewer words counts when it is the
 * same.
 */
struct data_clean {
    const char *path, *out; /* out NULL: only counts */
    const char *const *against;
    size_t n_against, ngram;
    const char *text;
    uint64_t kept, removed; /* found */
    /* Called for each record that goes, with its line in the file; NULL: nobody is told. */
    void (*gone)(void *arg, uint64_t line);
    void *arg;
};
int data_decontaminate(struct data_clean *c, struct err *e);

/* Calls `text` for every text that a model would learn from in the lines of a .jsonl file (prompts,
   completions, messages with their thoughts), or with the whole of any other file. */
int data_texts(const char *path, int (*text)(void *arg, const char *s, size_t n, struct err *e),
               void *arg, struct err *e);

#endif
