/*
 * Files: mapped input, bounded reading, atomic writing.
 *
 * Weights are mapped read-only and shared, so that several processes and restarts use the same
 * page cache. Output goes to "NAME.part-PID" and gets its final name only when whole and synced:
 * no command ever leaves half a file under a good name.
 */
#ifndef PONDER_BASE_FILE_H
#define PONDER_BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct file_map {
    const uint8_t *data; /* NULL when the file is empty */
    size_t size;
    int64_t written[2]; /* when it was mapped: its modification time, seconds and nanoseconds */
};

/* Maps a regular file. Errors name the path and, for a directory or FIFO, what it is instead. */
int file_map(struct file_map *m, const char *path, struct err *e);
void file_map_release(struct file_map *m);
/* Tells the kernel that m->data[off..off+len) is not needed soon: resident memory falls. */
void file_map_drop(const struct file_map *m, size_t off, size_t len);

/* Appends the whole file to `out`, whose maximum bounds it. */
int file_read(struct buf *out, const char *path, struct err *e);

enum file_kind_id { FILE_NONE, FILE_REGULAR, FILE_DIR, FILE_OTHER };
enum file_kind_id file_kind(const char *path);

/* dir/name into out, with one slash; false when it does not fit. */
bool file_join(char *out, size_t cap, const char *dir, const char *name);

struct file_out {
    int fd;          /* -1 when closed */
    char *path;      /* final name, owned */
    char *part;      /* temporary name, owned */
    uint64_t offset; /* bytes taken so far */
    uint8_t *wait;   /* those since the last multiple of FILE_CHUNK: not written yet */
    size_t waits;
};

/*
 * Output is written in whole chunks at multiples of their size: then the page cache holds the file
 * in 2 MiB pages (ext4, XFS), and mapping it takes a hundredth of the time.
 */
enum { FILE_CHUNK = 2 << 20 };

int file_out_open(struct file_out *f, const char *path, struct err *e);
int file_out_write(struct file_out *f, const void *p, size_t n, struct err *e);
/* Syncs and closes a file that is whole; commit then only gives it its name. For files that get
 * their names together. */
int file_out_sync(struct file_out *f, struct err *e);
int file_out_commit(struct file_out *f, struct err *e); /* sync, rename; closes f in any case */
void file_out_abort(struct file_out *f);                /* removes the part; safe after commit */

#endif
