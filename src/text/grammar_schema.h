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

/* Values of one type (grammar_schema_type.c). */
struct gx *schema_number(struct schema *s, const json_t *o, bool real);
struct gx *schema_string(struct schema *s, const json_t *o);
struct gx *schema_array(struct schema *s, const json_t *o);
struct gx *schema_object(struct schema *s, const json_t *o);

#endif
