/* Files that say what to do: recipes, in TOML or JSON. */
#ifndef PONDER_TRAIN_CONFIG_H
#define PONDER_TRAIN_CONFIG_H

#include "base/err.h"

#include <jansson.h>

enum { CONFIG_FILE_MAX = 4 << 20 };

/*
 * Reads a file whose outermost thing is a table or object. NAME.json is JSON, NAME.toml is TOML;
 * with other names JSON is what begins with '{'. A key given twice is an error in both. *out keeps
 * the order of the file and is the caller's. Errors name file, line and column.
 */
int config_read(json_t **out, const char *path, struct err *e);

#endif
