/* Folders for tests that write much: made in memory where there is such a place, and removed with
 * all that is in them. */
#ifndef PONDER_TESTS_SCRATCH_H
#define PONDER_TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

/* A new folder, "ponder-NAME.XXXXXX"; false when there is none to be had. */
bool scratch_make(char *out, size_t cap, const char *name);
void scratch_remove(const char *dir);

#endif
