/*
 * Reading members of a JSON request: a member that is absent or null leaves the value as it is; one
 * of another type, or outside its range, is an error that names it. Unknown members are nobody's
 * business here: clients send more than servers know.
 *
 * After the first error the others do nothing, so a reader asks for all its members and looks at
 * the code once.
 */
#ifndef PONDER_SERVER_FIELDS_H
#define PONDER_SERVER_FIELDS_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fields {
    json_t *o;          /* the object; borrowed */
    const char *prefix; /* for messages: "" or "options." */
    struct err *e;
    int code;          /* of the first error */
    const char *param; /* which member that was; lives as long as the key given */
};

struct fields fields_of(json_t *o, const char *prefix, struct err *e);

/* The member, or NULL when it is absent or null. Borrowed. */
json_t *field(const struct fields *f, const char *key);
int field_fail(struct fields *f, const char *key, const char *text); /* "KEY TEXT" */

/* Whether a value is a whole number: 3, 3.0, but not 3.5, 1e300 or "3". */
bool fields_whole(const json_t *x, int64_t *v);
void field_bool(struct fields *f, const char *key, bool *v);
/* Whole numbers; 3.0 is one, 3.5, 1e300 and "3" are not. */
void field_int(struct fields *f, const char *key, int64_t *v, int64_t min, int64_t max);
void field_size(struct fields *f, const char *key, size_t *v, int64_t min, int64_t max);
/* Finite numbers. */
void field_float(struct fields *f, const char *key, float *v, double min, double max);
void field_double(struct fields *f, const char *key, double *v, double min, double max);
/* Borrowed; at most `max` bytes. A NUL inside is an error unless `n` is given. */
void field_string(struct fields *f, const char *key, const char **v, size_t *n, size_t max);
void field_object(struct fields *f, const char *key, json_t **v);
void field_array(struct fields *f, const char *key, json_t **v, size_t max);
/* One of the words; *v becomes its index. */
void field_word(struct fields *f, const char *key, int *v, const char *const *words, size_t n);
/* A string or an array of strings, none empty; at most `max` of `bytes` each. The pointers are the
   object's. */
void field_strings(struct fields *f, const char *key, const char **v, size_t *n, size_t max,
                   size_t bytes);
/* An array of ids below `vocab`. Allocated: the caller's. */
void field_ids(struct fields *f, const char *key, int32_t **v, size_t *n, size_t max, size_t vocab);

/* A duration as Go writes it: "300ms", "-1.5h", "2h45m"; a bare number is seconds. */
bool fields_duration(const char *s, double *out);

#endif
