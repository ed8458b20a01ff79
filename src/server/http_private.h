/*
 * What the files of the HTTP server share.
 *
 *   http.c         start and stop, callbacks of libmicrohttpd, the pool of workers
 *   http_head.c    what is checked before a body is read: framing, Host, origins, route, key
 *   http_answer.c  answers of handlers, whole and in pieces
 *   http_watch.c   the watcher: clients that leave, deadlines, signs of life, lingering sockets
 *   http_listen.c  sockets to listen on
 *   http_rules.c   keys and origins
 *   http_parse.c   parsing, without state
 *
 * Locks: http.lock guards connections (their lists, what they point to) and counters;
 * http_exchange.lock guards the answer. Who needs both takes http.lock first. libmicrohttpd's own
 * locks come last.
 */
#ifndef PONDER_SERVER_HTTP_PRIVATE_H
#define PONDER_SERVER_HTTP_PRIVATE_H

#include "base/buf.h"
#include "server/http.h"
#include "server/http_parse.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    HTTP_FIELDS_MAX = 100,        /* headers of a request */
    HTTP_HEAD_MAX = 64 << 10,     /* bytes of its head */
    HTTP_POOL = 72 << 10,         /* of a connection: the head, later a piece of the answer */
    HTTP_DISCARD_MAX = 256 << 10, /* of a body that is only read to keep the connection */
    HTTP_PENDING_MAX = 8 << 20,   /* of an answer that waits for a slow client */
    HTTP_BODIES_MAX = 1 << 30,    /* of all bodies together */
    HTTP_RATE_MIN = 1 << 10,      /* bytes a second of a body, after the first idle_seconds */
    HTTP_BLOCK = 32 << 10,        /* of an answer in pieces that goes out as one */
    HTTP_LINGER_MAX = 64,
    HTTP_COUNTS_MAX = 4096,
};

struct http_key {
    uint8_t hash[32]; /* SHA-256 */
};

/* Where a connection is. Each state has a list, those first that are in it longest. */
enum http_state {
    HTTP_FREE,
    HTTP_IDLE, /* no byte of a request is there */
    HTTP_HEAD,
    HTTP_BODY,
    HTTP_BUSY, /* a handler has the request, or the answer is being sent */
    HTTP_STATES,
};

struct http_conn {
    struct http_conn *prev, *next;
    struct http_exchange *x; /* in HTTP_BODY and HTTP_BUSY */
    double since;
    int fd;
    uint32_t turn;  /* counts uses of this place: tells stale events */
    uint64_t bytes; /* received when it became idle */
    enum http_state state;
    bool left;   /* the client has closed its side */
    bool linger; /* what the client still sends is read and dropped, so that it gets the answer */
};

struct http_list {
    struct http_conn *head, *tail;
};

struct http_linger {
    int fd; /* -1: free */
    double until;
    size_t bytes;
};

struct http_count {
    uint32_t route; /* n_route: none */
    uint16_t method, status;
    uint64_t count;
};

struct http {
    struct http_opts o;
    atomic_int refs; /* the owner's, and one of each exchange */
    struct MHD_Daemon *daemon;
    int listen_fd; /* until the daemon has it */
    int port;
    bool local, tls; /* bound to loopback: Host is checked */
    char *unix_path; /* to be removed at the end */
    char machine[HTTP_HOST_MAX];
    struct http_key *key;
    size_t n_key;
    pthread_t starter;
    char *start_text; /* what libmicrohttpd says to the starter; NULL later */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a connection became free or idle */
    pthread_cond_t work;    /* the queue has some, or it is over */
    struct http_conn *conn;
    size_t n_conn, open;
    struct http_list list[HTTP_STATES];
    struct http_exchange *queue_head, *queue_tail;
    struct http_count *count;
    size_t n_count, cap_count;
    struct http_linger linger[HTTP_LINGER_MAX];
    bool stopping;
    atomic_bool draining;
    atomic_size_t bodies;

    int watch_fd, kick_fd;
    bool asleep, lazy; /* the watcher: until it is kicked, or for seconds */
    pthread_t watcher;
    pthread_t *worker;
    int n_worker;
    atomic_bool watching;
};

enum http_stage { HTTP_AT_HEAD, HTTP_AT_BODY, HTTP_RUNS, HTTP_REFUSED };

struct http_exchange {
    atomic_int refs;
    struct http *h;
    struct http_exchange *next; /* in the queue of workers */

    /* The request; constant once a handler has it. */
    struct http_target target;
    const struct http_route *route;
    enum http_api api;
    const char *method, *path, *rest;
    struct http_field *field;
    size_t n_field;
    char *text; /* of fields */
    char *target_text;
    struct buf body;
    size_t body_max, counted; /* counted in http.bodies */
    atomic_uint_least64_t received;
    uint64_t owner;
    char id[80];
    double started;
    enum http_stage stage;
    bool discard; /* the answer is ready already; the body is only read */
    bool head;    /* HEAD */
    struct http_conn *conn;
    bool awaited; /* who leaves now ends it; under http.lock */

    pthread_mutex_t lock;
    struct MHD_Connection *c; /* while the connection serves this */
    int status;               /* 0: no answer yet */
    bool whole;               /* complete in `out` */
    bool stream, begun, ended, gone, cut, suspended, close;
    bool chunked; /* pieces are chunks of HTTP/1.1; else the end of the connection ends them */
    bool direct;  /* the connection is suspended in the middle of the body, with nothing of its own
                     to send: pieces go to the socket from here, `out` is what it did not take */
    bool announced; /* by http_await, and http_stream has not followed yet */
    enum http_stream kind;
    char type[64];
    struct buf fields;     /* of the answer: name NUL value NUL … */
    struct buf out, piece; /* piece: before it is cut into chunks */
    size_t sent;           /* bytes of `out` */
    uint64_t passed;       /* bytes that went to the socket from here, */
    uint64_t passed_then;  /* and how many had when that was looked at */
    double moved;          /* when there were more, or nothing waited */
    bool stuck;            /* cut off: it took nothing */
    double silent;
    void (*gone_fn)(void *arg);
    void *gone_arg;
    bool telling; /* gone_fn runs, in this thread */
    pthread_t teller;
    pthread_cond_t told;
    char about[128], note[512];
    bool heard, log_later; /* all of the answer was sent; the line of the log comes at the end */
};

/* http.c */
void http_move(struct http *h, struct http_conn *k, enum http_state to); /* with http.lock */
void http_unref(struct http *h);
void http_log(struct http_exchange *x);

/* http_head.c */
/* Fills the request. When it is refused, an answer has been given; `close`: the connection cannot
   be used further, nor the body be read. */
void http_head(struct http_exchange *x, const char *method, const char *version);

/* http_answer.c */
/* Tells the handler that the client has left, once. */
void http_gone(struct http_exchange *x);
/* Sends what there is, or lets the network thread do so, when the connection is suspended; with the
   lock held. */
void http_wake(struct http_exchange *x);
/* Gives a sign of life when there was none for a while; cuts off who takes nothing. */
void http_alive(struct http_exchange *x, double now);
/* Nobody is left who could answer: says so. */
void http_orphan(struct http_exchange *x);

/* http_watch.c */
int http_watch_start(struct http *h, struct err *e);
void http_watch_stop(struct http *h);
/* These with http.lock held: for a connection that just opened; for one that waits for a next
   request; when something has become due that a sleeping watcher does not know. */
void http_watch_add(struct http *h, struct http_conn *k);
void http_watch_idle(struct http_conn *k);
void http_watch_kick(struct http *h);
void http_watch_linger(struct http *h, int fd); /* takes a duplicate; with http.lock held */
/* http_wake will be called when the socket takes more; with the exchange's lock held. */
void http_watch_room(struct http *h, const struct http_conn *k);

/* http_listen.c */
int http_listen(struct http *h, struct err *e);

/* http_rules.c */
int http_rules_load(struct http *h, struct err *e);
/* The owner of a key, 0: it is none. */
uint64_t http_rules_key(const struct http *h, const char *key);
bool http_rules_host(const struct http *h, const char *host);
bool http_rules_origin(const struct http *h, const char *origin, const char *host);
bool http_rules_any_origin(const struct http *h);

#endif
