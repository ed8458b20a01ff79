/* Metadata values as JSON: see meta_json.h. */
#include "format/meta_json.h"

#include "base/buf.h"
#include "base/utf8.h"

#include <math.h>

json_t *meta_json_string(const char *s, size_t n)
{
    struct buf b;
    if (utf8_valid(s, n))
        return json_stringn_nocheck(s, n);
    buf_init(&b, 3 * n + 1);
    json_t *v = NULL;
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        char c[4];
        i += utf8_next(s + i, n - i, &cp, NULL);
        if (buf_append(&b, c, utf8_put(c, cp), NULL))
            break;
    }
    if (i >= n)
        v = json_stringn_nocheck(b.data, b.len);
    buf_release(&b);
    return v;
}

const char *meta_type_name(enum source_type t)
{
    static const char *const names[] = {
        [SOURCE_INT] = "int",   [SOURCE_UINT] = "int",      [SOURCE_FLOAT] = "float",
        [SOURCE_BOOL] = "bool", [SOURCE_STRING] = "string", [SOURCE_ARRAY] = "array",
        [SOURCE_NULL] = "null"};
    return names[t];
}

static json_t *value_float(double f)
{
    return isfinite(f) ? json_real(f) : json_string(isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
}

static json_t *value_scalar(const struct source_value *v)
{
    switch (v->type) {
    case SOURCE_INT:
        return json_integer(v->i);
    case SOURCE_UINT: /* JSON integers of jansson end at 2^63 */
        return v->u > INT64_MAX ? json_real((double)v->u) : json_integer((json_int_t)v->u);
    case SOURCE_FLOAT:
        return value_float(v->f);
    case SOURCE_BOOL:
        return json_boolean(v->b);
    case SOURCE_STRING:
        return meta_json_string(v->s.p, v->s.n);
    default:
        return json_null();
    }
}

json_t *meta_json(const struct source *s, const struct source_value *v, uint64_t whole,
                  uint64_t cut)
{
    if (v->type != SOURCE_ARRAY)
        return value_scalar(v);
    uint64_t n = v->count;
    bool shorten = n > whole;
    if (v->item == SOURCE_ARRAY)
        return json_pack("{ss sI}", "type", "array", "count", (json_int_t)n);
    json_t *a = json_array();
    for (uint64_t i = 0; i < (shorten && cut < n ? cut : n); i++) {
        struct source_value x;
        if (source_array_get(s, v, i, &x, NULL) || json_array_append_new(a, value_scalar(&x))) {
            json_decref(a);
            return NULL;
        }
    }
    return shorten ? json_pack("{ss sI so}", "type", meta_type_name(v->item), "count",
                               (json_int_t)n, "first", a)
                   : a;
}
