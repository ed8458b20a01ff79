/*
 * Where the quota is: /proc/self/cgroup says which group we are in for each hierarchy
 * ("ID:controllers:path"; version 2 has ID 0 and no controllers), /proc/self/mountinfo says where
 * that hierarchy is mounted and which group is its root there (in containers often not "/"). The
 * group's folder and each one above it up to the mount may limit us: the smallest limit counts.
 *   v2  cpu.max            "QUOTA PERIOD" in microseconds, QUOTA may be "max"
 *   v1  cpu.cfs_quota_us   -1 = none, and cpu.cfs_period_us
 *   v2  memory.max, memory.current;  v1  memory.limit_in_bytes, memory.usage_in_bytes
 */
#include "base/quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 4096, NAME = PATH_MAX };

static FILE *open_under(const char *root, const char *path)
{
    char full[NAME];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && (size_t)n < sizeof full ? fopen(full, "re") : NULL;
}

/* Is `word` one of the comma-separated words of list? */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = list; s; s = strchr(s, ','), s = s ? s + 1 : NULL)
        if (strncmp(s, word, n) == 0 && (s[n] == ',' || s[n] == 0))
            return true;
    return false;
}

/* One resource: the controller that version 1 mounts for it, and what a group leaves of it (0 = no
   limit by itself). */
struct resource {
    const char *controller;
    double (*group)(const char *root, bool v2, const char *dir);
};

/* Our group's path in the hierarchy of version 2, or of version 1 with the resource's controller.
 */
static bool group_path(const char *root, bool v2, const char *controller, char out[NAME])
{
    FILE *f = open_under(root, "/proc/self/cgroup");
    if (!f)
        return false;
    char line[LINE];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *controllers++ = 0;
        *path++ = 0;
        found = v2 ? strcmp(line, "0") == 0 && !*controllers : has_word(controllers, controller);
        if (found)
            snprintf(out, NAME, "%s", path);
    }
    fclose(f);
    return found;
}

/* Where that hierarchy is mounted (folder) and the group that is seen there (top). */
static bool mount_point(const char *root, bool v2, const char *controller, char folder[NAME],
                        char top[NAME])
{
    FILE *f = open_under(root, "/proc/self/mountinfo");
    if (!f)
        return false;
    char line[LINE];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        /* ID PARENT MAJ:MIN ROOT FOLDER OPTIONS [FIELDS…] - TYPE SOURCE SUPER-OPTIONS */
        char r[LINE], m[LINE], type[LINE], super[LINE];
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %s %s", r, m) != 2 ||
            sscanf(dash, " - %s %*s %s", type, super) != 2)
            continue;
        found = v2 ? strcmp(type, "cgroup2") == 0
                   : strcmp(type, "cgroup") == 0 && has_word(super, controller);
        if (found) {
            snprintf(folder, NAME, "%s", m);
            snprintf(top, NAME, "%s", strcmp(r, "/") == 0 ? "" : r);
        }
    }
    fclose(f);
    return found;
}

static bool read_numbers(const char *root, const char *dir, const char *name, const char *fmt,
                         double *a, double *b)
{
    char path[NAME];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = n > 0 && (size_t)n < sizeof path ? open_under(root, path) : NULL;
    if (!f)
        return false;
    int got = fscanf(f, fmt, a, b);
    fclose(f);
    return got == (b ? 2 : 1);
}

static double cpu_group(const char *root, bool v2, const char *dir)
{
    double quota, period;
    bool known = v2 ? read_numbers(root, dir, "cpu.max", "%lf %lf", &quota, &period)
                    : read_numbers(root, dir, "cpu.cfs_quota_us", "%lf", &quota, NULL) &&
                          read_numbers(root, dir, "cpu.cfs_period_us", "%lf", &period, NULL);
    return known && quota > 0 && period > 0 ? quota / period : 0;
}

/* Memory: max − current, page cache that can go counted as free. At least 1 byte when limited. */
static double memory_group(const char *root, bool v2, const char *dir)
{
    double max, now, cache = 0;
    if (!read_numbers(root, dir, v2 ? "memory.max" : "memory.limit_in_bytes", "%lf", &max, NULL) ||
        !read_numbers(root, dir, v2 ? "memory.current" : "memory.usage_in_bytes", "%lf", &now,
                      NULL))
        return 0;
    char path[NAME], line[LINE];
    int n = snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = n > 0 && (size_t)n < sizeof path ? open_under(root, path) : NULL;
    const char *key = v2 ? "inactive_file %lf" : "total_inactive_file %lf";
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, key, &cache) == 1)
            break;
    if (f)
        fclose(f);
    double rest = max - now + cache;
    return rest > 1 ? rest : 1;
}

static double smaller_limit(double a, double b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

static double hierarchy_limit(const char *root, bool v2, const struct resource *r)
{
    char path[NAME], folder[NAME], top[NAME], dir[2 * NAME];
    if (!group_path(root, v2, r->controller, path) ||
        !mount_point(root, v2, r->controller, folder, top))
        return 0;
    /* What is above the mounted group is out of sight. A path outside it means that our view
       differs from the mount's: its top is then the best we have. */
    size_t n = strlen(top);
    const char *below = strncmp(path, top, n) == 0 ? path + n : "";
    snprintf(dir, sizeof dir, "%s%s", folder, strcmp(below, "/") == 0 ? "" : below);
    size_t floor = strlen(folder);
    double limit = 0;
    for (;;) {
        limit = smaller_limit(limit, r->group(root, v2, dir));
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < floor || strlen(dir) <= floor)
            return limit;
        *slash = 0;
    }
}

static double smallest(const char *root, const struct resource *r)
{
    return smaller_limit(hierarchy_limit(root, true, r), hierarchy_limit(root, false, r));
}

double quota_cpus(const char *root)
{
    static const struct resource cpu = {"cpu", cpu_group};
    return smallest(root, &cpu);
}

size_t quota_memory(const char *root)
{
    static const struct resource memory = {"memory", memory_group};
    char line[LINE];
    double free_kb = 0;
    FILE *f = open_under(root, "/proc/meminfo");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lf", &free_kb) == 1)
            break;
    if (f)
        fclose(f);
    double limit = smaller_limit(free_kb * 1024, smallest(root, &memory));
    return limit > 0 && limit < 0x1p62 ? (size_t)limit : SIZE_MAX;
}
