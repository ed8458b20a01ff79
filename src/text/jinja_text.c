/*
 * Text of values: the string builder, str(), repr(), JSON and HTML escaping.
 *
 * A builder starts with one provenance for all bytes and only keeps a byte per byte from the point
 * on where a second one appears. repr() and JSON of anything that holds untrusted text are
 * untrusted as a whole.
 */
#include "text/jinja_vm.h"

#include "base/num.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- builder ------------------------------------------------------------------------------- */

void sb_init(struct sb *b, struct vm *vm)
{
    *b = (struct sb){.vm = vm, .trusted = true};
}

int sb_room(struct sb *b, size_t more)
{
    size_t want, cap;
    if (!num_add(&want, b->n, more) || (b->limit && want > b->limit))
        return vm_limit(b->vm, b->limit ? "output" : "memory");
    if (b->cap && want <= b->cap)
        return 0;
    cap = num_max(want, b->cap < SIZE_MAX / 2 ? b->cap * 2 : want);
    if (cap < 64)
        cap = 64;
    char *p;
    TRY(vm_alloc(b->vm, &p, cap));
    if (b->n)
        memcpy(p, b->p, b->n);
    if (b->mask) {
        uint8_t *m;
        TRY(vm_alloc(b->vm, &m, cap));
        memcpy(m, b->mask, b->n);
        b->mask = m;
    }
    b->p = p;
    b->cap = cap;
    return 0;
}

static int sb_mask(struct sb *b)
{
    if (b->mask)
        return 0;
    TRY(vm_alloc(b->vm, &b->mask, b->cap));
    memset(b->mask, b->trusted, b->n);
    return 0;
}

int sb_put(struct sb *b, const char *p, size_t n, bool trusted)
{
    if (!n)
        return 0;
    TRY(sb_room(b, n));
    if (!b->n && !b->mask)
        b->trusted = trusted;
    else if (b->trusted != trusted)
        TRY(sb_mask(b));
    memcpy(b->p + b->n, p, n);
    if (b->mask)
        memset(b->mask + b->n, trusted, n);
    b->n += n;
    return 0;
}

int sb_puts(struct sb *b, const char *s)
{
    return sb_put(b, s, strlen(s), true);
}

int sb_char(struct sb *b, uint32_t cp, bool trusted)
{
    char c[4];
    return sb_put(b, c, utf8_put(c, cp), trusted);
}

int sb_cut(struct sb *b, const struct str *s, size_t from, size_t n)
{
    if (!s->mask)
        return sb_put(b, s->p + from, n, s->trusted);
    if (!n)
        return 0;
    TRY(sb_room(b, n));
    TRY(sb_mask(b));
    memcpy(b->p + b->n, s->p + from, n);
    memcpy(b->mask + b->n, s->mask + from, n);
    b->n += n;
    return 0;
}

int sb_str(struct sb *b, const struct str *s)
{
    return sb_cut(b, s, 0, s->n);
}

int sb_fill(struct sb *b, const struct str *pad, size_t times)
{
    size_t total;
    if (!num_mul(&total, pad->n, times))
        return vm_limit(b->vm, "memory");
    TRY(sb_room(b, total));
    if (pad->n == 1 && times > 1 && !pad->mask) {
        TRY(sb_put(b, pad->p, 1, pad->trusted)); /* decides about the mask */
        memset(b->p + b->n, *pad->p, times - 1);
        if (b->mask)
            memset(b->mask + b->n, pad->trusted, times - 1);
        b->n += times - 1;
        return 0;
    }
    TRY(vm_charge(b->vm, times / 2));
    for (size_t i = 0; i < times; i++)
        TRY(sb_str(b, pad));
    return 0;
}

int sb_done(struct sb *b, struct value *out)
{
    TRY(str_wrap(b->vm, b->p ? b->p : "", b->n, b->trusted, out));
    out->s->mask = b->mask;
    return 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

size_t float_text(double f, char out[FLOAT_TEXT_MAX])
{
    if (!isfinite(f))
        return (size_t)snprintf(out, FLOAT_TEXT_MAX, "%s",
                                isnan(f) ? "nan"
                                : f < 0  ? "-inf"
                                         : "inf");
    char sci[40], digits[24] = "0";
    /* 15 to 17 digits: the first that reads back. Numbers near 0 have fewer that mean something. */
    for (int prec = fabs(f) < 1e-290 ? 0 : 14; prec <= 16; prec++) {
        snprintf(sci, sizeof sci, "%.*e", prec, f);
        if (strtod(sci, NULL) == f)
            break;
    }
    size_t n = 0, k = 0;
    const char *p = sci;
    if (*p == '-')
        out[k++] = *p++;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    int exp = (int)strtol(p + 1, NULL, 10);
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (exp < -4 || exp >= 16) {
        out[k++] = digits[0];
        if (n > 1) {
            out[k++] = '.';
            memcpy(out + k, digits + 1, n - 1);
            k += n - 1;
        }
        return k + (size_t)snprintf(out + k, FLOAT_TEXT_MAX - k, "e%c%02d", exp < 0 ? '-' : '+',
                                    abs(exp));
    }
    if (exp < 0) {
        out[k++] = '0';
        out[k++] = '.';
        for (int i = -1; i > exp; i--)
            out[k++] = '0';
        memcpy(out + k, digits, n);
        k += n;
    } else {
        for (size_t i = 0; i < n || i < (size_t)exp + 2; i++) {
            if (i == (size_t)exp + 1)
                out[k++] = '.';
            out[k++] = i < n ? digits[i] : '0';
        }
    }
    out[k] = 0;
    return k;
}

static int put_number(struct sb *b, struct value v)
{
    char text[FLOAT_TEXT_MAX];
    size_t n;
    if (v.type == V_BOOL)
        return sb_put(b, v.b ? "True" : "False", v.b ? 4 : 5, v.trusted);
    if (v.type == V_INT)
        n = (size_t)snprintf(text, sizeof text, "%lld", (long long)v.i);
    else
        n = float_text(v.f, text);
    return sb_put(b, text, n, v.trusted);
}

/* ---- repr and str ---------------------------------------------------------------------------- */

static int repr_str(struct sb *b, const struct str *s)
{
    bool trusted = str_trusted(s), single = memchr(s->p, '\'', s->n) != NULL,
         twice = memchr(s->p, '"', s->n) != NULL;
    char quote = single && !twice ? '"' : '\'', text[16];
    if (s->markup)
        TRY(sb_puts(b, "Markup("));
    TRY(sb_put(b, &quote, 1, trusted));
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t k = utf8_next(s->p + i, s->n - i, &cp, NULL), n = 0;
        if (cp == '\\' || cp == (uint32_t)quote)
            n = (size_t)snprintf(text, sizeof text, "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            n = (size_t)snprintf(text, sizeof text, "\\%c",
                                 cp == '\n'   ? 'n'
                                 : cp == '\r' ? 'r'
                                              : 't');
        else if (!is_printable(cp))
            n = (size_t)snprintf(text, sizeof text,
                                 cp < 0x100     ? "\\x%02x"
                                 : cp < 0x10000 ? "\\u%04x"
                                                : "\\U%08x",
                                 cp);
        TRY(n ? sb_put(b, text, n, trusted) : sb_put(b, s->p + i, k, trusted));
        i += k;
    }
    TRY(sb_put(b, &quote, 1, trusted));
    return s->markup ? sb_puts(b, ")") : vm_charge_bytes(b->vm, s->n * 8);
}

static int repr_items(struct vm *vm, const struct list *l, const char *open, const char *close,
                      struct sb *b, unsigned depth)
{
    TRY(sb_puts(b, open));
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            TRY(sb_puts(b, ", "));
        TRY(value_repr(vm, l->v[i], b, depth + 1));
    }
    return sb_puts(b, close);
}

static int repr_dict(struct vm *vm, const struct dict *d, struct sb *b, unsigned depth)
{
    TRY(sb_puts(b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            TRY(sb_puts(b, ", "));
        TRY(value_repr(vm, d->v[i].key, b, depth + 1));
        TRY(sb_puts(b, ": "));
        TRY(value_repr(vm, d->v[i].val, b, depth + 1));
    }
    return sb_puts(b, "}");
}

static int repr_view(struct vm *vm, struct value v, struct sb *b, unsigned depth)
{
    struct list *l;
    TRY(list_from(vm, v, &l));
    TRY(sb_puts(b, value_type_name(v)));
    return repr_items(vm, l, "([", "])", b, depth);
}

static int repr_range(struct sb *b, const struct range *r)
{
    char text[96];
    if (r->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)r->start, (long long)r->stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)r->start,
                 (long long)r->stop, (long long)r->step);
    return sb_puts(b, text);
}

/* Things that no template prints on purpose. */
static int repr_object(struct sb *b, struct value v)
{
    char text[160];
    const struct str *name = NULL;
    switch (v.type) {
    case V_MACRO:
        name = v.macro->sig->name ? &v.macro->sig->name->s : NULL;
        if (!name)
            return sb_puts(b, "<Macro anonymous>");
        TRY(sb_puts(b, "<Macro "));
        TRY(repr_str(b, name));
        return sb_puts(b, ">");
    case V_LOOP:
        TRY(loop_length(b->vm, v.loop));
        snprintf(text, sizeof text, "<LoopContext %lld/%zu>", (long long)v.loop->index0 + 1,
                 v.loop->length);
        break;
    case V_FUNC:
        snprintf(text, sizeof text, v.func->is_class ? "<class '%s'>" : "<function %s>",
                 v.func->name);
        break;
    case V_METHOD:
        snprintf(text, sizeof text, "<built-in method %s of %s object>", v.method->func->name,
                 value_type_name(v.method->self));
        break;
    default:
        snprintf(text, sizeof text, "<%s object>", value_type_name(v));
    }
    return sb_puts(b, text);
}

int value_repr(struct vm *vm, struct value v, struct sb *b, unsigned depth)
{
    if (depth > VALUE_DEPTH_MAX)
        return vm_limit(vm, "nesting of values");
    TRY(vm_charge(vm, 1));
    switch (v.type) {
    case V_UNDEF:
        return sb_puts(b, "Undefined");
    case V_NONE:
        return sb_put(b, "None", 4, v.trusted);
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        return put_number(b, v);
    case V_STR:
        return repr_str(b, v.s);
    case V_LIST:
        return repr_items(vm, v.l, "[", "]", b, depth);
    case V_TUPLE:
        return repr_items(vm, v.l, "(", v.l->n == 1 ? ",)" : ")", b, depth);
    case V_DICT:
        return repr_dict(vm, v.d, b, depth);
    case V_VIEW:
        return repr_view(vm, v, b, depth);
    case V_RANGE:
        return repr_range(b, v.range);
    case V_NS:
        TRY(sb_puts(b, "<Namespace "));
        TRY(repr_dict(vm, v.d, b, depth + 1));
        return sb_puts(b, ">");
    default:
        return repr_object(b, v);
    }
}

int value_str_of(struct vm *vm, struct value v, struct str **out)
{
    if (v.type == V_STR) {
        *out = v.s;
        return 0;
    }
    struct sb b;
    struct value s;
    sb_init(&b, vm);
    if (v.type != V_UNDEF)
        TRY(value_repr(vm, v, &b, 0));
    /* Punctuation around untrusted text is as untrusted as the text. */
    if (b.mask) {
        b.mask = NULL;
        b.trusted = false;
    }
    TRY(sb_done(&b, &s));
    *out = s.s;
    return 0;
}

int value_put(struct sb *b, struct value v)
{
    struct str *s;
    TRY(value_str_of(b->vm, v, &s));
    return sb_str(b, s);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

struct json_out {
    struct vm *vm;
    struct sb b;
    const struct json_style *style;
    bool tainted;
};

static int json_puts(struct json_out *j, const char *s)
{
    return sb_put(&j->b, s, strlen(s), true);
}

static int json_text(struct json_out *j, const struct str *s)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char text[16];
    j->tainted |= !str_trusted(s);
    TRY(json_puts(j, "\""));
    for (size_t i = 0, start = 0; i <= s->n;) {
        uint32_t cp = 0;
        size_t k = i < s->n ? utf8_next(s->p + i, s->n - i, &cp, NULL) : 1;
        const char *f = i < s->n && cp && cp < 0x80 ? strchr(from, (char)cp) : NULL;
        if (i < s->n && !f && cp >= 0x20 && !(cp >= 0x7f && j->style->ascii)) {
            i += k;
            continue;
        }
        TRY(sb_put(&j->b, s->p + start, i - start, true));
        if (i == s->n)
            break;
        if (f)
            snprintf(text, sizeof text, "\\%c", to[f - from]);
        else if (cp < 0x10000)
            snprintf(text, sizeof text, "\\u%04x", cp);
        else
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                     0xdc00 + ((cp - 0x10000) & 0x3ff));
        TRY(json_puts(j, text));
        i += k;
        start = i;
    }
    TRY(json_puts(j, "\""));
    return vm_charge_bytes(j->vm, s->n * 4);
}

static int json_number(struct json_out *j, struct value v)
{
    char text[FLOAT_TEXT_MAX];
    j->tainted |= !v.trusted;
    if (v.type == V_BOOL)
        return json_puts(j, v.b ? "true" : "false");
    if (v.type == V_INT)
        snprintf(text, sizeof text, "%lld", (long long)v.i);
    else if (!isfinite(v.f))
        snprintf(text, sizeof text, "%s", isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
    else
        float_text(v.f, text);
    return json_puts(j, text);
}

static int json_newline(struct json_out *j, unsigned depth)
{
    if (!j->style->indent)
        return 0;
    TRY(json_puts(j, "\n"));
    return sb_fill(&j->b, j->style->indent, depth);
}

static int json_value(struct json_out *j, struct value v, unsigned depth);

static int json_list(struct json_out *j, const struct list *l, unsigned depth)
{
    if (!l->n)
        return json_puts(j, "[]");
    TRY(json_puts(j, "["));
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            TRY(sb_str(&j->b, j->style->item_sep));
        TRY(json_newline(j, depth + 1));
        TRY(json_value(j, l->v[i], depth + 1));
    }
    TRY(json_newline(j, depth));
    return json_puts(j, "]");
}

static int json_key(struct json_out *j, struct value k)
{
    switch (k.type) {
    case V_STR:
        return json_text(j, k.s);
    case V_NONE:
        return json_puts(j, "\"null\"");
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        TRY(json_puts(j, "\""));
        TRY(json_number(j, k));
        return json_puts(j, "\"");
    default:
        return vm_fail(j->vm, "keys must be str, int, float, bool or None, not %s",
                       value_type_name(k));
    }
}

/* Positions of d's pairs in the order of their keys. */
static int sorted_pairs(struct vm *vm, const struct dict *d, struct keyed **out)
{
    TRY(vm_array(vm, out, d->n, sizeof **out));
    for (size_t i = 0; i < d->n; i++)
        (*out)[i] = (struct keyed){d->v[i].key, value_int((int64_t)i)};
    return sort_keyed(vm, *out, d->n, false);
}

static int json_dict(struct json_out *j, const struct dict *d, unsigned depth)
{
    struct keyed *order = NULL;
    if (!d->n)
        return json_puts(j, "{}");
    if (j->style->sort_keys)
        TRY(sorted_pairs(j->vm, d, &order));
    TRY(json_puts(j, "{"));
    for (size_t i = 0; i < d->n; i++) {
        const struct pair *p = &d->v[order ? (size_t)order[i].item.i : i];
        if (i)
            TRY(sb_str(&j->b, j->style->item_sep));
        TRY(json_newline(j, depth + 1));
        TRY(json_key(j, p->key));
        TRY(sb_str(&j->b, j->style->key_sep));
        TRY(json_value(j, p->val, depth + 1));
    }
    TRY(json_newline(j, depth));
    return json_puts(j, "}");
}

static int json_value(struct json_out *j, struct value v, unsigned depth)
{
    if (depth > VALUE_DEPTH_MAX)
        return vm_limit(j->vm, "nesting of values");
    TRY(vm_charge(j->vm, 1));
    switch (v.type) {
    case V_NONE:
        j->tainted |= !v.trusted;
        return json_puts(j, "null");
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        return json_number(j, v);
    case V_STR:
        return json_text(j, v.s);
    case V_LIST:
    case V_TUPLE:
        return json_list(j, v.l, depth);
    case V_DICT:
        return json_dict(j, v.d, depth);
    default:
        return vm_fail(j->vm, "Object of type %s is not JSON serializable", value_type_name(v));
    }
}

int value_json(struct vm *vm, struct value v, const struct json_style *style, struct value *out)
{
    struct json_out j = {.vm = vm, .style = style};
    sb_init(&j.b, vm);
    j.tainted = !str_trusted(style->item_sep) || !str_trusted(style->key_sep) ||
                (style->indent && !str_trusted(style->indent));
    TRY(json_value(&j, v, 0));
    j.b.mask = NULL;
    j.b.trusted = !j.tainted;
    return sb_done(&j.b, out);
}

/* ---- HTML ------------------------------------------------------------------------------------ */

int escape_html(struct vm *vm, struct value v, struct value *out)
{
    static const struct {
        char c;
        const char *text;
    } table[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    struct str *s;
    struct sb b;
    TRY(value_str_of(vm, v, &s));
    if (s->markup) {
        *out = value_str(s);
        return 0;
    }
    sb_init(&b, vm);
    for (size_t i = 0, start = 0; i <= s->n; i++) {
        const char *text = NULL;
        for (size_t k = 0; i < s->n && k < NUM_COUNT(table); k++)
            if (s->p[i] == table[k].c)
                text = table[k].text;
        if (!text && i < s->n)
            continue;
        TRY(sb_cut(&b, s, start, i - start));
        if (text)
            TRY(sb_put(&b, text, strlen(text), s->mask ? s->mask[i] : s->trusted));
        start = i + 1;
    }
    TRY(sb_done(&b, out));
    out->s->markup = true;
    return vm_charge_bytes(vm, s->n * 4);
}
