/*
 * Progress bars for anything over two seconds. Only drawn on a terminal, at most ten times a
 * second, on stderr; elsewhere nothing is printed but the summary that the command itself writes.
 *   quantizing  ▕███████▎         ▏ 43%  6.8/15.9 GB  212 MB/s  0:43 left
 */
#ifndef PONDER_BASE_PROGRESS_H
#define PONDER_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum progress_unit { PROGRESS_COUNT, PROGRESS_BYTES };

struct progress {
    FILE *out;
    bool tty, drawn;
    const char *label;
    enum progress_unit unit;
    uint64_t total, done;
    double started, last_draw;
};

/* `out` is usually stderr. `total` = 0 means not known. `label` must outlive the bar. */
void progress_init(struct progress *p, FILE *out, const char *label, enum progress_unit unit,
                   uint64_t total);
void progress_update(struct progress *p, uint64_t done); /* appears after half a second of work */
void progress_finish(struct progress *p);                /* erases the bar */

/* "1.9 GB" (SI units), "430 KB", "17 B" into out; returns out. */
char *progress_bytes(char *out, size_t cap, double bytes);

#endif
