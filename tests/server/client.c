#include "server/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int client_open(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct timeval patience = {.tv_sec = 100};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    /* With a time limit, calls end early (EINTR) also when the process was stopped and continued. A
       connect that has ended so goes on, and cannot be called again: it has none. */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

ssize_t client_recv(int fd, void *to, size_t n)
{
    ssize_t r;
    do
        r = recv(fd, to, n, 0);
    while (r < 0 && errno == EINTR);
    return r;
}

bool client_send(int fd, const char *s, size_t n)
{
    while (n) {
        ssize_t w = send(fd, s, n, MSG_NOSIGNAL);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        s += w;
        n -= (size_t)w;
    }
    return true;
}

bool client_puts(int fd, const char *s)
{
    return client_send(fd, s, strlen(s));
}

static bool read_byte(int fd, char *c)
{
    return client_recv(fd, c, 1) == 1;
}

struct text {
    char *s;
    size_t n, cap;
};

static void text_add(struct text *t, char c)
{
    if (t->n + 1 >= t->cap) {
        t->cap = t->cap ? 2 * t->cap : 256;
        t->s = realloc(t->s, t->cap);
        if (!t->s)
            abort();
    }
    t->s[t->n++] = c;
    t->s[t->n] = 0;
}

/* n bytes, or all up to the end. */
static bool read_n(int fd, struct text *t, size_t n)
{
    char buf[4096];
    while (n) {
        ssize_t r = client_recv(fd, buf, n < sizeof buf ? n : sizeof buf);
        if (r <= 0)
            return false;
        for (ssize_t i = 0; i < r; i++)
            text_add(t, buf[i]);
        n -= (size_t)r;
    }
    return true;
}

static void read_chunks(int fd, struct reply *r, struct text *body)
{
    for (;;) {
        char line[64], c = 0;
        size_t n = 0;
        while (n < sizeof line - 1 && read_byte(fd, &c) && c != '\n')
            line[n++] = c;
        line[n] = 0;
        if (c != '\n')
            return;
        size_t size = strtoul(line, NULL, 16);
        struct text end = {0};
        if (size)
            r->chunks++;
        bool ok = read_n(fd, body, size) && read_n(fd, &end, 2);
        free(end.s);
        if (!ok || !size) {
            r->complete = ok;
            return;
        }
    }
}

const char *reply_header(struct reply *r, const char *name, char *out, size_t cap)
{
    size_t n = strlen(name);
    for (const char *s = r->head; s && (s = strchr(s, '\n')); s++) {
        if (strncasecmp(s + 1, name, n) != 0 || s[1 + n] != ':')
            continue;
        s += 2 + n;
        s += strspn(s, " ");
        snprintf(out, cap, "%.*s", (int)strcspn(s, "\r\n"), s);
        return out;
    }
    return NULL;
}

void client_read(int fd, struct reply *r, bool bodyless)
{
    struct text head = {0}, body = {0};
    char c, value[64];
    *r = (struct reply){0};
    while (!(head.n >= 4 && !memcmp(head.s + head.n - 4, "\r\n\r\n", 4)) && read_byte(fd, &c))
        text_add(&head, c);
    text_add(&body, 0);
    body.n = 0;
    r->head = head.s;
    if (head.n > 12 && !memcmp(head.s, "HTTP/1.", 7))
        r->status = (int)strtol(head.s + 9, NULL, 10);
    if (r->status == 100) {
        free(head.s);
        free(body.s);
        client_read(fd, r, bodyless);
        return;
    }
    if (bodyless || r->status == 204) {
        r->complete = r->status != 0;
    } else if (reply_header(r, "Transfer-Encoding", value, sizeof value)) {
        read_chunks(fd, r, &body);
    } else if (reply_header(r, "Content-Length", value, sizeof value)) {
        r->complete = read_n(fd, &body, strtoul(value, NULL, 10));
    } else if (r->status) {
        read_n(fd, &body, (size_t)-1);
        r->complete = true;
    }
    body.s[body.n] = 0;
    r->body = body.s;
    r->n = body.n;
}

void reply_free(struct reply *r)
{
    free(r->head);
    free(r->body);
}

void client_ask(int port, const char *request, struct reply *r)
{
    int fd = client_open(port);
    *r = (struct reply){0};
    if (fd < 0)
        return;
    client_puts(fd, request);
    client_read(fd, r, !strncmp(request, "HEAD", 4));
    close(fd);
}

bool client_expect(int fd, const char *text)
{
    struct text got = {0};
    size_t n = strlen(text);
    bool ok = read_n(fd, &got, n) && !memcmp(got.s, text, n);
    if (!ok)
        fprintf(stderr, "expected \"%s\", got \"%s\"\n", text, got.s ? got.s : "");
    free(got.s);
    return ok;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool client_ends(int fd, double seconds)
{
    char sink[4096];
    for (double end = now() + seconds; now() < end;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, (int)((end - now()) * 1000) + 1);
        ssize_t got = n > 0 ? recv(fd, sink, sizeof sink, MSG_DONTWAIT) : 1;
        if (!got || (got < 0 && errno != EAGAIN))
            return true;
    }
    return false;
}
