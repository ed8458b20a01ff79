/*
 * Bounded JSON parsing: one pass over the text counts what the parser would have to allocate.
 *
 * The count needs no grammar: outside strings, every array or object starts with a bracket, and
 * every further value follows a comma. Malformed text gives some count, and jansson then says what
 * is wrong with it.
 *
 * Jansson loses a byte of a token when the memory for it cannot grow, without an error. Where the
 * text can be held against the tree (no key is given twice), the bytes of all strings are: a tensor
 * that lost a letter of its name would be another one.
 */
#include "format/jsonin.h"

#include <string.h>

/* Bytes that the escape at p (behind the backslash, n bytes are left) stands for; how long it is.
 */
static size_t escape_bytes(const char *p, size_t n, size_t *length)
{
    unsigned v = 0;

    *length = n > 0;
    if (n < 5 || *p != 'u')
        return 1;
    for (int i = 1; i <= 4; i++) {
        char c = p[i];
        unsigned digit =
            c >= '0' && c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10);
        v = v << 4 | (digit & 15); /* what is no digit jansson refuses */
    }
    *length = 5;
    if (v >= 0xD800 && v < 0xE000) /* half of a pair that takes four */
        return 2;
    return v < 0x80 ? 1 : v < 0x800 ? 2 : 3;
}

/* Also adds up the bytes of all strings. */
static int count(const char *text, size_t n, const struct jsonin_limits *max, size_t *strings,
                 struct err *e)
{
    size_t depth = 0, containers = 0, values = 0;
    bool string = false;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (string) {
            size_t length = 0;
            if (c == '"')
                string = false;
            else
                *strings += c == '\\' ? escape_bytes(text + i + 1, n - i - 1, &length) : 1;
            i += length;
            continue;
        }
        switch (c) {
        case '"':
            string = true;
            break;
        case '[':
        case '{':
            depth++, containers++, values++;
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        default:
            break;
        }
        if (depth > max->depth)
            return err_set(e, ERR_LIMIT, "the JSON is nested deeper than %zu levels (byte %zu)",
                           max->depth, i);
        if (containers > max->containers || values > max->values)
            return err_set(e, ERR_LIMIT,
                           "the JSON has more than %zu arrays and objects or %zu values",
                           max->containers, max->values);
    }
    return 0;
}

/* Bytes of all keys and strings of a tree, whose depth is bounded. */
static size_t string_bytes(json_t *v)
{
    size_t sum = json_string_length(v);
    const char *key;
    json_t *item;

    json_object_foreach(v, key, item) sum += strlen(key) + string_bytes(item);
    for (size_t i = 0; i < json_array_size(v); i++)
        sum += string_bytes(json_array_get(v, i));
    return sum;
}

int jsonin_object(json_t **out, const char *text, size_t n, const struct jsonin_limits *limits,
                  bool strict, struct err *e)
{
    json_error_t je;
    size_t flags = JSON_DECODE_ANY | (strict ? JSON_REJECT_DUPLICATES : 0);
    size_t strings = 0;
    json_t *v;
    int rc;

    *out = NULL;
    rc = count(text, n, limits, &strings, e);
    if (rc)
        return rc;
    if (n == 0)
        return err_set(e, ERR_FORMAT, "the JSON text is empty");
    /* Integers beyond 64 bits and reals beyond double ("1e999") are refused by jansson. */
    v = json_loadb(text, n, flags, &je);
    if (!v) {
        if (!je.text[0]) /* Jansson's allocation failed: it neither says so nor sets a code */
            return err_nomem(e, n, "a JSON tree");
        return err_set(e, ERR_FORMAT, "not valid JSON: %s (line %d, column %d)", je.text, je.line,
                       je.column);
    }
    if (!json_is_object(v)) {
        rc = err_set(e, ERR_FORMAT, "expected a JSON object, found %s", jsonin_kind(v));
        json_decref(v);
        return rc;
    }
    if (strict && string_bytes(v) != strings) {
        json_decref(v);
        return err_nomem(e, n, "a JSON tree");
    }
    *out = v;
    return 0;
}

const char *jsonin_kind(const json_t *v)
{
    static const char *const kind[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null",
    };

    return v ? kind[json_typeof(v)] : "missing";
}
