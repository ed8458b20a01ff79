/*
 * Fuzzing what judges answers: extraction, equality, the verifiers and all rewards take any bytes.
 * The first byte chooses the problem; what is a box stays one when text without braces surrounds
 * it; equality is the same in both directions, and everything equals itself.
 */
#include "grade/reward.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void judge(const struct gym_item *it, struct span text)
{
    struct reward_problem p = {.item = it, .language = GYM_ZH, .thinking_open = text.n & 1};
    struct reward_sample s[2] = {{.text = text}, {.text = span_of("\\boxed{1}")}};
    struct reward_options o;
    struct err e;
    reward_options_init(&o);
    for (size_t i = 0; i < reward_count(); i++) {
        struct reward_why why[2];
        float x[2];
        must(!reward_group(reward_at(i), &o, &p, s, 2, x, why, &e));
        must(isnan(x[0]) || (x[0] >= -1 && x[0] <= 1));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gym_item it;
    struct span box, again;
    struct buf text;
    struct err e;
    long long x;
    if (!size || size > 1 << 16)
        return 0;
    struct span a = {(const char *)data + 1, size - 1};
    gym_make(&it, gym_task(data[0] % gym_count()), (enum gym_language)(data[0] & 1), 1,
             data[0] >> 3, NULL);
    judge(&it, a);
    enum grade g = gym_verify(&it, a);
    must(g == GRADE_EQUAL || g == GRADE_DIFFERENT || g == GRADE_UNPARSED);
    if (answer_extract(a, &box)) {
        must(answer_equal(box, box) != GRADE_DIFFERENT);
        must(answer_equal(box, span_of("1/2")) == answer_equal(span_of("0.5"), box));
        answer_int(box, &x);
    }
    if (answer_boxed(a, &box)) {
        buf_init(&text, 1 << 20);
        must(!buf_puts(&text, "</think> it is ", &e) && !buf_append(&text, a.s, a.n, &e) &&
             !buf_puts(&text, " then", &e));
        must(answer_boxed((struct span){text.data, text.len}, &again));
        must(again.n == box.n && !memcmp(again.s, box.s, box.n));
        buf_release(&text);
    }
    struct gym_item back;
    if (!gym_read(&back, a, &e)) {
        buf_init(&text, GYM_TEXT_MAX);
        must(!gym_completion(&back, back.language, 0, &text, &e));
        must(gym_verify(&back, (struct span){text.data, text.len}) == GRADE_EQUAL);
        buf_clear(&text);
        must(!gym_id(&back, &text, &e));
        must(text.len == a.n && !memcmp(text.data, a.s, a.n));
        buf_release(&text);
    }
    return 0;
}
