/*
 * A mapped file of JSON lines with an index of where each begins, so that any line can be had
 * without the others. Blank lines do not count; "\r\n" and a byte order mark are understood. Files
 * of many gigabytes are fine: the pages belong to the system's cache, the index takes 8 bytes a
 * line.
 *
 * Threads: after opening nothing changes.
 */
#ifndef PONDER_TRAIN_JSONL_H
#define PONDER_TRAIN_JSONL_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct jsonl;

enum { JSONL_LINE = 64 << 20 }; /* longest line, in bytes */

int jsonl_open(struct jsonl **out, const char *path, struct err *e);
void jsonl_free(struct jsonl *j); /* NULL is fine */

const char *jsonl_path(const struct jsonl *j);
uint64_t jsonl_count(const struct jsonl *j);

/* Line i without its end. */
const char *jsonl_line(const struct jsonl *j, uint64_t i, size_t *n);

/* Line i as a JSON object, which the caller owns. Errors do not say where: jsonl_at does. */
int jsonl_object(const struct jsonl *j, uint64_t i, json_t **out, struct err *e);

/* The number of line i in the file, from 1, blank lines counted. It reads the file up to there. */
uint64_t jsonl_number(const struct jsonl *j, uint64_t i);

/* Puts "PATH: line N: " before an error's words; returns its code. */
int jsonl_at(const struct jsonl *j, uint64_t i, struct err *e);

#endif
