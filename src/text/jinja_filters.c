/*
 * Filters on single values: text, numbers, JSON. Those on sequences are in jinja_seq.c.
 *
 * As in the reference, most text filters take str(value) of whatever they get.
 * Left out: pprint, urlize, wordwrap, xmlattr, striptags (HTML and Python introspection).
 */
#include "text/jinja_vm.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name)                                                                         \
    static int name(struct vm *vm, struct value self, struct value *a, const struct call *c, \
                    struct value *out)

static const struct str blank = {.p = " ", .n = 1, .chars = 1, .trusted = true};

/* ---- text ------------------------------------------------------------------------------------ */

static int cased(struct vm *vm, struct value self, enum str_case to, struct value *out)
{
    struct str *s;
    TRY(value_str_of(vm, self, &s));
    return str_case(vm, s, to, out);
}

FILTER(f_upper)
{
    return cased(vm, self, CASE_UPPER, out);
}

FILTER(f_lower)
{
    return cased(vm, self, CASE_LOWER, out);
}

FILTER(f_capitalize)
{
    return cased(vm, self, CASE_CAPITALIZE, out);
}

/* Words begin after blanks, '-' and opening brackets. */
FILTER(f_title)
{
    struct str *s;
    struct sb b;
    TRY(value_str_of(vm, self, &s));
    sb_init(&b, vm);
    for (size_t i = 0; i < s->n;) {
        size_t start = i, first = 0;
        for (; i < s->n; first = first ? first : i - start) {
            uint32_t cp;
            size_t k = utf8_next(s->p + i, s->n - i, &cp, NULL);
            bool splits = is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (char)cp));
            if (splits && i > start)
                break;
            i += k;
            if (splits) {
                first = i - start;
                break;
            }
        }
        struct value head, rest;
        TRY(str_cut(vm, s, start, first, &head));
        TRY(str_cut(vm, s, start + first, i - start - first, &rest));
        TRY(str_case(vm, head.s, CASE_UPPER, &head));
        TRY(str_case(vm, rest.s, CASE_LOWER, &rest));
        TRY(sb_str(&b, head.s));
        TRY(sb_str(&b, rest.s));
    }
    return sb_done(&b, out);
}

FILTER(f_trim)
{
    struct str *s, *chars = NULL;
    TRY(value_str_of(vm, self, &s));
    if (arg_given(a[0]) && a[0].type != V_NONE)
        TRY(arg_str(vm, a[0], &chars));
    return str_strip(vm, s, chars, STRIP_LEFT | STRIP_RIGHT, out);
}

FILTER(f_replace)
{
    struct str *s, *old, *new;
    int64_t count;
    TRY(value_str_of(vm, self, &s));
    TRY(value_str_of(vm, a[0], &old));
    TRY(value_str_of(vm, a[1], &new));
    TRY(arg_int(vm, a[2].type == V_NONE ? value_missing : a[2], -1, &count));
    return str_replace(vm, s, old, new, count, out);
}

FILTER(f_center)
{
    struct str *s;
    int64_t width;
    TRY(value_str_of(vm, self, &s));
    TRY(arg_int(vm, a[0], 80, &width));
    return str_pad(vm, s, width, &blank, 0, out);
}

FILTER(f_string)
{
    struct str *s;
    TRY(value_str_of(vm, self, &s));
    *out = value_str(s);
    return 0;
}

FILTER(f_escape)
{
    return escape_html(vm, self, out);
}

FILTER(f_forceescape)
{
    struct str *s;
    TRY(value_str_of(vm, self, &s));
    struct str *plain;
    TRY(vm_alloc(vm, &plain, sizeof *plain));
    *plain = *s;
    plain->markup = false;
    return escape_html(vm, value_str(plain), out);
}

FILTER(f_safe)
{
    struct str *s;
    TRY(value_str_of(vm, self, &s));
    TRY(str_cut(vm, s, 0, s->n, out));
    out->s->markup = true;
    return 0;
}

FILTER(f_indent)
{
    struct list *lines;
    struct value indent;
    struct str *s;
    struct sb b;
    bool first, blanks;
    TRY(arg_str(vm, self, &s));
    TRY(arg_bool(vm, a[1], false, &first));
    TRY(arg_bool(vm, a[2], false, &blanks));
    if (a[0].type == V_STR) {
        indent = a[0];
    } else {
        int64_t width;
        TRY(arg_int(vm, a[0], 4, &width));
        sb_init(&b, vm);
        TRY(sb_fill(&b, &blank, width > 0 ? (size_t)width : 0));
        TRY(sb_done(&b, &indent));
    }
    /* A newline is added first, so that the last line of the text counts as one. */
    sb_init(&b, vm);
    TRY(sb_str(&b, s));
    TRY(sb_puts(&b, "\n"));
    struct value text;
    TRY(sb_done(&b, &text));
    TRY(str_splitlines(vm, text.s, false, &lines));
    sb_init(&b, vm);
    for (size_t i = 0; i < lines->n; i++) {
        const struct str *line = lines->v[i].s;
        if (i)
            TRY(sb_puts(&b, "\n"));
        if (i ? blanks || line->n : first)
            TRY(sb_str(&b, indent.s));
        TRY(sb_str(&b, line));
    }
    TRY(sb_done(&b, out));
    out->s->markup = s->markup;
    return 0;
}

FILTER(f_truncate)
{
    enum { LEEWAY = 5 };
    struct str *s, *end;
    struct value dots, head;
    int64_t length, leeway;
    bool kill;
    size_t n;
    TRY(arg_int(vm, a[0], 255, &length));
    TRY(arg_bool(vm, a[1], false, &kill));
    TRY(str_lit(vm, "...", &dots));
    TRY(arg_str(vm, arg_given(a[2]) ? a[2] : dots, &end));
    TRY(arg_int(vm, a[3].type == V_NONE ? value_missing : a[3], LEEWAY, &leeway));
    if (length < (int64_t)str_chars(end) || leeway < 0)
        return vm_fail(vm, "truncate: expected length >= %zu and leeway >= 0", str_chars(end));
    if (!value_len(self, &n))
        return vm_fail(vm, "object of type '%s' has no len()", value_type_name(self));
    if ((int64_t)n <= length + leeway) {
        *out = self;
        return 0;
    }
    TRY(arg_str(vm, self, &s));
    TRY(str_cut(vm, s, 0, str_byte_of(s, (size_t)length - str_chars(end)), &head));
    if (!kill) {
        struct list *l;
        TRY(str_rsplit(vm, head.s, &blank, 1, &l));
        head = l->v[0];
    }
    return op_binary(vm, OP_ADD, head, value_str(end), out);
}

FILTER(f_wordcount)
{
    struct str *s;
    int64_t n = 0;
    bool in = false;
    TRY(value_str_of(vm, self, &s));
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        i += utf8_next(s->p + i, s->n - i, &cp, NULL);
        bool word = is_word(cp);
        n += word && !in;
        in = word;
    }
    *out = value_int(n);
    return vm_charge_bytes(vm, s->n * 8);
}

FILTER(f_format)
{
    struct str *s;
    struct value arg;
    TRY(value_str_of(vm, self, &s));
    if (c->npos && c->nkw)
        return vm_fail(vm, "format: positional and keyword arguments cannot be mixed");
    if (c->nkw) {
        struct dict *d;
        TRY(dict_new(vm, c->nkw, &d));
        for (size_t i = 0; i < c->nkw; i++)
            TRY(dict_set(vm, d, value_str((struct str *)(uintptr_t)c->kw[i].name), c->kw[i].value));
        arg = (struct value){.type = V_DICT, .d = d};
    } else {
        struct list *l;
        TRY(list_new(vm, c->npos, &l));
        for (size_t i = 0; i < c->npos; i++)
            TRY(list_push(vm, l, c->pos[i]));
        arg = value_tuple(l);
    }
    return str_percent(vm, s, arg, out);
}

FILTER(f_urlencode)
{
    static const char keep[] = "_.-~/";
    struct str *s;
    struct sb b;
    char text[4];
    if (self.type == V_LIST || self.type == V_DICT || self.type == V_TUPLE)
        return vm_fail(vm, "urlencode of containers is not supported");
    TRY(value_str_of(vm, self, &s));
    sb_init(&b, vm);
    for (size_t i = 0; i < s->n; i++) {
        unsigned char x = (unsigned char)s->p[i];
        bool plain = (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || (x >= '0' && x <= '9') ||
                     (x && strchr(keep, x));
        snprintf(text, sizeof text, plain ? "%c" : "%%%02X", x);
        TRY(sb_put(&b, text, strlen(text), s->mask ? s->mask[i] : s->trusted));
    }
    TRY(vm_charge_bytes(vm, s->n * 8));
    return sb_done(&b, out);
}

/* ---- numbers -----------------------------------------------------------------------------------
 */

FILTER(f_abs)
{
    int64_t i;
    if (self.type == V_FLOAT) {
        *out = value_float(fabs(self.f));
        out->trusted = self.trusted;
        return 0;
    }
    if (!value_as_int(self, &i))
        return vm_fail(vm, "bad operand type for abs(): '%s'", value_type_name(self));
    if (i < 0)
        return op_negate(vm, self, out);
    *out = value_int(i);
    out->trusted = self.trusted;
    return 0;
}

static int float_to_int(struct vm *vm, double f, struct value *out)
{
    if (fabs(f) >= 9223372036854775808.0)
        return vm_fail(vm, "the result is an integer of more than 64 bits");
    *out = value_int((int64_t)f);
    return 0;
}

FILTER(f_int)
{
    int64_t base = 10, i;
    double f;
    bool over = false, based = !arg_given(a[1]) || value_as_int(a[1], &base);
    *out = arg_given(a[0]) ? a[0] : value_int(0);
    if (self.type == V_UNDEF)
        return vm_undefined(vm, self);
    if (value_as_int(self, &i)) {
        *out = value_int(i);
        out->trusted = self.trusted;
        return 0;
    }
    if (self.type == V_FLOAT) {
        if (isnan(self.f))
            return 0;
        TRY(float_to_int(vm, self.f, out));
        out->trusted = self.trusted;
        return 0;
    }
    if (self.type != V_STR)
        return 0;
    based = based && (!base || (base >= 2 && base <= 36));
    if (based && parse_int(self.s, (int)base, &i, &over))
        *out = value_int(i);
    else if (over)
        return vm_fail(vm, "the result is an integer of more than 64 bits");
    else if (parse_float(self.s, &f) && isfinite(f))
        TRY(float_to_int(vm, f, out));
    else
        return 0;
    out->trusted = str_trusted(self.s);
    return 0;
}

FILTER(f_float)
{
    double f;
    *out = arg_given(a[0]) ? a[0] : value_float(0);
    if (self.type == V_UNDEF)
        return vm_undefined(vm, self);
    if (value_as_float(self, &f)) {
        *out = value_float(f);
        out->trusted = self.trusted;
    } else if (self.type == V_STR && parse_float(self.s, &f)) {
        *out = value_float(f);
        out->trusted = str_trusted(self.s);
    }
    return 0;
}

/* round() of an integer to tens, hundreds, …: half to even. */
static int round_int(struct vm *vm, int64_t i, int64_t digits, struct value *out)
{
    int64_t p = 1;
    *out = value_int(i);
    if (digits >= 0)
        return 0;
    for (int64_t k = 0; k > digits; k--)
        if (__builtin_mul_overflow(p, 10, &p)) {
            *out = value_int(0);
            return 0;
        }
    int64_t rest = i % p, down = i - rest;
    if (rest < 0) {
        rest += p;
        down -= p;
    }
    bool up = rest > p - rest || (rest == p - rest && (down / p) % 2);
    *out = value_int(up ? down + p : down);
    return 0;
}

static int round_number(struct vm *vm, struct value self, struct value *a, struct value *out)
{
    int64_t digits, i;
    struct str *how = NULL;
    double f;
    char text[512];
    TRY(arg_int(vm, a[0], 0, &digits));
    if (arg_given(a[1]))
        TRY(arg_str(vm, a[1], &how));
    bool up = how && str_eq(how, "ceil"), down = how && str_eq(how, "floor");
    if (how && !up && !down && !str_eq(how, "common"))
        return vm_fail(vm, "round: the method must be common, ceil or floor");
    if (!value_as_float(self, &f))
        return self.type == V_UNDEF
                   ? vm_undefined(vm, self)
                   : vm_fail(vm, "type %s cannot be rounded", value_type_name(self));
    if (up || down) {
        double p = pow(10, (double)digits), x = f * p;
        if (!isfinite(x))
            return vm_fail(vm, "cannot convert float infinity or NaN to integer");
        *out = value_float((up ? ceil(x) : floor(x)) / p);
        return 0;
    }
    if (value_as_int(self, &i))
        return round_int(vm, i, digits, out);
    if (!isfinite(f) || digits > 300) {
        *out = self;
        return 0;
    }
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)digits,
                 f); /* correctly rounded by the C library */
        *out = value_float(strtod(text, NULL));
        return 0;
    }
    double p = digits < -300 ? INFINITY : pow(10, (double)-digits);
    *out = value_float(isinf(p) ? copysign(0, f) : rint(f / p) * p);
    return 0;
}

FILTER(f_round)
{
    TRY(round_number(vm, self, a, out));
    out->trusted = self.trusted;
    return 0;
}

FILTER(f_filesizeformat)
{
    static const char *const units[] = {"kB",  "MB",  "GB",  "TB",  "PB",  "EB",  "ZB",  "YB",
                                        "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    double f;
    bool binary;
    char text[64];
    TRY(arg_bool(vm, a[0], false, &binary));
    if (!value_as_float(self, &f) && !(self.type == V_STR && parse_float(self.s, &f)))
        return vm_fail(vm, "could not convert %s to float", value_type_name(self));
    double base = binary ? 1024 : 1000;
    if (f == 1) {
        snprintf(text, sizeof text, "1 Byte");
    } else if (f < base) {
        snprintf(text, sizeof text, "%lld Bytes", (long long)(f > -9e18 ? f : -9e18));
    } else {
        double unit = base;
        size_t i = 0;
        while (i < 7 && f >= unit * base) {
            unit *= base;
            i++;
        }
        snprintf(text, sizeof text, "%.1f %s", f / unit, units[i + (binary ? 8 : 0)]);
    }
    bool trusted = self.type == V_STR ? str_trusted(self.s) : self.trusted;
    return str_copy(vm, text, strlen(text), trusted, out);
}

/* ---- values -------------------------------------------------------------------------------------
 */

FILTER(f_default)
{
    bool boolean;
    TRY(arg_bool(vm, a[1], false, &boolean));
    if (self.type != V_UNDEF && (!boolean || value_truth(self))) {
        *out = self;
        return 0;
    }
    if (!arg_given(a[0]))
        return str_lit(vm, "", out);
    *out = a[0];
    return 0;
}

FILTER(f_attr)
{
    struct str *name;
    if (a[0].type != V_STR)
        return vm_fail(vm, "attribute name must be string, not '%s'", value_type_name(a[0]));
    name = a[0].s;
    if (self.type != V_DICT)
        return value_attr(vm, self, name, out);
    /* only real attributes, not the items of a dict */
    bool mutates;
    if (!method_find(self, name->p, name->n, &mutates) && !mutates)
        return make_undef(vm, name, "dict", out);
    return value_attr(vm, self, name, out);
}

static int json_separators(struct vm *vm, struct value v, struct json_style *style)
{
    struct list *l;
    struct str *s[2];
    TRY(list_from(vm, v, &l));
    if (l->n != 2)
        return vm_fail(vm, "tojson: separators must be two strings");
    for (int i = 0; i < 2; i++)
        TRY(arg_str(vm, l->v[i], &s[i]));
    style->item_sep = s[0];
    style->key_sep = s[1];
    return 0;
}

FILTER(f_tojson)
{
    static const struct str comma = {.p = ",", .n = 1, .chars = 1, .trusted = true},
                            comma_blank = {.p = ", ", .n = 2, .chars = 2, .trusted = true},
                            colon = {.p = ": ", .n = 2, .chars = 2, .trusted = true};
    struct json_style style = {.item_sep = &comma_blank, .key_sep = &colon};
    struct value indent;
    int64_t width;
    TRY(arg_bool(vm, a[0], false, &style.ascii));
    if (arg_given(a[1]) && a[1].type != V_NONE) {
        style.item_sep = &comma;
        if (a[1].type == V_STR) {
            indent = a[1];
        } else {
            struct sb b;
            TRY(arg_int(vm, a[1], 0, &width));
            sb_init(&b, vm);
            TRY(sb_fill(&b, &blank, width > 0 ? (size_t)width : 0));
            TRY(sb_done(&b, &indent));
        }
        style.indent = indent.s;
    }
    if (arg_given(a[2]) && a[2].type != V_NONE)
        TRY(json_separators(vm, a[2], &style));
    TRY(arg_bool(vm, a[3], false, &style.sort_keys));
    return value_json(vm, self, &style, out);
}

const struct func filters_text[] = {
    {"upper", "", f_upper},
    {"lower", "", f_lower},
    {"capitalize", "", f_capitalize},
    {"title", "", f_title},
    {"trim", "chars?", f_trim},
    {"replace", "old,new,count?", f_replace},
    {"center", "width?", f_center},
    {"string", "", f_string},
    {"escape", "", f_escape},
    {"e", "", f_escape},
    {"forceescape", "", f_forceescape},
    {"safe", "", f_safe},
    {"indent", "width?,first?,blank?", f_indent},
    {"truncate", "length?,killwords?,end?,leeway?", f_truncate},
    {"wordcount", "", f_wordcount},
    {"format", "*", f_format},
    {"urlencode", "", f_urlencode},
    {"abs", "", f_abs},
    {"int", "default?,base?", f_int},
    {"float", "default?", f_float},
    {"round", "precision?,method?", f_round},
    {"filesizeformat", "binary?", f_filesizeformat},
    {"default", "default_value?,boolean?", f_default},
    {"d", "default_value?,boolean?", f_default},
    {"attr", "name", f_attr},
    {"tojson", "ensure_ascii?,indent?,separators?,sort_keys?", f_tojson},
};
const size_t filters_text_n = NUM_COUNT(filters_text);

const struct func *filter_find(const char *name, size_t n)
{
    const struct func *f = func_find(filters_text, filters_text_n, name, n);
    return f ? f : func_find(filters_seq, filters_seq_n, name, n);
}
