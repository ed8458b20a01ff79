/*
 * Parsing of what a model wrote: reasoning between <think> and </think>, the answer, tool calls
 * (DeepSeek V3/R1, Hermes/Qwen <tool_call>, Llama 3.1 JSON). Works on a stream: text goes in as it
 * is generated, events come out as early as they are certain. Tags split over pieces are held back
 * until decided; nothing is lost: what turns out not to be a tag is text.
 */
#ifndef PONDER_TEXT_PARSE_H
#define PONDER_TEXT_PARSE_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>

enum parse_event {
    PARSE_REASONING, /* text of the thought */
    PARSE_CONTENT,   /* text of the answer */
    PARSE_TOOL_CALL, /* a complete call: a JSON object {"name": …, "arguments": {…} or string} */
    /* Only after parser_stream_calls: a call whose beginning is certain, piece by piece. */
    PARSE_CALL_NAME,      /* the name */
    PARSE_CALL_ARGUMENTS, /* more of the text of its arguments, an object */
};

struct parser;

/* thinking_open: the prompt ended inside <think>. */
int parser_new(struct parser **out, bool thinking_open, struct err *e);
void parser_free(struct parser *p);
/*
 * From now on calls in tags come in pieces too: PARSE_CALL_NAME when name and the beginning of the
 * arguments are there, PARSE_CALL_ARGUMENTS as they grow, and at the end PARSE_TOOL_CALL with the
 * same once more, whole; without text when it has turned out to be none, or ended in the middle.
 * Calls in other forms (arguments before the name, bare JSON) come whole only.
 */
void parser_stream_calls(struct parser *p);
/*
 * No more text will come, and the end is not the writer's: it was cut off. A call that has begun is
 * then no text: what came of it in pieces stays without an end, what did not is dropped with its
 * tags. To be said before parser_finish.
 */
void parser_cut(struct parser *p);
/* From now on there are no calls: all of the answer is content, whatever it looks like. */
void parser_no_calls(struct parser *p);

/*
 * Feeds text; `emit` is called for each event with its text (for PARSE_TOOL_CALL the JSON text).
 * The white space around the tags (the newline after <think>, blank lines after </think>) is
 * dropped.
 */
int parser_feed(struct parser *p, const char *text, size_t n,
                int (*emit)(void *arg, enum parse_event ev, const char *s, size_t n), void *arg,
                struct err *e);
int parser_finish(struct parser *p,
                  int (*emit)(void *arg, enum parse_event ev, const char *s, size_t n), void *arg,
                  struct err *e);
bool parser_thinking(const struct parser *p); /* inside a thought now */

/* A whole output at once: {"reasoning": string or null, "content": string, "tool_calls": […]}. New
   reference in *out. */
int parse_output(json_t **out, const char *text, size_t n, bool thinking_open, struct err *e);

#endif
