/* The inside of a job: private to job*.c. */
#ifndef PONDER_SERVER_JOB_IMPL_H
#define PONDER_SERVER_JOB_IMPL_H

#include "server/job.h"
#include "server/server.h"

#include <pthread.h>

/* One input: a request of the scheduler. */
struct job_part {
    struct job *j;
    size_t index;
    struct ids prompt;
    bool thinking_open;
    struct request *handle; /* ours until the last event */
    bool live;              /* submitted, and the last event has not come: may be cancelled */
    bool done;
};

struct job {
    struct server *server;
    struct http_exchange *x;
    const struct job_spec *spec;
    struct job_sink sink;
    void *arg;
    struct hub_model *model;
    enum job_think think; /* the request's, or what the model's name says */
    struct hub_use use;
    bool has_use, at_desk;
    double created, started;

    struct job_part *part; /* (n_part) owned */
    size_t n_part;
    /* What all parts have in common; request_params point to these. */
    struct request_params params;
    struct sampler_bias *bias;
    int32_t *stop_id;
    struct grammar *grammar;

    /* Held while the sink is called, so its calls come one after another. */
    pthread_mutex_t lock;
    size_t next;     /* first part that was not submitted */
    size_t live;     /* submitted parts */
    size_t pending;  /* live ones, and 1 while the job is being started */
    bool submitting; /* somebody is in job_submit_more */
    bool gone, begun, cut;
    struct err err;           /* code != 0: the first thing that went wrong */
    struct request_stats sum; /* of parts that are done */
    double first, last;       /* time of the first and of the last piece; 0: none */
    enum request_end end;     /* of the last sample */
};

/* job_prompt.c: fills part and n_part. */
int job_prompt(struct job *j, struct err *e);
/* job_params.c: fills params, with what they point to. */
int job_params(struct job *j, struct err *e);
/* job_tools.c: the grammar of the answer, NULL for none. */
int job_grammar(struct job *j, struct grammar **out, struct err *e);
/* Whether the request's tools are shown to the model. */
bool job_shows_tools(const struct job_spec *s);
/* The model is to be kept from thinking. */
bool job_forbids_thinking(const struct job *j);

/* job_desk.c. False when the owner has as many jobs as allowed (`most`, 0: no bound). */
bool job_desk_enter(struct job_desk *d, uint64_t owner, size_t most);
void job_desk_leave(struct job_desk *d, uint64_t owner);

#endif
