/*
 * The lexer: template text to tokens.
 *
 * Outside of tags everything is data. White space around tags follows the environment that chat
 * templates are written for: `trim_blocks` (the newline after a block or comment tag goes),
 * `lstrip_blocks` (blanks from the start of the line to such a tag go), "-" in a tag strips all
 * white space on its side, "+" keeps it, and one newline at the very end is dropped. Line breaks
 * are made "\n" first.
 *
 * Inside tags a bracket that is still open hides the end of the tag, so that `{{ {'a': {}} }}`
 * works. Left out: line statements, and names of characters in strings ("\N{…}").
 */
#include "text/jinja_lex.h"

#include "base/utf8.h"
#include "text/jinja_vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int lex_fail(struct lexer *lx, struct err *e, const char *what)
{
    return err_set(e, ERR_FORMAT, "line %u: %s", lx->line, what);
}

int lex_init(struct lexer *lx, struct arena *arena, const char *text, size_t n, struct err *e)
{
    *lx = (struct lexer){.arena = arena, .line = 1, .line_start = true};
    if (n > TEMPLATE_MAX)
        return err_set(e, ERR_LIMIT, "the template has %zu bytes; at most %d are accepted", n,
                       TEMPLATE_MAX);
    if (!utf8_valid(text, n))
        return err_set(e, ERR_FORMAT, "the template is not valid UTF-8");
    char *s = arena_alloc(arena, n + 1, e);
    if (!s)
        return ERR_NOMEM;
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r') {
            s[k++] = '\n';
            if (i + 1 < n && text[i + 1] == '\n')
                i++;
        } else {
            s[k++] = text[i];
        }
    }
    if (k && s[k - 1] == '\n')
        k--;
    lx->s = s;
    lx->n = k;
    return 0;
}

/* ---- small matchers: return the position after the match, or the position itself ------------ */

static bool at(const struct lexer *lx, size_t pos, const char *lit)
{
    size_t k = strlen(lit);
    return lx->n - pos >= k && !memcmp(lx->s + pos, lit, k);
}

static size_t skip_space(const struct lexer *lx, size_t pos)
{
    while (pos < lx->n) {
        uint32_t cp;
        size_t k = utf8_next(lx->s + pos, lx->n - pos, &cp, NULL);
        if (!is_space(cp))
            break;
        pos += k;
    }
    return pos;
}

/* The end of a block or comment tag: "-%}" with the space after it, "+%}", or "%}" and a newline.
 */
static bool match_close(const struct lexer *lx, size_t pos, const char *close, bool trim, bool plus,
                        size_t *end)
{
    if (pos >= lx->n)
        return false;
    if (lx->s[pos] == '-' && at(lx, pos + 1, close)) {
        *end = skip_space(lx, pos + 3);
        return true;
    }
    if (plus && lx->s[pos] == '+' && at(lx, pos + 1, close)) {
        *end = pos + 3;
        return true;
    }
    if (at(lx, pos, close)) {
        *end = pos + 2;
        if (trim && *end < lx->n && lx->s[*end] == '\n')
            (*end)++;
        return true;
    }
    return false;
}

static void advance(struct lexer *lx, size_t to)
{
    for (size_t i = lx->pos; i < to; i++)
        lx->line += lx->s[i] == '\n';
    if (to > lx->pos)
        lx->line_start = lx->s[to - 1] == '\n';
    lx->pos = to;
}

static char sign_at(const struct lexer *lx, size_t pos)
{
    return pos < lx->n && (lx->s[pos] == '-' || lx->s[pos] == '+') ? lx->s[pos] : 0;
}

/* The length that is left of text[0..n) in front of a tag with this sign. */
static size_t strip_before(const struct lexer *lx, const char *p, size_t n, char sign,
                           bool variable)
{
    if (sign == '-') {
        size_t keep = 0;
        for (size_t i = 0; i < n;) {
            uint32_t cp;
            i += utf8_next(p + i, n - i, &cp, NULL);
            if (!is_space(cp))
                keep = i;
        }
        return keep;
    }
    if (sign == '+' || variable)
        return n;
    size_t line = n;
    while (line && p[line - 1] != '\n')
        line--;
    if (!line && !lx->line_start)
        return n;
    for (size_t i = line; i < n;) {
        uint32_t cp;
        i += utf8_next(p + i, n - i, &cp, NULL);
        if (!is_space(cp))
            return n;
    }
    return line;
}

static void set_data(struct lexer *lx, struct token *t, size_t n)
{
    *t = (struct token){.kind = T_DATA, .line = lx->line, .p = lx->s + lx->pos, .n = n};
}

/* "{%- raw %}": the end of the tag, or 0. */
static size_t match_raw_begin(const struct lexer *lx, size_t pos)
{
    pos += 2;
    if (sign_at(lx, pos))
        pos++;
    pos = skip_space(lx, pos);
    if (!at(lx, pos, "raw"))
        return 0;
    pos = skip_space(lx, pos + 3);
    size_t end;
    return match_close(lx, pos, "%}", false, false, &end) ? end : 0;
}

/* The text up to {% endraw %}; lx->pos is behind the raw tag. */
static int lex_raw(struct lexer *lx, struct token *t, struct err *e)
{
    for (size_t i = lx->pos; i + 1 < lx->n; i++) {
        if (!at(lx, i, "{%"))
            continue;
        char sign = sign_at(lx, i + 2);
        size_t p = skip_space(lx, i + 2 + (sign != 0)), end;
        if (!at(lx, p, "endraw"))
            continue;
        p = skip_space(lx, p + 6);
        if (!match_close(lx, p, "%}", true, true, &end))
            continue;
        set_data(lx, t, strip_before(lx, lx->s + lx->pos, i - lx->pos, sign, false));
        advance(lx, end);
        return 0;
    }
    if (lx->pos < lx->n)
        return lex_fail(lx, e, "missing end of raw block");
    set_data(lx, t, 0); /* a tag that is the last thing of all is let through */
    return 0;
}

static int lex_comment(struct lexer *lx, struct err *e)
{
    for (size_t i = lx->pos; i < lx->n; i++) {
        size_t end;
        if (match_close(lx, i, "#}", true, true, &end)) {
            advance(lx, end);
            return 0;
        }
    }
    return lx->pos < lx->n ? lex_fail(lx, e, "missing end of comment") : 0;
}

/* One token of data, or the begin of a tag. A comment gives a data token that may be empty. */
static int lex_root(struct lexer *lx, struct token *t, struct err *e)
{
    size_t i = lx->pos;
    for (; i < lx->n; i++)
        if (lx->s[i] == '{' && i + 1 < lx->n && strchr("%{#", lx->s[i + 1]) && lx->s[i + 1])
            break;
    if (i >= lx->n) {
        set_data(lx, t, lx->n - lx->pos);
        advance(lx, lx->n);
        return 0;
    }
    char kind = lx->s[i + 1], sign = sign_at(lx, i + 2);
    set_data(lx, t, strip_before(lx, lx->s + lx->pos, i - lx->pos, sign, kind == '{'));
    size_t raw = kind == '%' ? match_raw_begin(lx, i) : 0;
    if (raw) {
        advance(lx, raw);
        lx->has_queued = true;
        return lex_raw(lx, &lx->queued, e);
    }
    advance(lx, i + 2 + (sign != 0));
    if (kind == '#')
        return lex_comment(lx, e);
    lx->state = kind == '%' ? LEX_BLOCK : LEX_VAR;
    lx->queued =
        (struct token){.kind = kind == '%' ? T_BLOCK_BEGIN : T_VAR_BEGIN, .line = lx->line};
    lx->has_queued = true;
    return 0;
}

/* ---- inside tags ---------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* digits with single underscores between them; the position after, or `pos` when there are none */
static size_t digits(const struct lexer *lx, size_t pos, bool hex)
{
    size_t p = pos;
    while (p < lx->n) {
        char c = lx->s[p];
        bool ok = is_digit(c) || (hex && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
        if (ok)
            p++;
        else if (c == '_' && p > pos && p + 1 < lx->n &&
                 (is_digit(lx->s[p + 1]) || (hex && strchr("abcdefABCDEF", lx->s[p + 1]))))
            p++;
        else
            break;
    }
    return p;
}

/* Where a float literal that starts at pos ends, or pos. */
static size_t match_float(const struct lexer *lx, size_t pos)
{
    if (pos && lx->s[pos - 1] == '.')
        return pos;
    size_t whole = digits(lx, pos, false), p = whole;
    if (whole == pos)
        return pos;
    bool frac = false;
    if (p + 1 < lx->n && lx->s[p] == '.' && is_digit(lx->s[p + 1])) {
        p = digits(lx, p + 1, false);
        frac = true;
    }
    if (p < lx->n && (lx->s[p] == 'e' || lx->s[p] == 'E')) {
        size_t x = p + 1;
        if (x < lx->n && (lx->s[x] == '+' || lx->s[x] == '-'))
            x++;
        size_t end = digits(lx, x, false);
        if (end > x)
            return end;
    }
    return frac ? p : pos;
}

static int lex_number(struct lexer *lx, struct token *t, struct err *e)
{
    char text[400];
    size_t pos = lx->pos, end = match_float(lx, pos), k = 0;
    bool is_float = end > pos;
    int base = 10;
    if (!is_float) {
        char x = pos + 1 < lx->n ? (char)(lx->s[pos + 1] | 32) : 0;
        bool prefixed = lx->s[pos] == '0' && (x == 'x' || x == 'o' || x == 'b');
        size_t from = prefixed ? pos + 2 : pos;
        if (prefixed && from < lx->n && lx->s[from] == '_')
            from++;
        size_t to = digits(lx, from, prefixed && x == 'x');
        if (prefixed && to > from) {
            base = x == 'x' ? 16 : x == 'o' ? 8 : 2;
            pos = from;
            end = to;
        } else {
            end = digits(lx, pos, false);
        }
        /* "012" is the number 0 and then the number 12, as in the original grammar */
        if (base == 10 && lx->s[pos] == '0')
            for (end = pos + 1; end < lx->n && (lx->s[end] == '0'); end++)
                ;
    }
    for (size_t i = pos; i < end; i++) {
        if (lx->s[i] == '_')
            continue;
        if (k + 1 >= sizeof text)
            return lex_fail(lx, e, "number is too long");
        text[k++] = lx->s[i];
    }
    text[k] = 0;
    t->kind = is_float ? T_FLOAT : T_INT;
    if (is_float) {
        t->f = strtod(text, NULL);
    } else {
        bool over;
        struct str s = {.p = text, .n = k};
        if (!parse_int(&s, base, &t->i, &over))
            return lex_fail(lx, e, over ? "integer does not fit 64 bits" : "malformed number");
    }
    advance(lx, end);
    return 0;
}

/* "\x41" and its kin: digits of the given base; -1 when there are too few. */
static int64_t escape_digits(const char *p, size_t n, size_t want)
{
    int64_t v = 0;
    if (n < want)
        return -1;
    for (size_t i = 0; i < want; i++) {
        char c = p[i];
        int d = is_digit(c)                          ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Undoes one escape at p[0] = '\\'; returns bytes read, 0 for a malformed one. */
static size_t unescape(const char *p, size_t n, char *out, size_t *k)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = p[1];
    const char *f = strchr(from, c);
    if (c && f) {
        out[(*k)++] = to[f - from];
        return 2;
    }
    if (c == '\n')
        return 2; /* a line that goes on */
    if (c >= '0' && c <= '7') {
        uint32_t v = 0;
        size_t i = 1;
        for (; i < 4 && i < n && p[i] >= '0' && p[i] <= '7'; i++)
            v = v * 8 + (uint32_t)(p[i] - '0');
        *k += utf8_put(out + *k, v);
        return i;
    }
    size_t want = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (want) {
        int64_t v = escape_digits(p + 2, n - 2, want);
        if (v < 0 || v > 0x10ffff)
            return 0;
        *k += utf8_put(out + *k, (uint32_t)v);
        return 2 + want;
    }
    if (c == 'N')
        return 0;
    out[(*k)++] = '\\'; /* unknown escapes stay */
    if ((unsigned char)c >= 0x80) {
        /* The reference spells such a character out before it undoes escapes; the backslash in
           front then makes the spelling plain text. */
        uint32_t cp;
        size_t len = utf8_next(p + 1, n - 1, &cp, NULL);
        *k += (size_t)snprintf(out + *k, sizeof "U00000000",
                               cp < 0x100     ? "x%02x"
                               : cp < 0x10000 ? "u%04x"
                                              : "U%08x",
                               cp);
        return 1 + len;
    }
    out[(*k)++] = c;
    return 2;
}

static int lex_string(struct lexer *lx, struct token *t, struct err *e)
{
    char quote = lx->s[lx->pos];
    size_t i = lx->pos + 1;
    while (i < lx->n && lx->s[i] != quote)
        i += lx->s[i] == '\\' ? 2 : 1;
    if (i >= lx->n)
        return lex_fail(lx, e, "string without an end");
    const char *p = lx->s + lx->pos + 1;
    size_t n = i - lx->pos - 1, k = 0;
    /* "\é" grows from 3 bytes to 4, and to at most 10 from 5 */
    char *out = arena_alloc(lx->arena, n * 2 + 16, e);
    if (!out)
        return ERR_NOMEM;
    for (size_t j = 0; j < n;) {
        if (p[j] != '\\' || j + 1 >= n) {
            out[k++] = p[j++];
            continue;
        }
        size_t used = unescape(p + j, n - j, out, &k);
        if (!used)
            return lex_fail(lx, e, "malformed escape in a string");
        j += used;
    }
    t->kind = T_STRING;
    t->p = out;
    t->n = k;
    advance(lx, i + 1);
    return 0;
}

static const struct op {
    const char *text;
    enum token_kind kind;
} ops[] = {
    /* longer ones first */
    {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GE},
    {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},      {"*", T_MUL},      {"/", T_DIV},
    {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
    {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
    {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
    {";", T_SEMICOLON},
};

static int lex_operator(struct lexer *lx, struct token *t, struct err *e)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (!at(lx, lx->pos, ops[i].text))
            continue;
        char c = ops[i].text[0];
        if (c == '(' || c == '[' || c == '{') {
            if (lx->nopen == LEX_NESTING_MAX)
                return lex_fail(lx, e, "brackets are nested too deeply");
            lx->open[lx->nopen++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!lx->nopen || lx->open[--lx->nopen] != c)
                return err_set(e, ERR_FORMAT, "line %u: unexpected '%c'", lx->line, c);
        }
        t->kind = ops[i].kind;
        advance(lx, lx->pos + strlen(ops[i].text));
        return 0;
    }
    uint32_t cp;
    size_t k = utf8_next(lx->s + lx->pos, lx->n - lx->pos, &cp, NULL);
    return err_set(e, ERR_FORMAT, "line %u: unexpected character '%.*s'", lx->line, (int)k,
                   lx->s + lx->pos);
}

static int lex_tag(struct lexer *lx, struct token *t, struct err *e)
{
    advance(lx, skip_space(lx, lx->pos));
    *t = (struct token){.kind = T_EOF, .line = lx->line};
    if (lx->pos >= lx->n)
        return 0;
    size_t end;
    bool block = lx->state == LEX_BLOCK;
    if (!lx->nopen && match_close(lx, lx->pos, block ? "%}" : "}}", block, block, &end)) {
        t->kind = block ? T_BLOCK_END : T_VAR_END;
        lx->state = LEX_ROOT;
        advance(lx, end);
        return 0;
    }
    char c = lx->s[lx->pos];
    if (is_digit(c))
        return lex_number(lx, t, e);
    if (c == '\'' || c == '"')
        return lex_string(lx, t, e);
    size_t i = lx->pos;
    while (i < lx->n) {
        uint32_t cp;
        size_t k = utf8_next(lx->s + i, lx->n - i, &cp, NULL);
        if (!is_word(cp))
            break;
        i += k;
    }
    if (i > lx->pos) {
        t->kind = T_NAME;
        t->p = lx->s + lx->pos;
        t->n = i - lx->pos;
        advance(lx, i);
        return 0;
    }
    return lex_operator(lx, t, e);
}

int lex_next(struct lexer *lx, struct token *t, struct err *e)
{
    for (;;) {
        if (lx->has_queued) {
            lx->has_queued = false;
            *t = lx->queued;
            if (t->kind == T_DATA && !t->n)
                continue;
            return 0;
        }
        if (lx->state != LEX_ROOT)
            return lex_tag(lx, t, e);
        if (lx->pos >= lx->n) {
            *t = (struct token){.kind = T_EOF, .line = lx->line};
            return 0;
        }
        int code = lex_root(lx, t, e);
        if (code)
            return code;
        if (t->n)
            return 0;
    }
}

const char *token_describe(const struct token *t, char *out, size_t cap)
{
    static const char *const names[] = {
        [T_EOF] = "end of template",
        [T_DATA] = "template text",
        [T_VAR_BEGIN] = "begin of print statement",
        [T_VAR_END] = "end of print statement",
        [T_BLOCK_BEGIN] = "begin of statement block",
        [T_BLOCK_END] = "end of statement block",
        [T_STRING] = "string",
        [T_INT] = "integer",
        [T_FLOAT] = "float",
    };
    if (t->kind == T_NAME) {
        snprintf(out, cap, "%.*s", (int)(t->n < 60 ? t->n : 60), t->p);
        return out;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i].kind == t->kind)
            return ops[i].text;
    return names[t->kind];
}
