/* Rewards for the words of an output: their language, and how often they repeat. */
#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"
#include "grade/reward_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- language -------------------------------------------------------------------------------- */

enum script { NO_LETTER, LATIN, HAN, OTHER };
enum { BOX_MAX = 100 }; /* bytes of a box that hides words; a thought does not fit */

static enum script script_of(uint32_t cp)
{
    if ((cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z'))
        return LATIN;
    if (cp < 0xaa)
        return NO_LETTER;
    if (cp == 0xaa || cp == 0xba || (cp >= 0xc0 && cp <= 0x24f && cp != 0xd7 && cp != 0xf7) ||
        (cp >= 0x1e00 && cp <= 0x1eff))
        return LATIN;
    if ((cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) ||
        (cp >= 0xf900 && cp <= 0xfaff) || (cp >= 0x20000 && cp <= 0x3ffff) || cp == 0x3005 ||
        cp == 0x3007)
        return HAN;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO ? OTHER : NO_LETTER;
}

/* Bytes of a \command at the beginning of a, with what \boxed holds; 0: there is none. */
static size_t command_at(struct span a)
{
    size_t n = 1;
    if (!a.n || a.s[0] != '\\')
        return 0;
    while (n < a.n && ((a.s[n] | 32) >= 'a' && (a.s[n] | 32) <= 'z'))
        n++;
    if (n == 6 && !memcmp(a.s, "\\boxed", 6) && n < a.n && a.s[n] == '{') {
        size_t depth = 0;
        for (size_t i = n; i < a.n && i < BOX_MAX; i++) {
            depth += a.s[i] == '{';
            depth -= a.s[i] == '}';
            if (!depth)
                return i + 1;
        }
    }
    return n;
}

double reward_language_share(struct span text, enum gym_language target)
{
    size_t words[4] = {0}, run = 0; /* letters of the Latin or other word so far */
    enum script last = NO_LETTER;
    for (size_t i = 0; i <= text.n;) {
        enum script s = NO_LETTER;
        size_t n = 1, skip = command_at((struct span){text.s + i, text.n - i});
        uint32_t cp;
        if (!skip && i < text.n) {
            n = utf8_next(text.s + i, text.n - i, &cp, NULL);
            s = script_of(cp);
        }
        if (s != last && run) {
            words[last] += run > 1; /* x, y: names of numbers */
            run = 0;
        }
        if (s == HAN)
            words[HAN]++;
        else if (s != NO_LETTER)
            run++;
        last = s;
        i += skip ? skip : n;
    }
    size_t all = words[LATIN] + words[HAN] + words[OTHER];
    return all ? (double)words[target == GYM_ZH ? HAN : LATIN] / (double)all : 1;
}

double reward_language(const struct reward_case *c)
{
    if (c->problem->language < 0)
        return NAN;
    enum gym_language target = (enum gym_language)c->problem->language;
    double x = reward_language_share(reward_thought(c->text), target);
    reward_say(c, "%.0f%% of the words are %s", 100 * x, gym_language_name(target));
    return x;
}

/* ---- repetition ------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Penalty for n-grams of units[0..n), which are hashed in place. */
static double penalty(const struct reward_case *c, uint64_t *unit, size_t n)
{
    size_t g = c->o->repetition_n_grams, unique = 0;
    if (!g || n < g)
        return 0;
    size_t total = n - g + 1;
    for (size_t i = 0; i < total; i++) { /* unit i is not needed by the grams behind it */
        uint64_t h = 0;
        for (size_t k = 0; k < g; k++)
            h = hash_u64(h * 31 + unit[i + k] + 0x9e3779b97f4a7c15u);
        unit[i] = h;
    }
    qsort(unit, total, sizeof *unit, compare);
    for (size_t i = 0; i < total; i++)
        unique += !i || unit[i] != unit[i - 1];
    reward_say(c, "%zu of %zu %zu-grams are repeats", total - unique, total, g);
    return unique == total ? 0
                           : (1 - (double)unique / (double)total) * c->o->repetition_max_penalty;
}

static bool space(uint32_t cp)
{
    return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f) || cp == 0x85 ||
           cp == 0xa0 || cp == 0x3000 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
           cp == 0x2029;
}

/* Hashes of words in small letters; a Chinese character is a word. Returns how many. */
static size_t words_of(struct span a, uint64_t *unit)
{
    size_t n = 0;
    uint64_t h = 0;
    bool open = false;
    for (size_t i = 0; i < a.n;) {
        uint32_t cp;
        i += utf8_next(a.s + i, a.n - i, &cp, NULL);
        bool han = script_of(cp) == HAN, gap = space(cp);
        if (open && (han || gap)) {
            unit[n++] = h;
            open = false;
        }
        if (gap)
            continue;
        cp = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
        h = hash_u64((open ? h : 1) * 31 + cp);
        open = !han;
        if (han)
            unit[n++] = h;
    }
    if (open)
        unit[n++] = h;
    return n;
}

double reward_repetition(const struct reward_case *c)
{
    return penalty(c, c->scratch, words_of(c->sample->text, c->scratch));
}

double reward_repetition_tokens(const struct reward_case *c)
{
    if (!c->sample->ids)
        return NAN;
    for (size_t i = 0; i < c->sample->tokens; i++)
        c->scratch[i] = (uint32_t)c->sample->ids[i];
    return penalty(c, c->scratch, c->sample->tokens);
}
