/*
 * Fuzzing the reader of cached pages. The first byte says which of the two checksums are made right
 * before the file is read; a file that passes must be what was asked for.
 */
#include "base/hash.h"
#include "engine/prefix_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IDS = 2 * PREFIX_PAGE, BYTES = 200, FRONT = PREFIX_HEAD + IDS * 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(int dir, const char *name, const uint8_t *p, size_t n)
{
    int fd = openat(dir, name, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n || close(fd))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char folder[] = "/tmp/ponder-fuzz-XXXXXX", name[PREFIX_NAME];
    int32_t ids[IDS];
    uint8_t page[BYTES] = {0}, room[FRONT], file[1 << 12];
    struct err e = {0};
    struct prefix_page p = {
        .id = {1, 2}, .salt = {3, 4}, .ids = ids, .n = IDS, .data = page, .bytes = BYTES};
    for (int i = 0; i < IDS; i++)
        ids[i] = i * 7 + 1;
    p.parent = prefix_key(prefix_root(p.id, p.salt), ids);
    p.key = prefix_key(p.parent, ids + PREFIX_PAGE);
    if (!size || size - 1 > sizeof file)
        return 0;
    size_t n = size - 1;
    memcpy(file, data + 1, n);
    if (*data & 1 && n >= FRONT) {
        uint64_t sum = hash_xxh64(file + FRONT, n - FRONT, 0);
        memcpy(file + 80, &sum, 8);
    }
    if (*data & 2 && n >= FRONT) {
        uint64_t sum = hash_xxh64(file + PREFIX_HEAD, IDS * 4, hash_xxh64(file, 88, 0));
        memcpy(file + 88, &sum, 8);
    }
    int dir = mkdtemp(folder) ? open(folder, O_RDONLY | O_DIRECTORY) : -1;
    if (dir < 0)
        abort();
    prefix_file_name(name, p.key, p.parent);
    put(dir, name, file, n);
    int rc = prefix_file_read(dir, &p, room, &e);
    if (rc && !*e.text)
        abort();
    if (!rc && (n != FRONT + BYTES || memcmp(page, file + FRONT, BYTES) ||
                memcmp(ids, file + PREFIX_HEAD, IDS * 4)))
        abort();
    /* Good files stay, others go. */
    if ((faccessat(dir, name, F_OK, 0) == 0) != !rc)
        abort();
    if (!rc) {
        /* What we write of it is the same file. */
        uint8_t again[sizeof file];
        if (prefix_file_write(dir, &p, "t.part", room, &e))
            abort();
        int fd = openat(dir, name, O_RDONLY);
        if (read(fd, again, sizeof again) != (ssize_t)n || memcmp(again, file, n))
            abort();
        close(fd);
    }
    unlinkat(dir, name, 0);
    close(dir);
    rmdir(folder);
    return 0;
}
