/* The inside of a hub: private to hub.c and hub_find.c. */
#ifndef PONDER_SERVER_HUB_IMPL_H
#define PONDER_SERVER_HUB_IMPL_H

#include "base/sha256.h"
#include "engine/head.h"
#include "server/hub.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    HUB_MODELS = 1024,
    HUB_NAMES = 16,
    HUB_NAME_MAX = 256,
    HUB_WAITS = 512, /* for one model, when its scheduler has no bound of its own */
};

/* Somebody who needs a model that is not loaded. */
struct hub_wait {
    void (*ready)(void *arg, const struct hub_use *u, const struct err *e);
    void *arg;
    size_t ctx;
    double since;
    struct hub_wait *next;
};

enum hub_state {
    HUB_OFF,
    HUB_LOADING,
    HUB_READY,
    HUB_BROKEN,  /* its engine failed: requests are ended, then it is unloaded */
    HUB_CLOSING, /* being unloaded */
};

/* What a model's files said when they were looked at. */
struct hub_facts {
    struct hub_info info;
    char size_label[16], digest[SHA256_HEX];
    struct hub_facts *older; /* readers may still have them */
};

struct hub_model {
    struct hub *hub;
    _Atomic(struct hub_facts *) facts; /* replaced by the loading thread alone, and freed with the
                                          model */
    char *path, *name[HUB_NAMES + 1];  /* owned; NULL after the last name */
    char *adapter;                     /* owned; or NULL: */
    struct hub_model *base; /* whose weights it takes; has a use of it while it is loaded */
    size_t n_name;

    /* Under hub.lock. */
    uint64_t stamp;          /* engine_path_identity of the files, and of the adapter, */
    struct engine_head head; /* when this was read from them */
    enum hub_state state;
    struct engine *engine;
    size_t uses;
    bool leaving; /* takes no new uses: another model needs its memory, or it needs more context */
    double expires, used; /* clock_seconds(); INFINITY: never */
    size_t asked;         /* largest context that was asked for when it was loaded */
    uint64_t bytes;
    struct hub_wait *first, **last; /* in the order they came */
    size_t n_wait;
    uint64_t turn; /* of the first of them: whose model is loaded first */

    /* The scheduler may be submitted to while the reading side is held, and is freed under the
       writing side. */
    pthread_rwlock_t door;
    struct sched *sched;

    /* Under hub.beat: what the computing thread sees. */
    bool awake;    /* its scheduler has something to do */
    bool stepping; /* the computing thread is inside it */
    bool steps;    /* it may step it */
};

struct hub {
    struct hub_opts o;
    struct hub_model **model; /* constant after hub_new */
    size_t n;
    uint64_t memory;

    pthread_mutex_t lock;  /* never held while a scheduler is called */
    pthread_cond_t change; /* something for the loading thread */
    uint64_t turns;
    bool stopping;

    pthread_mutex_t beat; /* the innermost lock: schedulers take it through `wake` */
    pthread_cond_t work;  /* something for the computing thread, or it has left a scheduler */
    bool ending;

    pthread_t computer, loader;
    bool has_computer, has_loader;
};

/* Fills h->model. Models given by name must be readable; of a folder, what is no model is passed
   over with a line in the log. */
int hub_scan(struct hub *h, struct err *e);
void hub_model_free(struct hub_model *m);
/*
 * Looks again at the files of a model that is not loaded, when they were written or replaced since.
 * Called with `lock` held, which is released meanwhile. An error: what they are now cannot be
 * served, and why.
 */
int hub_renew(struct hub_model *m, struct err *e);

#endif
