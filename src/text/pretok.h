/*
 * Pre-tokenizing: cutting text into the pieces that are merged on their own.
 *
 * A pre-tokenizer is a list of stages; each is applied to every piece that the one before left. A
 * stage is a pattern with a behaviour for its matches, as in Hugging Face's "Split", or puts a
 * space in front of the piece (ByteLevel with add_prefix_space).
 */
#ifndef PONDER_TEXT_PRETOK_H
#define PONDER_TEXT_PRETOK_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum pretok_behavior {
    PRETOK_ISOLATED,
    PRETOK_REMOVED,
    PRETOK_MERGED_PREVIOUS,
    PRETOK_MERGED_NEXT,
    PRETOK_CONTIGUOUS,
};

enum { PRETOK_STAGES = 24 };

struct pretok_stage {
    void *code; /* pcre2_code; NULL: put a space in front where there is none */
    uint8_t behavior;
    bool invert; /* gaps count as matches, and matches as gaps */
};

/* Zeroed = no stage. Immutable after loading. */
struct pretok {
    struct pretok_stage stage[PRETOK_STAGES];
    int stages;
};

/* What else a name in a GGUF file says. */
enum pretok_flags {
    PRETOK_WHOLE = 1, /* pieces that are tokens are taken before merging */
    PRETOK_BOS = 2,   /* BOS is added unless the file says otherwise */
    PRETOK_NFC = 4,
};

/* Adds a stage. The pattern is in the language of Oniguruma (Ruby's), or a literal string. */
int pretok_add(struct pretok *p, const char *pattern, size_t n, bool literal,
               enum pretok_behavior behavior, bool invert, struct err *e);
int pretok_add_prefix_space(struct pretok *p, struct err *e);
/* The pattern of GPT-2, which ByteLevel implies. */
int pretok_add_gpt2(struct pretok *p, struct err *e);
/* All stages of a name of tokenizer.ggml.pre. An unknown name is an error that lists the known. */
int pretok_add_named(struct pretok *p, const char *name, size_t n, unsigned *flags, struct err *e);
/* The i-th of these names; NULL after the last. */
const char *pretok_name(size_t i);
/* The patterns of a name in their order, NULL at the end; NULL when the name is unknown. */
const char *const *pretok_patterns(const char *name, size_t n, unsigned *flags);
void pretok_release(struct pretok *p);

/* Memory for matching; one per thread. */
struct pretok_work;
int pretok_work_new(struct pretok_work **out, const struct pretok *p, struct err *e);
void pretok_work_free(struct pretok_work *w);

/* A new text of n bytes begins: time is limited in proportion to it. */
void pretok_work_begin(struct pretok_work *w, size_t n);
/* Gives back what an unusual text took. */
void pretok_work_trim(struct pretok_work *w);

/* Calls emit for each piece of s[0..n), valid UTF-8, from left to right. */
int pretok_run(const struct pretok *p, struct pretok_work *w, const char *s, size_t n,
               int (*emit)(void *arg, const char *s, size_t n, struct err *e), void *arg,
               struct err *e);

/* Oniguruma's pattern language in that of PCRE2 (pattern.c). */
int pattern_translate(struct buf *out, const char *s, size_t n, struct err *e);

#endif
