/*
 * The HTTP server as clients see it: shapes of answers, streams and their signs of life, clients
 * that leave, keys, origins, draining. Hostile input is in test_http_hostile.c.
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

#include <openssl/sha.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
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

static void post(char *out, size_t cap, const char *path, const char *body)
{
    snprintf(out, cap,
             "POST %s HTTP/1.1\r\n" HOST "Content-Type: application/json\r\nContent-Length: "
             "%zu\r\n\r\n%s",
             path, strlen(body), body);
}

static void ask_post(int port, const char *path, const char *body, struct reply *r)
{
    char text[4096];
    post(text, sizeof text, path, body);
    client_ask(port, text, r);
}

/* The status of an answer, which must be complete. */
static int ask(int port, const char *request)
{
    struct reply r;
    client_ask(port, request, &r);
    int status = r.complete ? r.status : -r.status;
    reply_free(&r);
    return status;
}

static void quick_and_pooled_routes_answer(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    char v[100];
    client_ask(f->port, "GET /quick?name=a%20b+c HTTP/1.1\r\n" HOST "\r\n", &r);
    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_non_null(strstr(r.body, "\"name\":\"a b c\""));
    assert_string_equal(reply_header(&r, "Content-Type", v, sizeof v), "application/json");
    assert_non_null(reply_header(&r, "X-Request-Id", v, sizeof v));
    assert_true(strlen(v) > 20);
    reply_free(&r);
    ask_post(f->port, "/v1/echo", "{\"a\":[1,\"\xc3\xa9\"]}", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "{\"a\":[1,\"\xc3\xa9\"]}");
    reply_free(&r);
}

static void stars_stand_for_any_rest(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    client_ask(f->port, "GET /v1/models/deepseek-ai%2FDeepSeek-R1:latest HTTP/1.1\r\n" HOST "\r\n",
               &r);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body, "\"rest\":\"deepseek-ai/DeepSeek-R1:latest\""));
    reply_free(&r);
    assert_int_equal(ask(f->port, "GET /v1/models/ HTTP/1.1\r\n" HOST "\r\n"), 200);
}

static void ids_come_from_the_client_or_are_made(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    char v[200];
    client_ask(f->port, "GET /quick HTTP/1.1\r\n" HOST "X-Request-Id: my-1.2_3\r\n\r\n", &r);
    assert_string_equal(reply_header(&r, "X-Request-Id", v, sizeof v), "my-1.2_3");
    reply_free(&r);
    client_ask(f->port, "GET /quick HTTP/1.1\r\n" HOST "X-Request-Id: a b<>\r\n\r\n", &r);
    assert_int_equal(strncmp(reply_header(&r, "X-Request-Id", v, sizeof v), "req-", 4), 0);
    reply_free(&r);
}

/* Errors look as the API of the path wants them. */
static void errors_have_the_shape_of_their_api(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    static const struct {
        const char *request;
        int status;
        const char *begin, *has;
    } rows[] = {
        {"GET /api/nothing HTTP/1.1\r\n" HOST "\r\n", 404, "{\"error\":\"", "/api/nothing"},
        {"GET /v1/nothing HTTP/1.1\r\n" HOST "\r\n", 404, "{\"error\":{\"message\":\"",
         "\"code\":\"not_found\""},
        {"GET /beta/nothing HTTP/1.1\r\n" HOST "\r\n", 404, "{\"error\":{\"message\":\"",
         "\"param\":null"},
        {"GET /nothing HTTP/1.1\r\n" HOST "\r\n", 404, "{\"error\":\"", "nothing"},
        {"GET /v1/messages HTTP/1.1\r\n" HOST "\r\n", 405,
         "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"",
         "request_id"},
        {"GET /v1/echo HTTP/1.1\r\n" HOST "\r\n", 405, "{\"error\":{\"message\":\"",
         "method_not_allowed"},
        {"POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n42", 400,
         "{\"error\":{\"message\":\"", "must be a JSON object"},
        {"POST /api/echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n42", 400, "{\"error\":\"",
         "must be a JSON object"},
        {"POST /v1/messages HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", 400,
         "{\"type\":\"error\"", "empty"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char type[64];
        client_ask(f->port, rows[i].request, &r);
        assert_int_equal(r.status, rows[i].status);
        assert_string_equal(reply_header(&r, "Content-Type", type, sizeof type),
                            "application/json");
        assert_int_equal(strncmp(r.body, rows[i].begin, strlen(rows[i].begin)), 0);
        if (!strstr(r.body, rows[i].has))
            fail_msg("%s", r.body);
        json_t *v = json_loads(r.body, 0, NULL);
        assert_non_null(v);
        json_decref(v);
        reply_free(&r);
    }
}

static void wrong_methods_are_told_the_right_ones(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    char v[64];
    client_ask(f->port, "PUT /api/echo HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow", v, sizeof v), "POST, DELETE, OPTIONS");
    reply_free(&r);
    client_ask(f->port, "POST /quick HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}", &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow", v, sizeof v), "GET, HEAD, OPTIONS");
    reply_free(&r);
}

static void head_is_get_without_a_body(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    char v[64];
    int fd = client_open(f->port);
    client_puts(fd, "HEAD /quick HTTP/1.1\r\n" HOST "\r\nGET /quick HTTP/1.1\r\n" HOST "\r\n");
    client_read(fd, &r, true);
    assert_int_equal(r.status, 200);
    assert_true(atoi(reply_header(&r, "Content-Length", v, sizeof v)) > 10);
    reply_free(&r);
    client_read(fd, &r, false); /* on the same connection: nothing was left over */
    assert_int_equal(r.status, 200);
    reply_free(&r);
    close(fd);
}

static void json_is_read_within_bounds(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    static const struct {
        const char *body;
        int status;
    } rows[] = {
        {"{\"a\":1,\"a\":2}", 200},
        {"\xef\xbb\xbf{}", 200},
        {" \n{}\n ", 200},
        {"null", 400},
        {"[]", 400},
        {"\"x\"", 400},
        {"{", 400},
        {"{}x", 400},
        {"{\"a\":1e999}", 400},
        {"{\"a\":18446744073709551616}", 200},
        {"{\"a\":NaN}", 400},
        {"{\"a\":\"\\ud800\"}", 400},
        {"{\"a\":\"\xff\"}", 400},
        {"{\"a\":\"\xed\xa0\x80\"}", 400},
        {"{\"a\":\"\\u0000\"}", 200}, /* text may hold anything */
        {"{\"\\u0000\\\\u0000\":1e308}", 200},
        {"{\"a\":-123456789012345678901234567890}", 200},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ask_post(f->port, "/v1/echo", rows[i].body, &r);
        if (r.status != rows[i].status)
            fail_msg("%s: %d", rows[i].body, r.status);
        reply_free(&r);
    }
    ask_post(f->port, "/v1/echo", "{\"a\":1,\"a\":2}", &r);
    assert_string_equal(r.body, "{\"a\":2}"); /* the last one counts */
    reply_free(&r);
    char deep[300] = "{\"a\":";
    for (size_t depth = 64; depth <= 65; depth++) {
        size_t n = 5;
        memset(deep + n, '[', depth - 1);
        memset(deep + n + depth - 1, ']', depth - 1);
        strcpy(deep + n + 2 * (depth - 1), "}");
        ask_post(f->port, "/v1/echo", deep, &r);
        assert_int_equal(r.status, depth == 64 ? 200 : 400);
        reply_free(&r);
    }
}

/* ---- streams --------------------------------------------------------------------------------- */

static int job_open(struct fixture *f, const char *path, struct http_exchange **x)
{
    char text[512];
    int fd = client_open(f->port);
    post(text, sizeof text, path, "{}");
    client_puts(fd, text);
    *x = job_take(f);
    assert_non_null(*x);
    return fd;
}

static void put(struct http_exchange *x, const char *s)
{
    struct err e = {0};
    if (http_write(x, s, strlen(s), &e))
        fail_msg("%s", e.text);
}

static void events_are_framed_and_each_is_a_piece(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    char v[64];
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    for (int i = 0; i < 3; i++) {
        put(x, "{\"n\":\"\xe4\xb8\xad\"}");
        nap(0.05); /* so that they are sent one by one */
    }
    put(x, "[DONE]");
    http_end(x);
    http_drop(x);
    client_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_string_equal(reply_header(&r, "Content-Type", v, sizeof v), "text/event-stream");
    assert_string_equal(r.body,
                        "data: {\"n\":\"\xe4\xb8\xad\"}\n\ndata: {\"n\":\"\xe4\xb8\xad\"}\n\n"
                        "data: {\"n\":\"\xe4\xb8\xad\"}\n\ndata: [DONE]\n\n");
    assert_true(r.chunks >= 3 && r.chunks <= 4);
    reply_free(&r);
    /* The connection goes on. */
    client_puts(fd, "GET /quick HTTP/1.1\r\n" HOST "\r\n");
    client_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    close(fd);
}

/* The shape of an error is that of the API, also when the rest of the path is rubbish. */
static void malformed_targets_are_told_in_the_words_of_their_api(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    client_ask(f->port, "GET /v1/models/a%01 HTTP/1.1\r\n" HOST "\r\n", &r);
    assert_int_equal(r.status, 400);
    assert_non_null(strstr(r.body, "\"error\":{\"message\":"));
    reply_free(&r);
    client_ask(f->port, "GET /api/%00 HTTP/1.1\r\n" HOST "\r\n", &r);
    assert_int_equal(r.status, 400);
    assert_non_null(strstr(r.body, "{\"error\":\""));
    reply_free(&r);
}

static void named_events_have_their_names(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_NAMED, NULL), 0);
    put(x, "ping\n{\"type\":\"ping\"}");
    http_error(x, 500, NULL, NULL, NULL, "broken");
    http_drop(x);
    client_read(fd, &r, false);
    assert_true(r.complete);
    const char *first = "event: ping\ndata: {\"type\":\"ping\"}\n\nevent: error\ndata: {";
    assert_int_equal(strncmp(r.body, first, strlen(first)), 0);
    assert_string_equal(r.body + r.n - 2, "\n\n");
    reply_free(&r);
    close(fd);
}

/* Whoever took it back is not told that the client has left. */
static void what_was_taken_back_is_not_called(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    int fd = job_open(f, "/v1/job", &x);
    http_on_gone(x, NULL, NULL);
    close(fd);
    assert_false(job_gone(f, 1, 0.5));
    assert_int_not_equal(http_stream(x, HTTP_EVENTS, NULL), 0); /* it did leave */
    http_drop(x);
}

static void lines_end_in_one_newline_each(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    int fd = job_open(f, "/api/job", &x);
    assert_int_equal(http_stream(x, HTTP_LINES, NULL), 0);
    put(x, "{\"a\":1}");
    put(x, "{\"a\":2}");
    http_end(x);
    http_drop(x);
    client_read(fd, &r, false);
    assert_string_equal(r.body, "{\"a\":1}\n{\"a\":2}\n");
    reply_free(&r);
    close(fd);
}

static void large_pieces_are_cut_between_characters(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    enum { N = 300000 };
    char *big = malloc(N + 1);
    assert_non_null(big);
    for (size_t i = 0; i < N; i += 3)
        memcpy(big + i, "\xe4\xb8\xad", 3);
    big[N] = 0;
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    put(x, big);
    http_end(x);
    http_drop(x);
    client_read(fd, &r, false);
    assert_true(r.complete);
    assert_int_equal(r.n, 6 + N + 2);
    assert_memory_equal(r.body + 6, big, N);
    assert_true(r.chunks >= 4);
    reply_free(&r);
    free(big);
    close(fd);
}

static void http10_gets_a_stream_up_to_the_end(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    int fd = client_open(f->port);
    client_puts(fd, "POST /v1/job HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}");
    struct http_exchange *x = job_take(f);
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    put(x, "1");
    nap(0.1);
    put(x, "2");
    http_end(x);
    http_drop(x);
    client_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "data: 1\n\ndata: 2\n\n");
    reply_free(&r);
    close(fd);
}

static void silence_is_broken_by_signs_of_life(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *path;
        enum http_stream kind;
        const char *text, *sign, *rest;
    } rows[] = {
        {"/v1/job", HTTP_EVENTS, "x", ": keep-alive\n\n", "data: x\n\n"},
        {"/api/job", HTTP_LINES, "{}", " ", "{}\n"},
        {"/v1/job", HTTP_WHOLE, "{\"a\":1}", " ", "{\"a\":1}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http_exchange *x;
        struct reply r;
        int fd = job_open(f, rows[i].path, &x);
        nap(0.6); /* nothing before it is accepted: it might still fail */
        char c;
        assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), -1);
        assert_int_equal(http_stream(x, rows[i].kind, NULL), 0);
        nap(1);
        put(x, rows[i].text);
        http_end(x);
        http_drop(x);
        client_read(fd, &r, false);
        assert_int_equal(r.status, 200);
        assert_true(r.complete);
        size_t n = 0, sign = strlen(rows[i].sign);
        const char *s = r.body;
        for (; !strncmp(s, rows[i].sign, sign); s += sign)
            n++;
        if (n < 1 || n > 6)
            fail_msg("%zu signs in %s", n, r.body);
        assert_string_equal(s, rows[i].rest);
        reply_free(&r);
        close(fd);
    }
}

/* What is announced begins when it takes long, and until then may be anything. */
static void announced_answers_give_signs_of_life(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum http_stream kind;
        const char *sign, *answer, *error;
    } rows[] = {
        {HTTP_EVENTS, ": keep-alive\n\n", "data: {}\n\n", "data: {\"error\":"},
        {HTTP_LINES, " ", "{}\n", "{\"error\":"},
        {HTTP_WHOLE, " ", "{}", "{\"error\":"},
    };
    for (size_t i = 0; i < 4 * (sizeof rows / sizeof *rows); i++) {
        bool late = i & 1, wrong = i & 2;
        struct http_exchange *x;
        struct reply r;
        char v[64];
        int fd = job_open(f, "/v1/job", &x);
        http_await(x, rows[i / 4].kind);
        nap(late ? 0.7 : 0);
        if (wrong) {
            http_error(x, 404, NULL, NULL, NULL, "gone");
        } else {
            assert_int_equal(http_stream(x, rows[i / 4].kind, NULL), 0);
            put(x, "{}");
            http_end(x);
        }
        http_drop(x);
        client_read(fd, &r, false);
        assert_true(r.complete);
        assert_int_equal(r.status, wrong && !late ? 404 : 200);
        const char *s = r.body, *sign = rows[i / 4].sign;
        assert_int_equal(!strncmp(s, sign, strlen(sign)), late);
        while (!strncmp(s, sign, strlen(sign)))
            s += strlen(sign);
        if (wrong && late)
            assert_int_equal(strncmp(s, rows[i / 4].error, strlen(rows[i / 4].error)), 0);
        else if (wrong)
            assert_string_equal(reply_header(&r, "Content-Type", v, sizeof v), "application/json");
        else
            assert_string_equal(s, rows[i / 4].answer);
        reply_free(&r);
        close(fd);
    }
}

static void one_object_in_time_has_a_length_and_errors_their_status(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    char v[64];
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_WHOLE, NULL), 0);
    put(x, "{\"a\":");
    put(x, "1}");
    http_end(x);
    http_drop(x);
    client_read(fd, &r, false);
    assert_string_equal(r.body, "{\"a\":1}");
    assert_string_equal(reply_header(&r, "Content-Length", v, sizeof v), "7");
    reply_free(&r);
    close(fd);
    fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_WHOLE, NULL), 0);
    http_error_from(x, &(struct err){ERR_BUSY, "too many"});
    http_drop(x);
    client_read(fd, &r, false);
    assert_int_equal(r.status, 503);
    assert_non_null(reply_header(&r, "Retry-After", v, sizeof v));
    assert_non_null(strstr(r.body, "\"too many\""));
    reply_free(&r);
    close(fd);
}

static void errors_after_the_beginning_are_the_last_event(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    put(x, "{}");
    http_error(x, 500, NULL, NULL, NULL, "it broke");
    http_drop(x);
    client_read(fd, &r, false);
    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_int_equal(strncmp(r.body, "data: {}\n\ndata: {\"error\":{\"message\":\"it broke\"", 46),
                     0);
    assert_string_equal(r.body + r.n - 4, "}}\n\n");
    reply_free(&r);
    close(fd);
    fd = job_open(f, "/api/job", &x);
    assert_int_equal(http_stream(x, HTTP_LINES, NULL), 0);
    http_error(x, 500, NULL, NULL, NULL, "it broke");
    http_drop(x);
    client_read(fd, &r, false);
    assert_string_equal(r.body, "{\"error\":\"it broke\"}\n");
    reply_free(&r);
    close(fd);
}

static void a_handler_that_forgets_its_request_does_not_hang_it(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    struct http_exchange *x;
    ask_post(f->port, "/silent", "{}", &r);
    assert_int_equal(r.status, 500);
    reply_free(&r);
    int fd = job_open(f, "/v1/job", &x);
    http_drop(x);
    client_read(fd, &r, false);
    assert_int_equal(r.status, 500);
    reply_free(&r);
    close(fd);
}

/* ---- clients that leave ---------------------------------------------------------------------- */

static void leaving_is_seen_before_the_answer_begins(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct err e = {0};
    int fd = job_open(f, "/v1/job", &x);
    close(fd);
    assert_true(job_gone(f, 1, 5));
    assert_int_equal(http_stream(x, HTTP_EVENTS, &e), ERR_CANCELLED);
    http_drop(x);
    assert_true(active_is(f, 0));
}

static void leaving_is_seen_in_silent_answers(void **state)
{
    struct fixture *f = *state;
    static const enum http_stream kinds[] = {HTTP_EVENTS, HTTP_LINES, HTTP_WHOLE};
    for (int i = 0; i < 3; i++) {
        struct http_exchange *x;
        struct err e = {0};
        int fd = job_open(f, "/v1/job", &x);
        assert_int_equal(http_stream(x, kinds[i], NULL), 0);
        put(x, "{}");
        double t0 = seconds_now();
        close(fd);
        assert_true(job_gone(f, i + 1, 5));
        assert_true(seconds_now() - t0 < 3);
        assert_int_equal(http_write(x, "1", 1, &e), ERR_CANCELLED);
        http_end(x);
        http_drop(x);
        assert_true(active_is(f, 0));
    }
}

/* However long others have been idle. */
static void who_left_costs_no_descriptor(void **state)
{
    struct fixture own, *f = &own;
    struct http_opts o = fixture_opts;
    (void)state;
    o.idle_seconds = 60;
    o.head_seconds = 60;
    fixture_start(f, &o);
    struct linger now = {1, 0};
    int idle = client_open(f->port), i;
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.1\r\n" HOST "\r\n"), 200);
    size_t before = count_fds(), after = SIZE_MAX;
    for (i = 0; i < 6; i++) {
        struct http_exchange *x;
        int fd = job_open(f, "/v1/job", &x);
        assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
        put(x, "{}");
        if (i % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(fd);
        assert_true(job_gone(f, i + 1, 5));
        http_drop(x);
        assert_true(active_is(f, 0));
    }
    for (i = 0; i < 100 && after > before; i++) {
        nap(0.05);
        after = count_fds();
    }
    assert_true(after <= before);
    close(idle);
    fixture_stop(f);
}

/* A reset while the server writes: SIGPIPE would end this program. */
static void resets_in_the_middle_of_a_stream_are_survived(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct linger now = {1, 0};
    char big[4096];
    memset(big, 'x', sizeof big);
    int fd = job_open(f, "/v1/job", &x), n = 0;
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    for (; n < 100; n++)
        if (http_write(x, big, sizeof big, NULL))
            break;
    close(fd);
    while (!http_write(x, big, sizeof big, NULL) && n < 10000) {
        nap(0.001);
        n++;
    }
    assert_true(n < 10000);
    assert_true(job_gone(f, 1, 5));
    http_drop(x);
    assert_true(active_is(f, 0));
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.1\r\n" HOST "\r\n"), 200);
}

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

static void being_gone_is_told_late_comers_at_once(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    int fd = job_open(f, "/v1/job", &x);
    close(fd);
    assert_true(job_gone(f, 1, 5));
    bool told = false;
    http_on_gone(x, set_flag, &told);
    assert_true(told);
    http_drop(x);
    assert_true(active_is(f, 0));
}

static void complete_answers_are_not_gone(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    int fd = job_open(f, "/v1/job", &x);
    http_send(x, 200, "text/plain", "hi", 2);
    client_read(fd, &r, false);
    assert_string_equal(r.body, "hi");
    reply_free(&r);
    close(fd);
    assert_true(active_is(f, 0));
    nap(0.3);
    http_drop(x);
    assert_int_equal(f->gone, 0);
}

static void readers_that_are_too_slow_are_cut_off(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct err e = {0};
    static char big[1 << 20];
    memset(big, 'x', sizeof big);
    int fd = job_open(f, "/v1/job", &x), rc = 0;
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    /* What the kernel's buffers hold, and then 8 MiB. */
    for (int i = 0; i < 64 && !rc; i++)
        rc = http_write(x, big, sizeof big, &e);
    assert_int_equal(rc, ERR_LIMIT);
    http_drop(x);
    assert_true(client_ends(fd, 10));
    assert_true(active_is(f, 0));
    assert_int_equal(f->gone, 0); /* it knows from the return value */
    close(fd);
}

/* A client that rests is not cut off before 8 MiB wait for it, and misses nothing. */
static void who_reads_late_misses_nothing(void **state)
{
    struct fixture *f = *state;
    for (int k = 0; k < 2; k++) {
        static char text[1 << 16];
        enum { PIECES = 120 };
        struct reply r;
        int fd = client_open(f->port);
        client_puts(fd, k ? "POST /v1/job HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
                          : "POST /v1/job HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}");
        struct http_exchange *x = job_take(f);
        assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
        put(x, "first");
        nap(0.1); /* from here on the socket is filled, and overflows */
        for (int i = 0; i < PIECES; i++) {
            memset(text, 'a' + i % 26, sizeof text - 1);
            put(x, text);
        }
        http_end(x);
        http_drop(x);
        nap(0.1);
        client_read(fd, &r, false);
        size_t each = 6 + sizeof text - 1 + 2, head = strlen("data: first\n\n");
        assert_int_equal(r.n, head + PIECES * each);
        for (int i = 0; i < PIECES; i++)
            for (size_t c = 0; c < sizeof text - 1; c += 997)
                assert_int_equal(r.body[head + (size_t)i * each + 6 + c], 'a' + i % 26);
        reply_free(&r);
        close(fd);
        assert_true(active_is(f, 0));
    }
}

/* Writes more than sockets hold to a client that reads nothing, and ends. */
static int job_unread(struct fixture *f)
{
    static char text[1 << 20];
    struct http_exchange *x;
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    put(x, "first");
    nap(0.1);
    memset(text, 'x', sizeof text - 1);
    for (int i = 0; i < 7; i++)
        put(x, text);
    http_end(x);
    http_drop(x);
    return fd;
}

/* What waits in the end ends with its client, although no handler is there to be told. */
static void leaving_before_the_last_bytes_is_seen(void **state)
{
    struct fixture *f = *state;
    int fd = job_unread(f);
    assert_int_equal(http_active(f->http), 1);
    close(fd);
    assert_true(active_is(f, 0));
    assert_int_equal(f->gone, 0);
}

static void who_takes_nothing_is_cut_off(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    o.idle_seconds = 1;
    o.access_log = true;
    fixture_start(&f, &o);
    int fd = job_unread(&f);
    assert_true(active_is(&f, 0));
    close(fd);
    struct http *h = f.http;
    f.http = NULL;
    http_free(h);
    assert_non_null(strstr(f.log_text, "it read too slowly"));
    fixture_stop(&f);
}

/* A client that always has something to read is served from a buffer that does not grow. */
static void who_is_always_behind_misses_nothing(void **state)
{
    struct fixture *f = *state;
    static char text[1 << 20], got[1 << 20];
    struct http_exchange *x;
    size_t sum = 0;
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_stream(x, HTTP_EVENTS, NULL), 0);
    put(x, "first");
    nap(0.1);
    memset(text, 'Z', sizeof text - 1);
    for (int i = 0; i < 6; i++)
        put(x, text);
    for (int i = 0; i < 40; i++) {
        for (size_t n = 0; n < sizeof text;) {
            ssize_t k = recv(fd, got, sizeof got - n, 0);
            assert_true(k > 0);
            for (ssize_t c = 0; c < k; c++)
                sum += got[c] == 'Z';
            n += (size_t)k;
        }
        put(x, text);
    }
    http_end(x);
    http_drop(x);
    while (sum < 46 * (sizeof text - 1)) {
        ssize_t k = recv(fd, got, sizeof got, 0);
        assert_true(k > 0);
        for (ssize_t c = 0; c < k; c++)
            sum += got[c] == 'Z';
    }
    assert_int_equal(sum, 46 * (sizeof text - 1));
    close(fd);
    assert_true(active_is(f, 0));
}

/* With `ascii` nothing else goes out, whatever comes in, errors too. */
static void answers_may_be_ascii(void **state)
{
    (void)state;
    struct fixture f;
    struct http_opts o = fixture_opts;
    struct reply r;
    o.ascii = true;
    fixture_start(&f, &o);
    ask_post(f.port, "/v1/echo", "{\"a\":\"\xe4\xb8\xad\xf0\x9f\x99\x82\"}", &r);
    assert_string_equal(r.body, "{\"a\":\"\\u4E2D\\uD83D\\uDE42\"}");
    reply_free(&r);
    client_ask(f.port, "GET /v1/%C3%A9 HTTP/1.1\r\n" HOST "\r\n", &r);
    assert_int_equal(r.status, 404);
    assert_non_null(strstr(r.body, "\\u00E9"));
    reply_free(&r);
    fixture_stop(&f);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void write_key_file(char path[64], const char *key)
{
    unsigned char h[32];
    strcpy(path, "/tmp/ponder-keys-XXXXXX");
    int fd = mkstemp(path);
    FILE *o = fdopen(fd, "w");
    SHA256((const unsigned char *)key, strlen(key), h);
    fputs("# keys\n\n", o);
    for (int i = 0; i < 32; i++)
        fprintf(o, "%02X", h[i]);
    fputs(" somebody\n", o);
    fclose(o);
}

static int ask_key(int port, const char *path, const char *header)
{
    char text[2048];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "%s\r\n", path, header);
    return ask(port, text);
}

static void keys_guard_everything_but_health(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    char path[64];
    static const char *const keys[] = {"sk-one", "sk-two"};
    write_key_file(path, "sk-file");
    o.api_key = keys;
    o.n_api_key = 2;
    o.key_file = path;
    fixture_start(&f, &o);
    static const struct {
        const char *header;
        int status;
    } rows[] = {
        {"", 401},
        {"Authorization: Bearer sk-one\r\n", 200},
        {"Authorization: bearer   sk-two\r\n", 200},
        {"authorization: BEARER sk-file\r\n", 200},
        {"X-Api-Key: sk-one\r\n", 200},
        {"x-api-key: sk-file\r\n", 200},
        {"Api-Key: sk-two\r\n", 200},
        {"Api-Key: sk-tw\r\n", 401},
        {"Api-Key: sk-two\r\nApi-Key: sk-two\r\n", 401},
        {"X-Api-Key:\r\n", 401},
        {"X-Api-Key: no\r\nApi-Key: sk-two\r\n", 401},
        {"Authorization: Bearer sk-on\r\n", 401},
        {"Authorization: Bearer sk-one2\r\n", 401},
        {"Authorization: Bearer\r\n", 401},
        {"Authorization: Bearer \r\n", 401},
        {"Authorization: Basic c2stb25l\r\n", 401},
        {"Authorization: sk-one\r\n", 401},
        {"Authorization:\r\n", 401},
        {"Authorization: Bearer sk-one\r\nAuthorization: Bearer sk-one\r\n", 401},
        {"Authorization: Bearer no\r\nX-Api-Key: sk-one\r\n", 401},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (ask_key(f.port, "/quick", rows[i].header) != rows[i].status)
            fail_msg("%s", rows[i].header);
        assert_int_equal(ask_key(f.port, "/health", rows[i].header), 200);
    }
    struct reply r;
    client_ask(f.port,
               "GET /quick HTTP/1.1\r\n" HOST "Authorization: Bearer sk-long-secret\r\n\r\n", &r);
    assert_null(strstr(r.body, "sk-long"));
    assert_non_null(strstr(r.body, "****cret"));
    reply_free(&r);
    client_ask(f.port, "GET /quick HTTP/1.1\r\n" HOST "Authorization: Bearer sk-one\r\n\r\n", &r);
    assert_non_null(strstr(r.body, "\"owner\":1"));
    reply_free(&r);
    /* Preflights carry no key. */
    assert_int_equal(ask(f.port,
                         "OPTIONS /quick HTTP/1.1\r\n" HOST "Origin: http://localhost:3000\r\n"
                         "Access-Control-Request-Method: GET\r\n\r\n"),
                     204);
    fixture_stop(&f);
    FILE *bad = fopen(path, "w");
    fputs("sk-file\n", bad);
    fclose(bad);
    struct http *h;
    struct err e = {0};
    assert_int_equal(http_new(&h, &o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "line 1"));
    unlink(path);
}

static void without_keys_any_bearer_will_do(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask_key(f->port, "/quick", "Authorization: Bearer ollama\r\n"), 200);
    assert_int_equal(ask_key(f->port, "/quick", "Authorization: nonsense\r\n"), 200);
}

/* ---- Host and origins ------------------------------------------------------------------------ */

static void foreign_names_of_a_local_server_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *host;
        int status;
    } rows[] = {
        {"localhost", 200},
        {"localhost:11434", 200},
        {"LocalHost", 200},
        {"127.0.0.1:1", 200},
        {"127.9.9.9", 200},
        {"[::1]:11434", 200},
        {"192.168.1.7", 200},
        {"10.0.0.1", 200},
        {"172.16.0.1:80", 200},
        {"172.32.0.1", 403},
        {"8.8.8.8", 403},
        {"evil.com", 403},
        {"evil.com:11434", 403},
        {"localhost.evil.com", 403},
        {"ponder.local", 200},
        {"host.docker.internal", 200},
        {"a.localhost", 200},
        {"local", 403},
        {"[fe80::1]", 200},
        {"[2001:db8::1]", 403},
        {"[::ffff:8.8.8.8]", 403},
        {"127.0.0.1.evil.com", 403},
        {"evil.com.", 403},
        {"localhost.", 200},
        {"[::1", 403},
        {"a b", 403},
        {"localhost:x", 403},
        {"0x7f.1", 403},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[300];
        snprintf(text, sizeof text, "GET /quick HTTP/1.1\r\nHost: %s\r\n\r\n", rows[i].host);
        int status = ask(f->port, text);
        if (status != rows[i].status)
            fail_msg("%s: %d", rows[i].host, status);
    }
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.0\r\n\r\n"), 200);
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(ask(f->port, "GET /quick HTTP/1.1\r\n" HOST "Host: evil.com\r\n\r\n"), 400);
}

static void hosts_are_free_where_everybody_may_connect(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    o.host = "0.0.0.0";
    fixture_start(&f, &o);
    assert_int_equal(ask(f.port, "GET /quick HTTP/1.1\r\nHost: ponder.example.com\r\n\r\n"), 200);
    /* A page that came from this server, by whatever name. */
    assert_int_equal(ask(f.port, "GET /quick HTTP/1.1\r\nHost: ponder.example.com:99\r\n"
                                 "Origin: https://ponder.example.com:99\r\n\r\n"),
                     200);
    assert_int_equal(ask(f.port, "GET /quick HTTP/1.1\r\nHost: ponder.example.com\r\n"
                                 "Origin: https://evil.com\r\n\r\n"),
                     403);
    fixture_stop(&f);
}

static int ask_origin(int port, const char *origin, char allow[200])
{
    struct reply r;
    char text[600];
    snprintf(text, sizeof text, "GET /quick HTTP/1.1\r\n" HOST "Origin: %s\r\n\r\n", origin);
    client_ask(port, text, &r);
    int status = r.status;
    if (!reply_header(&r, "Access-Control-Allow-Origin", allow, 200))
        *allow = 0;
    char v[64];
    assert_null(reply_header(&r, "Access-Control-Allow-Credentials", v, sizeof v));
    reply_free(&r);
    return status;
}

static void origins_of_this_machine_are_allowed(void **state)
{
    struct fixture *f = *state;
    char allow[200];
    static const char *const good[] = {
        "http://localhost", "http://localhost:3000", "https://127.0.0.1:8080",
        "http://0.0.0.0",   "http://[::1]:5173",     "app://obsidian.md",
        "file://",          "tauri://localhost",     "vscode-webview://abc"};
    static const char *const bad[] = {"http://evil.com",
                                      "null",
                                      "https://localhost.evil.com",
                                      "http://127.0.0.1.evil.com",
                                      "chrome-extension://abc",
                                      "http://localhost@evil.com",
                                      "ftp://localhost",
                                      ""};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (ask_origin(f->port, good[i], allow) != 200)
            fail_msg("%s", good[i]);
        assert_string_equal(allow, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (ask_origin(f->port, bad[i], allow) != 403)
            fail_msg("%s", bad[i]);
        assert_string_equal(allow, "");
    }
    assert_int_equal(f->quick, (int)(sizeof good / sizeof *good)); /* the bad never got there */
}

static void further_origins_can_be_allowed(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    char allow[200];
    static const char *const some[] = {"https://chat.example.com", "chrome-extension://*"};
    static const char *const all[] = {"*"};
    o.origin = some;
    o.n_origin = 2;
    fixture_start(&f, &o);
    assert_int_equal(ask_origin(f.port, "https://chat.example.com", allow), 200);
    assert_string_equal(allow, "https://chat.example.com");
    assert_int_equal(ask_origin(f.port, "chrome-extension://xyz", allow), 200);
    assert_int_equal(ask_origin(f.port, "https://chat.example.com.evil.com", allow), 403);
    fixture_stop(&f);
    o.origin = all;
    o.n_origin = 1;
    fixture_start(&f, &o);
    assert_int_equal(ask_origin(f.port, "null", allow), 200);
    assert_string_equal(allow, "*");
    fixture_stop(&f);
}

static void preflights_allow_the_headers_they_ask_for(void **state)
{
    struct fixture *f = *state;
    struct reply r;
    char v[200];
    client_ask(f->port,
               "OPTIONS /v1/echo HTTP/1.1\r\n" HOST "Origin: http://localhost:3000\r\n"
               "Access-Control-Request-Method: POST\r\n"
               "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\r\n",
               &r);
    assert_int_equal(r.status, 204);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin", v, sizeof v),
                        "http://localhost:3000");
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Headers", v, sizeof v),
                        "authorization,content-type,x-stainless-os");
    assert_non_null(strstr(reply_header(&r, "Access-Control-Allow-Methods", v, sizeof v), "POST"));
    assert_string_equal(reply_header(&r, "Vary", v, sizeof v), "Origin");
    reply_free(&r);
    client_ask(f->port,
               "OPTIONS /v1/echo HTTP/1.1\r\n" HOST "Origin: http://evil.com\r\n"
               "Access-Control-Request-Method: POST\r\n\r\n",
               &r);
    assert_int_equal(r.status, 403);
    assert_null(reply_header(&r, "Access-Control-Allow-Origin", v, sizeof v));
    reply_free(&r);
}

/* ---- life of the server ---------------------------------------------------------------------- */

static void draining_lets_answers_end_and_takes_no_more(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct reply r;
    char v[64];
    int idle = client_open(f->port);
    assert_true(client_puts(idle, "GET /quick HTTP/1.1\r\n" HOST "\r\n"));
    client_read(idle, &r, false);
    reply_free(&r);
    int fd = job_open(f, "/v1/job", &x);
    assert_int_equal(http_active(f->http), 1);
    http_drain(f->http);
    assert_true(client_ends(idle, 5));
    assert_int_equal(client_open(f->port), -1);
    assert_int_equal(http_active(f->http), 1);
    http_send(x, 200, "text/plain", "late", 4);
    http_drop(x);
    client_read(fd, &r, false);
    assert_string_equal(r.body, "late");
    assert_string_equal(reply_header(&r, "Connection", v, sizeof v), "close");
    reply_free(&r);
    assert_true(client_ends(fd, 5));
    assert_true(active_is(f, 0));
    close(fd);
    close(idle);
}

static void stopping_tells_what_still_runs(void **state)
{
    struct fixture f;
    struct http_exchange *x, *y;
    fixture_start(&f, &fixture_opts);
    int a = job_open(&f, "/v1/job", &x), b = job_open(&f, "/v1/job", &y);
    assert_int_equal(http_stream(y, HTTP_EVENTS, NULL), 0);
    put(y, "1");
    int c = job_unread(&f);
    struct http *h = f.http;
    f.http = NULL;
    http_free(h);
    assert_int_equal(f.gone, 2);
    /* Handlers may hold theirs longer than the server lives. */
    assert_int_equal(http_write(y, "2", 1, NULL), ERR_CANCELLED);
    http_send(x, 200, "text/plain", "x", 1);
    http_drop(x);
    http_drop(y);
    close(a);
    close(b);
    close(c);
    fixture_stop(&f);
}

static void unix_sockets_and_handed_over_ones_work(void **state)
{
    struct fixture f;
    struct http_opts o = fixture_opts;
    char path[64] = "/tmp/ponder-sock-XXXXXX";
    close(mkstemp(path));
    unlink(path);
    o.host = path;
    for (int round = 0; round < 2; round++) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        struct reply r;
        if (round) { /* one that a killed server has left */
            strcpy(a.sun_path, path);
            int left = socket(AF_UNIX, SOCK_STREAM, 0);
            assert_int_equal(bind(left, (struct sockaddr *)&a, sizeof a), 0);
            close(left);
        }
        fixture_start(&f, &o);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        strcpy(a.sun_path, path);
        assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
        client_puts(fd, "GET /quick HTTP/1.1\r\nHost: anything\r\n\r\n");
        client_read(fd, &r, false);
        assert_int_equal(r.status, 200);
        reply_free(&r);
        close(fd);
        fixture_stop(&f);
        assert_int_equal(access(path, F_OK), -1);
    }
}

static void a_port_in_use_is_named(void **state)
{
    struct fixture *f = *state;
    struct http_opts o = fixture_opts;
    struct http *h;
    struct err e = {0};
    char want[64];
    o.port = f->port;
    assert_int_equal(http_new(&h, &o, &e), ERR_BUSY);
    snprintf(want, sizeof want, "port %d is in use (by ", f->port);
    assert_non_null(strstr(e.text, want));
    snprintf(want, sizeof want, "pid %d)", (int)getpid());
    assert_non_null(strstr(e.text, want));
    o.host = "300.1.1.1";
    assert_int_equal(http_new(&h, &o, &e), ERR_USAGE);
}

struct seen {
    uint64_t quick, missing;
};

static void count(void *arg, const char *handler, const char *method, int status, uint64_t n)
{
    struct seen *s = arg;
    if (!strcmp(handler, "/quick") && !strcmp(method, "GET") && status == 200)
        s->quick += n;
    if (!strcmp(handler, "none") && status == 404)
        s->missing += n;
}

static void requests_are_counted_and_logged(void **state)
{
    struct fixture *f = *state;
    struct http_exchange *x;
    struct seen s = {0};
    struct reply r;
    for (int i = 0; i < 3; i++)
        ask(f->port, "GET /quick?key=secret HTTP/1.1\r\n" HOST "\r\n");
    ask(f->port, "GET /a HTTP/1.1\r\n" HOST "\r\n");
    ask(f->port, "GET /b%1b%5b31m HTTP/1.1\r\n" HOST "\r\n");
    ask(f->port, "GET /c HTTP/1.1\r\n" HOST "\r\n");
    ask(f->port, "GET /health HTTP/1.1\r\n" HOST "\r\n");
    ask(f->port, "POST /v1/echo HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    int fd = job_open(f, "/v1/job", &x);
    http_about(x, "deepseek-r1:1.5b");
    http_error(x, 400, NULL, NULL, NULL, "no such \x1b[31m\r\nrole \xc2\x9b");
    http_drop(x);
    client_read(fd, &r, false);
    reply_free(&r);
    close(fd);
    assert_true(active_is(f, 0));
    fd = job_open(f, "/v1/job", &x);
    http_about(x, "deepseek-r1:1.5b");
    http_note(x, "prompt %d  answer %d", 7, 9);
    http_send(x, 200, "text/plain", "hi", 2);
    http_drop(x);
    client_read(fd, &r, false);
    reply_free(&r);
    close(fd);
    assert_true(active_is(f, 0));
    http_counts(f->http, count, &s);
    assert_int_equal(s.quick, 3);
    assert_int_equal(s.missing, 2);
    struct http *h = f->http;
    f->http = NULL;
    http_free(h); /* the log is complete */
    assert_non_null(strstr(f->log_text, " GET /quick 200\n"));
    assert_non_null(
        strstr(f->log_text, " POST /v1/job deepseek-r1:1.5b 200  prompt 7  answer 9\n"));
    assert_non_null(strstr(f->log_text, " POST /v1/echo 400  the body is empty: it must be "));
    assert_non_null(
        strstr(f->log_text, " POST /v1/job deepseek-r1:1.5b 400  no such  [31m  role   \n"));
    assert_null(strstr(f->log_text, "secret"));
    assert_null(strstr(f->log_text, "/health"));
    assert_null(strstr(f->log_text, "\x1b"));
}

/* A log that nobody reads holds nobody up, and says later what it lacks. */
static void a_log_that_is_not_read_loses_lines(void **state)
{
    (void)state;
    enum { ASKS = 8000 };
    struct http *h;
    struct http_opts o = fixture_opts;
    struct err e;
    int ends[2];
    char ask[400], reply[4096], *line = NULL;
    size_t lines = 0, cap = 0;
    bool told = false;
    assert_int_equal(pipe(ends), 0);
    struct log log = {fdopen(ends[1], "w"), LOG_WARN};
    o.log = &log;
    assert_int_equal(log_writer_start(&log, &e), 0);
    assert_int_equal(http_new(&h, &o, &e), 0);
    snprintf(ask, sizeof ask, "GET /%0200d HTTP/1.1\r\n" HOST "\r\n", 0);
    int fd = client_open(http_port(h));
    for (int i = 0; i < ASKS; i++) {
        assert_true(client_puts(fd, ask));
        for (size_t n = 0; !memchr(reply, '}', n);) {
            ssize_t k = recv(fd, reply + n, sizeof reply - n, 0);
            assert_true(k > 0);
            n += (size_t)k;
        }
    }
    assert_true(http_wait(h, 10)); /* the last one has its line, too */
    close(fd);
    FILE *in = fdopen(ends[0], "r");
    while (!told && getline(&line, &cap, in) > 0) {
        lines++;
        told = strstr(line, "lines of this log were dropped");
    }
    assert_true(told);
    assert_int_equal(lines - 1 + strtoul(line, NULL, 10), ASKS);
    http_free(h);
    log_writer_stop(&log, 10);
    fclose(in);
    fclose(log.out);
    free(line);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(quick_and_pooled_routes_answer),
        T(stars_stand_for_any_rest),
        T(ids_come_from_the_client_or_are_made),
        T(errors_have_the_shape_of_their_api),
        T(wrong_methods_are_told_the_right_ones),
        T(head_is_get_without_a_body),
        T(json_is_read_within_bounds),
        T(events_are_framed_and_each_is_a_piece),
        T(malformed_targets_are_told_in_the_words_of_their_api),
        T(named_events_have_their_names),
        T(what_was_taken_back_is_not_called),
        T(lines_end_in_one_newline_each),
        T(large_pieces_are_cut_between_characters),
        T(http10_gets_a_stream_up_to_the_end),
        T(silence_is_broken_by_signs_of_life),
        T(announced_answers_give_signs_of_life),
        T(one_object_in_time_has_a_length_and_errors_their_status),
        T(errors_after_the_beginning_are_the_last_event),
        T(a_handler_that_forgets_its_request_does_not_hang_it),
        T(leaving_is_seen_before_the_answer_begins),
        T(leaving_is_seen_in_silent_answers),
        cmocka_unit_test(who_left_costs_no_descriptor),
        T(resets_in_the_middle_of_a_stream_are_survived),
        T(being_gone_is_told_late_comers_at_once),
        T(complete_answers_are_not_gone),
        T(readers_that_are_too_slow_are_cut_off),
        T(who_reads_late_misses_nothing),
        T(leaving_before_the_last_bytes_is_seen),
        cmocka_unit_test(who_takes_nothing_is_cut_off),
        T(who_is_always_behind_misses_nothing),
        cmocka_unit_test(answers_may_be_ascii),
        cmocka_unit_test(keys_guard_everything_but_health),
        T(without_keys_any_bearer_will_do),
        T(foreign_names_of_a_local_server_are_refused),
        cmocka_unit_test(hosts_are_free_where_everybody_may_connect),
        T(origins_of_this_machine_are_allowed),
        cmocka_unit_test(further_origins_can_be_allowed),
        T(preflights_allow_the_headers_they_ask_for),
        T(draining_lets_answers_end_and_takes_no_more),
        cmocka_unit_test(stopping_tells_what_still_runs),
        cmocka_unit_test(unix_sockets_and_handed_over_ones_work),
        T(a_port_in_use_is_named),
        T(requests_are_counted_and_logged),
        cmocka_unit_test(a_log_that_is_not_read_loses_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
