/*
 * JSON from files, through jansson, with bounds. Jansson's tree takes up to a hundred times the
 * bytes of the text ("[[],[],…"), so the text is counted before it is parsed.
 */
#ifndef PONDER_FORMAT_JSONIN_H
#define PONDER_FORMAT_JSONIN_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>

struct jsonin_limits {
    size_t depth;      /* of arrays and objects in each other */
    size_t containers; /* arrays and objects in all */
    size_t values;     /* members and elements in all */
};

/*
 * Parses text[0..n), which has to be one JSON object. With `strict` a key given twice in
 * an object is an error, else the last one wins. Integers have to fit into 64 bits. The caller owns
 * *out (json_decref).
 */
int jsonin_object(json_t **out, const char *text, size_t n, const struct jsonin_limits *limits,
                  bool strict, struct err *e);

/* "a string", "an array", …: what a value is, for errors; "missing" for NULL. */
const char *jsonin_kind(const json_t *v);

#endif
