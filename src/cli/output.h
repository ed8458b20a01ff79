/*
 * Where a command's result goes: a regular file appears under its name only when it is whole; a
 * device, a pipe or standard output is written to as it is.
 */
#ifndef PONDER_CLI_OUTPUT_H
#define PONDER_CLI_OUTPUT_H

#include "base/file.h"

struct output {
    struct file_out file;
    int fd; /* when it is no regular file; else -1 */
};

/* `path` NULL: standard output. */
int output_open(struct output *o, const char *path, struct err *e);
int output_write(struct output *o, const void *p, size_t n, struct err *e);
/* Closes in any case; keeps a file only when `rc` is 0. Returns rc, or the error of closing. */
int output_close(struct output *o, int rc, struct err *e);

#endif
