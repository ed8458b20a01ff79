#include "base/sysmem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The number after `key` in a "key value" file; SIZE_MAX when there is none ("max" included). */
static size_t sysmem_field(const char *path, const char *key)
{
    char line[256];
    size_t found = SIZE_MAX;
    FILE *f = fopen(path, "re");
    if (!f)
        return SIZE_MAX;
    while (found == SIZE_MAX && fgets(line, sizeof line, f)) {
        unsigned long long v;
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), " %llu", &v) == 1)
            found = (size_t)v;
    }
    fclose(f);
    return found;
}

/* What a cgroup v2 folder leaves: max − current + page cache that can go. */
static size_t sysmem_cgroup(const char *dir)
{
    char path[600];
    snprintf(path, sizeof path, "%s/memory.max", dir);
    size_t max = sysmem_field(path, "");
    snprintf(path, sizeof path, "%s/memory.current", dir);
    size_t now = sysmem_field(path, "");
    if (max == SIZE_MAX || now == SIZE_MAX)
        return SIZE_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    size_t cache = sysmem_field(path, "inactive_file ");
    if (cache == SIZE_MAX)
        cache = 0;
    return now > max + cache ? 0 : max - now + cache;
}

size_t sysmem_available(void)
{
    size_t kb = sysmem_field("/proc/meminfo", "MemAvailable:");
    size_t best = kb > SIZE_MAX / 1024 ? SIZE_MAX : kb * 1024;
    char line[512], dir[560];
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f)
        return best;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4))
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", line + 3);
        /* A limit may stand on any level above. */
        for (;;) {
            size_t n = sysmem_cgroup(dir);
            if (n < best)
                best = n;
            char *slash = strrchr(dir, '/');
            if (!slash || strlen(dir) <= strlen("/sys/fs/cgroup"))
                break;
            *slash = 0;
        }
    }
    fclose(f);
    return best;
}
