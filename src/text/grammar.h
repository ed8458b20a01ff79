/*
 * Constrained output: which tokens may come next, so that an answer is JSON, fits a JSON schema, a
 * regular expression, a list of choices, a GBNF grammar or the form of tool calls.
 *
 * A grammar is compiled to a pushdown automaton over bytes (grammar_build.c). A state follows one
 * sequence; its mask has a bit for each token of the vocabulary (grammar_state.c). Tokens are taken
 * as their bytes, so it does not matter how they cut characters or the grammar's symbols, and every
 * text of the grammar may be written with any tokens that spell it. Control tokens are the
 * exception: they stand only where the grammar names them and in free text.
 *
 * Every state has a way to the end: what can no longer be completed is not allowed to begin.
 * Compiling is bounded in time and memory, and refuses what it does not understand in words that
 * name the place; a grammar that admits no text is refused too.
 *
 * Threads: grammars and vocabularies may be shared; each state belongs to one thread at a time.
 */
#ifndef PONDER_TEXT_GRAMMAR_H
#define PONDER_TEXT_GRAMMAR_H

#include "text/tokenizer.h"

#include <jansson.h>

struct grammar; /* compiled; counted references; made with one */

/* JSON mode: one object with any members. */
int grammar_new_json(struct grammar **out, struct err *e);
/* Texts of the schema; ERR_UNSUPPORTED or ERR_FORMAT name the keyword and its JSON pointer. */
int grammar_new_schema(struct grammar **out, const json_t *schema, struct err *e);
/* The whole text matches the expression (ECMAScript's syntax without lookaround and references). */
int grammar_new_regex(struct grammar **out, const char *s, size_t n, struct err *e);
/* A grammar in llama.cpp's notation; its rule "root" is the whole text. */
int grammar_new_gbnf(struct grammar **out, const char *s, size_t n, struct err *e);

/* The same, and more, by what they are made of. */
enum grammar_kind {
    GRAMMAR_FREE,   /* any text */
    GRAMMAR_JSON,   /* JSON mode */
    GRAMMAR_SCHEMA, /* json: the schema */
    GRAMMAR_REGEX,  /* text */
    GRAMMAR_CHOICE, /* json: an array of strings, one of which is the text */
    GRAMMAR_GBNF,   /* text */
    GRAMMAR_TAGS,   /* json: a structural tag (grammar_tags.c) */
};

struct grammar_form {
    enum grammar_kind kind;
    const char *text;
    size_t n;
    const json_t *json;
};

int grammar_new(struct grammar **out, const struct grammar_form *f, struct err *e);

/* The forms in which models write calls; text/parse.h reads all of them. */
enum grammar_call_form {
    GRAMMAR_CALL_DEEPSEEK,     /* V3, R1: function<｜tool▁sep｜>NAME and a fenced object */
    GRAMMAR_CALL_DEEPSEEK_V31, /* NAME<｜tool▁sep｜>{…} */
    GRAMMAR_CALL_HERMES,       /* Qwen: {"name": …, "arguments": …} between <tool_call> tags */
    GRAMMAR_CALL_LLAMA,        /* Llama 3.1: {"name": …, "parameters": …} as the whole answer */
};

struct grammar_tool {
    const char *name;
    const json_t *parameters; /* schema of the arguments; NULL: any object */
};

struct grammar_tools {
    enum grammar_call_form form;
    const struct grammar_tool *tool; /* those that may be called */
    size_t n;
    bool required; /* else "auto": any text, in which the opening of a call arms the grammar */
    const struct grammar_form
        *answer;   /* "auto": the form of an answer that is no call; NULL: any */
    bool parallel; /* several calls may follow one another */
};

int grammar_new_tools(struct grammar **out, const struct grammar_tools *t, struct err *e);

/* Was it made by grammar_new_tools? Else what looks like a call in its texts is none. */
bool grammar_has_calls(const struct grammar *g);

struct grammar *grammar_ref(struct grammar *g);
void grammar_unref(struct grammar *g); /* NULL is fine */

/* The tokens' bytes as a trie; built once per tokenizer and shared; counted references. */
struct grammar_vocab;

/* Keeps nothing of `tok`. */
int grammar_vocab_new(struct grammar_vocab **out, const struct tokenizer *tok, struct err *e);
struct grammar_vocab *grammar_vocab_ref(struct grammar_vocab *v);
void grammar_vocab_unref(struct grammar_vocab *v);
size_t grammar_vocab_words(const struct grammar_vocab *v); /* of a mask: ⌈tokens / 32⌉ */

/* What stands in front of the text that the grammar describes. */
enum grammar_thought {
    GRAMMAR_THOUGHT_NONE,  /* nothing */
    GRAMMAR_THOUGHT_OPEN,  /* the prompt opened <think>: any text to </think>, up to two newlines */
    GRAMMAR_THOUGHT_MAYBE, /* the model may open one by itself */
};

struct grammar_state; /* where one sequence is */

/* Holds references to g and v. */
int grammar_state_new(struct grammar_state **out, struct grammar *g, struct grammar_vocab *v,
                      enum grammar_thought thought, struct err *e);
int grammar_state_copy(struct grammar_state **out, struct grammar_state *from, struct err *e);
void grammar_state_free(struct grammar_state *s);

/*
 * The tokens that may come next: bit id % 32 of word id / 32. Tokens that end a generation are
 * allowed exactly when the text is complete, or when nothing else could follow. Valid until the
 * next call with this state.
 */
int grammar_state_mask(struct grammar_state *s, const uint32_t **bits, struct err *e);

/* Follows the token that was chosen (or replayed). ERR_FORMAT when it was not allowed: the state
   is then as before. */
int grammar_state_accept(struct grammar_state *s, int32_t id, struct err *e);

bool grammar_state_complete(struct grammar_state *s); /* only the end may follow */

#endif
