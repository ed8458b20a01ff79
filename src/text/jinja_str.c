/*
 * The methods of strings, as Python's str has them. Positions are code points; pieces share the
 * bytes of their source. Left out: encode, translate, maketrans (there are no bytes objects).
 */
#include "text/jinja_vm.h"

#include "base/num.h"
#include "base/utf8.h"

#include <limits.h>
#include <string.h>

#define METHOD(name)                                                                         \
    static int name(struct vm *vm, struct value self, struct value *a, const struct call *c, \
                    struct value *out)

/* ---- cutting ------------------------------------------------------------------------------- */

static bool in_set(const struct str *set, uint32_t cp)
{
    if (!set)
        return is_space(cp);
    for (size_t i = 0; i < set->n;) {
        uint32_t x;
        i += utf8_next(set->p + i, set->n - i, &x, NULL);
        if (x == cp)
            return true;
    }
    return false;
}

int str_strip(struct vm *vm, struct str *s, const struct str *chars, unsigned sides,
              struct value *out)
{
    size_t lo = 0, hi = s->n, work = 1 + (chars ? chars->n / 16 : 0);
    uint32_t cp;
    while ((sides & STRIP_LEFT) && lo < hi) {
        size_t k = utf8_next(s->p + lo, hi - lo, &cp, NULL);
        if (!in_set(chars, cp))
            break;
        lo += k;
        TRY(vm_charge(vm, work / 2));
    }
    while ((sides & STRIP_RIGHT) && hi > lo) {
        size_t k = hi - 1;
        while (k > lo && ((unsigned char)s->p[k] & 0xc0) == 0x80)
            k--;
        utf8_next(s->p + k, hi - k, &cp, NULL);
        if (!in_set(chars, cp))
            break;
        hi = k;
        TRY(vm_charge(vm, work / 2));
    }
    TRY(vm_charge_bytes(vm, s->n - (hi - lo)));
    return str_cut(vm, s, lo, hi - lo, out);
}

static int strip_method(struct vm *vm, struct value self, struct value *a, unsigned sides,
                        struct value *out)
{
    struct str *chars = NULL;
    if (arg_given(a[0]) && a[0].type != V_NONE)
        TRY(arg_str(vm, a[0], &chars));
    return str_strip(vm, self.s, chars, sides, out);
}

METHOD(m_strip)
{
    return strip_method(vm, self, a, STRIP_LEFT | STRIP_RIGHT, out);
}

METHOD(m_lstrip)
{
    return strip_method(vm, self, a, STRIP_LEFT, out);
}

METHOD(m_rstrip)
{
    return strip_method(vm, self, a, STRIP_RIGHT, out);
}

static int push_cut(struct vm *vm, struct list *l, const struct str *s, size_t from, size_t to)
{
    struct value v;
    TRY(str_cut(vm, s, from, to - from, &v));
    return list_push(vm, l, v);
}

/* At white space; max < 0: no bound. */
static int split_space(struct vm *vm, const struct str *s, int64_t max, struct list *l)
{
    size_t i = 0;
    for (;;) {
        uint32_t cp = 0;
        size_t k, start;
        while (i < s->n && (k = utf8_next(s->p + i, s->n - i, &cp, NULL)) && is_space(cp))
            i += k;
        if (i >= s->n)
            return 0;
        start = i;
        if (max >= 0 && (int64_t)l->n >= max)
            return push_cut(vm, l, s, start, s->n); /* the rest as it is */
        while (i < s->n && (k = utf8_next(s->p + i, s->n - i, &cp, NULL)) && !is_space(cp))
            i += k;
        TRY(push_cut(vm, l, s, start, i));
    }
}

static int split_at(struct vm *vm, const struct str *s, const struct str *sep, int64_t max,
                    struct list *l)
{
    size_t start = 0;
    while (max < 0 || (int64_t)l->n < max) {
        const char *hit =
            s->n - start >= sep->n ? memmem(s->p + start, s->n - start, sep->p, sep->n) : NULL;
        if (!hit)
            break;
        size_t at = (size_t)(hit - s->p);
        TRY(push_cut(vm, l, s, start, at));
        start = at + sep->n;
    }
    return push_cut(vm, l, s, start, s->n);
}

static void list_reverse(struct list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        struct value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

/* The last place of sep (not empty) in s[0..n), or SIZE_MAX. */
static int find_last(struct vm *vm, const struct str *s, size_t n, const struct str *sep,
                     size_t *out)
{
    *out = SIZE_MAX;
    if (n < sep->n)
        return 0;
    for (size_t i = n - sep->n + 1; i-- > 0;) {
        if (s->p[i] != sep->p[0] || s->p[i + sep->n - 1] != sep->p[sep->n - 1])
            continue;
        if (!memcmp(s->p + i, sep->p, sep->n)) {
            *out = i;
            return 0;
        }
        TRY(vm_charge_bytes(vm, sep->n)); /* a hostile pair of strings nearly matches everywhere */
    }
    return 0;
}

static size_t char_before(const struct str *s, size_t end, uint32_t *cp)
{
    size_t k = end - 1;
    while (k && ((unsigned char)s->p[k] & 0xc0) == 0x80)
        k--;
    utf8_next(s->p + k, end - k, cp, NULL);
    return k;
}

static int rsplit_space(struct vm *vm, const struct str *s, int64_t max, struct list *l)
{
    size_t end = s->n, k;
    uint32_t cp;
    for (;;) {
        while (end && (k = char_before(s, end, &cp), is_space(cp)))
            end = k;
        if (!end)
            break;
        if (max >= 0 && (int64_t)l->n >= max) {
            TRY(push_cut(vm, l, s, 0, end));
            break;
        }
        size_t start = end;
        while (start && (k = char_before(s, start, &cp), !is_space(cp)))
            start = k;
        TRY(push_cut(vm, l, s, start, end));
        end = start;
    }
    list_reverse(l);
    return 0;
}

int str_rsplit(struct vm *vm, struct str *s, const struct str *sep, int64_t max, struct list **out)
{
    TRY(list_new(vm, 0, out));
    TRY(vm_charge_bytes(vm, s->n * 4));
    if (!sep)
        return rsplit_space(vm, s, max, *out);
    if (!sep->n)
        return vm_fail(vm, "empty separator");
    size_t end = s->n;
    while (max < 0 || (int64_t)(*out)->n < max) {
        size_t at;
        TRY(find_last(vm, s, end, sep, &at));
        if (at == SIZE_MAX)
            break;
        TRY(push_cut(vm, *out, s, at + sep->n, end));
        end = at;
    }
    TRY(push_cut(vm, *out, s, 0, end));
    list_reverse(*out);
    return 0;
}

static int split_args(struct vm *vm, struct value *a, struct str **sep, int64_t *max)
{
    *sep = NULL;
    if (arg_given(a[0]) && a[0].type != V_NONE)
        TRY(arg_str(vm, a[0], sep));
    if (*sep && !(*sep)->n)
        return vm_fail(vm, "empty separator");
    return arg_int(vm, a[1], -1, max);
}

METHOD(m_split)
{
    struct str *sep;
    int64_t max;
    struct list *l;
    TRY(split_args(vm, a, &sep, &max));
    TRY(list_new(vm, 0, &l));
    TRY(vm_charge_bytes(vm, self.s->n));
    TRY(sep ? split_at(vm, self.s, sep, max, l) : split_space(vm, self.s, max, l));
    *out = value_list(l);
    return 0;
}

METHOD(m_rsplit)
{
    struct str *sep;
    int64_t max;
    struct list *l;
    TRY(split_args(vm, a, &sep, &max));
    TRY(str_rsplit(vm, self.s, sep, max, &l));
    *out = value_list(l);
    return 0;
}

int str_splitlines(struct vm *vm, struct str *s, bool keep, struct list **out)
{
    TRY(list_new(vm, 0, out));
    size_t start = 0;
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t end = i;
        i += utf8_next(s->p + i, s->n - i, &cp, NULL);
        if (!is_line_break(cp))
            continue;
        if (cp == '\r' && i < s->n && s->p[i] == '\n')
            i++;
        TRY(push_cut(vm, *out, s, start, keep ? i : end));
        start = i;
    }
    TRY(vm_charge_bytes(vm, s->n * 2));
    return start < s->n ? push_cut(vm, *out, s, start, s->n) : 0;
}

METHOD(m_splitlines)
{
    bool keep;
    struct list *l;
    TRY(arg_bool(vm, a[0], false, &keep));
    TRY(str_splitlines(vm, self.s, keep, &l));
    *out = value_list(l);
    return 0;
}

static int partition(struct vm *vm, struct str *s, const struct str *sep, bool right,
                     struct value *out)
{
    struct list *l;
    if (!sep->n)
        return vm_fail(vm, "empty separator");
    TRY(list_new(vm, 3, &l));
    TRY(vm_charge_bytes(vm, s->n));
    const char *hit = right || s->n < sep->n ? NULL : memmem(s->p, s->n, sep->p, sep->n);
    size_t at = hit ? (size_t)(hit - s->p) : SIZE_MAX;
    if (right)
        TRY(find_last(vm, s, s->n, sep, &at));
    size_t a = at == SIZE_MAX ? (right ? 0 : s->n) : at;
    size_t b = at == SIZE_MAX ? a : at + sep->n;
    TRY(push_cut(vm, l, s, 0, a));
    TRY(push_cut(vm, l, s, a, b));
    TRY(push_cut(vm, l, s, b, s->n));
    *out = value_tuple(l);
    return 0;
}

METHOD(m_partition)
{
    struct str *sep;
    TRY(arg_str(vm, a[0], &sep));
    return partition(vm, self.s, sep, false, out);
}

METHOD(m_rpartition)
{
    struct str *sep;
    TRY(arg_str(vm, a[0], &sep));
    return partition(vm, self.s, sep, true, out);
}

static bool starts(const struct str *s, size_t lo, size_t hi, const struct str *x)
{
    return hi - lo >= x->n && !memcmp(s->p + lo, x->p, x->n);
}

static bool ends(const struct str *s, size_t lo, size_t hi, const struct str *x)
{
    return hi - lo >= x->n && !memcmp(s->p + hi - x->n, x->p, x->n);
}

METHOD(m_removeprefix)
{
    struct str *x, *s = self.s;
    TRY(arg_str(vm, a[0], &x));
    return starts(s, 0, s->n, x) ? str_cut(vm, s, x->n, s->n - x->n, out) : (*out = self, 0);
}

METHOD(m_removesuffix)
{
    struct str *x, *s = self.s;
    TRY(arg_str(vm, a[0], &x));
    return ends(s, 0, s->n, x) ? str_cut(vm, s, 0, s->n - x->n, out) : (*out = self, 0);
}

/* ---- searching ----------------------------------------------------------------------------- */

/* The byte range of optional code point bounds in a[0], a[1]. False: start is past the end. */
static int bounds(struct vm *vm, struct str *s, struct value *a, size_t *lo, size_t *hi, bool *ok)
{
    int64_t n = (int64_t)str_chars(s), from, to;
    TRY(arg_int(vm, a[0].type == V_NONE ? value_missing : a[0], 0, &from));
    TRY(arg_int(vm, a[1].type == V_NONE ? value_missing : a[1], n, &to));
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? (to + n < 0 ? 0 : to + n) : to > n ? n : to;
    *ok = from <= to && from <= n;
    *lo = *ok ? str_byte_of(s, (size_t)from) : 0;
    *hi = *ok ? str_byte_of(s, (size_t)to) : 0;
    return vm_charge_bytes(vm, s->n * 2);
}

static int affix(struct vm *vm, struct value self, struct value *a, const char *name,
                 bool (*match)(const struct str *, size_t, size_t, const struct str *),
                 struct value *out)
{
    size_t lo, hi;
    bool ok;
    TRY(bounds(vm, self.s, a + 1, &lo, &hi, &ok));
    *out = value_bool(false);
    struct value one = a[0];
    struct list single = {.v = &one, .n = 1};
    const struct list *l = a[0].type == V_TUPLE ? a[0].l : &single;
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].type != V_STR)
            return vm_fail(vm, "%s first arg must be str or a tuple of str, not %s", name,
                           value_type_name(l->v[i]));
        if (ok && match(self.s, lo, hi, l->v[i].s))
            out->b = true;
    }
    return 0;
}

METHOD(m_startswith)
{
    return affix(vm, self, a, "startswith", starts, out);
}

METHOD(m_endswith)
{
    return affix(vm, self, a, "endswith", ends, out);
}

static int64_t chars_to(struct str *s, size_t byte)
{
    struct str head = {.p = s->p, .n = byte, .chars = s->chars == s->n ? byte : SIZE_MAX};
    return (int64_t)str_chars(&head);
}

static int find(struct vm *vm, struct value self, struct value *a, bool right, bool must,
                struct value *out)
{
    struct str *x, *s = self.s;
    size_t lo, hi, at = SIZE_MAX;
    bool ok;
    TRY(arg_str(vm, a[0], &x));
    TRY(bounds(vm, s, a + 1, &lo, &hi, &ok));
    if (ok && hi - lo >= x->n) {
        struct str part = {.p = s->p + lo, .n = hi - lo};
        if (!x->n) {
            at = right ? part.n : 0;
        } else if (right) {
            TRY(find_last(vm, &part, part.n, x, &at));
        } else {
            const char *hit = memmem(part.p, part.n, x->p, x->n);
            at = hit ? (size_t)(hit - part.p) : SIZE_MAX;
        }
    }
    if (at == SIZE_MAX && must)
        return vm_fail(vm, "substring not found");
    *out = value_int(at == SIZE_MAX ? -1 : chars_to(s, lo + at));
    return 0;
}

METHOD(m_find)
{
    return find(vm, self, a, false, false, out);
}

METHOD(m_rfind)
{
    return find(vm, self, a, true, false, out);
}

METHOD(m_index)
{
    return find(vm, self, a, false, true, out);
}

METHOD(m_rindex)
{
    return find(vm, self, a, true, true, out);
}

METHOD(m_count)
{
    struct str *x, *s = self.s;
    size_t lo, hi;
    bool ok;
    int64_t n = 0;
    TRY(arg_str(vm, a[0], &x));
    TRY(bounds(vm, s, a + 1, &lo, &hi, &ok));
    if (ok && !x->n) {
        struct str part = {.p = s->p + lo, .n = hi - lo, .chars = SIZE_MAX};
        n = (int64_t)str_chars(&part) + 1;
    } else if (ok) {
        const char *p = s->p + lo, *end = s->p + hi;
        while ((size_t)(end - p) >= x->n && (p = memmem(p, (size_t)(end - p), x->p, x->n))) {
            n++;
            p += x->n;
        }
    }
    *out = value_int(n);
    return 0;
}

/* ---- building ------------------------------------------------------------------------------ */

int str_replace(struct vm *vm, struct str *s, const struct str *old, const struct str *new,
                int64_t count, struct value *out)
{
    struct sb b;
    size_t i = 0;
    sb_init(&b, vm);
    TRY(vm_charge_bytes(vm, s->n));
    for (int64_t k = 0; count < 0 || k < count; k++) {
        if (!old->n) { /* between all characters, and at both ends */
            TRY(sb_str(&b, new));
            TRY(vm_charge(vm, 1));
            if (i >= s->n)
                break;
            uint32_t cp;
            size_t len = utf8_next(s->p + i, s->n - i, &cp, NULL);
            TRY(sb_cut(&b, s, i, len));
            i += len;
            continue;
        }
        const char *hit = s->n - i >= old->n ? memmem(s->p + i, s->n - i, old->p, old->n) : NULL;
        if (!hit)
            break;
        size_t at = (size_t)(hit - s->p);
        TRY(sb_cut(&b, s, i, at - i));
        TRY(sb_str(&b, new));
        TRY(vm_charge(vm, 1));
        i = at + old->n;
    }
    if (!i && !b.n) {
        *out = value_str(s);
        return 0;
    }
    TRY(sb_cut(&b, s, i, s->n - i));
    TRY(sb_done(&b, out));
    out->s->markup = s->markup;
    return 0;
}

METHOD(m_replace)
{
    struct str *old, *new;
    int64_t count;
    TRY(arg_str(vm, a[0], &old));
    TRY(arg_str(vm, a[1], &new));
    TRY(arg_int(vm, a[2], -1, &count));
    return str_replace(vm, self.s, old, new, count, out);
}

int str_join(struct vm *vm, const struct str *sep, const struct list *l, struct value *out)
{
    struct sb b;
    sb_init(&b, vm);
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            TRY(sb_str(&b, sep));
        TRY(sb_str(&b, l->v[i].s));
    }
    TRY(vm_charge(vm, l->n));
    return sb_done(&b, out);
}

METHOD(m_join)
{
    struct list *l;
    if (!value_iterable(a[0]))
        return vm_fail(vm, "can only join an iterable");
    TRY(list_from(vm, a[0], &l));
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].type != V_STR)
            return vm_fail(vm, "sequence item %zu: expected str instance, %s found", i,
                           value_type_name(l->v[i]));
        if (self.s->markup)
            TRY(escape_html(vm, l->v[i], &l->v[i]));
    }
    TRY(str_join(vm, self.s, l, out));
    out->s->markup = self.s->markup;
    return 0;
}

int str_pad(struct vm *vm, struct str *s, int64_t width, const struct str *fill, int side,
            struct value *out)
{
    int64_t n = (int64_t)str_chars(s), total = width - n;
    if (total <= 0) {
        *out = value_str(s);
        return 0;
    }
    /* The odd blank of a centred text goes to the left when the width is odd. */
    int64_t left = side < 0 ? 0 : side > 0 ? total : total / 2 + (total & width & 1);
    struct sb b;
    sb_init(&b, vm);
    TRY(sb_fill(&b, fill, (size_t)left));
    TRY(sb_str(&b, s));
    TRY(sb_fill(&b, fill, (size_t)(total - left)));
    TRY(sb_done(&b, out));
    out->s->markup = s->markup;
    return 0;
}

static int pad_method(struct vm *vm, struct value self, struct value *a, int side,
                      struct value *out)
{
    static const struct str blank = {.p = " ", .n = 1, .chars = 1, .trusted = true};
    const struct str *fill = &blank;
    struct str *given;
    int64_t width;
    TRY(arg_int(vm, a[0], 0, &width));
    if (arg_given(a[1])) {
        TRY(arg_str(vm, a[1], &given));
        if (str_chars(given) != 1)
            return vm_fail(vm, "The fill character must be exactly one character long");
        fill = given;
    }
    return str_pad(vm, self.s, width, fill, side, out);
}

METHOD(m_center)
{
    return pad_method(vm, self, a, 0, out);
}

METHOD(m_ljust)
{
    return pad_method(vm, self, a, -1, out);
}

METHOD(m_rjust)
{
    return pad_method(vm, self, a, 1, out);
}

METHOD(m_zfill)
{
    static const struct str zero = {.p = "0", .n = 1, .chars = 1, .trusted = true};
    int64_t width, n = (int64_t)str_chars(self.s);
    struct sb b;
    TRY(arg_int(vm, a[0], 0, &width));
    if (width <= n) {
        *out = self;
        return 0;
    }
    bool sign = n && (self.s->p[0] == '-' || self.s->p[0] == '+');
    sb_init(&b, vm);
    TRY(sb_cut(&b, self.s, 0, sign));
    TRY(sb_fill(&b, &zero, (size_t)(width - n)));
    TRY(sb_cut(&b, self.s, sign, self.s->n - sign));
    return sb_done(&b, out);
}

METHOD(m_expandtabs)
{
    static const struct str blank = {.p = " ", .n = 1, .chars = 1, .trusted = true};
    int64_t size, column = 0;
    struct sb b;
    TRY(arg_int(vm, a[0], 8, &size));
    sb_init(&b, vm);
    for (size_t i = 0; i < self.s->n;) {
        uint32_t cp;
        size_t k = utf8_next(self.s->p + i, self.s->n - i, &cp, NULL);
        if (cp == '\t') {
            int64_t fill = size > 0 ? size - column % size : 0;
            TRY(sb_fill(&b, &blank, (size_t)fill));
            column += fill;
        } else {
            TRY(sb_cut(&b, self.s, i, k));
            column = cp == '\n' || cp == '\r' ? 0 : column + 1;
        }
        i += k;
    }
    TRY(vm_charge_bytes(vm, self.s->n * 4));
    return sb_done(&b, out);
}

METHOD(m_upper)
{
    return str_case(vm, self.s, CASE_UPPER, out);
}

METHOD(m_lower)
{
    return str_case(vm, self.s, CASE_LOWER, out);
}

METHOD(m_title)
{
    return str_case(vm, self.s, CASE_TITLE, out);
}

METHOD(m_capitalize)
{
    return str_case(vm, self.s, CASE_CAPITALIZE, out);
}

METHOD(m_swapcase)
{
    return str_case(vm, self.s, CASE_SWAP, out);
}

METHOD(m_casefold)
{
    return str_case(vm, self.s, CASE_FOLD, out);
}

METHOD(m_format)
{
    return str_format(vm, self.s, c, out);
}

METHOD(m_format_map)
{
    struct call call = {0};
    if (a[0].type != V_DICT)
        return vm_fail(vm, "format_map() needs a mapping, not %s", value_type_name(a[0]));
    TRY(vm_array(vm, &call.kw, a[0].d->n, sizeof *call.kw));
    for (size_t i = 0; i < a[0].d->n; i++)
        if (a[0].d->v[i].key.type == V_STR)
            call.kw[call.nkw++] = (struct kw){a[0].d->v[i].key.s, a[0].d->v[i].val};
    return str_format(vm, self.s, &call, out);
}

/* ---- questions ------------------------------------------------------------------------------- */

static bool alnum(uint32_t cp)
{
    return char_is(cp, CLASS_ALPHA) || char_is(cp, CLASS_NUMERIC);
}

static bool alpha(uint32_t cp)
{
    return char_is(cp, CLASS_ALPHA);
}

static bool decimal(uint32_t cp)
{
    return char_is(cp, CLASS_DECIMAL);
}

static bool digit(uint32_t cp)
{
    return char_is(cp, CLASS_DIGIT);
}

static bool numeric(uint32_t cp)
{
    return char_is(cp, CLASS_NUMERIC);
}

static bool ascii(uint32_t cp)
{
    return cp < 0x80;
}

static int all(struct vm *vm, const struct str *s, bool (*is)(uint32_t), bool when_empty,
               struct value *out)
{
    *out = value_bool(s->n ? true : when_empty);
    for (size_t i = 0; i < s->n && out->b;) {
        uint32_t cp;
        i += utf8_next(s->p + i, s->n - i, &cp, NULL);
        out->b = is(cp);
    }
    return vm_charge_bytes(vm, s->n * 4);
}

METHOD(m_isalnum)
{
    return all(vm, self.s, alnum, false, out);
}

METHOD(m_isalpha)
{
    return all(vm, self.s, alpha, false, out);
}

METHOD(m_isascii)
{
    return all(vm, self.s, ascii, true, out);
}

METHOD(m_isdecimal)
{
    return all(vm, self.s, decimal, false, out);
}

METHOD(m_isdigit)
{
    return all(vm, self.s, digit, false, out);
}

METHOD(m_isnumeric)
{
    return all(vm, self.s, numeric, false, out);
}

METHOD(m_isspace)
{
    return all(vm, self.s, is_space, false, out);
}

METHOD(m_isprintable)
{
    return all(vm, self.s, is_printable, true, out);
}

METHOD(m_isidentifier)
{
    TRY(all(vm, self.s, is_word, false, out));
    uint32_t cp = 0;
    if (self.s->n)
        utf8_next(self.s->p, self.s->n, &cp, NULL);
    out->b = out->b && (cp == '_' || char_is(cp, CLASS_ALPHA));
    return 0;
}

/* islower, isupper: no character of the other kinds, and at least one of this kind. */
static int one_case(struct vm *vm, const struct str *s, enum char_class want, enum char_class other,
                    struct value *out)
{
    bool seen = false, wrong = false;
    for (size_t i = 0; i < s->n && !wrong;) {
        uint32_t cp;
        i += utf8_next(s->p + i, s->n - i, &cp, NULL);
        wrong = char_is(cp, other) || char_is(cp, CLASS_TITLE);
        seen |= char_is(cp, want);
    }
    *out = value_bool(seen && !wrong);
    return vm_charge_bytes(vm, s->n * 4);
}

METHOD(m_islower)
{
    return one_case(vm, self.s, CLASS_LOWER, CLASS_UPPER, out);
}

METHOD(m_isupper)
{
    return one_case(vm, self.s, CLASS_UPPER, CLASS_LOWER, out);
}

METHOD(m_istitle)
{
    bool seen = false, prev = false, ok = true;
    for (size_t i = 0; i < self.s->n && ok;) {
        uint32_t cp;
        i += utf8_next(self.s->p + i, self.s->n - i, &cp, NULL);
        bool up = char_is(cp, CLASS_UPPER) || char_is(cp, CLASS_TITLE),
             low = char_is(cp, CLASS_LOWER);
        ok = up ? !prev : low ? prev : true;
        prev = up || low;
        seen |= prev;
    }
    *out = value_bool(seen && ok);
    return vm_charge_bytes(vm, self.s->n * 4);
}

const struct func methods_str[] = {
    {"strip", "/chars?", m_strip},
    {"lstrip", "/chars?", m_lstrip},
    {"rstrip", "/chars?", m_rstrip},
    {"split", "sep?,maxsplit?", m_split},
    {"rsplit", "sep?,maxsplit?", m_rsplit},
    {"splitlines", "keepends?", m_splitlines},
    {"partition", "/sep", m_partition},
    {"rpartition", "/sep", m_rpartition},
    {"removeprefix", "/prefix", m_removeprefix},
    {"removesuffix", "/suffix", m_removesuffix},
    {"startswith", "/prefix,start?,end?", m_startswith},
    {"endswith", "/suffix,start?,end?", m_endswith},
    {"find", "/sub,start?,end?", m_find},
    {"rfind", "/sub,start?,end?", m_rfind},
    {"index", "/sub,start?,end?", m_index},
    {"rindex", "/sub,start?,end?", m_rindex},
    {"count", "/sub,start?,end?", m_count},
    {"replace", "/old,new,count?", m_replace},
    {"join", "/iterable", m_join},
    {"center", "/width,fillchar?", m_center},
    {"ljust", "/width,fillchar?", m_ljust},
    {"rjust", "/width,fillchar?", m_rjust},
    {"zfill", "/width", m_zfill},
    {"expandtabs", "tabsize?", m_expandtabs},
    {"upper", "", m_upper},
    {"lower", "", m_lower},
    {"title", "", m_title},
    {"capitalize", "", m_capitalize},
    {"swapcase", "", m_swapcase},
    {"casefold", "", m_casefold},
    {"format", "*", m_format},
    {"format_map", "/mapping", m_format_map},
    {"isalnum", "", m_isalnum},
    {"isalpha", "", m_isalpha},
    {"isascii", "", m_isascii},
    {"isdecimal", "", m_isdecimal},
    {"isdigit", "", m_isdigit},
    {"isnumeric", "", m_isnumeric},
    {"isspace", "", m_isspace},
    {"isprintable", "", m_isprintable},
    {"isidentifier", "", m_isidentifier},
    {"islower", "", m_islower},
    {"isupper", "", m_isupper},
    {"istitle", "", m_istitle},
};
const size_t methods_str_n = NUM_COUNT(methods_str);
