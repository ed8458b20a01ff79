/* From what the user calls a model to the path of its files. */
#ifndef PONDER_CLI_LOCATE_H
#define PONDER_CLI_LOCATE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { LOCATE_MAX = 4096 };

#define LOCATE_BUNDLED "ponder-r1-mini" /* the model that ponder comes with */

/*
 * "bundled" (a file of that name is ./bundled); an existing path (.gguf, .safetensors,
 * tokenizer.json, a folder), else NAME or NAME.gguf in $PONDER_MODELS or else
 * ~/.cache/ponder/weights; the bundled model's own name. The error says where was looked and what
 * is there.
 */
int locate_model(const char *name, char out[LOCATE_MAX], struct err *e);

/* Whether locate_model would find a model there (and not just some file or folder). */
bool locate_is_model(const char *name);

/* Whether it can only be words for a model: there is a blank in it, and it is no file's name. */
bool locate_is_words(const char *name);

/*
 * When no model was named: $PONDER_MODEL, else the only one in the folder of models, else the
 * bundled one.
 */
int locate_default(char out[LOCATE_MAX], struct err *e);

/*
 * The bundled model, when it is there: beside the program, in ../share/ponder/models from there, in
 * models/ of the source tree when the program runs where it was built, in the data folder that
 * ponder was configured with.
 */
bool locate_bundled(char out[LOCATE_MAX]);

/* Whether that is it. */
bool locate_is_bundled(const char *path);

/* The folder of models, when it is there; whether it has any. */
bool locate_models(char out[LOCATE_MAX]);
bool locate_has_models(void);

/* ~/.cache/ponder/NAME (or under $XDG_CACHE_HOME), the folders above it made; ERR_IO when
   impossible. */
int locate_cache(const char *name, char out[LOCATE_MAX], struct err *e);

/* ~/.local/share/ponder/NAME (or under $XDG_DATA_HOME), folders made; ERR_IO when impossible. */
int locate_data(const char *name, char out[LOCATE_MAX], struct err *e);

#endif
