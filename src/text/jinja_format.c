/*
 * Text from patterns: the "%" operator, str.format, and the numbers they print; reading numbers.
 *
 * Both languages of patterns are parsed into one `struct spec` and share the printing of integers,
 * floats and strings with fill, alignment, sign and grouping. Python's rules; left out: the types
 * "a" and "n", and nested replacement fields deeper than one level.
 */
#include "text/jinja_vm.h"

#include "base/num.h"
#include "base/utf8.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spec {
    uint32_t fill;
    char align; /* < > = ^, 0 = default of the type */
    char sign;  /* + - blank */
    bool alt, zero;
    char group;               /* , or _ */
    int64_t width, precision; /* precision < 0: none */
    char type;
};

enum { WIDTH_MAX = 1 << 24, PRECISION_MAX = 300 };

/* ---- printing one value ---------------------------------------------------------------------- */

static int put_padded(struct sb *b, const struct spec *f, const char *sign, const char *prefix,
                      const struct str *body, char align)
{
    char fill[4];
    struct str pad = {.p = fill, .n = utf8_put(fill, f->fill), .trusted = true};
    struct str copy = *body;
    int64_t n = (int64_t)(str_chars(&copy) + strlen(sign) + strlen(prefix));
    size_t total = f->width > n ? (size_t)(f->width - n) : 0;
    size_t left = align == '>' ? total : align == '^' ? total / 2 : 0;
    bool trusted = str_trusted(body);
    TRY(sb_fill(b, &pad, left));
    TRY(sb_put(b, sign, strlen(sign), trusted));
    TRY(sb_put(b, prefix, strlen(prefix), trusted));
    if (align == '=')
        TRY(sb_fill(b, &pad, total));
    TRY(sb_str(b, body));
    return align == '=' ? 0 : sb_fill(b, &pad, total - left);
}

/* Digits with a separator every `every` places before the fraction. */
static size_t grouped(char *out, size_t cap, const char *digits, size_t whole, char sep,
                      size_t every)
{
    size_t k = 0, n = strlen(digits);
    for (size_t i = 0; i < n && k + 2 < cap; i++) {
        if (i && i < whole && (whole - i) % every == 0)
            out[k++] = sep;
        out[k++] = digits[i];
    }
    out[k] = 0;
    return k;
}

static int put_digits(struct sb *b, const struct spec *f, bool negative, const char *prefix,
                      const char *digits, size_t whole, size_t every, bool trusted)
{
    char text[1024];
    const char *p = digits;
    size_t n = strlen(digits);
    if (f->group && whole) {
        n = grouped(text, sizeof text, digits, whole, f->group, every);
        p = text;
    }
    const char *sign = negative ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
    struct str body = {.p = p, .n = n, .chars = n, .trusted = trusted};
    struct spec g = *f;
    if (f->zero && !f->align) {
        g.fill = '0';
        g.align = '=';
    }
    return put_padded(b, &g, sign, prefix, &body, g.align ? g.align : '>');
}

static int put_int(struct vm *vm, struct sb *b, const struct spec *f, int64_t i, bool trusted)
{
    char digits[80];
    size_t k = sizeof digits - 1;
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    unsigned base = f->type == 'x' || f->type == 'X' ? 16
                    : f->type == 'o'                 ? 8
                    : f->type == 'b'                 ? 2
                                                     : 10;
    const char *set = f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    digits[k] = 0;
    do {
        digits[--k] = set[u % base];
        u /= base;
    } while (u);
    char prefix[3] = {'0', f->type, 0};
    size_t whole = sizeof digits - 1 - k;
    return put_digits(b, f, i < 0, f->alt && base != 10 ? prefix : "", digits + k, whole,
                      base == 10 ? 3 : 4, trusted);
}

static int put_float(struct vm *vm, struct sb *b, const struct spec *f, double x, bool trusted)
{
    char text[800], fmt[16];
    int64_t prec = f->precision;
    char type = f->type;
    bool percent = type == '%', negative = signbit(x) && !isnan(x);
    if (percent) {
        x *= 100;
        type = 'f';
    }
    if (prec > PRECISION_MAX)
        return vm_fail(vm, "precision too big");
    x = fabs(x);
    if (!isfinite(x)) {
        snprintf(text, sizeof text, "%s", isnan(x) ? "nan" : "inf");
        if (type >= 'A' && type <= 'Z')
            for (char *p = text; *p; p++)
                *p = (char)(*p - 32);
    } else if (!type && prec < 0) {
        float_text(x, text);
    } else if (!type) { /* like g, but with a digit after the point */
        snprintf(text, sizeof text, "%.*g", prec ? (int)prec : 1, x);
        if (!strpbrk(text, ".e"))
            snprintf(text + strlen(text), sizeof text - strlen(text), ".0");
    } else {
        snprintf(fmt, sizeof fmt, "%%%s.*%c", f->alt ? "#" : "", type);
        snprintf(text, sizeof text - 2, fmt, prec < 0 ? 6 : (int)prec, x);
    }
    if (percent)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%%");
    size_t whole = strspn(text, "0123456789");
    return put_digits(b, f, negative, "", text, whole, 3, trusted);
}

static int put_string(struct sb *b, const struct spec *f, struct str *s)
{
    struct value cut = value_str(s);
    if (f->precision >= 0 && (size_t)f->precision < str_chars(s))
        TRY(str_cut(b->vm, s, 0, str_byte_of(s, (size_t)f->precision), &cut));
    struct spec g = *f;
    if (f->zero && !f->align)
        g.fill = '0';
    return put_padded(b, &g, "", "", cut.s, f->align ? f->align : '<');
}

/* ---- the % operator -------------------------------------------------------------------------- */

struct percent {
    struct vm *vm;
    const struct str *fmt;
    size_t i;
    struct value arg;
    size_t next;  /* position in a tuple of arguments */
    bool by_name; /* some argument was taken by name */
};

static int percent_arg(struct percent *p, struct value *out)
{
    if (p->arg.type == V_TUPLE ? p->next >= p->arg.l->n : p->next > 0)
        return vm_fail(p->vm, "not enough arguments for format string");
    *out = p->arg.type == V_TUPLE ? p->arg.l->v[p->next] : p->arg;
    p->next++;
    return 0;
}

static int percent_number(struct percent *p, int64_t *out)
{
    const struct str *s = p->fmt;
    if (p->i < s->n && s->p[p->i] == '*') {
        struct value v;
        p->i++;
        TRY(percent_arg(p, &v));
        if (!value_as_int(v, out))
            return vm_fail(p->vm, "* wants int");
    } else {
        *out = 0;
        while (p->i < s->n && s->p[p->i] >= '0' && s->p[p->i] <= '9' && *out < WIDTH_MAX)
            *out = *out * 10 + (s->p[p->i++] - '0');
    }
    if (*out > WIDTH_MAX || *out < -WIDTH_MAX)
        return vm_fail(p->vm, "width too big");
    return 0;
}

/* "(name)" behind the percent sign. */
static int percent_name(struct percent *p, struct value *out)
{
    const struct str *s = p->fmt;
    size_t start = ++p->i, open = 1;
    while (p->i < s->n) {
        open += s->p[p->i] == '(';
        if (s->p[p->i] == ')' && !--open)
            break;
        p->i++;
    }
    if (p->i >= s->n)
        return vm_fail(p->vm, "incomplete format key");
    struct value key, *found;
    TRY(str_cut(p->vm, s, start, p->i++ - start, &key));
    if (p->arg.type != V_DICT)
        return vm_fail(p->vm, "format requires a mapping");
    TRY(dict_find(p->vm, p->arg.d, key, &found));
    if (!found)
        return vm_fail(p->vm, "no key '%.*s' for the format string", (int)num_min(key.s->n, 60),
                       key.s->p);
    p->by_name = true;
    *out = *found;
    return 0;
}

static int percent_spec(struct percent *p, struct spec *f)
{
    const struct str *s = p->fmt;
    *f = (struct spec){.fill = ' ', .precision = -1};
    for (; p->i < s->n; p->i++) {
        char c = s->p[p->i];
        if (c == '-')
            f->align = '<';
        else if (c == '+' || (c == ' ' && f->sign != '+'))
            f->sign = c;
        else if (c == '#')
            f->alt = true;
        else if (c == '0')
            f->zero = true;
        else if (c != ' ')
            break;
    }
    TRY(percent_number(p, &f->width));
    if (f->width < 0) {
        f->align = '<';
        f->width = -f->width;
    }
    if (p->i < s->n && s->p[p->i] == '.') {
        p->i++;
        TRY(percent_number(p, &f->precision));
        if (f->precision < 0)
            f->precision = 0;
    }
    while (p->i < s->n && strchr("hlL", s->p[p->i]) && s->p[p->i])
        p->i++;
    if (p->i >= s->n)
        return vm_fail(p->vm, "incomplete format");
    f->type = s->p[p->i++];
    return 0;
}

static int percent_char(struct percent *p, struct sb *b, struct spec *f, struct value v)
{
    char c[4];
    int64_t i;
    struct str s = {.p = c, .chars = 1, .trusted = v.trusted};
    if (v.type == V_STR && str_chars(v.s) == 1)
        s = *v.s;
    else if (v.type != V_STR && value_as_int(v, &i) && i >= 0 && i <= 0x10ffff)
        s.n = utf8_put(c, (uint32_t)i);
    else
        return vm_fail(p->vm, "%%c requires int or char");
    return put_padded(b, f, "", "", &s, f->align ? f->align : '>');
}

static int percent_value(struct percent *p, struct sb *b, struct spec *f, struct value v)
{
    struct vm *vm = p->vm;
    double x;
    int64_t i;
    struct str *s;
    struct sb r;
    struct value text;
    if (f->type == 's' || f->type == 'r' || f->type == 'a') {
        if (f->type == 's') {
            if (p->fmt->markup) {
                TRY(escape_html(vm, v, &text));
                v = text;
            }
            TRY(value_str_of(vm, v, &s));
        } else {
            sb_init(&r, vm);
            TRY(value_repr(vm, v, &r, 0));
            TRY(sb_done(&r, &text));
            s = text.s;
        }
        if (!f->align)
            f->align = '>';
        f->zero = false;
        return put_string(b, f, s);
    }
    if (f->type == 'c')
        return percent_char(p, b, f, v);
    if (v.type == V_UNDEF)
        return vm_undefined(vm, v);
    if (strchr("diuxXo", f->type)) {
        bool decimal = strchr("diu", f->type) != NULL;
        if (decimal && v.type == V_FLOAT && isfinite(v.f) && fabs(v.f) < 9.2e18)
            i = (int64_t)v.f;
        else if (!value_as_int(v, &i))
            return vm_fail(vm, "%%%c format: a number is required, not %s", f->type,
                           value_type_name(v));
        if (decimal)
            f->type = 'd';
        return put_int(vm, b, f, i, v.trusted);
    }
    if (!strchr("eEfFgG", f->type))
        return vm_fail(vm, "unsupported format character '%c'", f->type);
    if (!value_as_float(v, &x))
        return vm_fail(vm, "must be real number, not %s", value_type_name(v));
    return put_float(vm, b, f, x, v.trusted);
}

int str_percent(struct vm *vm, struct str *fmt, struct value arg, struct value *out)
{
    struct percent p = {.vm = vm, .fmt = fmt, .arg = arg};
    struct sb b;
    sb_init(&b, vm);
    TRY(vm_charge_bytes(vm, fmt->n * 2));
    while (p.i < fmt->n) {
        const char *hit = memchr(fmt->p + p.i, '%', fmt->n - p.i);
        size_t to = hit ? (size_t)(hit - fmt->p) : fmt->n;
        TRY(sb_cut(&b, fmt, p.i, to - p.i));
        p.i = to + 1;
        if (!hit)
            break;
        struct value v = value_missing;
        struct spec f;
        if (p.i < fmt->n && fmt->p[p.i] == '(')
            TRY(percent_name(&p, &v));
        TRY(percent_spec(&p, &f));
        if (f.type == '%') {
            TRY(sb_puts(&b, "%"));
            continue;
        }
        if (v.type == V_MISSING)
            TRY(percent_arg(&p, &v));
        TRY(percent_value(&p, &b, &f, v));
    }
    /* Arguments that are left over are an error, except containers that could have given names. */
    bool left = arg.type == V_TUPLE ? p.next < arg.l->n
                                    : !p.next && arg.type != V_DICT && arg.type != V_LIST;
    if (left && !p.by_name)
        return vm_fail(vm, "not all arguments converted during string formatting");
    TRY(sb_done(&b, out));
    out->s->markup = fmt->markup;
    return 0;
}

/* ---- str.format ------------------------------------------------------------------------------ */

struct fields {
    struct vm *vm;
    const struct call *c;
    size_t next;             /* number of the next "{}" */
    bool automatic, by_hand; /* "{}" and "{0}" do not mix */
};

/* [[fill]align][sign][#][0][width][grouping][.precision][type] */
static int parse_spec(struct vm *vm, const struct str *s, struct spec *f)
{
    size_t i = 0, k = 0;
    uint32_t cp = 0;
    *f = (struct spec){.fill = ' ', .precision = -1};
    if (s->n)
        k = utf8_next(s->p, s->n, &cp, NULL);
    if (k && k < s->n && strchr("<>=^", s->p[k]) && s->p[k]) {
        f->fill = cp;
        f->align = s->p[k];
        i = k + 1;
    } else if (s->n && strchr("<>=^", s->p[0]) && s->p[0]) {
        f->align = s->p[i++];
    }
    if (i < s->n && (s->p[i] == '+' || s->p[i] == '-' || s->p[i] == ' '))
        f->sign = s->p[i++];
    if (i < s->n && s->p[i] == '#')
        f->alt = s->p[i++] == '#';
    if (i < s->n && s->p[i] == '0')
        f->zero = s->p[i++] == '0';
    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9' && f->width <= WIDTH_MAX; i++)
        f->width = f->width * 10 + (s->p[i] - '0');
    if (i < s->n && (s->p[i] == ',' || s->p[i] == '_'))
        f->group = s->p[i++];
    if (i < s->n && s->p[i] == '.') {
        f->precision = 0;
        if (++i >= s->n || s->p[i] < '0' || s->p[i] > '9')
            return vm_fail(vm, "Format specifier missing precision");
        for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9' && f->precision <= WIDTH_MAX; i++)
            f->precision = f->precision * 10 + (s->p[i] - '0');
    }
    if (i < s->n)
        f->type = s->p[i++];
    if (i < s->n)
        return vm_fail(vm, "Invalid format specifier");
    if (f->width > WIDTH_MAX || f->precision > WIDTH_MAX)
        return vm_fail(vm, "Too many decimal digits in format string");
    return 0;
}

static int put_by_spec(struct vm *vm, struct sb *b, const struct str *spec, struct value v)
{
    struct spec f;
    double x;
    int64_t i;
    struct str *s;
    if (!spec->n)
        return value_put(b, v);
    TRY(parse_spec(vm, spec, &f));
    if (v.type == V_STR) {
        if ((f.type && f.type != 's') || f.sign || f.align == '=' || f.group)
            return vm_fail(vm, "Unknown format code for object of type 'str'");
        return put_string(b, &f, v.s);
    }
    if (v.type == V_BOOL && (!f.type || f.type == 's')) {
        TRY(value_str_of(vm, v, &s));
        return put_string(b, &f, s);
    }
    if (value_as_int(v, &i) && (!f.type || strchr("dxXob", f.type))) {
        if (f.precision >= 0)
            return vm_fail(vm, "Precision not allowed in integer format specifier");
        return put_int(vm, b, &f, i, v.trusted);
    }
    if (value_as_int(v, &i) && f.type == 'c' && i >= 0 && i <= 0x10ffff) {
        char c[4];
        struct str one = {.p = c, .n = utf8_put(c, (uint32_t)i), .chars = 1, .trusted = v.trusted};
        return put_string(b, &f, &one);
    }
    if (value_as_float(v, &x) && (!f.type || strchr("eEfFgG%", f.type)))
        return put_float(vm, b, &f, x, v.trusted);
    return vm_fail(vm, "unsupported format specification for object of type '%s'",
                   value_type_name(v));
}

static int field_number(const struct str *s, int64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9' || *out > INT_MAX)
            return -1;
        *out = *out * 10 + (s->p[i] - '0');
    }
    return s->n ? 0 : -1;
}

static int field_first(struct fields *x, const struct str *name, struct value *out)
{
    int64_t k;
    if (!name->n || !field_number(name, &k)) {
        x->automatic |= !name->n;
        x->by_hand |= name->n != 0;
        if (x->automatic && x->by_hand)
            return vm_fail(x->vm, "cannot mix manual and automatic field numbering");
        if (!name->n)
            k = (int64_t)x->next++;
        if ((size_t)k >= x->c->npos)
            return vm_fail(x->vm, "Replacement index %lld out of range for positional args tuple",
                           (long long)k);
        *out = x->c->pos[k];
        return 0;
    }
    for (size_t i = 0; i < x->c->nkw; i++) {
        if (str_same(x->c->kw[i].name, name)) {
            *out = x->c->kw[i].value;
            return 0;
        }
    }
    return vm_fail(x->vm, "format() got no argument '%.*s'", (int)num_min(name->n, 60), name->p);
}

/* "0.name[key]" */
static int field_value(struct fields *x, const struct str *name, struct value *out)
{
    struct value part;
    size_t i;
    for (i = 0; i < name->n && name->p[i] != '.' && name->p[i] != '['; i++)
        ;
    TRY(str_cut(x->vm, name, 0, i, &part));
    TRY(field_first(x, part.s, out));
    while (i < name->n) {
        bool attr = name->p[i] == '.';
        size_t start = ++i;
        while (i < name->n && (attr ? name->p[i] != '.' && name->p[i] != '[' : name->p[i] != ']'))
            i++;
        if (i == start || (!attr && i >= name->n))
            return vm_fail(x->vm, "Empty attribute in format string");
        TRY(str_cut(x->vm, name, start, i - start, &part));
        int64_t k;
        if (attr) {
            TRY(value_attr(x->vm, *out, part.s, out));
        } else {
            if (!field_number(part.s, &k))
                part = value_int(k);
            TRY(value_item(x->vm, *out, part, out));
            i++;
        }
    }
    return 0;
}

static int format_into(struct fields *x, struct sb *b, const struct str *fmt, unsigned depth);

/* One replacement field, fmt->p[*i] just behind the "{". */
static int format_field(struct fields *x, struct sb *b, const struct str *fmt, size_t *i,
                        unsigned depth)
{
    struct vm *vm = x->vm;
    struct value name, spec, v;
    size_t start = *i, k = *i, open = 1;
    for (; k < fmt->n && fmt->p[k] != '}' && fmt->p[k] != ':' && fmt->p[k] != '!'; k++) {
        if (fmt->p[k] == '{')
            return vm_fail(vm, "unexpected '{' in field name");
        if (fmt->p[k] == '[')
            while (k + 1 < fmt->n && fmt->p[k] != ']')
                k++;
    }
    TRY(str_cut(vm, fmt, start, k - start, &name));
    TRY(field_value(x, name.s, &v));
    char conversion = 0;
    if (k < fmt->n && fmt->p[k] == '!') {
        if (k + 2 >= fmt->n || (fmt->p[k + 2] != ':' && fmt->p[k + 2] != '}'))
            return vm_fail(vm, "expected ':' after conversion specifier");
        conversion = fmt->p[k + 1];
        k += 2;
    }
    start = k + (k < fmt->n && fmt->p[k] == ':');
    for (k = start; k < fmt->n; k++) {
        open += fmt->p[k] == '{';
        if (fmt->p[k] == '}' && !--open)
            break;
    }
    if (k >= fmt->n)
        return vm_fail(vm, "expected '}' before end of string");
    TRY(str_cut(vm, fmt, start, k - start, &spec));
    *i = k + 1;
    if (conversion == 'r' || conversion == 'a' || conversion == 's') {
        struct sb r;
        sb_init(&r, vm);
        TRY(conversion == 's' ? value_put(&r, v) : value_repr(vm, v, &r, 0));
        TRY(sb_done(&r, &v));
    } else if (conversion) {
        return vm_fail(vm, "Unknown conversion specifier %c", conversion);
    }
    if (memchr(spec.s->p, '{', spec.s->n)) {
        struct sb r;
        if (depth)
            return vm_fail(vm, "Max string recursion exceeded");
        sb_init(&r, vm);
        TRY(format_into(x, &r, spec.s, depth + 1));
        TRY(sb_done(&r, &spec));
    }
    return put_by_spec(vm, b, spec.s, v);
}

static int format_into(struct fields *x, struct sb *b, const struct str *fmt, unsigned depth)
{
    for (size_t i = 0; i < fmt->n;) {
        size_t start = i;
        while (i < fmt->n && fmt->p[i] != '{' && fmt->p[i] != '}')
            i++;
        TRY(sb_cut(b, fmt, start, i - start));
        if (i >= fmt->n)
            break;
        char c = fmt->p[i++];
        if (i < fmt->n && fmt->p[i] == c) {
            TRY(sb_cut(b, fmt, i++, 1));
            continue;
        }
        if (c == '}')
            return vm_fail(x->vm, "Single '}' encountered in format string");
        if (i >= fmt->n)
            return vm_fail(x->vm, "Single '{' encountered in format string");
        TRY(format_field(x, b, fmt, &i, depth));
    }
    return 0;
}

int str_format(struct vm *vm, struct str *fmt, const struct call *c, struct value *out)
{
    struct fields x = {.vm = vm, .c = c};
    struct sb b;
    sb_init(&b, vm);
    TRY(vm_charge_bytes(vm, fmt->n * 2));
    TRY(format_into(&x, &b, fmt, 0));
    return sb_done(&b, out);
}

/* ---- reading numbers ------------------------------------------------------------------------- */

/* The text without blanks around it and without single underscores between digits. */
static bool number_text(const struct str *s, char *out, size_t cap)
{
    size_t lo = 0, hi = s->n, k = 0;
    while (lo < hi && is_space((unsigned char)s->p[lo]))
        lo++;
    while (hi > lo && is_space((unsigned char)s->p[hi - 1]))
        hi--;
    for (size_t i = lo; i < hi; i++) {
        if (s->p[i] == '_') {
            bool between = i > lo && i + 1 < hi && s->p[i - 1] != '_' && s->p[i + 1] != '_';
            if (!between)
                return false;
            continue;
        }
        if (!s->p[i] || k + 1 >= cap)
            return false;
        out[k++] = s->p[i];
    }
    out[k] = 0;
    return k != 0;
}

bool parse_int(const struct str *s, int base, int64_t *out, bool *overflow)
{
    char text[400];
    const char *p = text;
    *overflow = false;
    if (!number_text(s, text, sizeof text))
        return false;
    bool negative = *p == '-';
    if (*p == '-' || *p == '+')
        p++;
    char x = p[0] == '0' ? (char)(p[1] | 32) : 0;
    int prefixed = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefixed && (base == prefixed || base == 0) && p[2]) {
        base = prefixed;
        p += 2;
    } else if (base == 0) {
        base = 10;
        if (p[0] == '0' && strspn(p, "0") != strlen(p))
            return false;
    }
    uint64_t v = 0;
    if (!*p)
        return false;
    for (; *p; p++) {
        int d = *p >= '0' && *p <= '9'   ? *p - '0'
                : *p >= 'a' && *p <= 'z' ? *p - 'a' + 10
                : *p >= 'A' && *p <= 'Z' ? *p - 'A' + 10
                                         : 99;
        if (d >= base)
            return false;
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)d, &v))
            *overflow = true;
    }
    if (v > (uint64_t)INT64_MAX + negative)
        *overflow = true;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return !*overflow;
}

bool parse_float(const struct str *s, double *out)
{
    char text[400], *end;
    if (!number_text(s, text, sizeof text) || strpbrk(text, "xXpP("))
        return false;
    *out = strtod(text, &end);
    return !*end;
}

/* ---- time --------------------------------------------------------------------------------------
 */

int strftime_text(struct vm *vm, const struct str *fmt, struct value *out)
{
    enum { TEXT_MAX = 4096, FORMAT_MAX = 512 };
    struct tm tm;
    char *text, *pattern;
    size_t k = 0;
    if (fmt->n > FORMAT_MAX)
        return vm_fail(vm, "the format of strftime_now is too long");
    TRY(vm_alloc(vm, &text, TEXT_MAX));
    TRY(vm_alloc(vm, &pattern, fmt->n * 6 + 2));
    for (size_t i = 0; i < fmt->n; i++) {
        char next = fmt->p[i] == '%' && i + 1 < fmt->n ? fmt->p[i + 1] : 0;
        if (next == 'Z' || next == 'z' || next == 'f') { /* a time without zone and fraction */
            if (next == 'f') {
                memcpy(pattern + k, "000000", 6);
                k += 6;
            }
            i++;
        } else if (fmt->p[i]) {
            pattern[k++] = fmt->p[i];
            if (next)
                pattern[k++] = fmt->p[++i];
        }
    }
    pattern[k] = '.'; /* so that an empty result is no failure */
    pattern[k + 1] = 0;
    if (!localtime_r(&vm->now, &tm))
        return vm_fail(vm, "the current time is not available");
    size_t n = strftime(text, TEXT_MAX, pattern, &tm);
    if (!n)
        return vm_fail(vm, "the result of strftime_now is too long");
    return str_wrap(vm, text, n - 1, str_trusted(fmt), out);
}
