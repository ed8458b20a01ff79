/*
 * Option tables: see opt.h. Parsing is a loop over argv; each row knows its C type and bounds, so
 * the commands hold no parsing code.
 *
 * "Did you mean" is the optimal string alignment distance (Damerau 1964: insert, delete, change,
 * swap neighbours), accepted up to a third of the word.
 */
#include "base/opt.h"

#include "base/num.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { OPT_WORD_MAX = 48 }; /* longest name for which a near one is looked for */

static size_t opt_distance(const char *a, size_t na, const char *b, size_t nb)
{
    unsigned char d[3][OPT_WORD_MAX + 1];
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = (unsigned char)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned char *now = d[i % 3], *last = d[(i + 2) % 3], *older = d[(i + 1) % 3];
        now[0] = (unsigned char)i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = num_min(best, (size_t)last[j] + 1);
            best = num_min(best, (size_t)now[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = num_min(best, (size_t)older[j - 2] + 1);
            now[j] = (unsigned char)best;
        }
    }
    return d[na % 3][nb];
}

const char *opt_nearest(const char *word, const char *(*name)(const void *arg, size_t i),
                        const void *arg)
{
    size_t n = strlen(word), best = n <= 3 ? 2 : n / 3 + 2; /* one more than is accepted */
    const char *found = NULL, *s;
    if (n < 2 || n > OPT_WORD_MAX)
        return NULL;
    for (size_t i = 0; (s = name(arg, i)); i++) {
        size_t m = strlen(s);
        if (m > OPT_WORD_MAX)
            continue;
        size_t d = opt_distance(word, n, s, m);
        if (d < best) {
            best = d;
            found = s;
        }
    }
    return found;
}

static const char *opt_name_at(const void *arg, size_t i)
{
    const struct opt_spec *s = arg;
    for (size_t g = 0; g < s->n; g++) {
        if (i < s->groups[g].n)
            return s->groups[g].rows[i].name;
        i -= s->groups[g].n;
    }
    return i == 0 ? "help" : NULL;
}

/* Names match with '_' for '-'. */
static bool opt_same(const char *a, size_t na, const char *b, size_t nb)
{
    if (na != nb)
        return false;
    for (size_t i = 0; i < na; i++)
        if ((a[i] == '_' ? '-' : a[i]) != (b[i] == '_' ? '-' : b[i]))
            return false;
    return true;
}

static bool opt_called(const struct opt *o, const char *name, size_t n)
{
    if (opt_same(o->name, strlen(o->name), name, n))
        return true;
    for (const char *a = o->alias; a && *a;) {
        size_t m = strcspn(a, " ");
        if (opt_same(a, m, name, n))
            return true;
        a += m + (a[m] == ' ');
    }
    return false;
}

const struct opt *opt_find(const struct opt_spec *s, const char *name, size_t n, size_t *base)
{
    for (size_t g = 0; g < s->n; g++)
        for (size_t i = 0; i < s->groups[g].n; i++)
            if (opt_called(&s->groups[g].rows[i], name, n)) {
                *base = s->groups[g].base;
                return &s->groups[g].rows[i];
            }
    return NULL;
}

static const struct opt *opt_find_brief(const struct opt_spec *s, char c, size_t *base)
{
    for (size_t g = 0; g < s->n; g++)
        for (size_t i = 0; i < s->groups[g].n; i++)
            if (s->groups[g].rows[i].brief == c) {
                *base = s->groups[g].base;
                return &s->groups[g].rows[i];
            }
    return NULL;
}

static int opt_range_error(const struct opt *o, bool high, struct err *e)
{
    if (o->min > -OPT_NO_BOUND && o->max < OPT_NO_BOUND)
        return err_set(e, ERR_USAGE, "must be between %.15g and %.15g", o->min, o->max);
    if (high)
        return err_set(e, ERR_USAGE, "must be %.15g or less", o->max);
    return err_set(e, ERR_USAGE, "must be %.15g or more", o->min);
}

static int opt_take_int(const struct opt *o, const char *text, int64_t *out, struct err *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    int64_t unit = 1;
    if (o->kind == OPT_SIZE && end != text && *end) {
        unit = *end == 'k' || *end == 'K' ? 1024 : *end == 'm' || *end == 'M' ? 1024 * 1024 : 0;
        end++;
    }
    if (end == text || *end || !unit)
        return err_set(e, ERR_USAGE, "must be a whole number");
    int64_t r;
    if (errno == ERANGE || __builtin_mul_overflow((int64_t)v, unit, &r))
        return opt_range_error(o, v > 0, e);
    if ((double)r < o->min || (double)r > o->max)
        return opt_range_error(o, (double)r > o->max, e);
    *out = r;
    return 0;
}

static int opt_take_float(const struct opt *o, const char *text, double *out, struct err *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || isnan(v))
        return err_set(e, ERR_USAGE, "must be a number");
    if (v < o->min || v > o->max)
        return opt_range_error(o, v > o->max, e);
    *out = v;
    return 0;
}

/* The choice itself is handed on as it stands in argv; it was compared without case. */
static int opt_take_enum(const struct opt *o, const char *text, const char **out, struct err *e)
{
    size_t n = strlen(text);
    for (const char *c = o->choices; *c;) {
        size_t m = strcspn(c, "|");
        if (m == n && !strncasecmp(c, text, n)) {
            *out = text;
            return 0;
        }
        c += m + (c[m] == '|');
    }
    struct buf b;
    buf_init(&b, ERR_TEXT_MAX);
    for (const char *c = o->choices; *c; c++)
        if (*c == '|' ? buf_puts(&b, strchr(c + 1, '|') ? ", " : " or ", NULL)
                      : buf_putc(&b, *c, NULL))
            break;
    err_set(e, ERR_USAGE, "must be %s", b.data);
    buf_release(&b);
    return ERR_USAGE;
}

static int opt_take_switch(const char *text, int *out, struct err *e)
{
    static const char *const yes[] = {"1", "true", "on", "yes"};
    static const char *const no[] = {"0", "false", "off", "no", ""};
    for (size_t i = 0; i < NUM_COUNT(yes); i++)
        if (!strcasecmp(text, yes[i])) {
            *out = 1;
            return 0;
        }
    for (size_t i = 0; i < NUM_COUNT(no); i++)
        if (!strcasecmp(text, no[i])) {
            *out = 0;
            return 0;
        }
    return err_set(e, ERR_USAGE, "must be on or off");
}

static int opt_take(const struct opt *o, void *target, size_t base, const char *text, struct err *e)
{
    void *at = (char *)target + base + o->offset;
    switch (o->kind) {
    case OPT_FLAG:
    case OPT_SWITCH:
        return opt_take_switch(text, at, e);
    case OPT_INT:
    case OPT_SIZE:
        return opt_take_int(o, text, at, e);
    case OPT_FLOAT:
        return opt_take_float(o, text, at, e);
    case OPT_STRING:
        *(const char **)at = text;
        return 0;
    case OPT_ENUM:
        return opt_take_enum(o, text, at, e);
    case OPT_LIST: {
        struct opt_list *l = at;
        if (l->n == OPT_LIST_MAX)
            return err_set(e, ERR_USAGE, "given more than %d times", OPT_LIST_MAX);
        l->v[l->n++] = text;
        return 0;
    }
    }
    return err_set(e, ERR_USAGE, "option without a kind");
}

int opt_defaults(const struct opt_spec *s, void *target, struct err *e)
{
    for (size_t g = 0; g < s->n; g++)
        for (size_t i = 0; i < s->groups[g].n; i++) {
            const struct opt *o = &s->groups[g].rows[i];
            void *at = (char *)target + s->groups[g].base + o->offset;
            if (o->kind == OPT_SWITCH)
                *(int *)at = -1;
            else if (o->kind == OPT_FLAG)
                *(int *)at = 0;
            else if (o->kind == OPT_INT || o->kind == OPT_SIZE)
                *(int64_t *)at = OPT_UNSET;
            else if (o->kind == OPT_FLOAT)
                *(double *)at = (double)NAN;
            else if (o->kind == OPT_LIST)
                ((struct opt_list *)at)->n = 0;
            else
                *(const char **)at = NULL;
            if (o->value && opt_take(o, target, s->groups[g].base, o->value, e))
                return err_ctx(e, "default of --%s", o->name);
        }
    return 0;
}

/* Rows without a value on the command line that have a variable. `given` has a bit per row. */
static int opt_environment(const struct opt_spec *s, void *target, const uint64_t *given,
                           struct err *e)
{
    size_t k = 0;
    for (size_t g = 0; g < s->n; g++)
        for (size_t i = 0; i < s->groups[g].n; i++, k++) {
            const struct opt *o = &s->groups[g].rows[i];
            const char *v = o->env ? getenv(o->env) : NULL;
            if (!v || !*v || (given[k / 64] >> k % 64 & 1))
                continue;
            if (opt_take(o, target, s->groups[g].base, v, e))
                return err_ctx(e, "%s=%s", o->env, v);
        }
    return 0;
}

static size_t opt_index(const struct opt_spec *s, const struct opt *o)
{
    size_t k = 0;
    for (size_t g = 0; g < s->n; g++) {
        if (o >= s->groups[g].rows && o < s->groups[g].rows + s->groups[g].n)
            return k + (size_t)(o - s->groups[g].rows);
        k += s->groups[g].n;
    }
    return k;
}

static bool opt_is_argument(const char *a)
{
    return a[0] != '-' || !a[1] || (a[1] >= '0' && a[1] <= '9') || a[1] == '.' || a[1] == ' ';
}

static int opt_unknown(const struct opt_spec *s, const char *word, size_t n, struct err *e)
{
    char name[OPT_WORD_MAX + 1];
    const char *near = NULL;
    if (n <= OPT_WORD_MAX) {
        memcpy(name, word, n);
        name[n] = 0;
        near = opt_nearest(name, opt_name_at, s);
    }
    if (near)
        return err_set(e, ERR_USAGE, "unknown option \"--%.*s\"; did you mean \"--%s\"?", (int)n,
                       word, near);
    return err_set(e, ERR_USAGE, "unknown option \"--%.*s\"; --help lists the options", (int)n,
                   word);
}

struct opt_scan {
    const struct opt_spec *s;
    void *target;
    int argc, at;
    char **argv;
    uint64_t given[4];
};

static bool opt_has_value(const struct opt *o)
{
    return o->kind != OPT_FLAG && o->kind != OPT_SWITCH;
}

/* One option: `shown` is how the user wrote its name; `value` what followed '=', or NULL. */
static int opt_one(struct opt_scan *p, const struct opt *o, size_t base, const char *shown,
                   const char *value, struct err *e)
{
    size_t k = opt_index(p->s, o);
    if (k >= sizeof p->given * 8)
        return err_set(e, ERR_LIMIT, "a command has too many options");
    p->given[k / 64] |= UINT64_C(1) << k % 64;
    if (!value && opt_has_value(o)) {
        if (p->at + 1 >= p->argc)
            return err_set(e, ERR_USAGE, "%s needs a value: %s %s", shown, shown,
                           o->arg ? o->arg : "VALUE");
        value = p->argv[++p->at];
    }
    if (opt_take(o, p->target, base, value ? value : "on", e))
        return err_ctx(e, "%s %.100s", shown, value ? value : "");
    return 0;
}

static int opt_long(struct opt_scan *p, const char *word, struct err *e)
{
    const char *name = word + 2;
    size_t n = strcspn(name, "="), base = 0;
    const char *value = name[n] ? name + n + 1 : NULL;
    char shown[OPT_WORD_MAX + 8];
    snprintf(shown, sizeof shown, "--%.*s", (int)num_min(n, OPT_WORD_MAX), name);
    const struct opt *o = opt_find(p->s, name, n, &base);
    if (!o && n > 3 && !strncmp(name, "no-", 3)) {
        o = opt_find(p->s, name + 3, n - 3, &base);
        if (o && opt_has_value(o))
            o = NULL;
        if (o && value)
            return err_set(e, ERR_USAGE, "%s takes no value", shown);
        value = "off";
    }
    if (!o)
        return opt_unknown(p->s, name, n, e);
    return opt_one(p, o, base, shown, value, e);
}

/* -v, -t 4, -t4; several flags in one word; -tp 8: a long name after one dash, as some programs
   write theirs. */
static int opt_short(struct opt_scan *p, const char *word, bool *help, struct err *e)
{
    size_t n = strcspn(word + 1, "="), at = 0;
    const struct opt *whole = n > 1 ? opt_find(p->s, word + 1, n, &at) : NULL;
    if (whole) {
        char shown[OPT_WORD_MAX + 8];
        snprintf(shown, sizeof shown, "%.*s", (int)num_min(n + 1, OPT_WORD_MAX), word);
        return opt_one(p, whole, at, shown, word[n + 1] ? word + n + 2 : NULL, e);
    }
    for (const char *c = word + 1; *c; c++) {
        size_t base = 0;
        const struct opt *o = opt_find_brief(p->s, *c, &base);
        char shown[3] = {'-', *c, 0};
        if (!o && *c == 'h') {
            *help = true;
            return 0;
        }
        if (!o)
            return err_set(e, ERR_USAGE, "unknown option \"-%c\"; --help lists the options", *c);
        const char *rest = opt_has_value(o) && c[1] ? c + 1 + (c[1] == '=') : NULL;
        int rc = opt_one(p, o, base, shown, rest, e);
        if (rc || opt_has_value(o))
            return rc;
    }
    return 0;
}

int opt_parse(const struct opt_spec *s, void *target, int argc, char **argv, int *args, bool *help,
              struct err *e)
{
    struct opt_scan p = {.s = s, .target = target, .argc = argc, .argv = argv};
    int n = 0, rc;
    bool options = true;
    *help = false;
    *args = 0;
    for (p.at = 0; p.at < argc; p.at++) {
        char *a = argv[p.at];
        if (!options || opt_is_argument(a)) {
            argv[n++] = a;
            continue;
        }
        if (!strcmp(a, "--")) {
            options = false;
            continue;
        }
        if (!strcmp(a, "--help"))
            *help = true;
        else if ((rc = a[1] == '-' ? opt_long(&p, a, e) : opt_short(&p, a, help, e)))
            return rc;
        if (*help)
            return 0;
    }
    *args = n;
    return opt_environment(s, target, p.given, e);
}

int opt_assign(const struct opt_spec *s, void *target, const char *name, const char *value,
               struct err *e)
{
    size_t base = 0;
    const struct opt *o = opt_find(s, name, strlen(name), &base);
    if (!o) {
        const char *near = opt_nearest(name, opt_name_at, s);
        return near ? err_set(e, ERR_USAGE, "unknown parameter \"%.100s\"; did you mean \"%s\"?",
                              name, near)
                    : err_set(e, ERR_USAGE, "unknown parameter \"%.100s\"", name);
    }
    int rc = opt_take(o, target, base, value, e);
    return rc ? err_ctx(e, "%s %.100s", name, value) : 0;
}

int opt_show(const struct opt *o, const void *target, size_t base, struct buf *out, struct err *e)
{
    const void *at = (const char *)target + base + o->offset;
    switch (o->kind) {
    case OPT_FLAG:
    case OPT_SWITCH:
        return *(const int *)at < 0 ? 0 : buf_puts(out, *(const int *)at ? "on" : "off", e);
    case OPT_INT:
    case OPT_SIZE:
        return *(const int64_t *)at == OPT_UNSET
                   ? 0
                   : buf_printf(out, e, "%lld", (long long)*(const int64_t *)at);
    case OPT_FLOAT:
        return isnan(*(const double *)at) ? 0 : buf_printf(out, e, "%g", *(const double *)at);
    case OPT_STRING:
    case OPT_ENUM:
        return *(const char *const *)at ? buf_puts(out, *(const char *const *)at, e) : 0;
    case OPT_LIST: {
        const struct opt_list *l = at;
        for (size_t i = 0; i < l->n; i++)
            if (buf_printf(out, e, "%s\"%s\"", i ? " " : "", l->v[i]))
                return e ? e->code : ERR_NOMEM;
        return 0;
    }
    }
    return 0;
}
