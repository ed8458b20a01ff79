/*
 * The folder where pages of the prefix cache outlive the process, and the thread that works on it.
 * Private to engine/.
 *
 *   FOLDER/IDENTITY/KEY-PARENT.kv    one file a page: written whole, found by name, removed alone
 *
 * A page is 1 to 20 MB, so files are few and large; a file a page needs no index that a kill could
 * leave wrong, and processes that share the folder need no lock: writing is a rename, removing an
 * unlink, and who finds a file gone computes.
 *
 * The thread takes jobs, reads before writes, and gives them back done. Queues are bounded: what
 * finds no room is not written. A page that is to be written is copied first, so its memory is free
 * again after the time of a copy.
 *
 * All files of the folder, of all models, together stay below a bound: when it is passed, those
 * whose modification time is oldest go, down to nine tenths. Use sets that time; a page counts as
 * used whenever one that follows it was. Several processes look at the folder every now and then
 * (each time one has written a twentieth of the bound) and so may pass it by as much.
 *
 * Trust: folders are made for their owner alone, and used only if nobody else can write to them.
 */
#ifndef PONDER_ENGINE_PREFIX_DISK_H
#define PONDER_ENGINE_PREFIX_DISK_H

#include "base/log.h"
#include "engine/prefix_file.h"

struct prefix_disk;

struct prefix_disk_opts {
    const char *dir;
    uint64_t bytes; /* bound */
    uint64_t spare; /* nothing is written when less than this would be free on the disk */
    uint64_t id[2]; /* the model */
    size_t page_bytes;
    size_t max_ids; /* tokens of a timeline */
    size_t reads;   /* jobs at the same time */
    size_t writes;
    void (*wake)(void *arg); /* a chain of reads is done; from the thread */
    void *wake_arg;
    const struct log *log;
};

/* `page.ids` and `page.data` must stay until the job is done; `arg` and `number` are the caller's.
 */
struct prefix_job {
    struct prefix_page page;
    uint64_t chain; /* reads: when one of a chain fails, those after it do */
    bool last;      /* of its chain: `wake` follows */
    bool write, ok;
    void *arg;
    uint32_t number;
};

/* Makes the folders and lists the model's pages. */
int prefix_disk_open(struct prefix_disk **out, const struct prefix_disk_opts *o, struct err *e);
/* Finishes what is queued to be written within some seconds. All jobs are done after it:
   prefix_disk_next gives them. */
void prefix_disk_stop(struct prefix_disk *d);
void prefix_disk_free(struct prefix_disk *d);

/* Whether a page is there; with `soon`, or queued to be written. */
bool prefix_disk_has(struct prefix_disk *d, uint64_t key, bool soon);

/* Queues a job; false when there is no room. */
bool prefix_disk_push(struct prefix_disk *d, const struct prefix_job *j);
/* The page was used: files not read may be so too. */
void prefix_disk_touch(struct prefix_disk *d, uint64_t key, uint64_t parent);
/* Forgets what is queued to be written; no page is read any more after it. */
void prefix_disk_cancel(struct prefix_disk *d);
/* The next job that is done: reads in the order they were queued, a write when its page was copied.
   False: none now. */
bool prefix_disk_next(struct prefix_disk *d, struct prefix_job *out);

uint64_t prefix_disk_bytes(struct prefix_disk *d); /* of all files, as last counted */

#endif
