/* See command.h. Between fork and exec only system calls are made: the process has threads. */
#include "train/command.h"

#include "base/buf.h"
#include "base/clock.h"
#include "train/record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CMD_WORDS = 64,
    CMD_INPUT = 1 << 28,  /* bytes of a group, at most */
    CMD_OUTPUT = 1 << 20, /* of the answers */
    CMD_FILES = 64,
    CMD_FILE = 64 << 20,
};
#define CMD_MEMORY ((rlim_t)2 << 30)

struct command_reward {
    char *text; /* words, cut by zeros */
    char *word[CMD_WORDS + 1];
    char *env[3];
    char path[80], lang[16];
    double seconds;
    char map[64]; /* of the user namespace */
    const struct log *log;
    bool warned;
};

/* ---- words ----------------------------------------------------------------------------------- */

/* Cuts s into words in place: blanks separate, quotes hold together, a backslash takes the next. */
static int words(struct command_reward *c, const char *cmd, struct err *e)
{
    char *to = c->text;
    const char *s = cmd;
    size_t n = 0;
    while (*s) {
        while (*s == ' ' || *s == '\t')
            s++;
        if (!*s)
            break;
        if (n == CMD_WORDS)
            return err_set(e, ERR_LIMIT, "--reward-command has more than %d words", CMD_WORDS);
        c->word[n++] = to;
        char quote = 0;
        for (; *s && (quote || (*s != ' ' && *s != '\t')); s++) {
            if (quote ? *s == quote : *s == '"' || *s == '\'')
                quote = quote ? 0 : *s;
            else if (*s == '\\' && quote != '\'' && s[1])
                *to++ = *++s;
            else
                *to++ = *s;
        }
        if (quote)
            return err_set(e, ERR_USAGE, "--reward-command: a quote is not closed: %s", cmd);
        *to++ = '\0';
    }
    return n ? 0 : err_set(e, ERR_USAGE, "--reward-command is empty");
}

int command_reward_open(struct command_reward **out, const char *cmd, double seconds,
                        const struct log *log, struct err *e)
{
    static const char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static const char lang[] = "LANG=C.UTF-8";
    struct command_reward *c = calloc(1, sizeof *c);
    *out = c;
    if (!c || !(c->text = malloc(strlen(cmd) + 2)))
        return err_nomem(e, sizeof *c, "a command");
    memcpy(c->path, path, sizeof path);
    memcpy(c->lang, lang, sizeof lang);
    c->env[0] = c->path;
    c->env[1] = c->lang;
    c->seconds = seconds;
    c->log = log;
    snprintf(c->map, sizeof c->map, "%u %u 1", (unsigned)getuid(), (unsigned)getuid());
    return words(c, cmd, e);
}

void command_reward_free(struct command_reward *c)
{
    if (!c)
        return;
    free(c->text);
    free(c);
}

/* ---- the child ------------------------------------------------------------------------------- */

static void child_limit(int what, rlim_t n)
{
    setrlimit(what, &(struct rlimit){n, n});
}

static bool child_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* A network with nothing in it: at once for who may, else inside a user namespace. */
static bool child_alone(const struct command_reward *c)
{
    if (!unshare(CLONE_NEWNET))
        return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
        return false;
    child_put("/proc/self/setgroups", "deny");
    child_put("/proc/self/uid_map", c->map);
    return true;
}

/* How the start went, to the parent; the pipe closes when the program runs. */
struct child_news {
    int32_t alone, error;
};

__attribute__((noreturn)) static void child(const struct command_reward *c, int in, int out,
                                            int news)
{
    struct child_news n = {0};
    sigset_t none;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    n.alone = child_alone(c);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    child_limit(RLIMIT_CPU, (rlim_t)ceil(c->seconds) + 1);
    child_limit(RLIMIT_AS, CMD_MEMORY);
    child_limit(RLIMIT_FSIZE, CMD_FILE);
    child_limit(RLIMIT_NOFILE, CMD_FILES);
    child_limit(RLIMIT_CORE, 0);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(news, 3) < 0)
        _exit(127);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    syscall(SYS_close_range, 4U, ~0U, 0U);
    ssize_t wrote = write(3, &n, sizeof n);
    execvpe(c->word[0], c->word, c->env);
    n.error = errno;
    wrote = write(3, &n, sizeof n);
    _exit(wrote > 0 ? 127 : 126);
}

/* ---- the parent ------------------------------------------------------------------------------ */

struct talk {
    pid_t pid;
    int in, out;
    struct buf say, heard;
    size_t said;
    double until;
};

static int start(struct command_reward *c, struct talk *t, struct err *e)
{
    /* `news` is above 3 and the pipes' ends too: dup2 in the child cannot run over them. */
    int in[2] = {-1, -1}, out[2] = {-1, -1}, news[2] = {-1, -1}, rc = 0;
    struct child_news n = {0}, last = {0};
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(news, O_CLOEXEC))
        rc = err_errno(e, "pipe");
    for (int i = 0; !rc && i < 3; i++) {
        int *end = i == 0 ? &in[0] : i == 1 ? &out[1] : &news[1];
        int high = fcntl(*end, F_DUPFD_CLOEXEC, 10);
        if (high < 0) {
            rc = err_errno(e, "dup");
        } else {
            close(*end);
            *end = high;
        }
    }
    t->pid = rc ? -1 : fork();
    if (!rc && t->pid < 0)
        rc = err_errno(e, "fork");
    if (t->pid == 0)
        child(c, in[0], out[1], news[1]);
    close(in[0]);
    close(out[1]);
    close(news[1]);
    while (!rc && read(news[0], &n, sizeof n) == (ssize_t)sizeof n)
        last = n;
    close(news[0]);
    t->in = in[1];
    t->out = out[0];
    if (!rc && !last.alone && !c->warned && c->log)
        log_line(c->log, LOG_WARN,
                 "the system does not let %s be cut off from the network (no network namespace for "
                 "this user)",
                 c->word[0]);
    c->warned = c->warned || !last.alone;
    if (!rc && last.error)
        rc = err_set(e, ERR_USAGE, "--reward-command %s: %s", c->word[0], strerror(last.error));
    if (!rc && (fcntl(t->in, F_SETFL, O_NONBLOCK) || fcntl(t->out, F_SETFL, O_NONBLOCK)))
        rc = err_errno(e, "fcntl");
    return rc;
}

static void hang_up(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* One wait: writes what it takes, reads what there is. *over: it has closed its output. */
static int exchange(struct command_reward *c, struct talk *t, bool *over, struct err *e)
{
    struct pollfd p[2] = {{t->out, POLLIN, 0}, {t->in, POLLOUT, 0}};
    double left = t->until - clock_seconds();
    int rc = 0, n = left > 0 ? poll(p, t->in >= 0 ? 2 : 1, (int)fmin(left * 1000 + 1, 1e6)) : 0;
    if (n < 0 && errno != EINTR)
        return err_errno(e, "poll");
    if (n == 0 && clock_seconds() >= t->until)
        return err_set(e, ERR_LIMIT,
                       "--reward-command %s: no answer in %g s (--reward-command-timeout)",
                       c->word[0], c->seconds);
    if (n > 0 && t->in >= 0 && p[1].revents) {
        ssize_t k = write(t->in, t->say.data + t->said, t->say.len - t->said);
        t->said += k > 0 ? (size_t)k : 0;
        /* Who has read enough may close its input. */
        if (t->said == t->say.len || (k < 0 && errno != EAGAIN && errno != EINTR))
            hang_up(&t->in);
    }
    if (n > 0 && p[0].revents) {
        char piece[4096];
        ssize_t k = read(t->out, piece, sizeof piece);
        *over = k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR);
        if (k > 0 && buf_append(&t->heard, piece, (size_t)k, e))
            rc = err_set(e, ERR_LIMIT, "--reward-command %s wrote more than %d bytes", c->word[0],
                         CMD_OUTPUT);
    }
    return rc;
}

static int finish(struct command_reward *c, struct talk *t, int rc, struct err *e)
{
    int status = 0;
    hang_up(&t->in);
    hang_up(&t->out);
    if (t->pid <= 0)
        return rc;
    /* It has closed its output: a moment to end by itself, unless something was wrong. */
    bool gone = false;
    while (!rc && !gone && clock_seconds() < t->until) {
        gone = waitpid(t->pid, &status, WNOHANG) == t->pid;
        if (!gone)
            poll(NULL, 0, 1);
    }
    kill(-t->pid, SIGKILL);
    if (!gone) {
        while (waitpid(t->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    if (rc)
        return rc;
    if (WIFSIGNALED(status))
        return err_set(
            e, ERR_LIMIT, "--reward-command %s was ended by signal %d (%s)%s", c->word[0],
            WTERMSIG(status), strsignal(WTERMSIG(status)),
            WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL ? ": it took too long" : "");
    if (WEXITSTATUS(status))
        return err_set(e, ERR_FORMAT, "--reward-command %s ended with status %d", c->word[0],
                       WEXITSTATUS(status));
    return 0;
}

/* ---- answers --------------------------------------------------------------------------------- */

static int answers(struct command_reward *c, const struct buf *heard, size_t n, float *out,
                   struct reward_why *why, struct err *e)
{
    const char *s = heard->data, *end = heard->data + heard->len;
    for (size_t i = 0; i < n; i++) {
        const char *nl = s < end ? memchr(s, '\n', (size_t)(end - s)) : NULL;
        size_t len = (size_t)((nl ? nl : end) - s);
        json_t *v = s < end ? json_loadb(s, len, JSON_DECODE_ANY, NULL) : NULL;
        const json_t *r = json_is_object(v) ? json_object_get(v, "reward") : v;
        const char *words = json_string_value(json_object_get(v, "why"));
        bool number = json_is_number(r);
        bool ok = number || (v && (!r || json_is_null(r)));
        out[i] = number ? (float)json_number_value(r) : NAN;
        ok = ok && !(number && !isfinite(out[i]));
        if (why)
            snprintf(why[i].text, sizeof why[i].text, "%s", words ? words : "");
        json_decref(v);
        if (!ok)
            return err_set(e, ERR_FORMAT,
                           "--reward-command %s: line %zu of its answer is \"%.*s\", not a number, "
                           "null or {\"reward\": …}; %zu lines were expected",
                           c->word[0], i + 1, (int)(len < 80 ? len : 80), s < end ? s : "", n);
        s = nl ? nl + 1 : end;
    }
    return 0;
}

static int questions(const json_t *record, const struct span *text, size_t n, struct buf *say,
                     struct err *e)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        json_t *row = json_copy((json_t *)(uintptr_t)record);
        json_t *said = record_text(text[i].s, text[i].n);
        char *line = row && said && !json_object_set(row, "completion", said)
                         ? json_dumps(row, JSON_COMPACT)
                         : NULL;
        rc = line ? buf_puts(say, line, e) : err_nomem(e, text[i].n, "a completion");
        rc = rc ? rc : buf_putc(say, '\n', e);
        free(line);
        json_decref(said);
        json_decref(row);
    }
    return rc;
}

int command_reward_group(struct command_reward *c, const json_t *record, const struct span *text,
                         size_t n, float *out, struct reward_why *why, struct err *e)
{
    struct talk t = {.pid = -1, .in = -1, .out = -1};
    struct sigaction was, ignore = {.sa_handler = SIG_IGN};
    bool over = false;
    buf_init(&t.say, CMD_INPUT);
    buf_init(&t.heard, CMD_OUTPUT);
    sigaction(SIGPIPE, &ignore, &was);
    int rc = questions(record, text, n, &t.say, e);
    rc = rc ? rc : start(c, &t, e);
    t.until = clock_seconds() + c->seconds;
    while (!rc && !over)
        rc = exchange(c, &t, &over, e);
    rc = finish(c, &t, rc, e);
    rc = rc ? rc : answers(c, &t.heard, n, out, why, e);
    sigaction(SIGPIPE, &was, NULL);
    buf_release(&t.say);
    buf_release(&t.heard);
    return rc;
}
