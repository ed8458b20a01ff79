#include "engine/prefix_scan.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SCAN_FOLDERS = 4096, /* models, at most */
    SCAN_LEFT = 600,     /* seconds after which a file that is being written is nobody's */
    SCAN_ID = 32,        /* digits of a model's folder */
};

/* ---- keys ----------------------------------------------------------------------------------- */

void prefix_keys_release(struct prefix_keys *k)
{
    free(k->key);
    free(k->stored);
    *k = (struct prefix_keys){0};
}

static size_t keys_home(const struct prefix_keys *k, uint64_t key)
{
    return hash_u64(key ^ k->seed) & (k->cap - 1);
}

/* Where the key is, or the free place where it would be. */
static size_t keys_at(const struct prefix_keys *k, uint64_t key)
{
    size_t i = keys_home(k, key);
    while (k->key[i] && k->key[i] != key)
        i = (i + 1) & (k->cap - 1);
    return i;
}

bool prefix_keys_has(const struct prefix_keys *k, uint64_t key, bool soon)
{
    size_t i = k->cap ? keys_at(k, key) : 0;
    return k->cap && k->key[i] && (soon || k->stored[i]);
}

static bool keys_grow(struct prefix_keys *k)
{
    struct prefix_keys old = *k, new = {.cap = old.cap ? 2 * old.cap : 256, .n = old.n};
    new.seed = old.cap ? old.seed : rng_os_seed();
    new.key = calloc(new.cap, sizeof *new.key);
    new.stored = calloc(new.cap, sizeof *new.stored);
    if (!new.key || !new.stored) {
        prefix_keys_release(&new);
        return false;
    }
    for (size_t i = 0; i < old.cap; i++)
        if (old.key[i]) {
            size_t to = keys_at(&new, old.key[i]);
            new.key[to] = old.key[i];
            new.stored[to] = old.stored[i];
        }
    prefix_keys_release(&old);
    *k = new;
    return true;
}

bool prefix_keys_add(struct prefix_keys *k, uint64_t key, bool stored)
{
    if (!prefix_keys_has(k, key, true)) {
        if (k->n == PREFIX_KEYS || (2 * k->n >= k->cap && !keys_grow(k)))
            return false;
        k->n++;
    }
    size_t i = keys_at(k, key);
    k->stored[i] = stored || (k->key[i] && k->stored[i]);
    k->key[i] = key;
    return true;
}

void prefix_keys_remove(struct prefix_keys *k, uint64_t key)
{
    if (!prefix_keys_has(k, key, true))
        return;
    size_t mask = k->cap - 1, i = keys_at(k, key);
    k->n--;
    /* Those behind it that it kept from their place move up (Knuth, 6.4, algorithm R). */
    for (size_t j = (i + 1) & mask; k->key[j]; j = (j + 1) & mask) {
        if (((j - keys_home(k, k->key[j])) & mask) < ((j - i) & mask))
            continue;
        k->key[i] = k->key[j];
        k->stored[i] = k->stored[j];
        i = j;
    }
    k->key[i] = 0;
    k->stored[i] = false;
}

/* ---- folders -------------------------------------------------------------------------------- */

/* The folder is a place that only we write to. */
static int folder_check(int fd, mode_t others, const char *name, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_errno(e, "%s", name);
    if (st.st_uid != geteuid() || st.st_mode & others)
        return err_set(
            e, ERR_USAGE,
            "%s: is no folder for cached pages, others may write to it: give one of your "
            "own",
            name);
    return 0;
}

int prefix_scan_root(const char *dir, struct err *e)
{
    size_t n = strlen(dir);
    char *path = malloc(n + 1);
    if (!path) {
        err_nomem(e, n + 1, "a file name");
        return -1;
    }
    memcpy(path, dir, n + 1);
    int fd = -1;
    for (char *p = path + 1; n && *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(path, 0700); /* what matters is whether the last one opens */
            *p = '/';
        }
    if (mkdir(path, 0700) && errno != EEXIST)
        err_errno(e, "%s: cannot be made", dir);
    else if ((fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        err_errno(e, "%s", dir);
    else if (folder_check(fd, 022, dir, e)) {
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}

static void folder_name(char name[SCAN_ID + 1], const uint64_t id[2])
{
    snprintf(name, SCAN_ID + 1, "%016" PRIx64 "%016" PRIx64, id[0], id[1]);
}

int prefix_scan_folder(int root, const uint64_t id[2], struct err *e)
{
    char name[SCAN_ID + 1];
    folder_name(name, id);
    if (mkdirat(root, name, 0700) && errno != EEXIST) {
        err_errno(e, "%s: cannot be made", name);
        return -1;
    }
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        err_errno(e, "%s", name);
    else if (folder_check(fd, 022, name, e) || fchmod(fd, 0700)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* The entries of an open folder; the descriptor stays the caller's. */
static DIR *folder_open(int fd)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = again < 0 ? NULL : fdopendir(again);
    if (!d && again >= 0)
        close(again);
    return d;
}

int prefix_scan_keys(int dir, struct prefix_keys *k, struct err *e)
{
    DIR *d = folder_open(dir);
    uint64_t key, parent;
    if (!d)
        return err_errno(e, "the folder of cached pages");
    for (const struct dirent *t; (t = readdir(d));)
        if (prefix_file_parse(t->d_name, &key, &parent) && !prefix_keys_add(k, key, true))
            break;
    closedir(d);
    return 0;
}

void prefix_scan_touch(int dir, uint64_t key, uint64_t parent)
{
    char name[PREFIX_NAME];
    prefix_file_name(name, key, parent);
    utimensat(dir, name, NULL, AT_SYMLINK_NOFOLLOW); /* a file that is gone needs none */
}

/* ---- the bound ------------------------------------------------------------------------------ */

struct scan_item {
    uint64_t key, parent, bytes;
    int64_t time; /* nanoseconds since 1970 of its last use, or of any page after it */
    uint32_t folder;
    bool gone;
};

struct scan_state {
    struct scan_item *item;
    size_t n, cap;
    char (*folder)[SCAN_ID + 1];
    size_t n_folder;
};

static int64_t scan_time(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static bool scan_add(struct scan_state *s, const struct scan_item *t)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        struct scan_item *more =
            cap > 4 * PREFIX_KEYS ? NULL : realloc(s->item, cap * sizeof *more);
        if (!more)
            return false;
        s->item = more;
        s->cap = cap;
    }
    s->item[s->n++] = *t;
    return true;
}

static bool scan_left(const char *name)
{
    size_t n = strlen(name);
    return n > 5 && n < 64 && !strcmp(name + n - 5, ".part");
}

/* The files of a model's folder. */
static int scan_folder(struct scan_state *s, int root, uint32_t folder, struct err *e)
{
    int fd = openat(root, s->folder[folder], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int rc = 0;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0; /* another process has removed it */
    }
    for (const struct dirent *t; !rc && (t = readdir(d));) {
        struct scan_item x = {.folder = folder};
        struct stat st;
        bool left = scan_left(t->d_name), page = prefix_file_parse(t->d_name, &x.key, &x.parent);
        if ((!left && !page) || fstatat(fd, t->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            !S_ISREG(st.st_mode))
            continue;
        if (left) {
            if (time(NULL) - st.st_mtim.tv_sec > SCAN_LEFT)
                unlinkat(fd, t->d_name, 0);
            continue;
        }
        x.bytes = (uint64_t)st.st_size;
        x.time = scan_time(&st.st_mtim);
        if (!scan_add(s, &x))
            rc = err_nomem(e, s->cap * sizeof x, "the list of cached pages");
    }
    closedir(d);
    return rc;
}

static int scan_folders(struct scan_state *s, int root, struct err *e)
{
    DIR *d = folder_open(root);
    if (!d)
        return err_errno(e, "the folder of cached pages");
    for (const struct dirent *t; (t = readdir(d)) && s->n_folder < SCAN_FOLDERS;)
        if (strlen(t->d_name) == SCAN_ID && strspn(t->d_name, "0123456789abcdef") == SCAN_ID)
            memcpy(s->folder[s->n_folder++], t->d_name, SCAN_ID + 1);
    closedir(d);
    int rc = 0;
    for (size_t i = 0; i < s->n_folder && !rc; i++)
        rc = scan_folder(s, root, (uint32_t)i, e);
    return rc;
}

static int by_key(const void *a, const void *b)
{
    const struct scan_item *x = a, *y = b;
    if (x->folder != y->folder)
        return x->folder < y->folder ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

/* Pointers into the items, the youngest first. */
static int by_time(const void *a, const void *b)
{
    const struct scan_item *x = *(struct scan_item *const *)a, *y = *(struct scan_item *const *)b;
    if (x->time != y->time)
        return x->time > y->time ? -1 : 1;
    /* A page is as young as those after it, at least; of equals, longer timelines go first. */
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* A page was used when one after it was. */
static void scan_inherit(struct scan_state *s, struct scan_item **order)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct scan_item *t = order[i];
        for (;;) {
            struct scan_item want = {.folder = t->folder, .key = t->parent};
            struct scan_item *up = bsearch(&want, s->item, s->n, sizeof want, by_key);
            if (!up || up->time >= t->time)
                break;
            up->time = t->time;
            t = up;
        }
    }
}

static void scan_remove(struct prefix_scan *out, struct scan_state *s, struct scan_item *t)
{
    char name[PREFIX_NAME], path[SCAN_ID + 1 + PREFIX_NAME];
    prefix_file_name(name, t->key, t->parent);
    snprintf(path, sizeof path, "%s/%s", s->folder[t->folder], name);
    if (unlinkat(out->root, path, 0) && errno != ENOENT)
        return;
    t->gone = true;
    out->bytes -= t->bytes;
}

/* Removes the oldest, and folders of other models that are empty then. */
static int scan_bound(struct prefix_scan *out, struct scan_state *s, const char *own, struct err *e)
{
    struct scan_item **order = malloc((s->n ? s->n : 1) * sizeof(void *));
    if (!order)
        return err_nomem(e, s->n * sizeof(void *), "the list of cached pages");
    for (size_t i = 0; i < s->n; i++)
        order[i] = &s->item[i];
    qsort(order, s->n, sizeof(void *), by_time);
    scan_inherit(s, order);
    qsort(order, s->n, sizeof(void *), by_time);
    for (size_t i = s->n; i-- > 0 && out->bytes > out->bound / 10 * 9;)
        scan_remove(out, s, order[i]);
    for (size_t i = 0; i < s->n_folder; i++)
        if (strcmp(s->folder[i], own) != 0)
            unlinkat(out->root, s->folder[i], AT_REMOVEDIR);
    free(order);
    return 0;
}

int prefix_scan(struct prefix_scan *out, struct err *e)
{
    struct scan_state s = {.folder = calloc(SCAN_FOLDERS, SCAN_ID + 1)};
    char own[SCAN_ID + 1];
    out->bytes = 0;
    out->key = NULL;
    out->n_key = 0;
    if (!s.folder)
        return err_nomem(e, SCAN_FOLDERS * (SCAN_ID + 1), "the list of cached pages");
    folder_name(own, out->id);
    int rc = scan_folders(&s, out->root, e);
    for (size_t i = 0; i < s.n; i++)
        out->bytes += s.item[i].bytes;
    if (s.n)
        qsort(s.item, s.n, sizeof *s.item, by_key);
    if (!rc && out->bytes > out->bound)
        rc = scan_bound(out, &s, own, e);
    if (!rc && s.n && !(out->key = malloc(s.n * sizeof *out->key)))
        rc = err_nomem(e, s.n * sizeof *out->key, "the list of cached pages");
    for (size_t i = 0; i < s.n && !rc; i++)
        if (!strcmp(s.folder[s.item[i].folder], own))
            out->key[out->n_key++] =
                (struct prefix_scan_key){.key = s.item[i].key, .gone = s.item[i].gone};
    free(s.item);
    free(s.folder);
    return rc;
}
