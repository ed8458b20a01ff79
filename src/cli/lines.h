/*
 * JSON lines: what the plumbing commands read from stdin and write to stdout. Results are sent out
 * before waiting for more input, so that another program can talk to a command line by line.
 */
#ifndef PONDER_CLI_LINES_H
#define PONDER_CLI_LINES_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>

enum { LINES_MAX = 256 << 20 }; /* longest line, in bytes */

struct lines {
    int fd;
    char *data; /* owned */
    size_t at, len, cap;
    size_t number; /* of the last line, from 1 */
    bool end;
};

void lines_init(struct lines *l, int fd);
void lines_release(struct lines *l);

/* The next line that is not blank, without its newline; *s is NULL at the end. Valid until the next
 * call. */
int lines_next(struct lines *l, const char **s, size_t *n, struct err *e);

/* The same, parsed; *out is a new reference, or NULL at the end. A line that is no JSON gives
   ERR_FORMAT with `line N: …`; reading can go on after it. */
int lines_json(struct lines *l, json_t **out, struct err *e);

/* The value of line `number`; a new reference. */
int lines_parse(const char *s, size_t n, size_t number, json_t **out, struct err *e);

/* Everything that is left of a file, at most `max` bytes. */
int lines_read_all(struct buf *out, int fd, struct err *e);

/* Appends a JSON string; bytes that are not UTF-8 become U+FFFD. */
int lines_put_string(struct buf *out, const char *s, size_t n, struct err *e);

/* Writes the buffer and a newline to stdout and empties it. */
int lines_print(struct buf *b, struct err *e);

/* The same for a value, in one line or indented. */
int lines_print_json(const json_t *v, bool indent, struct err *e);

#endif
