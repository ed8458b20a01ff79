/*
 * Fault injection: makes the n-th allocation of the code under test fail.
 *
 * Works in programs that link fail_alloc_dep (tests/meson.build), which sends the calls of malloc,
 * calloc, realloc, aligned_alloc, posix_memalign, strdup, strndup and mmap made by our own objects
 * through this file; libraries keep theirs. Use:
 *
 *     for (size_t n = 1;; n++) {
 *         fail_alloc_at(n);
 *         int rc = thing_new(&t, &e);
 *         if (!fail_alloc_stop())  // that many allocations were not needed: all n were tried
 *             break;
 *         assert_int_equal(rc, ERR_NOMEM);
 *     }
 */
#ifndef PONDER_TESTS_FAIL_ALLOC_H
#define PONDER_TESTS_FAIL_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

void fail_alloc_at(size_t n);   /* the n-th allocation from now (1 = the next) fails, once */
void fail_alloc_from(size_t n); /* the n-th and all after it fail */
bool fail_alloc_stop(void);     /* back to normal; true when something failed */
size_t fail_alloc_count(void);  /* allocations since the last at/from */

#endif
