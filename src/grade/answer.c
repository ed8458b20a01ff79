/* See answer.h: finding the answer in an output. */
#include "grade/answer.h"

#include "base/num.h"

#include <string.h>

enum { ANSWER_DEPTH = 512 }; /* braces in each other that are followed */

struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

struct span span_trim(struct span a)
{
    while (a.n && blank(a.s[0]))
        a.s++, a.n--;
    while (a.n && blank(a.s[a.n - 1]))
        a.n--;
    return a;
}

bool span_is(struct span a, const char *text)
{
    return a.n == strlen(text) && !memcmp(a.s, text, a.n);
}

size_t span_find(struct span a, const char *needle, size_t from)
{
    if (from >= a.n)
        return a.n;
    const char *p = memmem(a.s + from, a.n - from, needle, strlen(needle));
    return p ? (size_t)(p - a.s) : a.n;
}

size_t span_count(struct span a, const char *needle)
{
    size_t count = 0, len = strlen(needle);
    for (size_t at = 0; (at = span_find(a, needle, at)) < a.n; at += len)
        count++;
    return count;
}

const char *grade_name(enum grade g)
{
    static const char *const names[] = {"equal", "different", "unparsed"};
    return names[g];
}

bool answer_part(struct span text, struct span *out)
{
    static const char open[] = "<think>", close[] = "</think>";
    size_t from = 0;
    for (size_t at = 0; (at = span_find(text, close, at)) < text.n;)
        from = at += sizeof close - 1;
    *out = (struct span){text.s + from, text.n - from};
    return span_find(*out, open, 0) == out->n;
}

/* "\boxed{" or "\fbox{" at s[0..n): the bytes up to and with the brace, else 0. */
static size_t box_head(const char *s, size_t n)
{
    static const char *const heads[] = {"\\boxed", "\\fbox"};
    for (size_t i = 0; i < NUM_COUNT(heads); i++) {
        size_t len = strlen(heads[i]);
        if (n <= len || memcmp(s, heads[i], len) != 0)
            continue;
        while (len < n && blank(s[len]))
            len++;
        if (len < n && s[len] == '{')
            return len + 1;
    }
    return 0;
}

bool answer_boxed(struct span text, struct span *out)
{
    size_t begin[ANSWER_DEPTH]; /* of the content of open braces that are boxes; 0: not a box */
    size_t depth = 0, best = 0;
    struct span a;
    *out = (struct span){NULL, 0};
    if (!answer_part(text, &a))
        return false;
    for (size_t i = 0; i < a.n; i++) {
        size_t head = a.s[i] == '\\' ? box_head(a.s + i, a.n - i) : 0;
        if (head || a.s[i] == '{') {
            i += head ? head - 1 : 0;
            if (depth < ANSWER_DEPTH)
                begin[depth] = head ? i + 1 : 0;
            depth++;
        } else if (a.s[i] == '\\') {
            i += i + 1 < a.n && (a.s[i + 1] == '{' || a.s[i + 1] == '}' || a.s[i + 1] == '\\');
        } else if (a.s[i] == '}' && depth) {
            depth--;
            if (depth < ANSWER_DEPTH && begin[depth] > best) {
                best = begin[depth];
                *out = (struct span){a.s + best, i - best};
            }
        }
    }
    return out->s != NULL;
}

bool answer_extract(struct span text, struct span *out)
{
    if (answer_boxed(text, out))
        return true;
    if (!answer_part(text, out))
        return false;
    *out = span_trim(*out);
    return out->n > 0;
}

enum grade answer_grade(struct span gold, struct span answer, struct span *extracted)
{
    struct span g, a;
    bool has = answer_extract(answer, &a);
    if (extracted)
        *extracted = has ? a : (struct span){NULL, 0};
    if (!has || !answer_extract(gold, &g))
        return GRADE_UNPARSED;
    return answer_equal(g, a);
}
