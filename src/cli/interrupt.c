/* See interrupt.h. */
#include "cli/interrupt.h"

#include "base/num.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* From interrupt_free to the thread. */
enum { INTERRUPT_QUIT_SIGNAL = SIGUSR2 };

enum { GUARD_OFF = 0, GUARD_ON = -1 }; /* no signals */

static const int64_t patience = 1000000000; /* ns */

static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,   SIGQUIT,
                              SIGTSTP, SIGCONT, SIGWINCH, INTERRUPT_QUIT_SIGNAL};

struct interrupt {
    pthread_t thread;
    bool running;
    sigset_t set;        /* what the thread waits for */
    int event;           /* eventfd: written after every change of what can be taken */
    atomic_int watching; /* watches without unwatch */
    atomic_bool prompt, serving;
    atomic_int count;     /* while serving */
    atomic_int guard;     /* GUARD_OFF, GUARD_ON, or the signal that came meanwhile */
    atomic_llong pending; /* when the first interrupt came that was not taken (ns), or 0 */
    atomic_int screen;    /* INTERRUPT_RESIZED, INTERRUPT_CONTINUED */
    bool have_tty;        /* `tty` holds the terminal's settings at start */
    struct termios tty;
};

void interrupt_default(int sig)
{
    sigset_t one, was;
    sigemptyset(&one);
    sigaddset(&one, sig);
    pthread_sigmask(SIG_UNBLOCK, &one, &was);
    raise(sig);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
}

/* Only plain system calls: other threads may hold any lock. */
static void interrupt_put(const char *s)
{
    if (isatty(STDERR_FILENO) && write(STDERR_FILENO, s, strlen(s)) < 0)
        return;
}

/* The terminal as it was, if it is ours: a program in the background leaves it alone. */
static void interrupt_tty(const struct interrupt *i)
{
    if (i->have_tty && tcgetpgrp(STDIN_FILENO) == getpgrp())
        tcsetattr(STDIN_FILENO, TCSANOW, &i->tty);
}

/* Ends the program now. */
static void interrupt_exit(const struct interrupt *i, int sig)
{
    interrupt_tty(i);
    interrupt_put("\r\033[K\033[0m");
    if (sig != SIGINT)
        interrupt_default(sig);
    _exit(128 + sig);
}

static void interrupt_note(struct interrupt *i, int what)
{
    uint64_t one = 1;
    atomic_fetch_or(&i->screen, what);
    if (write(i->event, &one, sizeof one) < 0) /* full: it is readable all the same */
        return;
}

static void interrupt_stop(struct interrupt *i, int sig)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long long now = t.tv_sec * 1000000000LL + t.tv_nsec, first = 0;
    if (!atomic_load(&i->watching) || (!atomic_compare_exchange_strong(&i->pending, &first, now) &&
                                       now - first >= patience && !atomic_load(&i->prompt)))
        interrupt_exit(i, sig);
    interrupt_note(i, 0);
}

/* What ends other programs: an interrupt while files are written, and then the end. */
static void interrupt_end(struct interrupt *i, int sig)
{
    int was = GUARD_ON;
    if (!atomic_compare_exchange_strong(&i->guard, &was, sig) && was == GUARD_OFF)
        interrupt_exit(i, sig);
    interrupt_stop(i, sig);
}

static void interrupt_served(struct interrupt *i, int sig)
{
    if (atomic_fetch_add(&i->count, 1) >= 3)
        interrupt_exit(i, sig);
    interrupt_note(i, 0);
}

static void *interrupt_thread(void *arg)
{
    struct interrupt *i = arg;
    for (;;) {
        int sig = 0;
        if (sigwait(&i->set, &sig))
            continue;
        if (atomic_load(&i->serving) && (sig == SIGINT || sig == SIGTERM)) {
            interrupt_served(i, sig);
            continue;
        }
        switch (sig) {
        case INTERRUPT_QUIT_SIGNAL:
            return NULL;
        case SIGINT:
            interrupt_stop(i, sig);
            break;
        case SIGTERM:
        case SIGHUP:
            interrupt_end(i, sig);
            break;
        case SIGTSTP:
            interrupt_tty(i);
            interrupt_default(sig);
            break;
        case SIGCONT:
            interrupt_note(i, INTERRUPT_CONTINUED);
            break;
        case SIGWINCH:
            interrupt_note(i, INTERRUPT_RESIZED);
            break;
        default:
            interrupt_exit(i, sig);
        }
    }
}

int interrupt_new(struct interrupt **out, struct err *e)
{
    struct interrupt *i = calloc(1, sizeof *i);
    struct sigaction was;
    *out = NULL;
    if (!i)
        return err_nomem(e, sizeof *i, "signals");
    i->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (i->event < 0) {
        err_errno(e, "eventfd");
        goto fail;
    }
    i->have_tty = !tcgetattr(STDIN_FILENO, &i->tty);
    sigemptyset(&i->set);
    for (size_t k = 0; k < NUM_COUNT(signals); k++)
        if (sigaction(signals[k], NULL, &was) || was.sa_handler != SIG_IGN ||
            signals[k] == INTERRUPT_QUIT_SIGNAL)
            sigaddset(&i->set, signals[k]);
    int rc = pthread_sigmask(SIG_BLOCK, &i->set, NULL);
    if (!rc)
        rc = pthread_create(&i->thread, NULL, interrupt_thread, i);
    if (rc) {
        errno = rc;
        err_errno(e, "cannot start a thread");
        goto fail;
    }
    i->running = true;
    *out = i;
    return 0;
fail:
    interrupt_free(i);
    return e ? e->code : ERR_IO;
}

void interrupt_free(struct interrupt *i)
{
    if (!i)
        return;
    if (i->running) {
        pthread_kill(i->thread, INTERRUPT_QUIT_SIGNAL);
        pthread_join(i->thread, NULL);
    }
    if (i->event >= 0)
        close(i->event);
    free(i);
}

void interrupt_watch(struct interrupt *i)
{
    if (!atomic_load(&i->watching))
        interrupt_take(i);
    atomic_fetch_add(&i->watching, 1);
}

void interrupt_unwatch(struct interrupt *i)
{
    atomic_fetch_sub(&i->watching, 1);
}

void interrupt_guard(struct interrupt *i)
{
    interrupt_watch(i);
    atomic_store(&i->guard, GUARD_ON);
}

void interrupt_unguard(struct interrupt *i)
{
    int sig = atomic_exchange(&i->guard, GUARD_OFF);
    interrupt_unwatch(i);
    if (sig != GUARD_OFF && sig != GUARD_ON) {
        fflush(stdout);
        interrupt_exit(i, sig);
    }
}

void interrupt_prompt(struct interrupt *i, bool on)
{
    atomic_store(&i->prompt, on);
}

void interrupt_serve(struct interrupt *i)
{
    atomic_store(&i->serving, true);
}

int interrupt_count(const struct interrupt *i)
{
    return atomic_load(&i->count);
}

bool interrupt_pending(const struct interrupt *i)
{
    return atomic_load(&i->pending) != 0;
}

int interrupt_take(struct interrupt *i)
{
    uint64_t n;
    /* First the event, then what it stands for: one that comes in between is seen twice, not never.
     */
    while (read(i->event, &n, sizeof n) > 0)
        ;
    int what = atomic_exchange(&i->screen, 0);
    return what | (atomic_exchange(&i->pending, 0) ? INTERRUPT_STOP : 0);
}

int interrupt_fd(const struct interrupt *i)
{
    return i->event;
}
