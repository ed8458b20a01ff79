/*
 * libponder: language models from other programs. The small, stable face of ponder's engine.
 *
 *     struct ponder_error e;
 *     struct ponder_model *m;
 *     struct ponder_session *s;
 *     struct ponder_generation g = PONDER_GENERATION;
 *     g.emit = print;
 *     if (ponder_model_open(&m, "model.gguf", NULL, &e) || ponder_session_new(&s, m, &e) ||
 *         ponder_chat(s, "Why is the sky blue?", 20, &g, NULL, &e))
 *         fprintf(stderr, "%s\n", e.text);
 *
 * Whole programs: docs/examples/chat.c. Build with `pkg-config --cflags --libs ponder`.
 *
 * Errors: every function that can fail returns one of enum ponder_code, 0 when all is well, and
 * fills *e (which may be NULL) with a sentence that names the thing, the fault and the way out.
 * Nothing is printed, nothing ends the process, and signals are left alone.
 *
 * Threads: a model and its sessions belong to one thread at a time; different models are
 * independent. The computing threads are inside. Callbacks come in the calling thread and must not
 * call into the same model.
 *
 * Text is UTF-8 with a length and without a terminator, except paths and names.
 *
 * Versions: PONDER_API_VERSION counts changes that a caller can see. Structs that a caller fills
 * begin with their size (set by their initialiser), so that fields can be added at the end.
 */
#ifndef PONDER_H
#define PONDER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PONDER_API_VERSION 1

#if defined __GNUC__
#define PONDER_API __attribute__((visibility("default")))
#else
#define PONDER_API
#endif

enum ponder_code {
    PONDER_OK,
    PONDER_NO_MEMORY,
    PONDER_IO,
    PONDER_FORMAT,      /* a file or a template is wrong */
    PONDER_LIMIT,       /* a stated bound was reached: the context, an output buffer */
    PONDER_USAGE,       /* the call makes no sense */
    PONDER_UNSUPPORTED, /* understood, but not something this library can do */
    PONDER_CANCELLED,   /* a callback said so */
};

struct ponder_error {
    int code;
    char text[512]; /* one line */
};

/* "0.1.0", and the API_VERSION that the library was built with. */
PONDER_API const char *ponder_version(void);
PONDER_API int ponder_api_version(void);

/* ---- models ---- */

struct ponder_model;

/* Zero means the default everywhere, in parentheses here. */
struct ponder_model_options {
    size_t size;
    int threads;         /* as many as the machine allows */
    size_t context;      /* tokens of a session: what the model was trained for, memory allowing */
    int tokenizer_only;  /* no weights: ponder_tokenize and ponder_detokenize work, no sessions */
    const char *kv_type; /* of the cache: "auto" (default), "f16", "f32", "bf16", "q8_0", "fp8",
                            "fp8_e5m2" */
    const char *template_text; /* a chat template (Jinja) instead of the file's */
    /* Called now and then while loading, with bytes. */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
// clang-format off
#define PONDER_MODEL_OPTIONS {sizeof(struct ponder_model_options), 0, 0, 0, NULL, NULL, NULL, NULL}
// clang-format on

/* Opens a GGUF file or a folder of Hugging Face files. `o` may be NULL. On failure *out is NULL. */
PONDER_API int ponder_model_open(struct ponder_model **out, const char *path,
                                 const struct ponder_model_options *o, struct ponder_error *e);
/* After all of its sessions; NULL is fine. */
PONDER_API void ponder_model_close(struct ponder_model *m);

struct ponder_model_info {
    size_t size;
    const char *name, *arch, *file_type; /* live as long as the model; "" without weights */
    uint64_t parameters, weight_bytes;
    size_t context, trained_context, vocabulary;
    int threads;
};
// clang-format off
#define PONDER_MODEL_INFO {sizeof(struct ponder_model_info), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0}
// clang-format on
PONDER_API int ponder_model_info(const struct ponder_model *m, struct ponder_model_info *out,
                                 struct ponder_error *e);

/* ---- tokens ---- */

enum ponder_tokenize_flags {
    PONDER_SPECIAL = 1, /* control tokens in the text are recognised: never for what people write */
    PONDER_BOS = 2,     /* the token that begins a text in front, where the model wants one */
};

/* Ids of text[0..n) into ids[0..cap); *count is how many there are, which with PONDER_LIMIT is more
   than cap (call again with more room; ids may be NULL when cap is 0). */
PONDER_API int ponder_tokenize(const struct ponder_model *m, const char *text, size_t n,
                               unsigned flags, int32_t *ids, size_t cap, size_t *count,
                               struct ponder_error *e);
/* The bytes that ids stand for, control tokens shown, into text[0..cap) with a terminator; *length
   is without it, and as above with PONDER_LIMIT. */
PONDER_API int ponder_detokenize(const struct ponder_model *m, const int32_t *ids, size_t n,
                                 char *text, size_t cap, size_t *length, struct ponder_error *e);

/* ---- sessions ---- */

/* One timeline of tokens with its cache, and one conversation. */
struct ponder_session;

PONDER_API int ponder_session_new(struct ponder_session **out, struct ponder_model *m,
                                  struct ponder_error *e);
PONDER_API void ponder_session_free(struct ponder_session *s); /* NULL is fine */

enum ponder_piece {
    PONDER_THOUGHT,   /* text of the thought before an answer */
    PONDER_ANSWER,    /* text of the answer */
    PONDER_TOOL_CALL, /* one whole call, as a JSON object with "name" and "arguments" */
};

/* How to generate. Negative numbers mean what suits the model. */
struct ponder_generation {
    size_t size;
    float temperature;       /* 0 = always the most likely token */
    float top_p, min_p;      /* 1 and 0 = off */
    int top_k;               /* 0 = off */
    int64_t seed;            /* the same seed gives the same tokens; negative = another each time */
    size_t max_tokens;       /* 0 = until the context is full */
    const char *const *stop; /* the answer ends before any of these n_stop texts */
    size_t n_stop;
    /* Each piece of text as soon as it is certain: whole characters, no terminator. Anything but 0
       ends the generation with PONDER_CANCELLED. May be NULL. */
    int (*emit)(void *arg, enum ponder_piece kind, const char *text, size_t n);
    /* Asked after every token and every part of a long prompt: 0 ends it. May be NULL. */
    int (*keep_going)(void *arg);
    void *arg;
};
// clang-format off
#define PONDER_GENERATION {sizeof(struct ponder_generation), -1, -1, -1, -1, -1, 0, NULL, 0, NULL, NULL, NULL}
// clang-format on

enum ponder_stop {
    PONDER_STOP_END,     /* the model ended its answer */
    PONDER_STOP_STRING,  /* one of `stop` */
    PONDER_STOP_LENGTH,  /* max_tokens */
    PONDER_STOP_CONTEXT, /* the context is full */
    PONDER_STOP_CANCELLED,
};

struct ponder_result {
    size_t size;
    size_t prompt_tokens, reused_tokens;  /* reused: those that were still in the cache */
    size_t answer_tokens, thought_tokens; /* thoughts are among the answer's tokens */
    double prompt_seconds, answer_seconds;
    enum ponder_stop stop;
};
// clang-format off
#define PONDER_RESULT {sizeof(struct ponder_result), 0, 0, 0, 0, 0, 0, PONDER_STOP_END}
// clang-format on

/*
 * Continues the tokens ids[0..n), n ≥ 1: everything is PONDER_ANSWER, control tokens shown. What
 * the session computed before and still fits is reused. `out` may be NULL; it is filled as well
 * when the result is PONDER_CANCELLED.
 */
PONDER_API int ponder_generate(struct ponder_session *s, const int32_t *ids, size_t n,
                               const struct ponder_generation *g, struct ponder_result *out,
                               struct ponder_error *e);

/*
 * Asks: adds a message of the user, writes the conversation with the model's template, generates
 * the answer and adds it. With PONDER_CANCELLED what was said until then is kept; after any other
 * error the conversation is as before.
 */
PONDER_API int ponder_chat(struct ponder_session *s, const char *text, size_t n,
                           const struct ponder_generation *g, struct ponder_result *out,
                           struct ponder_error *e);
/* Adds a message without asking: "system" first of all, or a history of "user" and "assistant". */
PONDER_API int ponder_chat_message(struct ponder_session *s, const char *role, const char *text,
                                   size_t n, struct ponder_error *e);
/* Forgets the conversation. */
PONDER_API int ponder_chat_clear(struct ponder_session *s, struct ponder_error *e);

#ifdef __cplusplus
}
#endif
#endif
