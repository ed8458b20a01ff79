#include "engine/prefix_file.h"

#include "base/hash.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PREFIX_VERSION = 1 };

/* The head; integers as this machine has them, which is little-endian. */
struct prefix_head {
    char magic[8];
    uint32_t version, bytes; /* bytes of this head */
    uint64_t id[2], salt[2], key, parent, tokens, page_bytes;
    uint64_t page_sum; /* XXH64 of the page */
    uint64_t sum;      /* XXH64 of the ids, seeded with that of the head before this */
};
_Static_assert(sizeof(struct prefix_head) == PREFIX_HEAD, "no gaps");

uint64_t prefix_root(const uint64_t id[2], const uint64_t salt[2])
{
    return hash_xxh64(salt, 2 * sizeof *salt, hash_xxh64(id, 2 * sizeof *id, 0));
}

uint64_t prefix_key(uint64_t parent, const int32_t *ids)
{
    uint64_t key = hash_xxh64(ids, PREFIX_PAGE * sizeof *ids, parent);
    return key ? key : 1;
}

void prefix_file_name(char name[PREFIX_NAME], uint64_t key, uint64_t parent)
{
    snprintf(name, PREFIX_NAME, "%016" PRIx64 "-%016" PRIx64 ".kv", key, parent);
}

bool prefix_file_parse(const char *name, uint64_t *key, uint64_t *parent)
{
    char again[PREFIX_NAME];
    char *end;
    if (strlen(name) != 16 + 1 + 16 + 3)
        return false;
    *key = strtoull(name, &end, 16);
    if (end != name + 16)
        return false;
    *parent = strtoull(name + 17, NULL, 16);
    prefix_file_name(again, *key, *parent);
    return *key && !strcmp(again, name);
}

size_t prefix_file_bytes(size_t n, size_t page_bytes)
{
    return PREFIX_HEAD + n * sizeof(int32_t) + page_bytes;
}

/* Head and ids, as they must be. */
static void prefix_file_front(const struct prefix_page *p, uint64_t page_sum, uint8_t *out)
{
    struct prefix_head h = {.magic = "ponderKV",
                            .version = PREFIX_VERSION,
                            .bytes = PREFIX_HEAD,
                            .id = {p->id[0], p->id[1]},
                            .salt = {p->salt[0], p->salt[1]},
                            .key = p->key,
                            .parent = p->parent,
                            .tokens = p->n,
                            .page_bytes = p->bytes,
                            .page_sum = page_sum};
    h.sum = hash_xxh64(p->ids, p->n * sizeof *p->ids,
                       hash_xxh64(&h, offsetof(struct prefix_head, sum), 0));
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, p->ids, p->n * sizeof *p->ids);
}

/* All of a then all of b, from or to the file's beginning; fewer bytes when the file ends. */
static bool prefix_file_move(int fd, bool out, void *a, size_t na, void *b, size_t nb)
{
    size_t done = 0;
    while (done < na + nb) {
        struct iovec v[2] = {{(uint8_t *)a + num_min(done, na), na - num_min(done, na)}};
        size_t from = done > na ? done - na : 0;
        v[1] = (struct iovec){(uint8_t *)b + from, nb - from};
        ssize_t n = out ? pwritev(fd, v, 2, (off_t)done) : preadv(fd, v, 2, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

int prefix_file_write(int dir, const struct prefix_page *p, const char *temp, uint8_t *room,
                      struct err *e)
{
    char name[PREFIX_NAME];
    int fd, rc = 0;
    prefix_file_name(name, p->key, p->parent);
    prefix_file_front(p, hash_xxh64(p->data, p->bytes, 0), room);
    do
        fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return err_errno(e, "%s", temp);
    if (!prefix_file_move(fd, true, room, prefix_file_bytes(p->n, 0), p->data, p->bytes))
        rc = err_errno(e, "%s", temp);
    if (close(fd) && errno != EINTR && !rc)
        rc = err_errno(e, "%s", temp);
    if (!rc && renameat(dir, temp, dir, name))
        rc = err_errno(e, "%s", name);
    if (rc)
        unlinkat(dir, temp, 0);
    return rc;
}

/* What is wrong with the open file, or NULL. */
static const char *prefix_file_check(int fd, const struct prefix_page *p, uint8_t *room)
{
    struct stat st;
    uint8_t got[PREFIX_HEAD];
    uint64_t sum;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return "is not a regular file";
    if (st.st_uid != geteuid())
        return "belongs to somebody else";
    if (st.st_size < 0 || (uint64_t)st.st_size != prefix_file_bytes(p->n, p->bytes))
        return "has another length";
    if (!prefix_file_move(fd, false, room, prefix_file_bytes(p->n, 0), p->data, p->bytes))
        return "cannot be read";
    if (memcmp(room + PREFIX_HEAD, p->ids, p->n * sizeof *p->ids))
        return "holds other tokens";
    /* The head as it must be around the one thing that only the file knows. */
    memcpy(got, room, sizeof got);
    memcpy(&sum, got + offsetof(struct prefix_head, page_sum), sizeof sum);
    prefix_file_front(p, sum, room);
    if (memcmp(got, room, sizeof got))
        return "has another head";
    return hash_xxh64(p->data, p->bytes, 0) == sum ? NULL : "does not fit its checksum";
}

int prefix_file_read(int dir, const struct prefix_page *p, uint8_t *room, struct err *e)
{
    char name[PREFIX_NAME];
    const char *wrong = "is a symbolic link";
    int fd;
    prefix_file_name(name, p->key, p->parent);
    do
        fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_NOTFOUND, "%s: no such file", name);
    if (fd < 0 && errno != ELOOP)
        return err_errno(e, "%s", name);
    if (fd >= 0) {
        wrong = prefix_file_check(fd, p, room);
        close(fd);
    }
    if (!wrong)
        return 0;
    unlinkat(dir, name, 0);
    return err_set(e, ERR_FORMAT, "%s: %s", name, wrong);
}
