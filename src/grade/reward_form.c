/*
 * Rewards for the form of an output. The patterns of open-r1 and TRL are regular expressions with
 * DOTALL; what they match is found here by searching for their fixed parts from left to right.
 */
#include "grade/reward_impl.h"

#include <string.h>

static bool begins(struct span a, const char *text)
{
    size_t n = strlen(text);
    return a.n >= n && !memcmp(a.s, text, n);
}

/* R1: one thought, closed, and then an answer. */
double reward_format(const struct reward_case *c)
{
    struct span answer;
    if (!begins(c->text, "<think>"))
        reward_say(c, "does not begin with <think>");
    else if (span_count(c->text, "<think>") != 1)
        reward_say(c, "more than one <think>");
    else if (span_count(c->text, "</think>") != 1)
        reward_say(c, span_count(c->text, "</think>") ? "more than one </think>" : "no </think>");
    else if (!answer_part(c->text, &answer) || !span_trim(answer).n)
        reward_say(c, "no answer behind </think>");
    else
        return 1;
    return 0;
}

/* ^<think>(?!.*<think>)(.*?)</think>.*$ */
double reward_think_format(const struct reward_case *c)
{
    if (!begins(c->text, "<think>"))
        reward_say(c, "does not begin with <think>");
    else if (span_count(c->text, "<think>") != 1)
        reward_say(c, "more than one <think>");
    else if (!span_count(c->text, "</think>"))
        reward_say(c, "no </think>");
    else
        return 1;
    return 0;
}

/* ^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$ where $ is the end of any line */
double reward_format_answer(const struct reward_case *c)
{
    static const char open[] = "<think>\n", middle[] = "\n</think>\n<answer>\n",
                      close[] = "\n</answer>";
    struct span a = c->text;
    if (!begins(a, open)) {
        reward_say(c, "does not begin with <think> on a line of its own");
        return 0;
    }
    size_t at = span_find(a, middle, strlen(open));
    if (at == a.n) {
        reward_say(c, "no </think> and <answer> on lines of their own");
        return 0;
    }
    /* the first place leaves the most behind it, so no other one can match where it does not */
    for (at += strlen(middle); (at = span_find(a, close, at)) < a.n;) {
        at += strlen(close);
        if (at == a.n || a.s[at] == '\n')
            return 1;
    }
    reward_say(c, "no </answer> on a line of its own");
    return 0;
}

double reward_tag_count(const struct reward_case *c)
{
    static const char *const tags[] = {"<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"};
    double x = 0;
    for (size_t i = 0; i < 4; i++) {
        size_t n = span_count(c->text, tags[i]);
        x += n == 1 ? 0.25 : 0;
        if (n != 1)
            reward_say(c, "%zu of %.*s", n, (int)strcspn(tags[i] + (tags[i][0] == '\n'), "\n"),
                       tags[i] + (tags[i][0] == '\n'));
    }
    return x;
}

static size_t digits_at(struct span a, size_t i)
{
    size_t n = 0;
    while (i + n < a.n && a.s[i + n] >= '0' && a.s[i + n] <= '9')
        n++;
    return n;
}

/* The bytes of a mark of a step at i, or 0. A number with a point counts at the beginning only:
   the pattern's ^ has no MULTILINE. */
static size_t step_at(struct span a, size_t i)
{
    static const char *const words[] = {"\n-", "\n*", "First,", "Second,", "Next,", "Finally,"};
    struct span rest = {a.s + i, a.n - i};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++)
        if (begins(rest, words[w]))
            return strlen(words[w]);
    if (begins(rest, "Step ")) {
        size_t n = digits_at(a, i + 5);
        return n && i + 5 + n < a.n && a.s[i + 5 + n] == ':' ? 6 + n : 0;
    }
    size_t n = i ? 0 : digits_at(a, 0);
    return n && n < a.n && a.s[n] == '.' ? n + 1 : 0;
}

double reward_reasoning_steps(const struct reward_case *c)
{
    size_t steps = 0;
    for (size_t i = 0; i < c->text.n;) {
        size_t n = step_at(c->text, i);
        steps += n > 0;
        i += n ? n : 1;
    }
    reward_say(c, "%zu marks of steps", steps);
    return steps < 3 ? (double)steps / 3 : 1;
}
