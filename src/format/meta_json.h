/* Metadata values as JSON, for commands and servers that show them. */
#ifndef PONDER_FORMAT_META_JSON_H
#define PONDER_FORMAT_META_JSON_H

#include "format/source.h"

#include <jansson.h>

/* A string that may hold any bytes: what is no UTF-8 becomes U+FFFD. New reference, NULL without
   memory. */
json_t *meta_json_string(const char *s, size_t n);

/*
 * A value. Floats that are not finite become "nan", "inf", "-inf"; whole numbers from 2^63 on
 * become floats. Of arrays with more than `whole` elements only the first `cut` are given:
 * {"type", "count", "first": […]}; arrays of arrays are only counted. New reference, NULL without
 * memory.
 */
json_t *meta_json(const struct source *s, const struct source_value *v, uint64_t whole,
                  uint64_t cut);

const char *meta_type_name(enum source_type t); /* "int", "float", "string", … */

#endif
