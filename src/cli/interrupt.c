/* See interrupt.h. */
#include "cli/interrupt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

struct interrupt {
    pthread_t thread;
    bool running;
    int event;           /* eventfd: readable while pending */
    atomic_int watching; /* 1 between watch and unwatch */
    atomic_int pending;  /* interrupts since watch */
    bool have_tty;       /* `tty` holds the terminal's settings at start */
    struct termios tty;
};

static void interrupt_put(const char *s)
{
    if (isatty(STDERR_FILENO) && write(STDERR_FILENO, s, strlen(s)) < 0)
        return;
}

/* Ends the program now: other threads may hold any lock, so only plain system calls. */
static void interrupt_exit(struct interrupt *i)
{
    if (i->have_tty)
        tcsetattr(STDIN_FILENO, TCSANOW, &i->tty);
    interrupt_put("\r\033[K\033[0m");
    _exit(130);
}

static void *interrupt_thread(void *arg)
{
    struct interrupt *i = arg;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR2); /* from interrupt_free */
    for (;;) {
        int sig = 0;
        if (sigwait(&set, &sig))
            continue;
        if (sig == SIGUSR2)
            return NULL;
        if (!atomic_load(&i->watching) || atomic_fetch_add(&i->pending, 1) > 0)
            interrupt_exit(i);
        uint64_t one = 1;
        if (write(i->event, &one, sizeof one) < 0)
            interrupt_exit(i);
    }
}

int interrupt_new(struct interrupt **out, struct err *e)
{
    struct interrupt *i = calloc(1, sizeof *i);
    struct sigaction was;
    sigset_t set;
    *out = NULL;
    if (!i)
        return err_nomem(e, sizeof *i, "signals");
    i->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (i->event < 0) {
        err_errno(e, "eventfd");
        goto fail;
    }
    i->have_tty = !tcgetattr(STDIN_FILENO, &i->tty);
    if (!sigaction(SIGINT, NULL, &was) && was.sa_handler == SIG_IGN) {
        *out = i;
        return 0;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR2);
    int rc = pthread_sigmask(SIG_BLOCK, &set, NULL);
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
        pthread_kill(i->thread, SIGUSR2);
        pthread_join(i->thread, NULL);
    }
    if (i->event >= 0)
        close(i->event);
    free(i);
}

void interrupt_watch(struct interrupt *i)
{
    uint64_t n;
    while (read(i->event, &n, sizeof n) > 0)
        ;
    atomic_store(&i->pending, 0);
    atomic_store(&i->watching, 1);
}

void interrupt_unwatch(struct interrupt *i)
{
    atomic_store(&i->watching, 0);
}

bool interrupt_pending(const struct interrupt *i)
{
    return atomic_load(&i->pending) > 0;
}

int interrupt_fd(const struct interrupt *i)
{
    return i->event;
}
