/*
 * What nobody sends by accident: heads without end, bodies that lie about their length, requests
 * smuggled in others, thousands of idle connections. The server answers with the right status or
 * closes, keeps serving others, and ends with the memory and descriptors it began with.
 */
#include "server/http_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST "Host: 127.0.0.1\r\n"

static int setup(void **state)
{
    static struct fixture f;
    fixture_start(&f, &fixture_opts);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_stop(*state);
    return 0;
}

static int ask(int port, const char *request)
{
    struct reply r;
    client_ask(port, request, &r);
    int status = r.complete ? r.status : -r.status;
    reply_free(&r);
    return status;
}

static void still_serves(struct fixture *f)
{
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_true(active_is(f, 0));
}

/* Sends head, then `fill` again and again up to `n` bytes or until the server has enough, then the
   tail; returns the status of what it answers, 0: it just closed. */
static int ask_long(int port, const char *head, const char *fill, size_t n, const char *tail)
{
    static char block[1 << 16];
    size_t m = strlen(fill), used = 0;
    struct reply r;
    while (used + m <= sizeof block) {
        memcpy(block + used, fill, m);
        used += m;
    }
    int fd = client_open(port);
    bool taken = client_puts(fd, head);
    while (taken && n) {
        size_t piece = n < used ? n - n % m : used;
        if (!piece)
            break;
        taken = client_send(fd, block, piece);
        n -= piece;
    }
    if (taken)
        client_puts(fd, tail);
    client_read(fd, &r, false);
    int status = r.status;
    reply_free(&r);
    close(fd);
    return status;
}

static void heads_without_end_are_refused(void **state)
{
    struct fixture *f = *state;
    /* One line, many lines, no line at all, a target, a method. */
    assert_int_equal(
        ask_long(f->port, "GET /quick HTTP/1.1\r\n" HOST "X: ", "x", 64 << 20, "\r\n\r\n"), 431);
    assert_int_equal(ask_long(f->port, "GET /quick HTTP/1.1\r\n" HOST, "a: b\r\n", 1 << 20, "\r\n"),
                     431);
    assert_int_equal(ask_long(f->port, "", "x", 8 << 20, "\r\n\r\n"), 414);
    assert_int_equal(ask_long(f->port, "GET /", "x", 60 << 10, " HTTP/1.1\r\n" HOST "\r\n"), 414);
    assert_int_equal(ask_long(f->port, "GET /", "x", 9 << 10, " HTTP/1.1\r\n" HOST "\r\n"), 414);
    assert_int_equal(ask_long(f->port, "GET /?", "a&", 40 << 10, " HTTP/1.1\r\n" HOST "\r\n"), 414);
    assert_int_equal(ask_long(f->port, "GET /quick HTTP/1.1\r\n" HOST "Authorization: Bearer ", "x",
                              1 << 20, "\r\n\r\n"),
                     431);
    /* 101 fields are too many, 100 are not (Host is one of them). */
    assert_int_equal(ask_long(f->port, "GET /quick HTTP/1.1\r\n" HOST, "a: b\r\n", 6 * 100, "\r\n"),
                     431);
    assert_int_equal(ask_long(f->port, "GET /quick HTTP/1.1\r\n" HOST, "a: b\r\n", 6 * 99, "\r\n"),
                     200);
    /* 60 KiB are not too much. */
    assert_int_equal(
        ask_long(f->port, "GET /quick HTTP/1.1\r\n" HOST "X: ", "x", 60 << 10, "\r\n\r\n"), 200);
    still_serves(f);
}

static void malformed_requests_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *request;
        int status; /* -1: any refusal, or just the end */
    } rows[] = {
        {"\r\n\r\nGET /quick HTTP/1.1\r\n" HOST "\r\n", 200}, /* empty lines before are tolerated */
        {"GET /quick HTTP/2.0\r\n" HOST "\r\n", 505},
        {"GET /quick HTTP/0.9\r\n" HOST "\r\n", 505},
        {"GET /quick\r\n\r\n", 400},
        {"GET /quick FTP/1.1\r\n" HOST "\r\n", 400},
        {"GET  /quick HTTP/1.1\r\n" HOST "\r\n", 200},
        {"GET /qu ick HTTP/1.1\r\n" HOST "\r\n", -1},
        {"GET quick HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /quick#x HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "no colon\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST ": no name\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\n" HOST "\r\n", 400},
        {"GET /quick HTTP/1.1\r\nHost: 127.0.0.1\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X: y\n\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X: y\r\n\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X : space\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X\x01: y\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X: a\rY: b\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X: a\r\n folded\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X:\r\n folded\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X:\r\n\tb\r\nY: c\r\n\r\n", 400},
        {"GET /quick HTTP/1.1\r\n folded: first\r\n" HOST "\r\n", 400},
        {"GET /quick HTTP/1.1\r\n" HOST "X:nospace\r\nY: \t trailing \t\r\nZ:\r\n\r\n", 200},
        {"BREW /quick HTTP/1.1\r\n" HOST "\r\n", 405},
        {"TRACE /quick HTTP/1.1\r\n" HOST "\r\n", 405},
        {"CONNECT evil.com:80 HTTP/1.1\r\n" HOST "\r\n", 400},
        {"get /quick HTTP/1.1\r\n" HOST "\r\n", 405},
        {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 204},
        {"GET http://localhost/quick HTTP/1.1\r\n" HOST "\r\n", 200},
        {"GET /quick HTTP/1.1\r\n" HOST "Expect: a-miracle\r\n\r\n", 417},
        {"\x16\x03\x01\x02\x00\x01\r\n\r\n", -1}, /* TLS to a port without */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct reply r;
        int fd = client_open(f->port);
        client_puts(fd, rows[i].request);
        shutdown(fd, SHUT_WR);
        client_read(fd, &r, false);
        bool ok = rows[i].status < 0 ? r.status == 0 || r.status >= 400
                                     : r.status == rows[i].status && r.complete;
        if (!ok)
            fail_msg("%s: %d", rows[i].request, r.status);
        reply_free(&r);
        close(fd);
    }
    still_serves(f);
}

static void paths_are_resolved_before_they_are_looked_up(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *path;
        int status;
        const char *is;
    } rows[] = {
        {"//v1/..//v1//models", 200, "/v1/models"},
        {"/v1/models/", 200, "/v1/models"},
        {"/v1/./models", 200, "/v1/models"},
        {"/%76%31/models", 200, "/v1/models"},
        {"/x/%2e%2e/v1/models", 200, "/v1/models"},
        {"/v1/models/%2e%2e/%2e%2e/quick", 200, "/quick"},
        {"/v1/models/..%2f..%2f..%2fetc%2fpasswd", 404, NULL},
        {"/../../../../quick", 200, "/quick"},
        {"/quick?x=..%2f", 200, "/quick"},
        {"/quick%00", 400, NULL},
        {"/quick%0a", 400, NULL},
        {"/quick%", 400, NULL},
        {"/quick%2", 400, NULL},
        {"/quick%zz", 400, NULL},
        {"/quick?a=%00", 400, NULL},
        {"/quick?a=%ff", 400, NULL},
        {"/%ff", 400, NULL},
        {"/%c0%af", 400, NULL},
        {"/v1/models/a%00b", 400, NULL},
        {"/v1/models/a%5cb", 200, "/v1/models/a\\\\b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct reply r;
        char text[400], want[200];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "\r\n", rows[i].path);
        client_ask(f->port, text, &r);
        if (r.status != rows[i].status)
            fail_msg("%s: %d", rows[i].path, r.status);
        snprintf(want, sizeof want, "\"path\":\"%s\"", rows[i].is ? rows[i].is : "");
        if (rows[i].is && !strstr(r.body, want))
            fail_msg("%s: %s", rows[i].path, r.body);
        reply_free(&r);
    }
}

/* Requests whose length two readers may see differently. None may be read on as two requests: the
   second would come from nowhere, as far as a proxy knows. */
static void lengths_that_can_be_misread_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *fields;
        int status;
    } rows[] = {
        {"Content-Length: -1\r\n", 400},
        {"Content-Length: +2\r\n", 400},
        {"Content-Length: 2 \r\n", 400},
        {"Content-Length: 0x2\r\n", 400},
        {"Content-Length: 2, 2\r\n", 400},
        {"Content-Length:\r\n", 400},
        {"Content-Length: 99999999999999999999\r\n", 413},
        {"Content-Length: 9223372036854775807\r\n", 413},
        {"Content-Length: 2\r\nContent-Length: 2\r\n", 400},
        {"Content-Length: 2\r\nContent-Length: 40\r\n", 400},
        {"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", 400},
        {"Transfer-Encoding: gzip, chunked\r\n", 501},
        {"Transfer-Encoding: identity\r\n", 501},
        {"Transfer-Encoding: xchunked\r\n", 501},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
        {"Transfer-Encoding : chunked\r\n", 400},
        {"Transfer-Encoding:\r\n chunked\r\n", 400},
        {"Content-Length:\r\n 2\r\n", 400},
        {"Content-Length: 2\r\n 4\r\n", 400},
        {": x\r\nContent-Length: 2\r\n", 400},
        {"X: y\nContent-Length: 2\r\n", 400},
        {"Content-Encoding: gzip\r\nContent-Length: 2\r\n", 415},
        {"Content-Encoding: identity\r\nContent-Length: 2\r\n", 200},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct reply r;
        char text[600];
        int before = f->quick, fd = client_open(f->port);
        snprintf(text, sizeof text,
                 "POST /v1/echo HTTP/1.1\r\n" HOST "%s\r\n{}GET /quick HTTP/1.1\r\n" HOST "\r\n",
                 rows[i].fields);
        client_puts(fd, text);
        client_read(fd, &r, false);
        if (r.status != rows[i].status)
            fail_msg("%s: %d", rows[i].fields, r.status);
        reply_free(&r);
        if (rows[i].status == 200 || rows[i].status == 415) {
            client_read(fd, &r, false); /* the next one on the same connection */
            assert_int_equal(r.status, 200);
            reply_free(&r);
        } else {
            assert_true(client_ends(fd, 5));
            assert_int_equal(f->quick, before);
        }
        close(fd);
    }
    still_serves(f);
}

static void chunked_bodies_are_read_and_bounded(void **state)
{
    struct fixture *f = *state;
#define CHUNKED "POST /v1/echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
    static const struct {
        const char *body;
        int status;
    } rows[] = {
        {"2\r\n{}\r\n0\r\n\r\n", 200},
        {"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200},
        {"02;name=value\r\n{}\r\n0\r\nTrailer: x\r\n\r\n", 200},
        {"FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n", 413},
        {"-2\r\n{}\r\n0\r\n\r\n", 400},
        {"0x2\r\n{}\r\n0\r\n\r\n", 400},
        {"\r\n{}\r\n0\r\n\r\n", 400},
        {"2\r\n{}x\r\n0\r\n\r\n", 400},
        {"zz\r\n", 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[300];
        snprintf(text, sizeof text, "%s%s", CHUNKED, rows[i].body);
        int status = ask(f->port, text);
        if (status != rows[i].status)
            fail_msg("%s: %d", rows[i].body, status);
    }
    /* A chunk that announces nearly everything, and sends on. */
    assert_int_equal(ask_long(f->port, CHUNKED "FFFFFFFFFFFFFFFF\r\n", "x", 64 << 20, ""), 413);
    /* Small chunks without end. */
    assert_int_equal(ask_long(f->port, CHUNKED, "1\r\nx\r\n", 64 << 20, ""), 413);
    /* Extensions and trailers without end. */
    int status = ask_long(f->port, CHUNKED "2;", "x", 8 << 20, "");
    assert_true(status >= 400 || status == 0);
    status = ask_long(f->port, CHUNKED "2\r\n{}\r\n0\r\n", "a: b\r\n", 8 << 20, "");
    assert_true(status >= 400 || status == 0);
    still_serves(f);
}

static void large_bodies_are_refused_before_they_are_read(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    /* Nothing of the body is sent: the answer comes all the same. */
    assert_int_equal(
        ask(f->port, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 1048577\r\n\r\n"), 413);
    /* All of it is sent at once: the answer is not lost in a reset. */
    for (int i = 0; i < 20; i++)
        assert_int_equal(
            ask_long(f->port, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 33554432\r\n\r\n",
                     "x", 32 << 20, ""),
            413);
    /* The largest that is allowed. */
    assert_int_equal(ask_long(f->port,
                              "POST /size HTTP/1.1\r\n" HOST "Content-Length: 8388608\r\n\r\n", "x",
                              8 << 20, ""),
                     200);
    /* Who asks first is not made to send. */
    int fd = client_open(f->port);
    client_puts(fd, "POST /v1/echo HTTP/1.1\r\n" HOST
                    "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n");
    assert_true(client_expect(fd, "HTTP/1.1 413"));
    close(fd);
    fd = client_open(f->port);
    client_puts(fd, "POST /v1/echo HTTP/1.1\r\n" HOST
                    "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(client_expect(fd, "HTTP/1.1 100 Continue\r\n\r\n"));
    client_puts(fd, "{}");
    client_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    close(fd);
    /* A small body where there should be none is read over. */
    fd = client_open(f->port);
    client_puts(fd, "GET /quick HTTP/1.1\r\n" HOST
                    "Content-Length: 2\r\n\r\n{}GET /quick HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < 2; i++) {
        client_read(fd, &r, false);
        assert_int_equal(r.status, 200);
        reply_free(&r);
    }
    close(fd);
    still_serves(f);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct fixture *f = *state;
    enum { N = 200 };
    struct reply r;
    char text[200];
    int fd = client_open(f->port);
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text,
                 "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n{\"n\":%5d}", i);
        assert_true(client_puts(fd, text));
    }
    for (int i = 0; i < N; i++) {
        client_read(fd, &r, false);
        snprintf(text, sizeof text, "{\"n\":%d}", i);
        assert_string_equal(r.body, text);
        reply_free(&r);
    }
    close(fd);
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.0\r\n\r\n"), 200);
    fd = client_open(f->port);
    client_puts(fd, "GET /quick HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
                    "GET /quick HTTP/1.0\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        client_read(fd, &r, false);
        assert_int_equal(r.status, 200);
        reply_free(&r);
    }
    assert_true(client_ends(fd, 5));
    close(fd);
}

/* A byte now and then keeps no place for ever. */
static void trickling_heads_and_bodies_are_ended(void **state)
{
    struct fixture *f = *state;
    static const char *const begins[] = {
        "GET /qui",
        "GET /quick HTTP/1.1\r\nX: ",
        "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n{",
        "POST /v1/echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nFFFF\r\n",
    };
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        int fd = client_open(f->port);
        double t0 = seconds_now();
        bool open = client_puts(fd, begins[i]);
        while (open && seconds_now() - t0 < 20) {
            nap(0.1);
            open = client_puts(fd, "x") && !client_ends(fd, 0.01);
        }
        double took = seconds_now() - t0;
        if (open)
            fail_msg("\"%s\" is still there after %.1f s", begins[i], took);
        close(fd);
        still_serves(f);
    }
}

static void silent_connections_are_ended(void **state)
{
    struct fixture *f = *state;
    int a = client_open(f->port), b = client_open(f->port), c = client_open(f->port);
    client_puts(b, "GET /quick HTTP/1.1\r\n");
    client_puts(c, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\n{");
    assert_true(client_ends(a, 15));
    assert_true(client_ends(b, 15));
    assert_true(client_ends(c, 15));
    close(a);
    close(b);
    close(c);
    still_serves(f);
}

/* Half-closing is fine for what is answered at once, and leaving for what must be waited for. */
static void half_closed_connections_do_not_hang(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    int fd = client_open(f->port);
    client_puts(fd, "GET /quick HTTP/1.1\r\n" HOST "\r\n");
    shutdown(fd, SHUT_WR);
    client_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    assert_true(client_ends(fd, 5));
    close(fd);
    fd = client_open(f->port);
    client_puts(fd, "POST /v1/job HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}");
    struct http_exchange *x = job_take(f);
    shutdown(fd, SHUT_WR);
    assert_true(job_gone(f, 1, 5));
    assert_true(client_ends(fd, 5));
    http_drop(x);
    close(fd);
    fd = client_open(f->port);
    client_puts(fd, "POST /v1/job HTTP/1.1\r\n" HOST "Content-Length: 200\r\n\r\n{}");
    shutdown(fd, SHUT_WR);
    assert_true(client_ends(fd, 5));
    close(fd);
    still_serves(f);
}

/* ---- many ------------------------------------------------------------------------------------ */

static void a_thousand_idle_connections_do_not_slow_the_rest(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    enum { N = 1000 };
    static int fd[N];
    o.idle_seconds = 60;
    fixture_start(&f, &o);
    for (int i = 0; i < N; i++) {
        fd[i] = client_open(f.port);
        assert_true(fd[i] >= 0);
        if (i % 2) { /* half of them have had an answer already */
            struct reply r;
            client_puts(fd[i], "GET /quick HTTP/1.1\r\n" HOST "\r\n");
            client_read(fd[i], &r, false);
            assert_int_equal(r.status, 200);
            reply_free(&r);
        }
    }
    double t0 = seconds_now();
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(f.port, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_true(seconds_now() - t0 < 30);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    fixture_stop(&f);
}

/* Places run out: those that are idle longest make room, those at work stay. */
static void idle_connections_make_room(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    enum { N = 400 };
    static int fd[N];
    o.idle_seconds = 60;
    o.connections = 64;
    fixture_start(&f, &o);
    int job = client_open(f.port);
    client_puts(job, "POST /v1/job HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}");
    struct http_exchange *x = job_take(&f);
    for (int i = 0; i < N; i++)
        fd[i] = client_open(f.port);
    assert_int_equal(ask(f.port, "GET /quick HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_true(client_ends(fd[0], 5));
    struct reply r;
    http_send(x, 200, "text/plain", "hi", 2);
    http_drop(x);
    client_read(job, &r, false);
    assert_string_equal(r.body, "hi");
    reply_free(&r);
    close(job);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    fixture_stop(&f);
}

static void running_out_of_descriptors_is_survived(void **state)
{
    struct fixture f;
    struct rlimit was, few;
    static int fd[256], dup_fd[256];
    fixture_start(&f, &fixture_opts);
    int n = 0, m = 0, client = client_open(f.port), waiting = client_open(f.port);
    still_serves(&f);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = count_fds() + 20;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    /* None is left for the server to accept with: what we open ourselves takes all. */
    while (n < 8 && (fd[n] = client_open(f.port)) >= 0)
        n++;
    while (m < 256 && (dup_fd[m] = fcntl(client, F_DUPFD_CLOEXEC, 0)) >= 0)
        m++;
    nap(0.2);
    struct reply r;
    client_puts(client, "GET /quick HTTP/1.1\r\n" HOST "\r\n");
    client_read(client, &r, false); /* those that are connected go on */
    assert_int_equal(r.status, 200);
    reply_free(&r);
    for (int i = 0; i < m; i++)
        close(dup_fd[i]);
    for (int i = 0; i < n; i++)
        close(fd[i]);
    close(client);
    close(waiting);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    still_serves(&f);
    fixture_stop(&f);
}

static size_t memory_in_use(void)
{
    return mallinfo2().uordblks;
}

static void nothing_is_left_of_all_that(void **state)
{
    struct fixture f;
    size_t begin = 0, fds = 0;
    fixture_start(&f, &fixture_opts);
    for (int round = 0; round < 300; round++) {
        if (round == 50) {
            assert_true(active_is(&f, 0));
            nap(2.5); /* lingering sockets */
            begin = memory_in_use();
            fds = count_fds();
        }
        int fd = client_open(f.port);
        switch (round % 6) {
        case 0:
            client_puts(fd, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n{");
            break;
        case 1:
            client_puts(fd, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 99999999\r\n\r\n{");
            break;
        case 2:
            client_puts(fd, "GET /qu");
            break;
        case 3:
            client_puts(fd, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n{");
            break;
        default: {
            client_puts(fd, "POST /v1/job HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}");
            struct http_exchange *x = job_take(&f);
            if (round % 2)
                http_stream(x, HTTP_EVENTS, NULL);
            http_write(x, "x", 1, NULL);
            if (round % 3)
                http_end(x);
            http_drop(x);
        }
        }
        close(fd);
    }
    assert_true(active_is(&f, 0));
    nap(2.5);
    assert_int_equal(count_fds(), fds);
    size_t end = memory_in_use();
    if (end > begin + (64 << 10))
        fail_msg("%zu bytes more than before", end - begin);
    fixture_stop(&f);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(heads_without_end_are_refused),
        T(malformed_requests_are_refused),
        T(paths_are_resolved_before_they_are_looked_up),
        T(lengths_that_can_be_misread_are_refused),
        T(chunked_bodies_are_read_and_bounded),
        T(large_bodies_are_refused_before_they_are_read),
        T(pipelined_requests_are_answered_in_order),
        T(trickling_heads_and_bodies_are_ended),
        T(silent_connections_are_ended),
        T(half_closed_connections_do_not_hang),
        cmocka_unit_test(a_thousand_idle_connections_do_not_slow_the_rest),
        cmocka_unit_test(idle_connections_make_room),
        cmocka_unit_test(running_out_of_descriptors_is_survived),
        cmocka_unit_test(nothing_is_left_of_all_that),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
