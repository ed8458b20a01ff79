/*
 * metrics.sqlite: what log.jsonl and timings.jsonl have, as two tables:
 *
 *     runs(run, name, version, started, config)      one row
 *     metrics(run, step, name, value)                one row a number
 *
 * Without SQLite (Meson option sqlite) run_db_open gives NULL, and the other calls do nothing.
 */
#ifndef PONDER_TRAIN_RUN_DB_H
#define PONDER_TRAIN_RUN_DB_H

#include "train/run.h"

struct run_db;

/* The database of the folder; `fresh`: without what is in it. */
int run_db_open(struct run_db **out, const char *dir, bool fresh, const json_t *config,
                struct err *e);
void run_db_free(struct run_db *d); /* NULL is fine */

/* Values of one step, together. */
int run_db_put(struct run_db *d, int64_t step, const struct run_value *v, size_t n, struct err *e);
/* Many calls of run_db_put as one transaction. */
int run_db_begin(struct run_db *d, struct err *e);
int run_db_end(struct run_db *d, struct err *e);

/* Removes the files of the database. */
void run_db_remove(const char *dir);

#endif
