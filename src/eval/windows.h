/*
 * How a text is cut into windows that fit the context, in the two usual ways.
 *
 *   chunks   window after window, nothing shared (llama.cpp's perplexity): each begins with BOS in
 *            its first token's place where the model adds one, and only its second half is scored,
 *            so that every scored token has at least half a window before it. What does not fill a
 *            window at the end is not used.
 *   stride   windows overlap (Hugging Face's "sliding window"): each begins `stride` tokens after
 *            the one before and scores only what that one did not reach, so that every token of the
 *            text but the first is scored once. BOS stands at the beginning of the text alone.
 */
#ifndef PONDER_EVAL_WINDOWS_H
#define PONDER_EVAL_WINDOWS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct eval_cut {
    size_t ctx;    /* tokens of a window, at least 2 */
    size_t stride; /* 0 = chunks; else at most ctx */
    size_t limit;  /* windows at most; 0 = all */
};

/* Tokens [start, start + n) of the text; the logits after tokens from .. n - 2 of the window, n - 1
   - from rows, are held against the tokens that follow. */
struct eval_window {
    size_t start, n, from;
};

/* How many windows `n` tokens give. ERR_USAGE: a cut that makes no sense; ERR_LIMIT: the text is
   too short for a figure (chunks: two windows, as llama.cpp asks for; stride: two tokens). */
int eval_windows(size_t *out, const struct eval_cut *c, size_t n, struct err *e);

/* Window i of a text of n tokens. */
struct eval_window eval_window_at(const struct eval_cut *c, size_t n, size_t i);

/* Rows that windows [0, windows) score together. */
size_t eval_window_rows(const struct eval_cut *c, size_t n, size_t windows);

#endif
