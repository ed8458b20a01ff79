/*
 * TOML 1.0 (https://toml.io/en/v1.0.0) as JSON values, for recipes: tables, arrays of tables,
 * dotted keys, inline tables, all four kinds of strings, integers, floats, booleans, arrays,
 * comments. Left out, with an error that says so: dates and times, inf and nan, which JSON has not,
 * and the character U+0000.
 *
 * The text may come from anywhere: what it makes us hold is bounded by its length, and nothing is
 * nested deeper than TOML_DEPTH.
 */
#ifndef PONDER_TRAIN_TOML_H
#define PONDER_TRAIN_TOML_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>

enum { TOML_DEPTH = 64 };

/* *out: an object with the keys in the order of the text, the caller's. ERR_FORMAT: "line 3, column
   7: …"; columns count characters from 1. */
int toml_parse(json_t **out, const char *text, size_t n, struct err *e);

#endif
