/* The files of a Hugging Face folder besides the weights. */
#ifndef PONDER_CONVERT_HF_FILES_H
#define PONDER_CONVERT_HF_FILES_H

#include "convert/plan.h"

#include <jansson.h>

/* config.json from the configuration of a GGUF file (hf_config.c). */
int hf_config(struct convert_plan *p, const char *dir, struct err *e);
/* tokenizer.json, tokenizer_config.json and generation_config.json from GGUF metadata
   (hf_vocab.c). */
int hf_vocab(struct convert_plan *p, const char *dir, struct err *e);

/* Adds "quantization_config" where the plan has FP8; false when there is no memory. */
bool hf_quantization(const struct convert_plan *p, json_t *config);
/* The same of a plan for a classifier. */
bool hf_classifier(const struct convert_plan *p, json_t *config);

/* "bfloat16", …: what most of the output is. */
const char *hf_dtype(const struct convert_plan *p);

/* Files appear whole or not. A NULL value is a failed allocation. */
int hf_write_json(const char *dir, const char *name, const json_t *v, struct err *e);
int hf_write_file(const char *dir, const char *name, const char *text, size_t n, struct err *e);

#endif
