#include "engine/prefix_disk.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/prefix_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    DISK_TOUCHES = 64,     /* queued at the same time */
    DISK_STOP_SECONDS = 3, /* for writing what is queued at the end */
    DISK_QUIET = 60,       /* seconds between lines about the same trouble */
};

/* A ring of jobs. */
struct disk_queue {
    struct prefix_job *job; /* (cap) */
    size_t cap, first, n;
};

struct prefix_disk {
    struct prefix_disk_opts o;
    int root, dir; /* descriptors of the folders */
    pthread_t thread;
    bool running;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, copied;
    struct disk_queue read, write, done;
    uint64_t touch[DISK_TOUCHES][2]; /* key, parent */
    size_t n_touch;
    size_t n_read, n_write; /* jobs that were pushed and not taken back */
    struct prefix_keys keys;
    bool stop, copying, scan;
    uint64_t bytes;

    /* The thread's own. */
    uint8_t *room, *copy; /* prefix_file_bytes(max_ids, 0), page_bytes */
    int32_t *ids;         /* (max_ids) */
    uint64_t bad;         /* the last chain that failed */
    uint64_t unscanned;   /* bytes written since the folder was counted */
    uint64_t tag, n_temp; /* make names of files that are being written unique */
    double read_trouble, write_trouble, stop_at;
};

/* ---- queues --------------------------------------------------------------------------------- */

static bool queue_init(struct disk_queue *q, size_t cap)
{
    q->job = calloc(cap ? cap : 1, sizeof *q->job);
    q->cap = cap;
    return q->job;
}

static bool queue_push(struct disk_queue *q, const struct prefix_job *j)
{
    if (q->n == q->cap)
        return false;
    q->job[(q->first + q->n++) % q->cap] = *j;
    return true;
}

static bool queue_pop(struct disk_queue *q, struct prefix_job *j)
{
    if (!q->n)
        return false;
    *j = q->job[q->first];
    q->first = (q->first + 1) % q->cap;
    q->n--;
    return true;
}

/* ---- the thread ----------------------------------------------------------------------------- */

/* One line about a trouble, then silence for a while. */
static void disk_trouble(struct prefix_disk *d, double *last, const struct err *e, const char *what)
{
    double now = clock_seconds();
    if (*last && now - *last < DISK_QUIET)
        return;
    *last = now;
    log_line(d->o.log, LOG_WARN, "%s: %s: %s", d->o.dir, what, e->text);
}

static void disk_done(struct prefix_disk *d, const struct prefix_job *j)
{
    queue_push(&d->done, j); /* has room for all jobs that there can be */
}

static void disk_read(struct prefix_disk *d, struct prefix_job *j)
{
    struct err e = {0};
    int rc = j->chain == d->bad ? ERR_NOTFOUND : prefix_file_read(d->dir, &j->page, d->room, &e);
    j->ok = !rc;
    if (rc && j->chain != d->bad) {
        d->bad = j->chain;
        if (rc != ERR_NOTFOUND)
            disk_trouble(d, &d->read_trouble, &e, "a cached page was not used");
    }
    if (j->ok && j->last)
        prefix_scan_touch(d->dir, j->page.key, j->page.parent);
    pthread_mutex_lock(&d->lock);
    if (rc == ERR_FORMAT || (rc == ERR_NOTFOUND && *e.text))
        prefix_keys_remove(&d->keys, j->page.key);
    disk_done(d, j);
    bool wake = j->last || !d->read.n;
    pthread_mutex_unlock(&d->lock);
    if (wake && d->o.wake)
        d->o.wake(d->o.wake_arg);
}

/* Counts the folder, and removes what is too much. */
static void disk_scan(struct prefix_disk *d)
{
    struct prefix_scan s = {.root = d->root, .bound = d->o.bytes};
    struct err e = {0};
    memcpy(s.id, d->o.id, sizeof s.id);
    if (prefix_scan(&s, &e))
        disk_trouble(d, &d->write_trouble, &e, "the cached pages cannot be counted");
    pthread_mutex_lock(&d->lock);
    d->bytes = s.bytes;
    for (size_t i = 0; i < s.n_key; i++)
        if (s.key[i].gone)
            prefix_keys_remove(&d->keys, s.key[i].key);
        else /* of another process perhaps */
            prefix_keys_add(&d->keys, s.key[i].key, true);
    pthread_mutex_unlock(&d->lock);
    free(s.key);
}

/* The disk is not filled to the brim. */
static int disk_room(const struct prefix_disk *d, size_t bytes, struct err *e)
{
    struct statvfs v;
    if (fstatvfs(d->dir, &v))
        return 0;
    uint64_t left = (uint64_t)v.f_bavail * v.f_frsize;
    if (left >= bytes && left - bytes >= d->o.spare)
        return 0;
    return err_set(e, ERR_IO, "only %.1f GB are free on its disk", (double)left / 1e9);
}

/* Writes what was copied. */
static void disk_write(struct prefix_disk *d, const struct prefix_page *page)
{
    struct err e = {0};
    char temp[64];
    snprintf(temp, sizeof temp, "%016" PRIx64 ".%" PRIu64 ".part", d->tag, d->n_temp++);
    int rc = disk_room(d, prefix_file_bytes(page->n, page->bytes), &e);
    rc = rc ? rc : prefix_file_write(d->dir, page, temp, d->room, &e);
    if (rc) {
        disk_trouble(d, &d->write_trouble, &e, "pages are not kept");
        /* Another process may have removed the folder when it was empty. */
        int dir = prefix_scan_folder(d->root, d->o.id, &e);
        if (dir >= 0) {
            close(d->dir);
            d->dir = dir;
        }
    }
    size_t bytes = rc ? 0 : prefix_file_bytes(page->n, page->bytes);
    pthread_mutex_lock(&d->lock);
    if (rc)
        prefix_keys_remove(&d->keys, page->key);
    else
        prefix_keys_add(&d->keys, page->key, true);
    d->bytes += bytes;
    d->unscanned += bytes;
    if (d->bytes > d->o.bytes || d->unscanned > d->o.bytes / 20) {
        d->unscanned = 0;
        d->scan = true;
    }
    pthread_mutex_unlock(&d->lock);
}

/* Takes a copy of the job's page, with the lock held before and after. */
static void disk_copy(struct prefix_disk *d, struct prefix_job *j)
{
    d->copying = true;
    pthread_mutex_unlock(&d->lock);
    memcpy(d->ids, j->page.ids, j->page.n * sizeof *d->ids);
    memcpy(d->copy, j->page.data, j->page.bytes);
    pthread_mutex_lock(&d->lock);
    d->copying = false;
    j->ok = true;
    disk_done(d, j);
    pthread_cond_broadcast(&d->copied);
    j->page.ids = d->ids;
    j->page.data = d->copy;
}

/* The next thing to do; false at the end. The lock is held before and after. */
static bool disk_step(struct prefix_disk *d)
{
    struct prefix_job j;
    bool late = d->stop && clock_seconds() > d->stop_at;
    if (!d->stop && queue_pop(&d->read, &j)) {
        pthread_mutex_unlock(&d->lock);
        disk_read(d, &j);
        pthread_mutex_lock(&d->lock);
    } else if (d->scan && !late) {
        d->scan = false;
        pthread_mutex_unlock(&d->lock);
        disk_scan(d);
        pthread_mutex_lock(&d->lock);
    } else if (!late && queue_pop(&d->write, &j)) {
        disk_copy(d, &j);
        pthread_mutex_unlock(&d->lock);
        disk_write(d, &j.page);
        pthread_mutex_lock(&d->lock);
    } else if (d->n_touch) {
        uint64_t key = d->touch[--d->n_touch][0], parent = d->touch[d->n_touch][1];
        pthread_mutex_unlock(&d->lock);
        prefix_scan_touch(d->dir, key, parent);
        pthread_mutex_lock(&d->lock);
    } else if (d->stop) {
        return false;
    } else {
        pthread_cond_wait(&d->work, &d->lock);
    }
    return true;
}

static void *disk_main(void *arg)
{
    struct prefix_disk *d = arg;
    pthread_mutex_lock(&d->lock);
    while (disk_step(d))
        ;
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- calls ---------------------------------------------------------------------------------- */

static int disk_start(struct prefix_disk *d, struct err *e)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the program's own threads */
    int no = pthread_create(&d->thread, NULL, disk_main, d);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (no) {
        errno = no;
        return err_errno(e, "a thread for cached pages");
    }
    d->running = true;
    return 0;
}

int prefix_disk_open(struct prefix_disk **out, const struct prefix_disk_opts *o, struct err *e)
{
    *out = NULL;
    struct prefix_disk *d = calloc(1, sizeof *d);
    if (!d)
        return err_nomem(e, sizeof *d, "the disk cache");
    d->o = *o;
    d->root = d->dir = -1;
    d->scan = true;
    d->tag = rng_os_seed();
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    pthread_cond_init(&d->copied, NULL);
    d->o.dir = strdup(o->dir);
    d->room = malloc(prefix_file_bytes(o->max_ids, 0));
    d->copy = malloc(o->page_bytes);
    d->ids = malloc((o->max_ids + 1) * sizeof *d->ids);
    bool ok = d->o.dir && d->room && d->copy && d->ids && queue_init(&d->read, o->reads) &&
              queue_init(&d->write, o->writes) && queue_init(&d->done, o->reads + o->writes);
    int rc = ok ? 0 : err_nomem(e, o->page_bytes, "the disk cache");
    if (!rc && ((d->root = prefix_scan_root(o->dir, e)) < 0 ||
                (d->dir = prefix_scan_folder(d->root, o->id, e)) < 0))
        rc = e ? e->code : ERR_IO;
    if (!rc && !(rc = prefix_scan_keys(d->dir, &d->keys, e)))
        rc = disk_start(d, e);
    if (rc)
        prefix_disk_free(d);
    else
        *out = d;
    return rc;
}

void prefix_disk_stop(struct prefix_disk *d)
{
    if (!d->running)
        return;
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    d->stop_at = clock_seconds() + DISK_STOP_SECONDS;
    pthread_cond_signal(&d->work);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    d->running = false;
    for (struct prefix_job j; queue_pop(&d->read, &j) || queue_pop(&d->write, &j);) {
        j.ok = false;
        disk_done(d, &j);
    }
}

void prefix_disk_free(struct prefix_disk *d)
{
    if (!d)
        return;
    prefix_disk_stop(d);
    if (d->dir >= 0)
        close(d->dir);
    if (d->root >= 0)
        close(d->root);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->work);
    pthread_cond_destroy(&d->copied);
    prefix_keys_release(&d->keys);
    free(d->read.job);
    free(d->write.job);
    free(d->done.job);
    free(d->room);
    free(d->copy);
    free(d->ids);
    free((char *)(uintptr_t)d->o.dir);
    free(d);
}

bool prefix_disk_has(struct prefix_disk *d, uint64_t key, bool soon)
{
    pthread_mutex_lock(&d->lock);
    bool has = prefix_keys_has(&d->keys, key, soon);
    pthread_mutex_unlock(&d->lock);
    return has;
}

bool prefix_disk_push(struct prefix_disk *d, const struct prefix_job *j)
{
    size_t *n = j->write ? &d->n_write : &d->n_read;
    struct disk_queue *q = j->write ? &d->write : &d->read;
    pthread_mutex_lock(&d->lock);
    bool ok = *n < q->cap && (!j->write || prefix_keys_add(&d->keys, j->page.key, false));
    if (ok) {
        queue_push(q, j);
        ++*n;
        pthread_cond_signal(&d->work);
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}

void prefix_disk_touch(struct prefix_disk *d, uint64_t key, uint64_t parent)
{
    pthread_mutex_lock(&d->lock);
    if (d->n_touch < DISK_TOUCHES) {
        d->touch[d->n_touch][0] = key;
        d->touch[d->n_touch++][1] = parent;
        pthread_cond_signal(&d->work);
    }
    pthread_mutex_unlock(&d->lock);
}

void prefix_disk_cancel(struct prefix_disk *d)
{
    struct prefix_job j;
    pthread_mutex_lock(&d->lock);
    while (queue_pop(&d->write, &j)) {
        prefix_keys_remove(&d->keys, j.page.key);
        j.ok = false;
        disk_done(d, &j);
    }
    while (d->copying)
        pthread_cond_wait(&d->copied, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

bool prefix_disk_next(struct prefix_disk *d, struct prefix_job *out)
{
    pthread_mutex_lock(&d->lock);
    bool any = queue_pop(&d->done, out);
    if (any)
        --*(out->write ? &d->n_write : &d->n_read);
    pthread_mutex_unlock(&d->lock);
    return any;
}

uint64_t prefix_disk_bytes(struct prefix_disk *d)
{
    pthread_mutex_lock(&d->lock);
    uint64_t n = d->bytes;
    pthread_mutex_unlock(&d->lock);
    return n;
}
