/* What a tokenizer is made of; for the files of the tokenizer only. */
#ifndef PONDER_TEXT_TOKENIZER_IMPL_H
#define PONDER_TEXT_TOKENIZER_IMPL_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <pthread.h>

enum {
    TOKENIZER_ENDS = 32,
    TOKENIZER_IDLE = 4, /* works that wait for the next text */
};

/* What encoding writes to: one per text that is being encoded. */
struct tokenizer_work {
    struct bpe_work bpe;
    struct pretok_work *pretok;
};

/* Works between texts; so short texts find known pieces and compiled state of earlier ones. */
struct tokenizer_pool {
    pthread_mutex_t lock;
    struct tokenizer_work *idle[TOKENIZER_IDLE];
    int n;
};

struct tokenizer {
    struct arena arena; /* everything but the compiled patterns */
    struct vocab vocab;
    struct bpe bpe;
    struct added raw;        /* added tokens looked for in the text as it is */
    struct added normalized; /* … and in what the normalizer made of it */
    struct normalizer normalizer;
    struct pretok pretok;
    int32_t bos, eos, pad; /* -1: none */
    bool add_bos;
    int32_t end[TOKENIZER_ENDS]; /* ids that end a generation */
    int ends;
    struct tokenizer_pool *pool; /* owned */
};

/* Fill a zeroed tokenizer whose arena is ready. */
int tokenizer_load_gguf(struct tokenizer *t, struct source *src, struct err *e);
int tokenizer_load_hf(struct tokenizer *t, struct source *src, struct err *e);
/* The text of a tokenizer.json; the files beside it come from src (NULL: there are none). */
int tokenizer_load_json(struct tokenizer *t, const char *text, size_t n, struct source *src,
                        struct err *e);

int tokenizer_pool_new(struct tokenizer_pool **out, struct err *e);
void tokenizer_pool_free(struct tokenizer_pool *p);

int tokenizer_add_end(struct tokenizer *t, int64_t id, struct err *e);
/* Takes as ends all added tokens with names that are known to be ends. */
int tokenizer_add_named_ends(struct tokenizer *t, struct err *e);

#endif
