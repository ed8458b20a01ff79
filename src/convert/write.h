/* How a plan is written: the parts that files of convert/ share. */
#ifndef PONDER_CONVERT_WRITE_H
#define PONDER_CONVERT_WRITE_H

#include "convert/plan.h"

/* Where encoded tensors go, in the order of the plan. Functions return 0 or an error's code. */
struct convert_sink {
    void *state;
    int (*data)(void *state, const struct convert_tensor *t, const void *p, size_t n,
                struct err *e);
};

/* Encodes the tensors of the plan and hands them to the sink (stream.c). */
int convert_stream(struct convert_plan *p, const struct convert_sink *sink, struct team *team,
                   convert_progress *progress, void *arg, struct err *e);

/* Writes GGUF files (gguf_out.c). */
int convert_write_gguf(struct convert_plan *p, const char *path, struct team *team,
                       convert_progress *progress, void *arg, struct err *e);

/* Writes a Hugging Face folder (hf_out.c). */
int convert_write_hf(struct convert_plan *p, const char *path, struct team *team,
                     convert_progress *progress, void *arg, struct err *e);

struct gguf_writer;

/* The metadata of a GGUF file (gguf_meta.c). */
int convert_gguf_meta(struct convert_plan *p, struct gguf_writer *w, struct err *e);

/* From Hugging Face files: tokenizer.ggml.* and what generation_config.json advises
   (gguf_vocab.c). */
int convert_gguf_vocab(struct convert_plan *p, struct gguf_writer *w, struct err *e);

#endif
