/* Between log.c and log_writer.c. */
#ifndef PONDER_BASE_LOG_PRIVATE_H
#define PONDER_BASE_LOG_PRIVATE_H

#include "base/log.h"

#include <stddef.h>

/* A whole line. Never waits for whoever reads the log. */
void log_writer_put(struct log_writer *w, const char *line, size_t n);

#endif
