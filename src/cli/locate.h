/* From what the user calls a model to the path of its files. */
#ifndef PONDER_CLI_LOCATE_H
#define PONDER_CLI_LOCATE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { LOCATE_MAX = 4096 };

/*
 * An existing path (.gguf, .safetensors, tokenizer.json, a folder), else NAME or NAME.gguf in
 * $PONDER_MODELS or else ~/.cache/ponder/weights. The error says where was looked and what is
 * there.
 */
int locate_model(const char *name, char out[LOCATE_MAX], struct err *e);

/* Whether locate_model would find a model there (and not just some file or folder). */
bool locate_is_model(const char *name);

/* When no model was named: $PONDER_MODEL, else the only one in the folder of models. */
int locate_default(char out[LOCATE_MAX], struct err *e);

/* The folder of models, when it is there. */
bool locate_models(char out[LOCATE_MAX]);

/* ~/.cache/ponder/NAME (or under $XDG_CACHE_HOME), the folders above it made; ERR_IO when
   impossible. */
int locate_cache(const char *name, char out[LOCATE_MAX], struct err *e);

/* ~/.local/share/ponder/NAME (or under $XDG_DATA_HOME), folders made; ERR_IO when impossible. */
int locate_data(const char *name, char out[LOCATE_MAX], struct err *e);

#endif
