/*
 * Sockets to listen on: TCP, Unix, or one that was handed over. When a port is taken the error says
 * by whom, as far as /proc tells.
 */
#include "server/http_private.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTEN_BACKLOG = 1024 };

/* The inode of the socket that listens on a port, from /proc/net/tcp or tcp6; 0: not found. */
static unsigned long port_inode(const char *table, int port)
{
    char line[512];
    unsigned long inode = 0;
    FILE *f = fopen(table, "re");
    while (f && !inode && fgets(line, sizeof line, f)) {
        unsigned local, state;
        unsigned long node;
        if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*u %lu",
                   &local, &state, &node) == 3 &&
            (int)local == port && state == 0x0a)
            inode = node;
    }
    if (f)
        fclose(f);
    return inode;
}

static bool process_has(const char *pid, const char *socket)
{
    char path[300], link[64];
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    bool found = false;
    for (struct dirent *x; d && !found && (x = readdir(d));) {
        snprintf(path, sizeof path, "/proc/%s/fd/%.16s", pid, x->d_name);
        ssize_t n = readlink(path, link, sizeof link - 1);
        found = n > 0 && (size_t)n == strlen(socket) && !memcmp(link, socket, (size_t)n);
    }
    if (d)
        closedir(d);
    return found;
}

/* " (by NAME, pid N)", or nothing. */
static void port_owner(int port, char *out, size_t cap)
{
    unsigned long inode = port_inode("/proc/net/tcp", port);
    char socket[64], path[300], name[64];
    *out = 0;
    if (!inode)
        inode = port_inode("/proc/net/tcp6", port);
    if (!inode)
        return;
    snprintf(socket, sizeof socket, "socket:[%lu]", inode);
    DIR *d = opendir("/proc");
    for (struct dirent *x; d && (x = readdir(d));) {
        if (x->d_name[0] < '1' || x->d_name[0] > '9' || strlen(x->d_name) > 16 ||
            !process_has(x->d_name, socket))
            continue;
        snprintf(path, sizeof path, "/proc/%.16s/comm", x->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(name, sizeof name, f)) {
            name[strcspn(name, "\n")] = 0;
            snprintf(out, cap, " (by %s, pid %.16s)", name, x->d_name);
        }
        if (f)
            fclose(f);
        break;
    }
    if (d)
        closedir(d);
}

static int listen_unix(struct http *h, struct err *e)
{
    const char *path = h->o.host;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(e, ERR_USAGE, "--host %.200s: the path of a socket has at most %zu bytes",
                       path, sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, "cannot make a socket");
    /* A socket that nobody answers is what a killed server has left. */
    if (!stat(path, &st) && S_ISSOCK(st.st_mode) && connect(fd, (struct sockaddr *)&a, sizeof a) &&
        errno == ECONNREFUSED)
        unlink(path);
    close(fd);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, "cannot make a socket");
    h->listen_fd = fd;
    if (bind(fd, (struct sockaddr *)&a, sizeof a))
        return errno == EADDRINUSE
                   ? err_set(e, ERR_BUSY,
                             "%.200s is there already: another server has it, or it is no socket",
                             path)
                   : err_errno(e, "cannot listen on %.200s", path);
    h->unix_path = strdup(path);
    if (!h->unix_path)
        return err_nomem(e, strlen(path), "a path");
    chmod(path, 0660);
    return listen(fd, LISTEN_BACKLOG) ? err_errno(e, "cannot listen on %.200s", path) : 0;
}

static int listen_tcp(struct http *h, struct err *e)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    char port[16], by[128];
    int on = 1, off = 0, fd = -1, bad = 0;
    const char *host = h->o.host && *h->o.host ? h->o.host : "127.0.0.1";
    snprintf(port, sizeof port, "%d", h->o.port);
    /* The name means both; clients that say it try IPv4 last or only. */
    int rc = getaddrinfo(!strcmp(host, "localhost") ? "127.0.0.1" : host, port, &hint, &list);
    if (rc)
        return err_set(e, ERR_USAGE, "--host %.200s: %s", host, gai_strerror(rc));
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (a->ai_family == AF_INET6) /* "::" is for both families */
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* inherited */
        if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, LISTEN_BACKLOG)) {
            bad = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    h->listen_fd = fd;
    if (fd >= 0)
        return 0;
    if (bad == EADDRINUSE) {
        port_owner(h->o.port, by, sizeof by);
        return err_set(e, ERR_BUSY, "port %d is in use%s: stop it, or give --port", h->o.port, by);
    }
    if (bad == EADDRNOTAVAIL)
        return err_set(e, ERR_USAGE, "--host %.200s: this machine has no such address", host);
    errno = bad ? bad : errno;
    return err_errno(e, "cannot listen on %.200s port %d", host, h->o.port);
}

/* What the socket is bound to. */
static int listen_look(struct http *h, struct err *e)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    int on = 0;
    socklen_t on_n = sizeof on;
    if (getsockopt(h->listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &on_n) || !on)
        return err_set(e, ERR_USAGE, "the socket that was handed over does not listen");
    if (getsockname(h->listen_fd, (struct sockaddr *)&a, &n))
        return err_errno(e, "cannot look at the socket");
    if (a.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&a;
        h->port = ntohs(in->sin_port);
        h->local = ntohl(in->sin_addr.s_addr) >> 24 == 127;
    } else if (a.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&a;
        h->port = ntohs(in->sin6_port);
        h->local = IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
    }
    return 0;
}

int http_listen(struct http *h, struct err *e)
{
    int rc = 0;
    h->listen_fd = h->o.fd;
    if (h->o.fd < 0)
        rc = h->o.host && strchr(h->o.host, '/') ? listen_unix(h, e) : listen_tcp(h, e);
    return rc ? rc : listen_look(h, e);
}
