/*
 * What an answer says, and whether it is right.
 *
 * A model's output is a thought in <think>…</think> and an answer; what counts is the content of
 * the last complete \boxed{…} (or \fbox{…}) of the answer. Two answers are held against each other
 * with three outcomes, because "I cannot read this" is not "wrong": a reward that mixes them up
 * teaches a model nothing, silently.
 *
 * All functions are linear in the text, allocate nothing and read any bytes.
 */
#ifndef PONDER_GRADE_ANSWER_H
#define PONDER_GRADE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

/* A piece of somebody's text. */
struct span {
    const char *s;
    size_t n;
};

struct span span_of(const char *text); /* a string's bytes */
struct span span_trim(struct span a);  /* without white space around it */
bool span_is(struct span a, const char *text);
/* Where `needle` begins in a at or after `from`, or a.n. */
size_t span_find(struct span a, const char *needle, size_t from);
size_t span_count(struct span a, const char *needle); /* without overlaps */

enum grade { GRADE_EQUAL, GRADE_DIFFERENT, GRADE_UNPARSED };
const char *grade_name(enum grade g); /* "equal", "different", "unparsed" */

/*
 * What follows the last </think>; the whole text when there is no thought. False: a thought was
 * opened and never closed, so there is no answer.
 */
bool answer_part(struct span text, struct span *out);

/* The content of the last complete box of the answer. Of boxes in each other the inner one. */
bool answer_boxed(struct span text, struct span *out);

/* The last box, or without any the answer as it stands, trimmed. False: there is no answer. */
bool answer_extract(struct span text, struct span *out);

/*
 * Is `answer` the value that `gold` is? Exact for integers, fractions, mixed numbers and decimals
 * of up to ANSWER_DIGITS digits in the spellings of LaTeX; other forms are equal when they are
 * written alike, and unparsed when not. This one function is where wider mathematical equivalence
 * belongs.
 */
enum { ANSWER_DIGITS = 200, ANSWER_MAX = 2048 };
enum grade answer_equal(struct span gold, struct span answer);
bool answer_readable(struct span a); /* one of those forms, not just letters */

/* Extracts from both and compares. *extracted (may be NULL) is what was found in the answer; its
   s is NULL when there was nothing. */
enum grade answer_grade(struct span gold, struct span answer, struct span *extracted);

/* Reads a plain integer ("-12", "1,234", "+7") that fits; white space around it is fine. */
bool answer_int(struct span a, long long *out);

#endif
