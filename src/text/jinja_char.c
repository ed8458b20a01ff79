/*
 * Unicode for strings: what is a space, a letter, a printable character; case mapping.
 *
 * Categories and simple case mappings come from utf8proc; mappings to several characters from
 * jinja_case.def. Classes follow Python's str.isXXX; where Python uses properties that utf8proc
 * does not carry (Numeric_Type=Digit, Other_Lowercase, Other_Uppercase), small tables of ranges
 * stand in.
 */
#include "text/jinja_vm.h"

#include "base/num.h"
#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

struct span {
    uint32_t first, last;
};

static bool in_spans(const struct span *s, size_t n, uint32_t cp)
{
    for (size_t i = 0; i < n; i++)
        if (cp >= s[i].first && cp <= s[i].last)
            return true;
    return false;
}

// clang-format off
static const struct span digits_only[] = { /* Numeric_Type=Digit */
    {0xb2, 0xb3}, {0xb9, 0xb9}, {0x1369, 0x1371}, {0x19da, 0x19da}, {0x2070, 0x2070},
    {0x2074, 0x2079}, {0x2080, 0x2089}, {0x2460, 0x2468}, {0x2474, 0x247c}, {0x2488, 0x2490},
    {0x24ea, 0x24ea}, {0x24f5, 0x24fd}, {0x24ff, 0x24ff}, {0x2776, 0x277e}, {0x2780, 0x2788},
    {0x278a, 0x2792}, {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a},
    {0x1f100, 0x1f10a},
};
static const struct span other_lower[] = {
    {0xaa, 0xaa}, {0xba, 0xba}, {0x2b0, 0x2b8}, {0x2c0, 0x2c1}, {0x2e0, 0x2e4}, {0x345, 0x345},
    {0x37a, 0x37a}, {0x1d2c, 0x1d6a}, {0x1d78, 0x1d78}, {0x1d9b, 0x1dbf}, {0x2071, 0x2071},
    {0x207f, 0x207f}, {0x2090, 0x209c}, {0x2170, 0x217f}, {0x24d0, 0x24e9}, {0x2c7c, 0x2c7d},
    {0xa69c, 0xa69d}, {0xa770, 0xa770}, {0xa7f8, 0xa7f9}, {0xab5c, 0xab5f}, {0x10780, 0x10780},
    {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
};
static const struct span other_upper[] = {
    {0x2160, 0x216f}, {0x24b6, 0x24cf}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
};
static const struct special_case {
    uint32_t cp;
    const char *upper, *title;
} special_cases[] = {
#include "text/jinja_case.def"
};
// clang-format on

bool is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x1f);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

bool is_line_break(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

bool is_printable(uint32_t cp)
{
    if (cp < 0x7f)
        return cp >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

bool is_word(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z') || (cp >= '0' && cp <= '9') ||
               cp == '_';
    return char_is(cp, CLASS_ALPHA) || char_is(cp, CLASS_NUMERIC);
}

bool char_is(uint32_t cp, enum char_class c)
{
    utf8proc_category_t g = utf8proc_category((utf8proc_int32_t)cp);
    switch (c) {
    case CLASS_ALPHA:
        return g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_LO;
    case CLASS_DECIMAL:
        return g == UTF8PROC_CATEGORY_ND;
    case CLASS_DIGIT:
        return g == UTF8PROC_CATEGORY_ND || in_spans(digits_only, NUM_COUNT(digits_only), cp);
    case CLASS_NUMERIC:
        return g >= UTF8PROC_CATEGORY_ND && g <= UTF8PROC_CATEGORY_NO;
    case CLASS_UPPER:
        return g == UTF8PROC_CATEGORY_LU || in_spans(other_upper, NUM_COUNT(other_upper), cp);
    case CLASS_LOWER:
        return g == UTF8PROC_CATEGORY_LL || in_spans(other_lower, NUM_COUNT(other_lower), cp);
    case CLASS_TITLE:
        return g == UTF8PROC_CATEGORY_LT;
    }
    return false;
}

static bool is_cased(uint32_t cp)
{
    return char_is(cp, CLASS_UPPER) || char_is(cp, CLASS_LOWER) || char_is(cp, CLASS_TITLE);
}

static bool is_case_ignorable(uint32_t cp)
{
    if (cp < 0x80)
        return cp == '\'' || cp == '.' || cp == ':' || cp == '^' || cp == '`';
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return cp == 0xb7 || cp == 0x2018 || cp == 0x2019 || cp == 0x2024 || cp == 0x2027;
    }
}

/* A capital sigma at byte i ends its word: the small letter is then the final one. */
static bool final_sigma(const struct str *s, size_t i)
{
    size_t k = i;
    uint32_t cp;
    bool before = false;
    while (k && !before) {
        do {
            k--;
        } while (k && ((unsigned char)s->p[k] & 0xc0) == 0x80);
        utf8_next(s->p + k, s->n - k, &cp, NULL);
        if (is_case_ignorable(cp))
            continue;
        before = is_cased(cp);
        break;
    }
    for (k = i + 2; before && k < s->n;) {
        k += utf8_next(s->p + k, s->n - k, &cp, NULL);
        if (!is_case_ignorable(cp))
            return !is_cased(cp);
    }
    return before;
}

static const struct special_case *special(uint32_t cp)
{
    if (cp < 0xdf)
        return NULL;
    for (size_t i = 0; i < NUM_COUNT(special_cases); i++)
        if (special_cases[i].cp == cp)
            return &special_cases[i];
    return NULL;
}

static int put_upper(struct sb *b, uint32_t cp, bool title, bool trusted)
{
    const struct special_case *sp = special(cp);
    const char *text = sp ? (title ? sp->title : sp->upper) : NULL;
    if (text)
        return sb_put(b, text, strlen(text), trusted);
    utf8proc_int32_t c = (utf8proc_int32_t)cp;
    return sb_char(b, (uint32_t)(title ? utf8proc_totitle(c) : utf8proc_toupper(c)), trusted);
}

static int put_lower(struct sb *b, const struct str *s, size_t i, uint32_t cp, bool trusted)
{
    if (cp == 0x3a3)
        return sb_char(b, final_sigma(s, i) ? 0x3c2 : 0x3c3, trusted);
    if (cp == 0x130)
        return sb_put(b, "i\u0307", 3, trusted);
    return sb_char(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), trusted);
}

static int put_folded(struct sb *b, uint32_t cp, bool trusted)
{
    utf8proc_int32_t folded[8];
    int bound = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)cp, folded, 8, UTF8PROC_CASEFOLD, &bound);
    int code = 0;
    for (utf8proc_ssize_t i = 0; i < n && i < 8 && !code; i++)
        code = sb_char(b, (uint32_t)folded[i], trusted);
    return code;
}

int str_case(struct vm *vm, const struct str *s, enum str_case to, struct value *out)
{
    struct sb b;
    bool in_word = false;
    sb_init(&b, vm);
    int code = sb_room(&b, s->n);
    if (!code)
        code = vm_charge_bytes(vm, s->n * 16);
    for (size_t i = 0, k; i < s->n && !code; i += k) {
        uint32_t cp;
        k = utf8_next(s->p + i, s->n - i, &cp, NULL);
        bool trusted = s->mask ? s->mask[i] : s->trusted;
        switch (to) {
        case CASE_UPPER:
            code = put_upper(&b, cp, false, trusted);
            break;
        case CASE_LOWER:
            code = put_lower(&b, s, i, cp, trusted);
            break;
        case CASE_CAPITALIZE:
            code = i ? put_lower(&b, s, i, cp, trusted) : put_upper(&b, cp, true, trusted);
            break;
        case CASE_TITLE:
            code = in_word ? put_lower(&b, s, i, cp, trusted) : put_upper(&b, cp, true, trusted);
            in_word = is_cased(cp);
            break;
        case CASE_SWAP:
            if (char_is(cp, CLASS_UPPER))
                code = put_lower(&b, s, i, cp, trusted);
            else if (char_is(cp, CLASS_LOWER))
                code = put_upper(&b, cp, false, trusted);
            else
                code = sb_char(&b, cp, trusted);
            break;
        case CASE_FOLD:
            code = put_folded(&b, cp, trusted);
            break;
        }
    }
    if (!code)
        code = sb_done(&b, out);
    if (!code)
        out->s->markup = s->markup;
    return code;
}
