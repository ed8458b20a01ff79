/*
 * Logging: lines for a person on stderr, at one of four levels. The logger is a value that the
 * command line makes and hands down; nothing logs through a global. A NULL logger is silent.
 */
#ifndef PONDER_BASE_LOG_H
#define PONDER_BASE_LOG_H

#include "base/err.h"

#include <stdio.h>

struct log_writer;

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log {
    FILE *out;
    enum log_level level;      /* lines above it are dropped */
    struct log_writer *writer; /* of the lines, by log_writer_start; NULL: who says them */
};

/* "ponder: TEXT\n"; warnings begin with "warning: ". Lines of several threads do not mix. */
void log_line(const struct log *l, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "TEXT\n" at any level: for lines that are output of their own, like an access log. */
void log_bare(const struct log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * From here on a thread writes the lines, and nobody who says one waits until it is read: as long
 * as that hangs, up to a megabyte is kept, and what is more is counted and dropped. For programs
 * whose threads must go on whatever becomes of their terminal. To be stopped when no other thread
 * logs any more; what is not written `seconds` later is given up.
 */
int log_writer_start(struct log *l, struct err *e);
void log_writer_stop(struct log *l, double seconds);

int log_level_parse(enum log_level *out, const char *name); /* 0, or -1 for an unknown name */

#endif
