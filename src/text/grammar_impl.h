/*
 * What grammars are made of; for the files of the grammar only.
 *
 * Front ends (JSON, schemas, expressions, GBNF, tools) build trees of `struct gx` in a `gbuild`;
 * gbuild_finish turns them into nodes. Constructors fail softly: without memory or over a limit
 * they return NULL and the build remembers why, and NULL as an argument gives NULL. So a front end
 * checks once, at the end.
 *
 * Nodes (the automaton). A rule's body or a loop's body ends in node 0, which returns:
 *   RET    back to the frame on top of the stack; with none, the text is complete
 *   EDGES  edge[a … a + b): takes one byte, at most one edge fits
 *   SPLIT  target[a … a + b): goes on at all of them
 *   CALL   into rule a (after linking: the rule's first node), then on at b
 *   LOOP   c names min and max: the body a so many times, then on at b
 *   CTRL   takes the control token written text[a], then on at b; where the vocabulary has no such
 *          token, goes on at c, which spells it
 */
#ifndef PONDER_TEXT_GRAMMAR_IMPL_H
#define PONDER_TEXT_GRAMMAR_IMPL_H

#include "base/arena.h"
#include "text/grammar.h"

#include <pthread.h>
#include <stdatomic.h>

enum gop { GOP_RET, GOP_EDGES, GOP_SPLIT, GOP_CALL, GOP_LOOP, GOP_CTRL };

enum gflag {
    GF_FREE = 1, /* EDGES of free text: control tokens may come as well */
    GF_TAIL = 2, /* CALL or LOOP whose next is RET: nothing needs to be remembered */
};

enum {
    GRAMMAR_NODES_MAX = 1 << 20,
    GRAMMAR_EDGES_MAX = 1 << 21,
    GRAMMAR_RULES_MAX = 1 << 16,
    GRAMMAR_DEPTH_MAX = 256, /* frames on a stack */
    GRAMMAR_NEST_MAX = 200,  /* of brackets in what front ends read */
    GRAMMAR_TEXT_MAX = 16 << 20,
};

#define GRAMMAR_INF UINT32_MAX /* no upper bound */

struct gnode {
    uint8_t op, flags;
    uint32_t a, b, c;
};

struct gedge {
    uint8_t lo, hi;
    uint32_t to;
};

struct gloop {
    uint32_t min, max;
};

struct gtext {
    char *s;
    size_t n;
};

struct gmatch;

struct grammar {
    atomic_int refs;
    struct gnode *node;
    struct gedge *edge;
    uint32_t *target;
    struct gloop *loop;
    struct gtext *text;
    uint16_t *need; /* [n_nodes] frames that the shortest way to RET needs; UINT16_MAX: no way */
    size_t n_nodes, n_edges, n_targets, n_loops, n_texts;
    uint32_t start[3]; /* by enum grammar_thought */
    bool calls;        /* its texts are tool calls */
    pthread_mutex_t lock;
    struct gmatch *match; /* one for each vocabulary, under the lock */
};

/* ---- building ------------------------------------------------------------------------------- */

struct gx; /* an expression */

struct grange {
    uint32_t lo, hi; /* code points */
};

/* Code points, as a growing list of ranges. */
struct gset {
    struct grange *v; /* in the build's arena */
    size_t n, cap;
};

struct gword {
    const char *s;
    size_t n;
};

/* A list of expressions under construction. */
struct gxs {
    struct gx **v; /* in the build's arena */
    size_t n, cap;
};

struct grule {
    const char *name;
    struct gx *x;   /* NULL until it is defined */
    uint32_t entry; /* its first node */
};

struct gbuild {
    struct arena arena;
    struct grammar *g;
    struct grule *rule; /* owned */
    size_t n_rules, cap_rules;
    size_t cap_nodes, cap_edges, cap_targets, cap_loops, cap_texts;
    int code;     /* of the first fault, described in err */
    bool nothing; /* the fault is that no text fits */
    struct err err;
};

int gbuild_init(struct gbuild *b, struct err *e);
void gbuild_release(struct gbuild *b);
/* The grammar of x. The build is spent, but still to be released. */
int gbuild_finish(struct gbuild *b, struct gx *x, struct grammar **out, struct err *e);
/* Remembers a fault; returns NULL. */
struct gx *gbuild_fail(struct gbuild *b, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *gbuild_alloc(struct gbuild *b, size_t count, size_t size); /* arena memory, or NULL */

uint32_t gbuild_rule(struct gbuild *b, const char *name, size_t n); /* new, undefined */
void gbuild_define(struct gbuild *b, uint32_t rule, struct gx *x);

struct gx *gx_empty(struct gbuild *b);
struct gx *gx_never(struct gbuild *b); /* no text at all */
struct gx *gx_bytes(struct gbuild *b, const char *s, size_t n);
struct gx *gx_text(struct gbuild *b, const char *s);
/* One character of the set in UTF-8; the set is put in order. */
struct gx *gx_class(struct gbuild *b, struct gset *set);
struct gx *gx_chars(struct gbuild *b, const char *ranges);             /* "09AFaf": ASCII pairs */
struct gx *gx_other_byte(struct gbuild *b, const char *but, size_t n); /* as free text */
struct gx *gx_seq(struct gbuild *b, struct gx *const *x, size_t n);
struct gx *gx_alt(struct gbuild *b, struct gx *const *x, size_t n);
struct gx *gx_rep(struct gbuild *b, struct gx *x, uint32_t min, uint32_t max);
struct gx *gx_opt(struct gbuild *b, struct gx *x);
struct gx *gx_call(struct gbuild *b, uint32_t rule);
struct gx *gx_control(struct gbuild *b, const char *s);
/* These bytes, which control tokens may spell too. */
struct gx *gx_mark(struct gbuild *b, const char *s, size_t n);
/* One of the words (byte strings), as a trie; words are put in order. */
struct gx *gx_words(struct gbuild *b, struct gword *w, size_t n);
/* Free text up to and with `s`, then `then`. may_end: or free text without s. s = "": only free
   text. */
struct gx *gx_until(struct gbuild *b, const char *s, struct gx *then, bool may_end);
/* Free text up to the first of several words, then what belongs to it; `then` NULL: the word may
   not come. */
struct gstop {
    const char *s;
    size_t n;
    struct gx *then;
};
struct gx *gx_until_any(struct gbuild *b, const struct gstop *stop, size_t n, bool may_end);

#define GX_SEQ(b, ...)                           \
    gx_seq(b, (struct gx *const[]){__VA_ARGS__}, \
           sizeof((struct gx *const[]){__VA_ARGS__}) / sizeof(struct gx *))
#define GX_ALT(b, ...)                           \
    gx_alt(b, (struct gx *const[]){__VA_ARGS__}, \
           sizeof((struct gx *const[]){__VA_ARGS__}) / sizeof(struct gx *))

void gxs_add(struct gbuild *b, struct gxs *l, struct gx *x);
void gset_add(struct gbuild *b, struct gset *s, uint32_t lo, uint32_t hi);
void gset_sort(struct gset *s); /* ascending, apart, without surrogates */
void gset_invert(struct gbuild *b, struct gset *s);
bool gset_has(const struct gset *s, uint32_t cp); /* of a sorted one */

/* For the emitter: appends, or fails softly (0). */
uint32_t gnode_add(struct gbuild *b, enum gop op, uint32_t a, uint32_t bb, uint32_t c);
uint32_t gedges_add(struct gbuild *b, const struct gedge *e, size_t n);
uint32_t gclass_emit(struct gbuild *b, const struct gset *set, uint32_t next);

/* After linking: loops over bodies that may be empty, left recursion, `need`, emptiness. */
int ganalyse(struct gbuild *b);

/* ---- sets of texts (grammar_dfa.c) ---------------------------------------------------------- */

struct glang {
    struct grammar *g; /* NULL: no text */
    struct gmatch *m;
};

/* The texts of x, an expression of the build `own`, which is released. Faults go to b. */
bool glang_make(struct gbuild *b, struct gbuild *own, struct gx *x, struct glang *out);
void glang_release(struct glang *l);
bool glang_has(struct gbuild *b, const struct glang *l, const char *s, size_t n);

enum { GDFA_SETS_MAX = 30 };

/* State 0 is nowhere, 1 the start; from q by a byte: to[q × classes + class[byte]]. */
struct gdfa {
    uint32_t n, classes;
    uint8_t class[256];
    uint32_t *to;
    uint32_t *label; /* bit i: set i has the text; set 0 has all texts that matter */
};
struct gdfa *gdfa_join(struct gbuild *b, const struct glang *lang, size_t n);
/* As few states as tell the same of all texts by `what`, which moves with them; labels are lost. */
void gdfa_minimize(struct gbuild *b, struct gdfa *d, uint32_t *what);
/* Texts that end in a state with what[state] = k > 0, then then[k - 1]. d, what and then stay. */
struct gx *gx_dfa(struct gbuild *b, const struct gdfa *d, const uint32_t *what,
                  struct gx *const *then, size_t n);

/* ---- JSON (grammar_json.c) ------------------------------------------------------------------ */

/* The rules that JSON texts share in one build; those not asked for are not made. */
struct gjson {
    struct gbuild *b;
    uint32_t string, value, object, array; /* rule + 1; 0: not made */
};

struct gx *gjson_space(struct gjson *j); /* white space that may stand inside brackets */
struct gx *gjson_colon(struct gjson *j);
struct gx *gjson_string(struct gjson *j);
struct gx *gjson_char(struct gjson *j); /* one character of a string, in any way of writing it */
struct gx *gjson_class(struct gjson *j, struct gset *set); /* one of the set, written shortest */
struct gx *gjson_integer(struct gjson *j);
struct gx *gjson_number(struct gjson *j);
struct gx *gjson_value(struct gjson *j);
struct gx *gjson_object(struct gjson *j);
struct gx *gjson_array(struct gjson *j);
struct gword gjson_word(struct gbuild *b, const json_t *v); /* this very value, compact */
/* A string as gjson_class writes its characters, with quotes. */
struct gword gjson_quoted(struct gbuild *b, const char *s, size_t n);
struct gx *gjson_literal(struct gbuild *b, const json_t *v);

/* ---- the front ends' common parts ----------------------------------------------------------- */

/* A regular expression. json: its characters are those of a JSON string's value. whole: it
   describes the whole text, else it may begin and end anywhere unless anchored. */
struct gx *gregex(struct gbuild *b, const char *s, size_t n, struct gjson *json, bool whole);
/* The schema's texts; with `object` only those that are objects. */
struct gx *gschema(struct gjson *j, const json_t *schema, bool object);
/* A grammar in GBNF: its rule "root". */
struct gx *ggbnf(struct gbuild *b, const char *s, size_t n);
/* One of an array's strings. */
struct gx *gchoice(struct gbuild *b, const json_t *strings);
/* A structural tag (grammar_tags.c). */
struct gx *gtags(struct gjson *j, const json_t *tag);
/* Any of these. */
struct gx *gform(struct gjson *j, const struct grammar_form *f);
/* Strings of a "format" (without the quotes); NULL without a fault when it is unknown. */
struct gx *gformat(struct gjson *j, const char *name);
/* Integers, or with `real` decimal numbers, from lo to hi (decimal texts, NULL: none). */
struct gx *gnumber_range(struct gjson *j, const char *lo, bool lo_open, const char *hi,
                         bool hi_open, bool real);
/* What of a member list: its value's texts follow the key and colon. */
struct gmember {
    struct gx *x; /* key, colon and value */
    bool required;
};
/* Members in this order, each at most once, then any number of `more` (NULL: none), with braces. */
struct gx *gx_members(struct gbuild *b, const struct gmember *m, size_t n, struct gx *more,
                      struct gx *comma, struct gx *space);

/* ---- the vocabulary (grammar_vocab.c) ------------------------------------------------------- */

/* A node of the trie, in the order of a depth-first walk. */
struct gtrie {
    uint32_t skip;  /* nodes of the subtree, with this one */
    int32_t token;  /* that ends here; -1: none. Others with the same bytes: vocab.same */
    uint16_t depth; /* of the byte, from 0 */
    uint8_t byte;
    uint8_t height; /* bytes of the subtree's longest path, this one too; 255: that many or more */
};

/* Kinds of bytes: each ASCII character that may mean something alone, the others in classes;
   GCLASS_UTF8: characters beyond ASCII, the last one perhaps cut off; GCLASS_BROKEN: such bytes in
   another order. */
enum { GCLASS_UTF8 = 62, GCLASS_BROKEN = 63 };
int gclass_of(uint8_t ascii); /* 0 … 61 */

struct gcontrol {
    int32_t id;
    uint32_t at, n; /* bytes */
};

struct grammar_vocab {
    atomic_int refs;
    size_t count, words, longest; /* longest: bytes of a token in the trie */
    struct gtrie *trie;
    size_t n_trie;
    uint64_t *below; /* [n_trie] classes of bytes in the subtree, read from this byte on */
    uint32_t *rank;  /* [n_trie + 1] tokens of the trie before this node */
    int32_t *order;  /* the trie's tokens by rank */
    int32_t *same;   /* [count] another token with the same bytes, -1: none */
    uint32_t *start; /* [count + 1] of a token's bytes */
    char *bytes;
    uint8_t *kind; /* [count] enum gkind */
    struct gcontrol *control;
    size_t n_control;
    int32_t *end;
    size_t n_end;
};

/* The states of reading UTF-8 from a boundary (0); −1: not UTF-8. */
int gutf8_step(int state, uint8_t byte);

enum gkind { GKIND_NONE, GKIND_PLAIN, GKIND_CONTROL, GKIND_END };

#endif
