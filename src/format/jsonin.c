/*
 * Bounded JSON parsing: one pass over the text counts what the parser would have to allocate.
 *
 * The count needs no grammar: outside strings, every array or object starts with a bracket, and
 * every further value follows a comma. Malformed text gives some count, and jansson then says what
 * is wrong with it.
 */
#include "format/jsonin.h"

static int count(const char *text, size_t n, const struct jsonin_limits *max, struct err *e)
{
    size_t depth = 0, containers = 0, values = 0;
    bool string = false;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                string = false;
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

int jsonin_object(json_t **out, const char *text, size_t n, const struct jsonin_limits *limits,
                  bool strict, struct err *e)
{
    json_error_t je;
    size_t flags = JSON_DECODE_ANY | (strict ? JSON_REJECT_DUPLICATES : 0);
    json_t *v;
    int rc;

    *out = NULL;
    rc = count(text, n, limits, e);
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
