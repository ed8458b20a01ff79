/*
 * A conversation with a model: messages, how to answer, and producing one answer. What a single
 * `ponder run` and the interactive chat share.
 */
#ifndef PONDER_CLI_TALK_H
#define PONDER_CLI_TALK_H

#include "cli/command.h"
#include "cli/options.h"
#include "cli/view.h"
#include "engine/generate.h"

#include <jansson.h>

struct talk {
    struct cli *cli;
    struct engine *engine;   /* not owned */
    struct session *session; /* owned */
    json_t *messages;        /* owned: the conversation without the system message */
    char *system;            /* owned, or NULL */
    int think;               /* -1 as the model does, 0 without, 1 with thoughts */
    int64_t think_budget;    /* tokens of a thought; OPT_UNSET: as many as the model likes */
    struct sampling_options sampling;
    struct grammar *grammar; /* of answers, or NULL; not owned */
    bool verbose, hide_thinking, wrap, interactive;
    bool bundled;     /* the model is the one that ponder comes with */
    double bandwidth; /* bytes a second that the machine reads; 0 = not measured yet */
};

int talk_init(struct talk *t, struct cli *c, struct engine *g, struct err *e);
void talk_release(struct talk *t);
void talk_clear(struct talk *t);                                  /* forgets the messages */
int talk_system(struct talk *t, const char *text, struct err *e); /* NULL or "" = none */

struct talk_answer {
    struct buf content, reasoning;
    json_t *tool_calls; /* array */
    struct generate_stats stats;
    uint64_t seed;
    double think_seconds;
    size_t think_tokens;
};

void talk_answer_init(struct talk_answer *a);
void talk_answer_release(struct talk_answer *a);

/*
 * Asks: adds the user's message, generates, shows it on `v` (NULL = silently), adds the answer to
 * the messages. ERR_CANCELLED when it was interrupted: what was said until then is kept. After any
 * other error the messages are as before.
 */
int talk_ask(struct talk *t, const char *prompt, size_t n, struct view *v, struct talk_answer *a,
             struct err *e);

/* The token ids of the conversation as it would be sent now. */
int talk_encode(const struct talk *t, struct ids *ids, bool *thinking_open, struct err *e);

/* A line on stderr when a thought ran in a circle and was closed for that. */
void talk_note_loop(const struct talk *t, const struct talk_answer *a);

/* What it cost, on stderr. */
void talk_report(struct talk *t, const struct talk_answer *a);

/* One object with answer, reasoning, timings, stop reason; new reference, NULL without memory. */
json_t *talk_json(const struct talk *t, const struct talk_answer *a);

#endif
