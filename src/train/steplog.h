/*
 * Files of JSON objects, one a line, that belong to steps: {"step":12,…}. Written line by line,
 * each with one call, so that what a killed process leaves is whole lines and perhaps one piece;
 * read line by line with a bound.
 */
#ifndef PONDER_TRAIN_STEPLOG_H
#define PONDER_TRAIN_STEPLOG_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STEPLOG_LINE_MAX = 64 << 20 };

/* A file that is appended to. */
struct steplog {
    int fd; /* -1: closed */
    char *path;
    uint64_t size; /* of whole lines */
};

int steplog_open(struct steplog *j, const char *path, struct err *e);
void steplog_close(struct steplog *j);

/* Appends a line (without its newline). What cannot be written to its end is taken back. */
int steplog_append(struct steplog *j, struct buf *line, struct err *e);
int steplog_sync(struct steplog *j, struct err *e);

/* Keeps the lines up to the last one whose step is at most `step`; see run_rewind. */
int steplog_rewind(struct steplog *j, int64_t step, size_t *dropped, struct err *e);

/* Reading: the lines that are whole. */
struct steplog_in {
    int fd;
    struct buf text; /* bytes that were read; those before `at` are used */
    size_t at;
    uint64_t offset; /* in the file, of the next line */
    bool end;
};

/* *missing, if not NULL, becomes true instead of an error when there is no such file. */
int steplog_in_open(struct steplog_in *r, const char *path, bool *missing, struct err *e);
void steplog_in_close(struct steplog_in *r);
/*
 * The next whole line, without its newline; *s is NULL when there is none yet: a file that grows
 * can be asked again. Valid until the next call. A line beyond STEPLOG_LINE_MAX: ERR_LIMIT.
 */
int steplog_in_next(struct steplog_in *r, const char **s, size_t *n, struct err *e);

/* The step of a line; false when it does not begin as one of ours. */
bool steplog_step(const char *s, size_t n, int64_t *step);

/* Writes a whole file with one indented value, at once (base/file.h). */
int steplog_save(const char *path, const json_t *v, struct err *e);

/* The shortest number that reads back as the same value: as a float where it is one, else as a
   double; "null" when it is not finite. */
int steplog_put_number(struct buf *out, double v, struct err *e);
/* A JSON string of a key or a text in UTF-8. */
int steplog_put_string(struct buf *out, const char *s, struct err *e);

#endif
