/*
 * The head of a model: what its files say, without loading weights or building a tokenizer. For
 * lists of models, which open many files and run none. Opening takes some milliseconds; nothing is
 * kept mapped afterwards.
 */
#ifndef PONDER_ENGINE_HEAD_H
#define PONDER_ENGINE_HEAD_H

#include "base/err.h"
#include "format/source.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine_head {
    char name[128];        /* general.name, or the file's without its ending */
    const char *arch;      /* "llama", "qwen2", "deepseek2", …; constant */
    const char *file_type; /* "Q4_K_M", "BF16", …; constant */
    const char *format;    /* "gguf" or "safetensors" */
    uint64_t bytes;        /* of all tensors in the files */
    uint64_t params;
    size_t ctx_train, d_model, layers, vocab, heads, kv_heads;
    uint64_t kv_token_bytes; /* of an F16 cache */
    bool thinks, tools;      /* by the chat template */
    bool fim;                /* the vocabulary has tokens for a hole in the text */
    char *template_text;     /* of the chat, terminated; owned */
    uint64_t identity; /* of names, types, shapes, samples of the tensors: engine_fingerprint */
};

/* What is no whole model that ponder can run is refused as engine_open would refuse it. */
/* `template_text` (or NULL) replaces the file's, as in engine_opts. */
int engine_head_read(struct engine_head *h, const char *path, const char *template_text,
                     struct err *e);
void engine_head_release(struct engine_head *h);

/* All metadata of the files as one object, keys as GGUF files spell them where ponder knows them
   ("general.architecture", "qwen2.context_length"), the files' own beside them. Long arrays are
   null unless `arrays`. New reference. */
int engine_head_metadata(const char *path, bool arrays, json_t **out, struct err *e);
/* [{"name", "type", "shape"}, …] of all tensors. New reference. */
int engine_head_tensors(const char *path, json_t **out, struct err *e);

/* Shared with engine_open. */
void head_name(const struct source *src, char *out, size_t size);
const char *head_file_type(const struct source *src);
uint64_t head_identity(const struct source *src);

/* A number that changes when the file at a path, or one of the folder there, is written again, and
   that stays when they are moved. */
uint64_t engine_path_identity(const char *path);

#endif
