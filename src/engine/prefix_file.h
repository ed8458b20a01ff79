/*
 * One page of the prefix cache as a file. Private to engine/.
 *
 * A file is 96 bytes of head, the ids of the timeline up to the page's last token, and the page as
 * it lies in memory (docs/formats.md). Who reads knows all of it but the page and its checksum, and
 * compares it byte by byte: nothing is taken from a file that was not asked for. A file that is not
 * exactly that, or whose page does not fit its checksum, is removed.
 *
 * The name is two keys, of the page and of the page before it, so that a folder shows which pages
 * follow which without opening any. Keys only find files; the ids in them decide.
 *
 * Files are written under another name first and renamed when whole. They are not synced: after a
 * power cut the checksum tells which are good.
 */
#ifndef PONDER_ENGINE_PREFIX_FILE_H
#define PONDER_ENGINE_PREFIX_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PREFIX_PAGE = 64, /* tokens */
    PREFIX_HEAD = 96,
    PREFIX_NAME = 40, /* bytes of a name: 16 digits, '-', 16 digits, ".kv", 0 */
};

struct prefix_page {
    uint64_t id[2];       /* the model, by prefix_identity */
    uint64_t salt[2];     /* who may read it */
    uint64_t key, parent; /* prefix_key; the first page's parent is prefix_root */
    const int32_t *ids;   /* (n) all tokens up to the page's last one */
    size_t n;             /* a multiple of 64 */
    uint8_t *data;
    size_t bytes;
};

uint64_t prefix_root(const uint64_t id[2], const uint64_t salt[2]);
/* Of the page with these 64 ids after the page `parent`. */
uint64_t prefix_key(uint64_t parent, const int32_t *ids);

void prefix_file_name(char name[PREFIX_NAME], uint64_t key, uint64_t parent);
bool prefix_file_parse(const char *name, uint64_t *key, uint64_t *parent);
size_t prefix_file_bytes(size_t n, size_t page_bytes);

/*
 * Into the folder `dir` (a descriptor), by way of the name `temp`. `room` is memory for
 * prefix_file_bytes(n, 0). ERR_IO: nothing is left behind.
 */
int prefix_file_write(int dir, const struct prefix_page *p, const char *temp, uint8_t *room,
                      struct err *e);

/*
 * Fills p->data (which may hold anything after an error). ERR_NOTFOUND: no such file; ERR_FORMAT:
 * it was not what it should be and was removed; ERR_IO: it cannot be opened now. `room` is for
 * prefix_file_bytes(n, 0).
 */
int prefix_file_read(int dir, const struct prefix_page *p, uint8_t *room, struct err *e);

#endif
