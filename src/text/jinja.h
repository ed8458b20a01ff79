/*
 * Jinja: the subset of the template language that chat templates are written in, as Hugging Face's
 * transformers sets it up (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop
 * controls, generation blocks, tojson without HTML escaping, raise_exception, strftime_now).
 *
 * Templates come from model files and are hostile input: parsing has bounds on size and depth,
 * rendering on steps, output and memory. No attribute of the host is reachable.
 *
 * Provenance: every byte of the output is marked trusted when it comes from the template's own
 * text, untrusted when it comes from the context (messages, tools, …). The mark survives filters,
 * slices and concatenation. This is how user text never becomes control tokens: see
 * tokenizer_encode.
 */
#ifndef PONDER_TEXT_JINJA_H
#define PONDER_TEXT_JINJA_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct jinja;

/* Parses a template. Errors carry the line: "line 3: unexpected 'endfor'". */
int jinja_new(struct jinja **out, const char *text, size_t n, struct err *e);
void jinja_free(struct jinja *j);

struct jinja_limits {
    uint64_t steps; /* evaluated nodes; 0 = default (20 million) */
    size_t output;  /* bytes of output; 0 = default (64 MiB) */
    size_t memory;  /* bytes of values alive or dead during the rendering; 0 = default (512 MiB) */
    time_t now;     /* for strftime_now; 0 = the real time */
    /* Further variables, whose text counts as the template's own (bos_token and its kin); members
       of the context win. NULL: none. */
    const json_t *globals;
};

/* Error codes of a rendering: ERR_FORMAT for all faults of template or data (raise_exception's
   message is the whole text of the error then, and *raised becomes true), ERR_LIMIT for bounds. */
struct jinja_result {
    struct buf text;    /* UTF-8 */
    struct buf trusted; /* as long as text: 1 = from the template, 0 = from the context */
    bool raised;
};

void jinja_result_init(struct jinja_result *r, size_t max);
void jinja_result_release(struct jinja_result *r);

/* `context` is a JSON object whose members become variables; not changed. A json null member is
 * None. */
int jinja_render(const struct jinja *j, const json_t *context, const struct jinja_limits *limits,
                 struct jinja_result *out, struct err *e);

#endif
