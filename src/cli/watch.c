#include "cli/watch.h"

#include "train/run.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { WATCH_TEXT = 4 << 20, WATCH_MS = 500 };

struct watch {
    struct cli *c;
    const struct plot_options *o;
    struct plot *p;
    struct buf text;
    int lines;     /* of the picture that stands on the screen */
    int64_t *said; /* without a terminal: the last step of each run that was printed */
};

/* Over the picture before. What stood right of or below the new one is wiped. */
static int watch_draw(struct watch *w, bool clear, struct err *e)
{
    struct plot_screen s = {.columns = term_width(&w->c->term) - 1,
                            .rows = term_height(&w->c->term) - 1,
                            .colour = w->c->term.colour};
    buf_clear(&w->text);
    int rc = plot_text(w->p, w->o, &s, &w->text, e);
    if (rc)
        return rc;
    if (clear)
        fputs("\033[H\033[2J", stdout);
    else if (w->lines)
        printf("\033[%dA", w->lines);
    w->lines = 0;
    for (const char *p = w->text.data, *end; (end = strchr(p, '\n')); p = end + 1, w->lines++)
        printf("%.*s\033[K\n", (int)(end - p), p);
    fputs("\033[J", stdout);
    return term_flush(e);
}

static int watch_print(struct watch *w, size_t n, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        int64_t step = plot_last_step(w->p, i);
        if (step == w->said[i])
            continue;
        w->said[i] = step;
        buf_clear(&w->text);
        rc = plot_line(w->p, i, &w->text, e);
        if (!rc)
            fputs(w->text.data, stdout);
    }
    return rc ? rc : term_flush(e);
}

static bool watch_active(const char *const *runs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (run_active(runs[i]))
            return true;
    return false;
}

/* Sleeps until there is something to do; what came from the user or the terminal. */
static int watch_wait(struct watch *w)
{
    struct pollfd f = {.fd = interrupt_fd(w->c->interrupt), .events = POLLIN};
    poll(&f, 1, WATCH_MS);
    return interrupt_take(w->c->interrupt);
}

static int watch_loop(struct watch *w, const char *const *runs, size_t n, struct err *e)
{
    bool live = w->c->term.escapes, changed = true;
    for (int news = 0;;) {
        /* asked first: what is written before a run ends is read */
        bool active = watch_active(runs, n);
        bool fresh = false;
        int rc = plot_update(w->p, &fresh, e);
        if (!rc && (changed || fresh || news))
            rc = live ? watch_draw(w, (news & ~INTERRUPT_STOP) != 0, e) : watch_print(w, n, e);
        changed = false;
        if (rc || !active || (news & INTERRUPT_STOP))
            return rc;
        news = watch_wait(w);
    }
}

int watch_run(struct cli *c, const char *const *runs, size_t n, const struct plot_options *o,
              struct err *e)
{
    int64_t said[PLOT_RUNS_MAX];
    struct watch w = {.c = c, .o = o, .said = said};
    if (n > PLOT_RUNS_MAX)
        return err_set(e, ERR_USAGE, "more than %d runs", PLOT_RUNS_MAX);
    buf_init(&w.text, WATCH_TEXT);
    for (size_t i = 0; i < PLOT_RUNS_MAX; i++)
        said[i] = -1;
    int rc = plot_new(&w.p, e);
    for (size_t i = 0; i < n && !rc; i++)
        rc = plot_add(w.p, runs[i], e);
    if (!rc) {
        interrupt_watch(c->interrupt);
        rc = watch_loop(&w, runs, n, e);
        interrupt_unwatch(c->interrupt);
    }
    plot_free(w.p);
    buf_release(&w.text);
    return rc;
}
