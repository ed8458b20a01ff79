/*
 * Errors with words.
 *
 * Every function that can fail returns 0 or one of these codes and fills a `struct err` with one
 * sentence that names the thing, the fault and, where there is one, the way out. Callers put
 * their own context in front with err_ctx ("model.gguf: blk.3.attn_q.weight: …"). Nothing below
 * the command line prints or exits.
 */
#ifndef PONDER_BASE_ERR_H
#define PONDER_BASE_ERR_H

#include <stddef.h>

enum err_code {
    ERR_OK = 0,
    ERR_NOMEM,       /* an allocation or a memory limit */
    ERR_IO,          /* the system said no: text has strerror */
    ERR_FORMAT,      /* a file, a template or a request is wrong */
    ERR_LIMIT,       /* a stated bound was reached (length, depth, time) */
    ERR_USAGE,       /* the caller asked for something that makes no sense: exit status 2 */
    ERR_UNSUPPORTED, /* understood, but not something this build can do */
    ERR_CANCELLED,   /* the user stopped it: exit status 130 */
    ERR_NOTFOUND,    /* what was named does not exist */
    ERR_BUSY,        /* too much at the moment: later it may work */
};

enum { ERR_TEXT_MAX = 512 };

struct err {
    int code;
    char text[ERR_TEXT_MAX]; /* one line, no newline, always terminated */
};

/* Sets code and text; returns code, so that `return err_set(e, …)` reads well. `e` may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT: " before the text; returns the code. Long texts lose
   their end, not their start. */
int err_ctx(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ERR_NOMEM, "no memory for WHAT (N bytes)". */
int err_nomem(struct err *e, size_t bytes, const char *what);

/* ERR_IO with the words of errno: "WHAT: No such file or directory". */
int err_errno(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What the static analyser cannot see from here: none of these returns 0, so what follows a call
   that "succeeded" was set. (Definitions write such a name in parentheses.) */
#ifdef __clang_analyzer__
#define ERR_SURE(call)               \
    __extension__({                  \
        int code_ = call;            \
        if (!code_)                  \
            __builtin_unreachable(); \
        code_;                       \
    })
#define err_set(...) ERR_SURE(err_set(__VA_ARGS__))
#define err_ctx(...) ERR_SURE(err_ctx(__VA_ARGS__))
#define err_nomem(...) ERR_SURE(err_nomem(__VA_ARGS__))
#define err_errno(...) ERR_SURE(err_errno(__VA_ARGS__))
#endif

#endif
