/* A client of raw sockets, for tests of what well-behaved clients never send. */
#ifndef PONDER_TESTS_SERVER_CLIENT_H
#define PONDER_TESTS_SERVER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A connected socket to 127.0.0.1; reading gives up after 100 s: what hangs, not
   what valgrind makes slow. */
int client_open(int port);
/* What is there, at most n bytes; 0: the end, -1: an error or the end of patience. */
ssize_t client_recv(int fd, void *to, size_t n);
/* Sends all, or as much as the server takes; false when it does not take all. */
bool client_send(int fd, const char *s, size_t n);
bool client_puts(int fd, const char *s);

struct reply {
    int status;        /* 0: the connection ended without an answer */
    char *head, *body; /* owned; chunks are joined; NUL-terminated */
    size_t n;          /* of the body */
    bool complete; /* as announced: length, last chunk, or end of the connection without either */
    int chunks;
};

/* Reads one answer; what follows it stays in the socket's buffer. `bodyless`: to HEAD. */
void client_read(int fd, struct reply *r, bool bodyless);
void reply_free(struct reply *r);
/* A header's value in `head` (NULL: none), in a buffer of the reply. */
const char *reply_header(struct reply *r, const char *name, char *out, size_t cap);

/* One request on a connection of its own. */
void client_ask(int port, const char *request, struct reply *r);

/* Reads exactly the text, however it is cut. */
bool client_expect(int fd, const char *text);
/* True when the other side ends the connection within `seconds` (what still comes is dropped). */
bool client_ends(int fd, double seconds);

#endif
