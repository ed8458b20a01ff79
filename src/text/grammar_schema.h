/* Compiling JSON schemas: shared by grammar_schema.c and its parts; private. */
#ifndef PONDER_TEXT_GRAMMAR_SCHEMA_H
#define PONDER_TEXT_GRAMMAR_SCHEMA_H

#include "base/buf.h"
#include "text/grammar_impl.h"

enum {
    SCHEMA_NULL = 1,
    SCHEMA_BOOLEAN = 2,
    SCHEMA_INTEGER = 4,
    SCHEMA_NUMBER = 8, /* always with INTEGER in a set of types */
    SCHEMA_STRING = 16,
    SCHEMA_ARRAY = 32,
    SCHEMA_OBJECT = 64,
    SCHEMA_ALL = 127,
    SCHEMA_WORK_MAX = 1 << 20, /* schemas looked at, members of merged ones */
};

/* A $ref that became a rule; its schema is compiled when all else is. */
struct schema_ref {
    const char *pointer; /* in the arena */
    const json_t *schema;
    uint32_t rule;
};

struct schema {
    struct gbuild *b;
    struct gjson *j;
    const json_t *root;
    struct buf path;        /* JSON pointer of the schema being compiled */
    struct schema_ref *ref; /* in the arena */
    size_t n_refs, cap_refs;
    json_t *known; /* object: pointer → index in ref */
    size_t work;
    int depth;
};

/* A fault at the current path, at `key` of it when that is not NULL. */
struct gx *schema_fail(struct schema *s, int code, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
bool schema_is_annotation(const char *key);
/* Are all keywords known, and of the right kind? *types: those that they speak of. */
bool schema_check(struct schema *s, const json_t *o, unsigned *types);
unsigned schema_types(const json_t *o); /* that "type" names; all without it */

/* A schema that both allow; new reference, NULL after a fault. */
json_t *schema_merge(struct schema *s, const json_t *a, const json_t *b);

/* Goes into a member or an element of the path; leave with the length before. */
size_t schema_enter(struct schema *s, const char *key);
void schema_leave(struct schema *s, size_t before);

struct gx *schema_compile(struct schema *s, const json_t *v);
/* What a $ref means, through other $refs; NULL after a fault. */
const json_t *schema_resolve(struct schema *s, const char *ref);

/*
 * What merging and lowering leave behind, under keys that no JSON text can have (they are no
 * UTF-8): SCHEMA_ALSO, a list of schemas with one of pattern and format each, which a string fits
 * too; SCHEMA_UNLIKE, the same that it does not fit; SCHEMA_EXCEPT, a list of values it is not.
 */
#define SCHEMA_ALSO "\xff also"
#define SCHEMA_UNLIKE "\xff unlike"
#define SCHEMA_EXCEPT "\xff except"
/* o[key] becomes its list with v (taken) behind it. */
void schema_push(struct schema *s, json_t *o, const char *key, json_t *v);

/* Has it keywords that schema_lower takes out? */
bool schema_is_high(const json_t *o);
/* The schema with a $ref at its top written out, and lowered; new reference, NULL after a fault. */
json_t *schema_flat(struct schema *s, const json_t *v);
/* The same without not, if, dependent… and old tuples, said by allOf and anyOf; new reference. */
json_t *schema_lower(struct schema *s, const json_t *o);

/* The texts of a schema as a set; make: schema_compile, or what compiles a part. */
bool schema_language(struct schema *s, const json_t *o,
                     struct gx *(*make)(struct schema *own, const json_t *o), struct glang *out);

/* gdfa_join, whose states are counted as work. */
struct gdfa *schema_join(struct schema *s, const struct glang *lang, size_t n);

/* Members that are not listed, names and values. */
struct names;
struct names *names_new(struct schema *s, const json_t *o);
void names_free(struct names *n);
/* What a member's value has to fit, beside `own` (NULL: it is not listed); new reference. */
json_t *names_value(struct names *n, const char *key, const json_t *own);
struct gx *names_others(struct names *n, const char **key, size_t n_key);

/* Lists without equal items; lists of which so many (found) of so many (size) fit `contains`. */
struct gx *schema_unique(struct schema *s, const json_t *items, uint32_t min, uint32_t max);
struct gx *schema_contains(struct schema *s, const json_t *items, const json_t *contains,
                           struct grange found, struct grange size);

/* Values of one type (grammar_schema_type.c). */
struct gx *schema_number(struct schema *s, const json_t *o, bool real);
struct gx *schema_string(struct schema *s, const json_t *o);
struct gx *schema_array(struct schema *s, const json_t *o);
struct gx *schema_object(struct schema *s, const json_t *o);

#endif
