/* See scratch.h. */
#include "support/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SCRATCH_FILES = 16 };

bool scratch_make(char *out, size_t cap, const char *name)
{
    const char *where = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    return snprintf(out, cap, "%s/ponder-%s.XXXXXX", where, name) < (int)cap && mkdtemp(out);
}

static int scratch_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void scratch_remove(const char *dir)
{
    nftw(dir, scratch_one, SCRATCH_FILES, FTW_DEPTH | FTW_PHYS);
}
