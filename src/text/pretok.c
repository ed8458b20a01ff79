/*
 * See pretok.h.
 *
 * Patterns run in PCRE2, compiled to machine code. Text is hostile: a match that takes too many
 * steps, and a text that takes too long in all, end in an error. Matches are searched a window of
 * start places at a time, so that the clock is read even while a pattern finds nothing; the window
 * is smaller the longer the piece is. All patterns of pretok.def need time in proportion to the
 * text.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretok.h"

#include "base/clock.h"
#include "base/num.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_MAX = 1 << 16,
    NEST_MAX = 100,           /* parentheses in a pattern */
    STEPS_MAX = 20 * 1000000, /* of one match, plus 32 per byte of text */
    HEAP_KIB = 256 * 1024,    /* of one match */
    JIT_STACK = 64 << 20,     /* at most, and only when the small one is too small */
    WINDOW_MIN = 256,
    CLOCK_EVERY = 4096, /* matches */
};

/* Seconds for a text of n bytes: a hundred times what the slowest known pattern takes. */
static double time_limit(size_t n)
{
    return 10.0 + (double)n * 4e-6;
}

/* ---- building ------------------------------------------------------------------------------- */

static int stage_new(struct pretok *p, struct pretok_stage **out, struct err *e)
{
    if (p->stages == PRETOK_STAGES)
        return err_set(e, ERR_LIMIT, "a pre-tokenizer of more than %d steps", PRETOK_STAGES);
    *out = &p->stage[p->stages++];
    **out = (struct pretok_stage){0};
    return 0;
}

static int compile(void **out, const char *s, size_t n, bool literal, struct err *e)
{
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    if (!cc)
        return err_nomem(e, sizeof(void *), "a pattern");
    pcre2_set_max_pattern_length(cc, 16 * (size_t)PATTERN_MAX);
    pcre2_set_parens_nest_limit(cc, NEST_MAX);
    pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    uint32_t options = PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT;
    options |= literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_MULTILINE;
    int code, rc = 0;
    size_t at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)s, n, options, &code, &at, cc);
    pcre2_compile_context_free(cc);
    if (!re) {
        char words[160];
        if (code == PCRE2_ERROR_HEAP_FAILED)
            return err_nomem(e, n, "a pattern");
        pcre2_get_error_message(code, (PCRE2_UCHAR *)words, sizeof words);
        rc = err_set(e, ERR_FORMAT, "invalid pattern '%.*s': %s", (int)num_min(n, 200), s, words);
    } else {
        /* Without machine code (no memory, no support here) patterns are interpreted. */
        pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    }
    *out = re;
    return rc;
}

int pretok_add(struct pretok *p, const char *pattern, size_t n, bool literal,
               enum pretok_behavior behavior, bool invert, struct err *e)
{
    struct pretok_stage *st = NULL;
    struct buf b;
    if (n > PATTERN_MAX)
        return err_set(e, ERR_LIMIT, "a pattern of %zu bytes: at most %d are supported", n,
                       PATTERN_MAX);
    void *code = NULL;
    buf_init(&b, 16 * (size_t)PATTERN_MAX);
    int rc = literal ? 0 : pattern_translate(&b, pattern, n, e);
    if (!rc)
        rc = compile(&code, literal ? pattern : b.data, literal ? n : b.len, literal, e);
    buf_release(&b);
    if (!rc)
        rc = stage_new(p, &st, e);
    if (rc)
        pcre2_code_free(code);
    else
        *st = (struct pretok_stage){code, (uint8_t)behavior, invert};
    return rc;
}

int pretok_add_prefix_space(struct pretok *p, struct err *e)
{
    struct pretok_stage *st;
    return stage_new(p, &st, e);
}

struct named {
    const char *name;
    unsigned flags;
    const char *pattern[8];
};

#define PRETOK(name, flags, ...) {name, flags, {__VA_ARGS__}},
static const struct named table[] = {
#include "text/pretok.def"
};
#undef PRETOK

int pretok_add_gpt2(struct pretok *p, struct err *e)
{
    return pretok_add(p, PAT_GPT2, strlen(PAT_GPT2), false, PRETOK_ISOLATED, false, e);
}

const char *pretok_name(size_t i)
{
    return i < NUM_COUNT(table) ? table[i].name : NULL;
}

const char *const *pretok_patterns(const char *name, size_t n, unsigned *flags)
{
    for (size_t i = 0; i < NUM_COUNT(table); i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0) {
            *flags = table[i].flags;
            return table[i].pattern;
        }
    return NULL;
}

int pretok_add_named(struct pretok *p, const char *name, size_t n, unsigned *flags, struct err *e)
{
    const char *const *s = pretok_patterns(name, n, flags);
    int rc = 0;
    for (; s && !rc && *s; s++)
        rc = pretok_add(p, *s, strlen(*s), false, PRETOK_ISOLATED, false, e);
    if (s)
        return rc;
    char known[ERR_TEXT_MAX] = "";
    size_t len = 0;
    for (size_t i = 0; i < NUM_COUNT(table); i++) {
        size_t m = strlen(table[i].name);
        if (len + m + 2 >= sizeof known)
            break;
        memcpy(known + len, " ", 2);
        memcpy(known + len + 1, table[i].name, m + 1);
        len += m + 1;
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "unknown pre-tokenizer '%.*s' (tokenizer.ggml.pre); known are:%s",
                   (int)num_min(n, 60), name, known);
}

void pretok_release(struct pretok *p)
{
    for (int i = 0; i < p->stages; i++)
        pcre2_code_free(p->stage[i].code);
    *p = (struct pretok){0};
}

/* ---- running -------------------------------------------------------------------------------- */

struct pretok_work {
    pcre2_match_context *mc;
    pcre2_jit_stack *jit;
    pcre2_match_data *md[PRETOK_STAGES]; /* one per stage: they are busy at the same time */
    double deadline, allowed;            /* deadline is 0 before the first look at the clock */
    unsigned matches;
};

int pretok_work_new(struct pretok_work **out, const struct pretok *p, struct err *e)
{
    struct pretok_work *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return err_nomem(e, sizeof *w, "text to tokenize");
    w->mc = pcre2_match_context_create(NULL);
    bool good = w->mc;
    for (int i = 0; i < p->stages; i++)
        if (p->stage[i].code)
            good &= (w->md[i] = pcre2_match_data_create(1, NULL)) != NULL;
    if (!good) {
        pretok_work_free(w);
        return err_nomem(e, sizeof *w, "text to tokenize");
    }
    pcre2_set_heap_limit(w->mc, HEAP_KIB);
    *out = w;
    return 0;
}

void pretok_work_begin(struct pretok_work *w, size_t n)
{
    uint64_t steps = STEPS_MAX + 32 * (uint64_t)n;
    pcre2_set_match_limit(w->mc, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    w->allowed = time_limit(n);
    w->deadline = 0;
    w->matches = 0;
}

void pretok_work_trim(struct pretok_work *w)
{
    if (w->jit)
        pcre2_jit_stack_assign(w->mc, NULL, NULL);
    pcre2_jit_stack_free(w->jit);
    w->jit = NULL;
}

void pretok_work_free(struct pretok_work *w)
{
    if (!w)
        return;
    for (int i = 0; i < PRETOK_STAGES; i++)
        pcre2_match_data_free(w->md[i]);
    pcre2_jit_stack_free(w->jit);
    pcre2_match_context_free(w->mc);
    free(w);
}

static int check_clock(struct pretok_work *w, struct err *e)
{
    double now = clock_seconds();
    if (w->deadline == 0)
        w->deadline = now + w->allowed;
    if (now > w->deadline)
        return err_set(e, ERR_LIMIT, "the tokenizer's pattern takes too long on this text");
    return 0;
}

/* The next match at or after *from; *found = false when there is none. */
static int search(struct pretok_work *w, int k, const pcre2_code *re, const char *s, size_t n,
                  size_t from, bool *found, size_t *start, size_t *end, struct err *e)
{
    const PCRE2_SPTR u = (PCRE2_SPTR)s;
    size_t window = num_max(WINDOW_MIN, ((size_t)1 << 32) / num_max(n, 1));
    for (;;) {
        size_t stop = n - from > window ? from + window : n;
        pcre2_set_offset_limit(w->mc, stop);
        int rc = pcre2_match(re, u, n, from, PCRE2_NO_UTF_CHECK, w->md[k], w->mc);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !w->jit) {
            w->jit = pcre2_jit_stack_create(32 << 10, JIT_STACK, NULL);
            if (w->jit) {
                pcre2_jit_stack_assign(w->mc, NULL, w->jit);
                continue;
            }
        }
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(re, u, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->md[k], w->mc);
        if (rc >= 0) {
            const size_t *o = pcre2_get_ovector_pointer(w->md[k]);
            *found = true;
            *start = o[0];
            *end = num_max(o[0], o[1]); /* \K may put them the wrong way round */
            return ++w->matches % CLOCK_EVERY ? 0 : check_clock(w, e);
        }
        if (rc == PCRE2_ERROR_NOMEMORY)
            return err_nomem(e, n, "text to tokenize");
        if (rc != PCRE2_ERROR_NOMATCH)
            return err_set(e, ERR_LIMIT,
                           "the tokenizer's pattern takes too many steps on this text (%d)", rc);
        *found = false;
        if (stop == n)
            return 0;
        from = stop; /* was tried already, but a character may begin before it */
        while (((unsigned char)s[from] & 0xc0) == 0x80)
            from--;
        rc = check_clock(w, e);
        if (rc)
            return rc;
    }
}

struct run {
    const struct pretok *p;
    struct pretok_work *w;
    int (*emit)(void *arg, const char *s, size_t n, struct err *e);
    void *arg;
};

static int run_stage(const struct run *r, int k, const char *s, size_t n, struct err *e);

/* Pieces of a stage wait here until it is clear whether the next one joins them. */
struct pending {
    size_t from, to;
    bool any, match;
};

static bool joins(int behavior, bool before, bool now)
{
    switch (behavior) {
    case PRETOK_MERGED_PREVIOUS:
        return now && !before;
    case PRETOK_MERGED_NEXT:
        return before && !now;
    case PRETOK_CONTIGUOUS:
        return before == now;
    default:
        return false;
    }
}

static int flush(const struct run *r, int k, const char *s, const struct pending *b, struct err *e)
{
    if (!b->any || b->from == b->to || (b->match && r->p->stage[k].behavior == PRETOK_REMOVED))
        return 0;
    return run_stage(r, k + 1, s + b->from, b->to - b->from, e);
}

static int span(const struct run *r, int k, const char *s, struct pending *b, size_t from,
                size_t to, bool match, struct err *e)
{
    const struct pretok_stage *st = &r->p->stage[k];
    match ^= st->invert;
    if (b->any && joins(st->behavior, b->match, match)) {
        b->to = to;
        b->match = match;
        return 0;
    }
    int rc = flush(r, k, s, b, e);
    *b = (struct pending){from, to, true, match};
    return rc;
}

static int run_prefix(const struct run *r, int k, const char *s, size_t n, struct err *e)
{
    if (n > 0 && s[0] == ' ')
        return run_stage(r, k + 1, s, n, e);
    struct buf b;
    buf_init(&b, SIZE_MAX / 2);
    int rc = buf_putc(&b, ' ', e);
    if (!rc)
        rc = buf_append(&b, s, n, e);
    if (!rc)
        rc = run_stage(r, k + 1, b.data, b.len, e);
    buf_release(&b);
    return rc;
}

static int run_stage(const struct run *r, int k, const char *s, size_t n, struct err *e)
{
    if (k == r->p->stages)
        return r->emit(r->arg, s, n, e);
    const pcre2_code *re = r->p->stage[k].code;
    if (!re)
        return run_prefix(r, k, s, n, e);
    struct pending b = {0};
    size_t gap = 0, from = 0, last = SIZE_MAX; /* last: where the match before ended */
    int rc = 0;
    while (!rc && from <= n) {
        bool found;
        size_t start, end;
        rc = search(r->w, k, re, s, n, from, &found, &start, &end, e);
        if (rc || !found)
            break;
        from = end;
        if (start == end) { /* empty: goes on behind the next character */
            from = end + 1;
            while (from < n && ((unsigned char)s[from] & 0xc0) == 0x80)
                from++;
            if (start == last)
                continue;
        }
        if (gap < start)
            rc = span(r, k, s, &b, gap, start, false, e);
        if (!rc)
            rc = span(r, k, s, &b, start, end, true, e);
        gap = last = end;
    }
    if (!rc && gap < n)
        rc = span(r, k, s, &b, gap, n, false, e);
    return rc ? rc : flush(r, k, s, &b, e);
}

int pretok_run(const struct pretok *p, struct pretok_work *w, const char *s, size_t n,
               int (*emit)(void *arg, const char *s, size_t n, struct err *e), void *arg,
               struct err *e)
{
    if (n == 0)
        return 0;
    const struct run r = {p, w, emit, arg};
    return run_stage(&r, 0, s, n, e);
}
