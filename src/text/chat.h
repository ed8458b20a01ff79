/*
 * Chat: from messages to the text and token ids of a prompt.
 *
 * Which template: the file's own (tokenizer.chat_template of a GGUF file, chat_template.jinja, or
 * chat_template in tokenizer_config.json, where a list's "default" is taken; "tool_use" when there
 * are tools), else a built-in one chosen by what the vocabulary holds (chat_builtin.def). Also
 * knows what a template does about thinking: whether it opens <think> itself, and which variable
 * turns it off.
 */
#ifndef PONDER_TEXT_CHAT_H
#define PONDER_TEXT_CHAT_H

#include "text/jinja.h"
#include "text/tokenizer.h"

struct chat;

/* `tok` must outlive the chat; `arch` (may be NULL) helps to choose a built-in template. */
int chat_new(struct chat **out, struct source *src, const struct tokenizer *tok, const char *arch,
             struct err *e);
/* With a template given by the user instead. tok may be NULL (bos/eos are then undefined). */
int chat_new_text(struct chat **out, const struct tokenizer *tok, const char *text, size_t n,
                  struct err *e);
void chat_free(struct chat *c);

const char *chat_template_text(const struct chat *c, size_t *n);
const char *chat_template_origin(const struct chat *c); /* "model file", "built-in chatml", … */

/*
 * Renders a conversation. `request` is an object: "messages" (array) and any of "tools",
 * "add_generation_prompt" (default true), "continue_final_message" (default false), and further
 * keys that become template variables. bos_token, eos_token, … come from the tokenizer unless
 * given.
 */
int chat_render(const struct chat *c, const json_t *request, struct jinja_result *out,
                struct err *e);

/* The same, then tokenized; only template text may form control tokens. */
int chat_encode(const struct chat *c, const json_t *request, struct ids *out, bool *thinking_open,
                struct err *e);

/* True when the rendered prompt ends inside an open <think>. */
bool chat_thinking_open(const char *text, size_t n);

/* How the model thinks, found by probing the template and the vocabulary once at chat_new. */
enum chat_thinking {
    CHAT_THINK_NONE,   /* the template knows of no thoughts (built-in one: nor the vocabulary) */
    CHAT_THINK_ALWAYS, /* R1, distills: the template opens it, or the model does by itself */
    CHAT_THINK_SWITCH, /* a template variable turns it on or off (enable_thinking, thinking) */
};
enum chat_thinking chat_thinking(const struct chat *c);
/*
 * Keeps a model that always thinks from it (the practice for R1): puts an empty, closed block of
 * thought at the end of an encoded prompt, in place of an opened one (`open`, from chat_encode).
 */
int chat_close_thought(const struct chat *c, struct ids *ids, bool open, struct err *e);
/* Name of the variable for CHAT_THINK_SWITCH, else NULL. */
const char *chat_thinking_variable(const struct chat *c);

#endif
