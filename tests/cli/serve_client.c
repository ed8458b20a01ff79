/*
 * What test_serve.sh needs of HTTP and descriptors.
 *
 *   get HOST:PORT PATH          the body; status 0 for 200, else 1 with the status first
 *   begin HOST:PORT FILE        begins a request and never ends it; makes FILE when the server
 * waits streams AT N TOKENS FILE    N streams of so many tokens by the model qwen2_tied, AT
 * HOST:PORT or the path of a socket; makes FILE when all have begun. Prints how many came whole and
 * how many broke off refused AT                  status 0 when nobody listens there activate
 * PROGRAM ARGS…      as systemd would: with a listening socket as descriptor 3 exec PROGRAM ARGS…
 * with SIGINT as on a terminal: shells let jobs ignore it file NAME, grep FILE TEXT   waits until
 * it is there, 30 s at most wait MS
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void nap(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static int dial(const char *at)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    const char *colon = strrchr(at, ':');
    if (!colon)
        return -1;
    a.sin_port = htons((unsigned short)strtoul(colon + 1, NULL, 10));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) ? -1 : fd;
}

/* AT: "/path/of/socket" or HOST:PORT. */
static int dial_any(const char *at)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (*at != '/')
        return dial(at);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", at);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) ? -1 : fd;
}

static int refused(const char *at)
{
    int fd = dial_any(at);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static const char stream_end[] = "data: [DONE]\n\n";
enum { STREAMS = 256, STREAM_READ = 4096, STREAM_END = sizeof stream_end - 1 };

struct stream {
    char last[STREAM_END]; /* of what came: the end may come in two pieces */
    size_t kept;
    bool begun, whole;
};

/* What there is to read of an answer; false when it has ended or is not one. */
static bool stream_read(struct stream *s, int fd)
{
    char text[STREAM_END + STREAM_READ];
    memcpy(text, s->last, s->kept);
    ssize_t got = read(fd, text + s->kept, STREAM_READ);
    if (got <= 0)
        return false;
    size_t n = s->kept + (size_t)got;
    if (!s->begun && (got < 12 || memcmp(text, "HTTP/1.1 200", 12) != 0))
        return false;
    s->begun = true;
    s->whole |= memmem(text, n, stream_end, STREAM_END) != NULL;
    s->kept = n < STREAM_END ? n : STREAM_END - 1;
    memcpy(s->last, text + n - s->kept, s->kept);
    return true;
}

static int streams(const char *at, int n, const char *tokens, const char *file)
{
    struct stream *s = calloc(STREAMS, sizeof *s);
    struct pollfd p[STREAMS];
    int begun = 0, open_ones = n, whole = 0;
    char text[1000], body[400];
    snprintf(body, sizeof body,
             "{\"model\":\"qwen2_tied\",\"stream\":true,\"max_tokens\":%s,\"ignore_eos\":true,"
             "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
             tokens);
    snprintf(text, sizeof text,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    if (!s || n < 1 || n > STREAMS)
        return 2;
    for (int i = 0; i < n; i++) {
        p[i] = (struct pollfd){dial_any(at), POLLIN, 0};
        if (p[i].fd < 0 || send(p[i].fd, text, strlen(text), MSG_NOSIGNAL) < 0)
            return 2;
    }
    while (open_ones && poll(p, (nfds_t)n, 30000) > 0)
        for (int i = 0; i < n; i++) {
            if (p[i].fd < 0 || !p[i].revents)
                continue;
            bool had = s[i].begun;
            if (!stream_read(&s[i], p[i].fd)) {
                close(p[i].fd);
                p[i].fd = -1;
                open_ones--;
            } else if (!had && ++begun == n) {
                close(open(file, O_CREAT | O_WRONLY, 0600));
            }
        }
    for (int i = 0; i < n; i++)
        whole += s[i].whole;
    free(s);
    printf("%d whole, %d broken\n", whole, n - whole);
    return 0;
}

static int get(const char *at, const char *path)
{
    static char all[1 << 20];
    char text[500];
    size_t n = 0;
    ssize_t got;
    int fd = dial(at);
    snprintf(text, sizeof text, "GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n", path);
    if (fd < 0 || send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return 2;
    while (n < sizeof all - 1 && (got = read(fd, all + n, sizeof all - 1 - n)) > 0)
        n += (size_t)got;
    all[n] = 0;
    close(fd);
    const char *body = strstr(all, "\r\n\r\n");
    if (!body)
        return 2;
    if (strncmp(all, "HTTP/1.", 7) != 0 || strncmp(all + 8, " 200", 4) != 0) {
        printf("%.3s\n%s\n", all + 9, body + 4);
        return 1;
    }
    puts(body + 4);
    return 0;
}

static int begin(const char *at, const char *file)
{
    static const char text[] = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                               "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n";
    char sink[4096];
    int fd = dial(at);
    if (fd < 0 || send(fd, text, sizeof text - 1, MSG_NOSIGNAL) < 0 || read(fd, sink, 12) != 12 ||
        memcmp(sink, "HTTP/1.1 100", 12) != 0)
        return 2;
    close(open(file, O_CREAT | O_WRONLY, 0600));
    while (read(fd, sink, sizeof sink) > 0)
        ;
    return 0;
}

static int activate(char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    char pid[32];
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 16) || dup2(fd, 3) != 3)
        return 2;
    if (fd != 3)
        close(fd);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    execv(argv[0], argv);
    return 2;
}

static int look(const char *file, const char *text)
{
    static char all[1 << 16];
    for (int i = 0; i < 300; i++) {
        FILE *f = fopen(file, "r");
        size_t n = f ? fread(all, 1, sizeof all - 1, f) : 0;
        all[n] = 0;
        if (f)
            fclose(f);
        if (f && (!text || strstr(all, text)))
            return 0;
        nap(100);
    }
    return 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "get") && argc == 4)
        return get(argv[2], argv[3]);
    if (!strcmp(what, "begin") && argc == 4)
        return begin(argv[2], argv[3]);
    if (!strcmp(what, "streams") && argc == 6)
        return streams(argv[2], (int)strtol(argv[3], NULL, 10), argv[4], argv[5]);
    if (!strcmp(what, "refused") && argc == 3)
        return refused(argv[2]);
    if (!strcmp(what, "activate") && argc > 2)
        return activate(argv + 2);
    if (!strcmp(what, "exec") && argc > 2) {
        signal(SIGINT, SIG_DFL);
        execv(argv[2], argv + 2);
        return 2;
    }
    if (!strcmp(what, "file") && argc == 3)
        return look(argv[2], NULL);
    if (!strcmp(what, "grep") && argc == 4)
        return look(argv[2], argv[3]);
    if (!strcmp(what, "wait") && argc == 3) {
        nap(strtol(argv[2], NULL, 10));
        return 0;
    }
    return 2;
}
