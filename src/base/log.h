/*
 * Logging: lines for a person on stderr, at one of four levels. The logger is a value that the
 * command line makes and hands down; nothing logs through a global. A NULL logger is silent.
 */
#ifndef PONDER_BASE_LOG_H
#define PONDER_BASE_LOG_H

#include <stdio.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log {
    FILE *out;
    enum log_level level; /* lines above it are dropped */
};

/* "ponder: TEXT\n"; warnings begin with "warning: ". Lines of several threads do not mix. */
void log_line(const struct log *l, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "TEXT\n" at any level: for lines that are output of their own, like an access log. */
void log_bare(const struct log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int log_level_parse(enum log_level *out, const char *name); /* 0, or -1 for an unknown name */

#endif
