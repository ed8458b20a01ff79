/*
 * See edit.h. The history file is made with mode 0600 before libedit writes to it: it holds what a
 * person asked. libedit puts the terminal into a mode without signals from Ctrl-C, so that it is a
 * key like others there; a signal from elsewhere still ends the program.
 */
#include "cli/edit.h"

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
#include <unistd.h>

enum { EDIT_HISTORY = 1000, EDIT_LINE_MAX = 16 << 20 };

#ifdef PONDER_LIBEDIT
#include <histedit.h>

struct edit {
    EditLine *el;
    History *history;
    char *file; /* owned, or NULL */
    const char *prompt;
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

/* libedit catches the signal, and mends the terminal before and after. */
static unsigned char edit_on_suspend(EditLine *el, int key)
{
    raise(SIGTSTP);
    return CC_REFRESH;
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
    el_set(d->el, EL_SIGNAL, 1);
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
    errno = 0;
    const char *s = el_gets(d->el, &n);
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

/* Waits for input or Ctrl-C. */
static enum edit_result edit_fill(struct edit *d, struct err *e)
{
    struct pollfd p[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_fd(d->interrupt), POLLIN, 0}};
    d->at = d->len = 0;
    if (poll(p, 2, -1) < 0 && errno != EINTR) {
        err_errno(e, "poll");
        return EDIT_ERROR;
    }
    if (interrupt_pending(d->interrupt))
        return EDIT_INTERRUPT;
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
    interrupt_watch(d->interrupt);
    while (r == EDIT_LINE) {
        if (d->at == d->len && (r = edit_fill(d, e)) != EDIT_LINE)
            break;
        if (d->chunk[d->at] == '\n') {
            d->at++;
            break;
        }
        if (buf_putc(line, d->chunk[d->at++], e))
            r = EDIT_ERROR;
    }
    interrupt_unwatch(d->interrupt);
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
