/*
 * pty: runs a program on a terminal of its own and plays a script, for tests of what people see.
 *
 *   pty [-w COLUMNS] [-t SECONDS] SCRIPT PROGRAM [ARGUMENT…]
 *
 * Lines of the script:   send TEXT     (\r \n \t \e \\ and \xHH are understood)
 *                        expect TEXT   (waits until it appears after what was matched before)
 *                        signal NUMBER (to the program)
 *                        wait SECONDS
 *                        storm N TEXT  (N times: sends TEXT; when something appears, SIGINT or
 *                                      Ctrl-C follows at once or up to 2 ms later)
 *                        settle TEXT   (sends it again every second until an answer has the line
 *                                      "settled", whatever was still under way)
 *                        end           (Ctrl-D, again every second until the program ends)
 * Everything that appears goes to standard output. The status is the program's, 128 + the signal
 * that ended it, or 99 when an expected text did not come in time (said on standard error).
 */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEEN_MAX = 1 << 22 };

struct pty {
    int fd;
    pid_t pid;
    char *seen; /* (SEEN_MAX) all output */
    size_t n, matched;
    double limit; /* seconds that an expectation may take */
    bool closed;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Takes output for at most `seconds`; false at its end. */
static bool take(struct pty *p, double seconds)
{
    struct pollfd f = {p->fd, POLLIN, 0};
    if (p->closed || poll(&f, 1, (int)(1000 * seconds)) <= 0)
        return !p->closed;
    ssize_t n = p->n < SEEN_MAX - 1 ? read(p->fd, p->seen + p->n, SEEN_MAX - 1 - p->n) : 0;
    if (n <= 0) {
        p->closed = true;
        return false;
    }
    fwrite(p->seen + p->n, 1, (size_t)n, stdout);
    fflush(stdout);
    p->n += (size_t)n;
    p->seen[p->n] = 0;
    return true;
}

static size_t unescape(char *out, const char *s)
{
    size_t n = 0;
    for (; *s; s++) {
        if (*s != '\\') {
            out[n++] = *s;
            continue;
        }
        s++;
        if (*s == 'x') {
            char hex[3] = {s[1], s[1] ? s[2] : 0, 0};
            out[n++] = (char)strtol(hex, NULL, 16);
            s += strlen(hex);
        } else {
            out[n++] = *s == 'r' ? '\r' : *s == 'n' ? '\n' : *s == 't' ? '\t' : *s == 'e' ? 27 : *s;
        }
    }
    return n;
}

/* Reads what appears for some seconds. */
static void pass_time(struct pty *p, double seconds)
{
    double end = now() + seconds;
    while (now() < end && take(p, 0.02))
        ;
}

static int expect(struct pty *p, const char *text, size_t n)
{
    double end = now() + p->limit;
    for (;;) {
        char *at = memmem(p->seen + p->matched, p->n - p->matched, text, n);
        if (at) {
            p->matched = (size_t)(at - p->seen) + n;
            return 0;
        }
        if (now() > end || !take(p, 0.05)) {
            fprintf(stderr, "pty: \"%.*s\" did not appear\n", (int)n, text);
            return 99;
        }
    }
}

static bool write_all(struct pty *p, const char *text, size_t n)
{
    return write(p->fd, text, n) == (ssize_t)n;
}

/* Moments that a prompt, a command or an answer does not expect, the same in every run. */
static int storm(struct pty *p, char *arg)
{
    char text[4096];
    long rounds = strtol(arg, &arg, 10);
    size_t n = unescape(text, *arg ? arg + 1 : arg);
    uint32_t x = 2463534242u;
    for (long i = 0; i < rounds; i++) {
        size_t had = p->n;
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        if (!write_all(p, text, n))
            return 99;
        for (double end = now() + p->limit; p->n == had;)
            if (now() > end || !take(p, 0.05)) {
                fprintf(stderr, "pty: nothing appeared in round %ld\n", i);
                return 99;
            }
        if (x & 1)
            for (double end = now() + 1e-6 * (x >> 8 & 2047); now() < end;)
                ;
        if (x & 2 ? kill(p->pid, SIGINT) : !write_all(p, "\x03", 1))
            return 99;
    }
    return 0;
}

/* Sends text every second until `done`, or the end of the program when that is NULL. */
static int persist(struct pty *p, const char *text, size_t n, const char *done)
{
    for (double end = now() + p->limit; now() < end;) {
        if (!write_all(p, text, n) && !p->closed)
            return 99;
        for (double next = now() + 1; now() < next;) {
            bool more = take(p, 0.05);
            if (done ? strstr(p->seen + p->matched, done) != NULL : !more)
                return 0;
            if (!more)
                return 99;
        }
    }
    fprintf(stderr, "pty: \"%.*s\" had no effect\n", (int)n, text);
    return 99;
}

static int step(struct pty *p, char *line)
{
    char text[4096];
    char *arg = line + strcspn(line, " ");
    if (*arg)
        *arg++ = 0;
    size_t n = unescape(text, arg);
    if (!strcmp(line, "expect"))
        return expect(p, text, n);
    if (!strcmp(line, "send"))
        return write_all(p, text, n) ? 0 : 99;
    if (!strcmp(line, "storm"))
        return storm(p, arg);
    if (!strcmp(line, "settle"))
        return persist(p, text, n, "settled\r\n");
    if (!strcmp(line, "signal"))
        return kill(p->pid, atoi(arg)) ? 99 : 0;
    if (!strcmp(line, "end"))
        return persist(p, "\x04", 1, NULL);
    if (!strcmp(line, "wait")) {
        pass_time(p, atof(arg));
        return 0;
    }
    fprintf(stderr, "pty: what is \"%s\"?\n", line);
    return 98;
}

int main(int argc, char **argv)
{
    struct pty p = {.limit = 20};
    struct winsize w = {.ws_row = 24, .ws_col = 80};
    int c, rc = 0, status = 0;
    while ((c = getopt(argc, argv, "+w:t:")) > 0) {
        if (c == 'w')
            w.ws_col = (unsigned short)atoi(optarg);
        else if (c == 't')
            p.limit = atof(optarg);
    }
    if (argc - optind < 2)
        return 98;
    FILE *script = fopen(argv[optind], "r");
    p.seen = calloc(1, SEEN_MAX);
    if (!script || !p.seen)
        return 98;
    p.pid = forkpty(&p.fd, NULL, NULL, &w);
    if (p.pid < 0)
        return 98;
    if (!p.pid) {
        signal(SIGINT, SIG_DFL);
        execvp(argv[optind + 1], argv + optind + 1);
        _exit(97);
    }
    char line[4096];
    while (!rc && fgets(line, sizeof line, script)) {
        line[strcspn(line, "\n")] = 0;
        if (*line && *line != '#')
            rc = step(&p, line);
    }
    for (double end = now() + p.limit; now() < end && take(&p, 0.05);)
        ;
    if (rc || !p.closed)
        kill(p.pid, SIGKILL);
    while (waitpid(p.pid, &status, 0) < 0 && errno == EINTR)
        ;
    fclose(script);
    free(p.seen);
    if (rc)
        return rc;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
