/* Tokens of a template, one at a time. See jinja_lex.c. */
#ifndef PONDER_TEXT_JINJA_LEX_H
#define PONDER_TEXT_JINJA_LEX_H

#include "text/jinja_value.h"

enum token_kind {
    T_EOF,
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_EQ,
    T_NE,
    T_LT,
    T_LE,
    T_GT,
    T_GE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE,
    T_KINDS,
};

struct token {
    enum token_kind kind;
    uint32_t line;
    const char *p; /* DATA, NAME, STRING (unescaped): the text */
    size_t n;
    int64_t i;
    double f;
};

enum { LEX_NESTING_MAX = 200 }; /* open brackets */

struct lexer {
    struct arena *arena;
    const char *s; /* newlines normalized */
    size_t n, pos;
    uint32_t line;
    enum { LEX_ROOT, LEX_BLOCK, LEX_VAR } state;
    bool line_start; /* the last match ended a line, or nothing was read yet */
    struct token queued;
    bool has_queued;
    char open[LEX_NESTING_MAX]; /* closing brackets that are due */
    size_t nopen;
};

/* Copies the text into the arena. ERR_FORMAT for invalid UTF-8, ERR_LIMIT when it is too long. */
int lex_init(struct lexer *lx, struct arena *arena, const char *text, size_t n, struct err *e);
int lex_next(struct lexer *lx, struct token *t, struct err *e);
const char *token_describe(const struct token *t, char *out, size_t cap);

#endif
