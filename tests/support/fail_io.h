/*
 * Fault injection for what changes files: open for writing, write, pwrite, fsync, fdatasync,
 * rename, renameat2, mkdir, unlink, unlinkat, rmdir, ftruncate. Works in programs that link
 * fail_io_dep (tests/meson.build); used like support/fail_alloc.h.
 */
#ifndef PONDER_TESTS_FAIL_IO_H
#define PONDER_TESTS_FAIL_IO_H

#include <stdbool.h>
#include <stddef.h>

/* The n-th call from now (1 = the next) fails, once, with that errno. A write does half of its work
   first. */
void fail_io_at(size_t n, int error);
/* The n-th and all after it fail: a disk that is full and stays so. Removing works. */
void fail_io_from(size_t n, int error);
/* The process ends by SIGKILL in the n-th call, a write in the middle of it. */
void fail_io_kill_at(size_t n);
bool fail_io_stop(void); /* back to normal; true when something failed */

#endif
