/*
 * The access log's writer.
 *
 * Lines are made in the network thread and where answers end, and a terminal that was paused, or a
 * pipe that nobody reads, would hold those up, and with them every connection. So lines go into a
 * bounded text, and one thread writes them; what does not fit is counted, and a line says so once
 * there is room again. At the end the writer has a moment; one that is still held up then is left
 * behind, with all that it uses.
 */
#include "server/http_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINES_MAX = 1 << 20 };

struct http_lines {
    struct log log;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
    struct buf text; /* lines, each with its NUL */
    size_t dropped;
    bool stop, over; /* over: the writer is gone, or nobody waits for it any more */
};

static void lines_free(struct http_lines *l)
{
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->more);
    pthread_cond_destroy(&l->done);
    buf_release(&l->text);
    free(l);
}

static void *lines_main(void *arg)
{
    struct http_lines *l = arg;
    struct buf mine;
    buf_init(&mine, LINES_MAX);
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->text.len && !l->dropped && !l->stop)
            pthread_cond_wait(&l->more, &l->lock);
        if (!l->text.len && !l->dropped)
            break;
        struct buf full = l->text;
        size_t dropped = l->dropped;
        l->text = mine;
        l->dropped = 0;
        mine = full;
        pthread_mutex_unlock(&l->lock);
        for (const char *s = mine.data, *end = s + mine.len; s < end; s += strlen(s) + 1)
            log_bare(&l->log, "%s", s);
        buf_clear(&mine);
        if (dropped)
            log_bare(&l->log, "%zu lines of this log were dropped: it was not read", dropped);
        pthread_mutex_lock(&l->lock);
    }
    bool last = l->over;
    l->over = true;
    pthread_cond_signal(&l->done);
    pthread_mutex_unlock(&l->lock);
    buf_release(&mine);
    if (last)
        lines_free(l);
    return NULL;
}

int http_lines_start(struct http *h, struct err *e)
{
    pthread_t writer;
    pthread_condattr_t a;
    if (!h->o.access_log || !h->o.log || !h->o.log->out)
        return 0;
    struct http_lines *l = calloc(1, sizeof *l);
    if (!l)
        return err_nomem(e, sizeof *l, "the access log");
    l->log = *h->o.log;
    buf_init(&l->text, LINES_MAX);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->more, NULL);
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&l->done, &a);
    pthread_condattr_destroy(&a);
    errno = pthread_create(&writer, NULL, lines_main, l);
    if (errno) {
        lines_free(l);
        return err_errno(e, "cannot start a thread");
    }
    pthread_detach(writer);
    h->lines = l;
    return 0;
}

void http_lines_put(struct http *h, const char *line)
{
    pthread_mutex_lock(&h->lock);
    struct http_lines *l = h->lines;
    if (l) {
        pthread_mutex_lock(&l->lock);
        l->dropped += l->dropped || buf_append(&l->text, line, strlen(line) + 1, NULL);
        pthread_cond_signal(&l->more);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_unlock(&h->lock);
    if (!l) /* the server is over */
        log_bare(h->o.log, "%s", line);
}

void http_lines_stop(struct http *h, double seconds)
{
    struct timespec end;
    pthread_mutex_lock(&h->lock);
    struct http_lines *l = h->lines;
    h->lines = NULL;
    pthread_mutex_unlock(&h->lock);
    if (!l)
        return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->more);
    while (!l->over && pthread_cond_timedwait(&l->done, &l->lock, &end) != ETIMEDOUT)
        ;
    bool last = l->over;
    l->over = true;
    pthread_mutex_unlock(&l->lock);
    if (last)
        lines_free(l);
}
