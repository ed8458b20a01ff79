/*
 * The watcher: one thread with an epoll set of its own over all connections.
 *
 *   - a client that leaves while its answer is awaited: libmicrohttpd does not look at suspended
 *     connections
 *   - a head that takes too long, a body that trickles (each byte would reset an idle timer)
 *   - signs of life on silent answers
 *   - sockets that are full: a stream goes on when its client has read
 *   - lingering: closing a socket with unread bytes resets the connection, and the client loses the
 *     answer that says why; so a duplicate stays open for a moment and swallows them
 *
 * That a head has begun shows in the socket's count of received bytes, looked at every few seconds:
 * an event for it would be lost when the network thread reads first. Events carry the number of the
 * connection and its turn, since descriptors are used again.
 */
#include "server/http_private.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WATCH_EVENTS = 256, LINGER_BYTES = 64 << 20 };

static const uint64_t watch_kick = UINT64_MAX, watch_linger = UINT64_C(1) << 63;
static const double linger_seconds = 2;

/* Bytes that the client has sent; UINT64_MAX where the system does not say (Unix sockets). */
static uint64_t received(int fd)
{
    struct tcp_info t;
    socklen_t n = sizeof t;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &n) ||
        n < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof t.tcpi_bytes_received)
        return UINT64_MAX;
    return t.tcpi_bytes_received;
}

static void watch_conn(struct http *h, const struct http_conn *k, int op, uint32_t events)
{
    struct epoll_event ev = {.events = events | EPOLLRDHUP | EPOLLET};
    ev.data.u64 = (uint64_t)k->turn << 32 | (uint64_t)(k - h->conn);
    epoll_ctl(h->watch_fd, op, k->fd, &ev);
}

void http_watch_add(struct http *h, struct http_conn *k)
{
    k->bytes = 0;
    k->turn = (k->turn + 1) & 0x7fffffff;
    watch_conn(h, k, EPOLL_CTL_ADD, 0);
    if (h->asleep)
        http_watch_kick(h);
}

void http_watch_room(struct http *h, const struct http_conn *k)
{
    watch_conn(h, k, EPOLL_CTL_MOD, EPOLLOUT); /* also when there is room already */
}

void http_watch_idle(struct http_conn *k)
{
    k->bytes = received(k->fd);
}

void http_watch_kick(struct http *h)
{
    uint64_t one = 1;
    h->asleep = h->lazy = false;
    if (write(h->kick_fd, &one, sizeof one) < 0) /* full: it is awake already */
        return;
}

void http_watch_linger(struct http *h, int fd)
{
    for (size_t i = 0; i < HTTP_LINGER_MAX; i++) {
        struct http_linger *l = &h->linger[i];
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = watch_linger | i};
        if (l->fd >= 0)
            continue;
        l->fd = dup(fd);
        l->until = clock_seconds() + linger_seconds;
        l->bytes = 0;
        if (l->fd >= 0 && epoll_ctl(h->watch_fd, EPOLL_CTL_ADD, l->fd, &ev)) {
            close(l->fd);
            l->fd = -1;
        }
        return;
    }
}

static void linger_close(struct http_linger *l)
{
    close(l->fd);
    l->fd = -1;
}

static void linger_read(struct http_linger *l)
{
    char sink[16 << 10];
    for (int i = 0; l->fd >= 0 && i < 16; i++) {
        ssize_t n = recv(l->fd, sink, sizeof sink, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        l->bytes += n > 0 ? (size_t)n : 0;
        if (n <= 0 || l->bytes > LINGER_BYTES)
            linger_close(l);
    }
}

static void watch_event(struct http *h, const struct epoll_event *ev)
{
    uint64_t id = ev->data.u64;
    bool left = ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    struct http_exchange *x = NULL;
    pthread_mutex_lock(&h->lock);
    if (id == watch_kick) {
        uint64_t n;
        if (read(h->kick_fd, &n, sizeof n) < 0)
            n = 0;
    } else if (id & watch_linger) {
        struct http_linger *l = &h->linger[id % HTTP_LINGER_MAX];
        if (l->fd >= 0)
            linger_read(l);
    } else if ((id & 0xffffffff) < h->n_conn) {
        struct http_conn *k = &h->conn[id & 0xffffffff];
        if (k->state != HTTP_FREE && k->turn == id >> 32) {
            k->left |= left;
            if (k->state == HTTP_BUSY) {
                x = k->x->awaited ? k->x : NULL;
                if (x)
                    http_keep(x);
            } else if (left) {
                /* An end that came together with data is no new edge for the network thread. */
                shutdown(k->fd, SHUT_RD);
            }
        }
    }
    pthread_mutex_unlock(&h->lock);
    if (!x)
        return;
    if (left) {
        http_gone(x);
    } else {
        pthread_mutex_lock(&x->lock);
        http_wake(x);
        pthread_mutex_unlock(&x->lock);
    }
    http_drop(x);
}

static void tick_idle(struct http *h)
{
    for (struct http_conn *k = h->list[HTTP_IDLE].head, *next; k; k = next) {
        next = k->next;
        uint64_t n = received(k->fd);
        if (n != UINT64_MAX && n > k->bytes) {
            http_move(h, k, HTTP_HEAD);
            k->linger = true;
        }
    }
}

/* Deadlines and signs of life. Returns the time to come back after, in milliseconds; -1: never. */
static int watch_tick(struct http *h, int step, int slow, bool idle)
{
    double now = clock_seconds();
    bool busy = false;
    pthread_mutex_lock(&h->lock);
    for (struct http_conn *k = h->list[HTTP_HEAD].head; k; k = k->next) {
        if (now - k->since < h->o.head_seconds)
            break;
        shutdown(k->fd, SHUT_RDWR);
    }
    for (struct http_conn *k = h->list[HTTP_BODY].head; k; k = k->next) {
        double over = now - k->since - h->o.idle_seconds;
        if (over > 0 && (double)atomic_load(&k->x->received) < over * HTTP_RATE_MIN)
            shutdown(k->fd, SHUT_RDWR);
    }
    for (struct http_conn *k = h->list[HTTP_BUSY].head; k; k = k->next) {
        busy = true;
        http_alive(k->x, now);
    }
    for (size_t i = 0; i < HTTP_LINGER_MAX; i++) {
        if (h->linger[i].fd < 0)
            continue;
        busy = true;
        if (now > h->linger[i].until)
            linger_close(&h->linger[i]);
    }
    if (idle)
        tick_idle(h);
    h->asleep = !h->open && !busy;
    h->lazy = !busy;
    int ms = h->asleep ? -1 : h->lazy ? slow : step;
    pthread_mutex_unlock(&h->lock);
    return ms;
}

static void *watch_main(void *arg)
{
    struct http *h = arg;
    struct epoll_event ev[WATCH_EVENTS];
    int step = h->o.alive_seconds < 4 ? (int)(h->o.alive_seconds * 250) + 1 : 1000;
    int slow = (int)(h->o.head_seconds * 500) + 1, wait = -1;
    double next = 0, next_idle = 0;
    for (;;) {
        int n = epoll_wait(h->watch_fd, ev, WATCH_EVENTS, wait);
        if (n < 0 && errno != EINTR)
            return NULL;
        bool kicked = false;
        for (int i = 0; i < n; i++) {
            kicked |= ev[i].data.u64 == watch_kick;
            watch_event(h, &ev[i]);
        }
        if (!atomic_load(&h->watching))
            return NULL;
        double now = clock_seconds();
        if (now < next && !kicked)
            continue;
        bool idle = now >= next_idle;
        wait = watch_tick(h, step, slow, idle);
        if (idle)
            next_idle = now + slow / 1000.0;
        next = now + (wait < 0 ? step : wait) / 1000.0;
    }
}

int http_watch_start(struct http *h, struct err *e)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = watch_kick};
    for (size_t i = 0; i < HTTP_LINGER_MAX; i++)
        h->linger[i].fd = -1;
    h->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    h->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->watch_fd < 0 || h->kick_fd < 0 || epoll_ctl(h->watch_fd, EPOLL_CTL_ADD, h->kick_fd, &ev))
        return err_errno(e, "cannot watch connections");
    h->asleep = h->lazy = true;
    atomic_store(&h->watching, true);
    errno = pthread_create(&h->watcher, NULL, watch_main, h);
    if (errno) {
        atomic_store(&h->watching, false);
        return err_errno(e, "cannot start a thread");
    }
    return 0;
}

void http_watch_stop(struct http *h)
{
    if (atomic_exchange(&h->watching, false)) {
        pthread_mutex_lock(&h->lock);
        http_watch_kick(h);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->watcher, NULL);
    }
    for (size_t i = 0; i < HTTP_LINGER_MAX; i++)
        if (h->watch_fd >= 0 && h->linger[i].fd >= 0)
            linger_close(&h->linger[i]);
    if (h->watch_fd >= 0)
        close(h->watch_fd);
    if (h->kick_fd >= 0)
        close(h->kick_fd);
    h->watch_fd = h->kick_fd = -1;
}
