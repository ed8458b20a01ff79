/* Texts that commands score: a file, or "-" for standard input, as the tokens of a model. */
#ifndef PONDER_CLI_TEXT_IDS_H
#define PONDER_CLI_TEXT_IDS_H

#include "engine/engine.h"

/*
 * Reads the text and appends its tokens, BOS in front where the model adds one. Nothing in it can
 * become a control token. Errors name the file.
 */
int text_ids(struct ids *out, const struct engine *g, const char *path, struct err *e);

/* What takes the first token's place when a text is cut in chunks: BOS where the model adds one,
   else -1. */
int32_t text_bos(const struct engine *g);

#endif
