/*
 * See edit.h. The history file is made with mode 0600 before libedit writes to it: it holds what a
 * person asked.
 *
 * Ctrl-C drops the line at any time, however it arrives. With libedit it is a key: the terminal is
 * put into a mode without signals before the prompt shows. A signal (from another program, or from
 * a Ctrl-C in the moment before that mode) is kept by cli/interrupt and turned into the same key by
 * edit_getc, which takes the place of libedit's own reading for that. So libedit catches no signals
 * itself. A Ctrl-D before that mode is read as a NUL afterwards, and means what it meant.
 */
#include "cli/edit.h"

#include "base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { EDIT_HISTORY = 1000, EDIT_LINE_MAX = 16 << 20 };

#ifdef PONDER_LIBEDIT
#include <histedit.h>

enum { EDIT_KEY_INTERRUPT = 3, EDIT_KEY_END = 4 }; /* ^C, ^D */

struct edit {
    EditLine *el;
    History *history;
    struct interrupt *interrupt;
    char *file; /* owned, or NULL */
    const char *prompt;
    char part[4]; /* bytes of a character that is not whole yet */
    size_t part_n;
    bool ahead; /* what is read was typed before the prompt */
    bool interrupted, remember;
};

static struct edit *edit_of(EditLine *el)
{
    struct edit *d = NULL;
    el_get(el, EL_CLIENTDATA, &d);
    return d;
}

static char *edit_prompt(EditLine *el)
{
    static char none[1];
    struct edit *d = edit_of(el);
    return d && d->prompt ? (char *)(uintptr_t)d->prompt : none;
}

static unsigned char edit_on_interrupt(EditLine *el, int key)
{
    edit_of(el)->interrupted = true;
    return CC_EOF;
}

/* Stops here, with the terminal as others know it; what follows comes as INTERRUPT_CONTINUED. */
static unsigned char edit_on_suspend(EditLine *el, int key)
{
    el_set(el, EL_PREP_TERM, 0);
    interrupt_default(SIGTSTP);
    return CC_NORM;
}

static void edit_screen(EditLine *el, int what)
{
    if (what & INTERRUPT_CONTINUED) { /* others have used the terminal */
        el_set(el, EL_PREP_TERM, 0);
        el_set(el, EL_PREP_TERM, 1);
    }
    if (what)
        el_resize(el);
    if (what & INTERRUPT_CONTINUED) {
        putchar('\r');
        el_set(el, EL_REFRESH);
    }
}

/* One byte more of the character that is being read: 1, 0 at the end of input, -1 on failure. */
static int edit_byte(EditLine *el, struct edit *d, bool *interrupted)
{
    struct pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_fd(d->interrupt), POLLIN, 0}};
    for (;;) {
        int ready = poll(p, 2, d->ahead ? 0 : -1);
        d->ahead = d->ahead && ready > 0;
        if (ready < 0 && errno != EINTR)
            return -1;
        if (ready > 0 && p[1].revents) {
            int what = interrupt_take(d->interrupt);
            edit_screen(el, what & ~INTERRUPT_STOP);
            if ((*interrupted = what & INTERRUPT_STOP))
                return 1;
        } else if (ready > 0) {
            ssize_t n = read(STDIN_FILENO, d->part + d->part_n, 1);
            d->part_n += n > 0;
            if (n >= 0 || (errno != EINTR && errno != EAGAIN))
                return n > 0 ? 1 : (int)n;
        }
    }
}

/* What libedit reads: the next character. Bytes that are not UTF-8 are dropped. */
static int edit_getc(EditLine *el, wchar_t *out)
{
    struct edit *d = edit_of(el);
    for (;;) {
        uint32_t c;
        bool bad, interrupted = false;
        while (d->part_n && utf8_incomplete(d->part, d->part_n) != d->part_n) {
            size_t n = utf8_next(d->part, d->part_n, &c, &bad);
            d->part_n -= n;
            memmove(d->part, d->part + n, d->part_n);
            if (!bad && (c || d->ahead)) {
                *out = c ? (wchar_t)c : EDIT_KEY_END;
                return 1;
            }
        }
        int rc = edit_byte(el, d, &interrupted);
        if (interrupted) {
            d->part_n = 0;
            *out = EDIT_KEY_INTERRUPT;
        }
        if (rc <= 0 || interrupted)
            return rc;
    }
}

/* Text is UTF-8 whatever the locale says; without this libedit would refuse it under LANG=C. */
static void edit_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

int edit_new(struct edit **out, struct interrupt *i, const char *file, struct err *e)
{
    HistEvent ev;
    struct edit *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return err_nomem(e, sizeof *d, "the line editor");
    edit_locale();
    d->interrupt = i;
    d->el = el_init("ponder", stdin, stdout, stderr);
    d->history = history_init();
    d->file = file ? strdup(file) : NULL;
    if (!d->el || !d->history || (file && !d->file)) {
        edit_free(d);
        return err_nomem(e, 0, "the line editor");
    }
    d->remember = true;
    history(d->history, &ev, H_SETSIZE, EDIT_HISTORY);
    history(d->history, &ev, H_SETUNIQUE, 1);
    if (d->file)
        history(d->history, &ev, H_LOAD, d->file);
    el_set(d->el, EL_CLIENTDATA, d);
    el_set(d->el, EL_PROMPT, edit_prompt);
    el_set(d->el, EL_GETCFN, edit_getc);
    el_set(d->el, EL_EDITOR, "emacs");
    el_set(d->el, EL_HIST, history, d->history);
    el_set(d->el, EL_ADDFN, "ponder-interrupt", "drop the line", edit_on_interrupt);
    el_set(d->el, EL_BIND, "^C", "ponder-interrupt", NULL);
    el_set(d->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(d->el, EL_ADDFN, "ponder-suspend", "suspend", edit_on_suspend);
    el_set(d->el, EL_BIND, "^Z", "ponder-suspend", NULL);
    el_set(d->el, EL_SETTY, "-d", "-isig", NULL);
    *out = d;
    return 0;
}

static void edit_save(struct edit *d)
{
    HistEvent ev;
    int fd = d->file ? open(d->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    fchmod(fd, 0600);
    close(fd);
    history(d->history, &ev, H_SAVE, d->file);
}

void edit_free(struct edit *d)
{
    if (!d)
        return;
    if (d->history && d->el)
        edit_save(d);
    if (d->el)
        el_end(d->el);
    if (d->history)
        history_end(d->history);
    free(d->file);
    free(d);
}

enum edit_result edit_line(struct edit *d, const char *prompt, struct buf *line, struct err *e)
{
    int n = 0;
    buf_clear(line);
    d->prompt = prompt;
    d->interrupted = false;
    d->ahead = true;
    errno = 0;
    interrupt_prompt(d->interrupt, true);
    el_set(d->el, EL_PREP_TERM, 1); /* keys are keys before the prompt shows */
    const char *s = el_gets(d->el, &n);
    interrupt_prompt(d->interrupt, false);
    if (d->interrupted) {
        printf("^C\n");
        return EDIT_INTERRUPT;
    }
    if (!s || n <= 0)
        return EDIT_END;
    while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r'))
        n--;
    return buf_append(line, s, (size_t)n, e) ? EDIT_ERROR : EDIT_LINE;
}

void edit_remember(struct edit *d, const char *text)
{
    HistEvent ev;
    if (d->remember && *text)
        history(d->history, &ev, H_ENTER, text);
}

void edit_history(struct edit *d, bool on)
{
    d->remember = on;
}

#else

struct edit {
    struct interrupt *interrupt;
    char chunk[4096];
    size_t at, len;
};

int edit_new(struct edit **out, struct interrupt *i, const char *file, struct err *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_nomem(e, sizeof **out, "the line editor");
    (*out)->interrupt = i;
    return 0;
}

void edit_free(struct edit *d)
{
    free(d);
}

/* Waits for input or Ctrl-C; may come back without either. */
static enum edit_result edit_fill(struct edit *d, struct err *e)
{
    struct pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_fd(d->interrupt), POLLIN, 0}};
    d->at = d->len = 0;
    if (poll(p, 2, -1) < 0 && errno != EINTR) {
        err_errno(e, "poll");
        return EDIT_ERROR;
    }
    if (p[1].revents) {
        if (!(interrupt_take(d->interrupt) & INTERRUPT_STOP))
            return EDIT_LINE;
        tcflush(STDIN_FILENO, TCIFLUSH);
        return EDIT_INTERRUPT;
    }
    if (!p[0].revents)
        return EDIT_LINE;
    ssize_t n = read(STDIN_FILENO, d->chunk, sizeof d->chunk);
    if (n <= 0)
        return EDIT_END;
    d->len = (size_t)n;
    return EDIT_LINE;
}

enum edit_result edit_line(struct edit *d, const char *prompt, struct buf *line, struct err *e)
{
    enum edit_result r = EDIT_LINE;
    buf_clear(line);
    printf("%s", prompt);
    fflush(stdout);
    interrupt_prompt(d->interrupt, true);
    while (r == EDIT_LINE) {
        if (d->at == d->len) {
            r = edit_fill(d, e);
            continue;
        }
        if (d->chunk[d->at] == '\n') {
            d->at++;
            break;
        }
        if (buf_putc(line, d->chunk[d->at++], e))
            r = EDIT_ERROR;
    }
    interrupt_prompt(d->interrupt, false);
    if (r == EDIT_INTERRUPT)
        printf("\n");
    return r == EDIT_END && line->len ? EDIT_LINE : r;
}

void edit_remember(struct edit *d, const char *text)
{
}

void edit_history(struct edit *d, bool on)
{
}

#endif
