/* Members of JSON requests: see fields.h. */
#include "server/fields.h"

#include "base/num.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct fields fields_of(json_t *o, const char *prefix, struct err *e)
{
    return (struct fields){.o = o, .prefix = prefix, .e = e};
}

json_t *field(const struct fields *f, const char *key)
{
    json_t *v = f->code ? NULL : json_object_get(f->o, key);
    return json_is_null(v) ? NULL : v;
}

int field_fail(struct fields *f, const char *key, const char *text)
{
    if (f->code)
        return f->code;
    f->param = key;
    f->code = err_set(f->e, ERR_USAGE, "%s%s %s", f->prefix, key, text);
    return f->code;
}

static int fail_range(struct fields *f, const char *key, double v, double min, double max)
{
    f->param = key;
    f->code = err_set(f->e, ERR_USAGE, "%s%s is %.17g: it must be from %.10g to %.10g", f->prefix,
                      key, v, min, max);
    return f->code;
}

void field_bool(struct fields *f, const char *key, bool *v)
{
    json_t *x = field(f, key);
    if (x && !json_is_boolean(x))
        field_fail(f, key, "must be true or false");
    else if (x)
        *v = json_is_true(x);
}

bool fields_whole(const json_t *x, int64_t *v)
{
    double d = json_is_real(x) ? json_real_value(x) : 0.5;
    if (json_is_integer(x))
        *v = json_integer_value(x);
    else if (fabs(d) <= 9007199254740992 && d == floor(d)) /* 2^53: all below are exact */
        *v = (int64_t)d;
    else
        return false;
    return true;
}

void field_int(struct fields *f, const char *key, int64_t *v, int64_t min, int64_t max)
{
    json_t *x = field(f, key);
    int64_t n;
    if (!x)
        return;
    if (!fields_whole(x, &n) && json_is_real(x) && fabs(json_real_value(x)) >= 9e15) {
        fail_range(f, key, json_real_value(x), (double)min, (double)max);
        return;
    }
    if (!fields_whole(x, &n)) {
        field_fail(f, key, "must be a whole number");
        return;
    }
    if (n < min || n > max)
        fail_range(f, key, (double)n, (double)min, (double)max);
    else
        *v = n;
}

void field_size(struct fields *f, const char *key, size_t *v, int64_t min, int64_t max)
{
    int64_t n = -1;
    if (!field(f, key))
        return;
    field_int(f, key, &n, min, max);
    if (!f->code)
        *v = (size_t)n;
}

void field_double(struct fields *f, const char *key, double *v, double min, double max)
{
    json_t *x = field(f, key);
    if (!x)
        return;
    double n = json_is_number(x) ? json_number_value(x) : NAN;
    if (!isfinite(n))
        field_fail(f, key, "must be a number");
    else if (n < min || n > max)
        fail_range(f, key, n, min, max);
    else
        *v = n;
}

void field_float(struct fields *f, const char *key, float *v, double min, double max)
{
    double n = NAN;
    field_double(f, key, &n, min, max);
    if (!isnan(n))
        *v = (float)n;
}

void field_string(struct fields *f, const char *key, const char **v, size_t *n, size_t max)
{
    json_t *x = field(f, key);
    if (!x)
        return;
    size_t len = json_string_length(x);
    if (!json_is_string(x)) {
        field_fail(f, key, "must be a string");
    } else if (len > max) {
        field_fail(f, key, "is too long");
    } else if (!n && strlen(json_string_value(x)) != len) {
        field_fail(f, key, "must not hold the character U+0000");
    } else {
        *v = json_string_value(x);
        if (n)
            *n = len;
    }
}

void field_object(struct fields *f, const char *key, json_t **v)
{
    json_t *x = field(f, key);
    if (x && !json_is_object(x))
        field_fail(f, key, "must be an object");
    else if (x)
        *v = x;
}

void field_array(struct fields *f, const char *key, json_t **v, size_t max)
{
    json_t *x = field(f, key);
    if (x && !json_is_array(x))
        field_fail(f, key, "must be an array");
    else if (json_array_size(x) > max)
        field_fail(f, key, "has too many elements");
    else if (x)
        *v = x;
}

void field_word(struct fields *f, const char *key, int *v, const char *const *words, size_t n)
{
    const char *s = NULL;
    field_string(f, key, &s, NULL, 256);
    if (!s)
        return;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(s, words[i])) {
            *v = (int)i;
            return;
        }
    char text[ERR_TEXT_MAX];
    size_t at = 0;
    for (size_t i = 0; i < n && at < sizeof text; i++) {
        int k = snprintf(text + at, sizeof text - at, "%s\"%s\"",
                         i == 0       ? "must be "
                         : i + 1 == n ? " or "
                                      : ", ",
                         words[i]);
        at += k > 0 ? (size_t)k : 0;
    }
    field_fail(f, key, text);
}

void field_strings(struct fields *f, const char *key, const char **v, size_t *n, size_t max,
                   size_t bytes)
{
    json_t *x = field(f, key);
    size_t count = json_is_array(x) ? json_array_size(x) : x != NULL;
    if (count > max) {
        field_fail(f, key, "has too many elements");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        json_t *s = json_is_array(x) ? json_array_get(x, i) : x;
        if (!json_is_string(s)) {
            field_fail(f, key, "must be a string or an array of strings");
            return;
        }
        size_t len = json_string_length(s);
        if (!len || len > bytes || strlen(json_string_value(s)) != len) {
            field_fail(f, key,
                       !len          ? "holds an empty string"
                       : len > bytes ? "holds too long a string"
                                     : "must not hold the character U+0000");
            return;
        }
        v[i] = json_string_value(s);
    }
    if (x)
        *n = count;
}

void field_ids(struct fields *f, const char *key, int32_t **v, size_t *n, size_t max, size_t vocab)
{
    json_t *x = NULL;
    field_array(f, key, &x, max);
    size_t count = json_array_size(x);
    if (!x || !count)
        return;
    int32_t *ids = malloc(count * sizeof *ids);
    if (!ids) {
        f->code = err_nomem(f->e, count * sizeof *ids, key);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        int64_t id;
        if (!fields_whole(json_array_get(x, i), &id) || id < 0 || (uint64_t)id >= vocab) {
            field_fail(f, key, "holds a number that is out of vocabulary");
            free(ids);
            return;
        }
        ids[i] = (int32_t)id;
    }
    *v = ids;
    *n = count;
}

bool fields_duration(const char *s, double *out)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"µs", 1e-6}, {"ms", 1e-3},
                 {"s", 1},     {"m", 60},    {"h", 3600}};
    double sum = 0, sign = *s == '-' ? -1 : 1;
    s += *s == '-' || *s == '+';
    if (!isdigit((unsigned char)*s) && *s != '.')
        return false;
    while (*s) {
        char *end;
        if (!isdigit((unsigned char)*s) && *s != '.')
            return false;
        double v = strtod(s, &end);
        if (end == s || !isfinite(v))
            return false;
        size_t best = NUM_COUNT(units), n = strlen(end);
        for (size_t i = 0; i < NUM_COUNT(units); i++) {
            size_t k = strlen(units[i].unit);
            /* "m" is not the beginning of "ms" */
            if (n >= k && !memcmp(end, units[i].unit, k) &&
                (best == NUM_COUNT(units) || k > strlen(units[best].unit)))
                best = i;
        }
        if (best == NUM_COUNT(units)) {
            if (*end)
                return false;
            sum += v; /* no unit at the end */
            s = end;
        } else {
            sum += v * units[best].seconds;
            s = end + strlen(units[best].unit);
        }
    }
    *out = sign * sum;
    return true;
}
