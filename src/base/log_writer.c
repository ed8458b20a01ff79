/*
 * The writer of a log: see log.h.
 *
 * A terminal that was paused, or a pipe that nobody reads, holds up whoever writes to it. So lines
 * go into a bounded text, and one thread writes them; what does not fit is counted, and a line says
 * so once there is room again. At the end the writer has a moment; one that is still held up then
 * is left behind, with all that it uses.
 */
#include "base/buf.h"
#include "base/log_private.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINES_MAX = 1 << 20 };

struct log_writer {
    FILE *out;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
    struct buf text; /* lines, each with its end */
    size_t dropped;
    bool stop, over; /* over: the writer is gone, or nobody waits for it any more */
};

static void writer_free(struct log_writer *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
    pthread_cond_destroy(&w->done);
    buf_release(&w->text);
    free(w);
}

static void *writer_main(void *arg)
{
    struct log_writer *w = arg;
    struct buf mine;
    buf_init(&mine, LINES_MAX);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->text.len && !w->dropped && !w->stop)
            pthread_cond_wait(&w->more, &w->lock);
        if (!w->text.len && !w->dropped)
            break;
        struct buf full = w->text;
        size_t dropped = w->dropped;
        w->text = mine;
        w->dropped = 0;
        mine = full;
        pthread_mutex_unlock(&w->lock);
        if (mine.len)
            fwrite(mine.data, 1, mine.len, w->out);
        buf_clear(&mine);
        if (dropped)
            fprintf(w->out, "%zu lines of this log were dropped: it was not read\n", dropped);
        fflush(w->out);
        pthread_mutex_lock(&w->lock);
    }
    bool last = w->over;
    w->over = true;
    pthread_cond_signal(&w->done);
    pthread_mutex_unlock(&w->lock);
    buf_release(&mine);
    if (last)
        writer_free(w);
    return NULL;
}

int log_writer_start(struct log *l, struct err *e)
{
    pthread_t thread;
    pthread_condattr_t a;
    struct log_writer *w = calloc(1, sizeof *w);
    if (!w)
        return err_nomem(e, sizeof *w, "the log");
    w->out = l->out;
    buf_init(&w->text, LINES_MAX);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&w->done, &a);
    pthread_condattr_destroy(&a);
    errno = pthread_create(&thread, NULL, writer_main, w);
    if (errno) {
        writer_free(w);
        return err_errno(e, "cannot start a thread");
    }
    pthread_detach(thread);
    l->writer = w;
    return 0;
}

void log_writer_put(struct log_writer *w, const char *line, size_t n)
{
    pthread_mutex_lock(&w->lock);
    w->dropped += w->dropped || buf_append(&w->text, line, n, NULL);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
}

void log_writer_stop(struct log *l, double seconds)
{
    struct timespec end;
    struct log_writer *w = l->writer;
    l->writer = NULL;
    if (!w)
        return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->more);
    while (!w->over && pthread_cond_timedwait(&w->done, &w->lock, &end) != ETIMEDOUT)
        ;
    bool last = w->over;
    w->over = true;
    pthread_mutex_unlock(&w->lock);
    if (last)
        writer_free(w);
}
