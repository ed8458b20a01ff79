/* Opening the text side of a model (source, tokenizer) for the plumbing commands. */
#ifndef PONDER_CLI_MODEL_FILES_H
#define PONDER_CLI_MODEL_FILES_H

#include "base/err.h"
#include "format/source.h"
#include "text/tokenizer.h"

struct model_files {
    struct source *source;
    struct tokenizer *tokenizer;
};

/* `name` as the user gave it. Release in any case. */
int model_files_open(struct model_files *m, const char *name, struct err *e);
void model_files_release(struct model_files *m);

#endif
