/*
 * The whole server over real sockets with small random models: its own routes, metrics, keys on
 * everything, clients that leave, the end. What the APIs say in detail has tests of its own.
 */
#include "server/bench.h"
#include "server/http_fixture.h"
#include "server/route.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

#include <unistd.h>

static void routes_of_the_server_itself(void **state)
{
    struct bench b;
    struct reply r;
    bench_begin(&b, NULL, 0);
    assert_int_equal(bench_status(&b, "GET", "/health", ""), 200);
    assert_int_equal(bench_status(&b, "GET", "/v1/health", ""), 200);
    assert_int_equal(bench_status(&b, "GET", "/ping", ""), 200);
    assert_int_equal(bench_status(&b, "POST", "/ping", ""), 200);
    bench_ask(&b, "GET", "/version", "", "", &r);
    assert_string_equal(r.body, "{\"version\":\"" PONDER_VERSION "\"}");
    reply_free(&r);
    bench_ask(&b, "GET", "/load", "", "", &r);
    assert_string_equal(r.body, "{\"server_load\":0}");
    reply_free(&r);
    static const struct {
        const char *method, *path;
    } later[] = {{"POST", "/api/pull"},          {"POST", "/api/push"},
                 {"POST", "/api/create"},        {"POST", "/api/copy"},
                 {"DELETE", "/api/delete"},      {"POST", "/api/blobs/sha256:../x"},
                 {"GET", "/api/blobs/sha256:00"}};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        bench_ask(&b, later[i].method, later[i].path, "", "{}", &r);
        assert_int_equal(r.status, 501);
        assert_int_equal(strncmp(r.body, "{\"error\":\"this server does not ", 31), 0);
        reply_free(&r);
    }
    bench_end(&b);
}

/* Every row of the table: with a key set, only open ones answer without it. */
static void keys_guard_every_route(void **state)
{
    static const char *const keys[] = {"sk-x"};
    struct bench b;
    struct reply r;
    size_t n;
    bench_begin(&b, keys, 1);
    const struct http_route *rows = route_all(&n);
    assert_true(n > 40);
    for (size_t i = 0; i < n; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s", rows[i].path);
        if (strchr(path, '*'))
            strcpy(strchr(path, '*'), "x");
        bench_ask(&b, rows[i].method, path, "", "", &r);
        if ((r.status == 401) == rows[i].open)
            fail_msg("%s %s: %d", rows[i].method, path, r.status);
        reply_free(&r);
        bench_ask(&b, rows[i].method, path, "Authorization: Bearer sk-x\r\n", "", &r);
        if (r.status == 401 || (r.status == 404 && !strchr(rows[i].path, '*')))
            fail_msg("%s %s with the key: %d", rows[i].method, path, r.status);
        assert_true(r.complete);
        reply_free(&r);
    }
    bench_end(&b);
}

#define CHAT                                                                                      \
    "{\"model\":\"plain\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"temperature\":" \
    "0,"

static double metric(struct bench *b, const char *line)
{
    struct reply r;
    bench_ask(b, "GET", "/metrics", "", "", &r);
    assert_int_equal(r.status, 200);
    const char *at = strstr(r.body, line);
    double v = at ? strtod(at + strlen(line), NULL) : -1;
    reply_free(&r);
    return v;
}

/* Numbers of what computes: the answer may be there before the step that gave it has ended. */
static bool metric_becomes(struct bench *b, const char *line, double want)
{
    for (double t0 = clock_seconds(); clock_seconds() - t0 < 10; nap(0.02))
        if (metric(b, line) == want)
            return true;
    return false;
}

static void requests_appear_in_metrics_and_log(void **state)
{
    struct bench b;
    struct reply r;
    bench_begin(&b, NULL, 0);
    bench_ask(&b, "POST", "/v1/chat/completions", "", CHAT "\"max_tokens\":4,\"ignore_eos\":true}",
              &r);
    if (r.status != 200)
        fail_msg("%s", r.body);
    reply_free(&r);
    assert_int_equal(bench_status(&b, "POST", "/api/chat", CHAT "\"stream\":false}"), 200);
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions",
                                  "{\"model\":\"none\","
                                  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"),
                     404);
#define M "{engine=\"0\",model_name=\"plain\""
    assert_true(metric(&b, "\nvllm:request_success_total" M ",finished_reason=\"length\"} ") >= 1);
    assert_true(metric(&b, "\nvllm:generation_tokens_total" M "} ") >= 4);
    assert_true(metric(&b, "\nvllm:prompt_tokens_total" M "} ") >= 2);
    assert_true(metric(&b, "\nvllm:iteration_tokens_total_count" M "} ") >= 5);
    assert_true(metric(&b, "\nvllm:iteration_tokens_total_bucket" M ",le=\"8.0\"} ") >= 3);
    assert_true(metric(&b, "\nvllm:time_to_first_token_seconds_count" M "} ") == 2);
    assert_true(metric(&b, "\nvllm:e2e_request_latency_seconds_bucket" M ",le=\"+Inf\"} ") == 2);
    assert_true(metric(&b, "\nvllm:inter_token_latency_seconds_count" M "} ") >= 1);
    assert_true(metric(&b, "\nvllm:request_params_n_bucket" M ",le=\"1.0\"} ") == 2);
    assert_true(metric_becomes(&b, "\nvllm:num_requests_running" M "} ", 0));
    assert_true(metric(&b, "\nvllm:kv_cache_usage_perc" M "} ") >= 0);
    assert_true(metric(&b, "\nhttp_requests_total{handler=\"/v1/chat/completions\",method=\"POST\","
                           "status=\"200\"} ") == 1);
    assert_true(metric(&b, "\nprocess_resident_memory_bytes ") > 1e6);
    fflush(b.log.out);
    assert_non_null(strstr(b.text, " POST /v1/chat/completions plain 200  prompt "));
    assert_non_null(strstr(b.text, "  answer 4  first token "));
    bench_end(&b);
}

/* Every line is a comment or `name{labels} value`, each name has its type before it, and buckets
   only rise. */
static void metrics_are_well_formed(void **state)
{
    struct bench b;
    struct reply r;
    char name[200] = "", type_of[200] = "";
    bench_begin(&b, NULL, 0);
    assert_int_equal(bench_status(&b, "POST", "/api/chat", CHAT "\"stream\":false}"), 200);
    bench_ask(&b, "GET", "/metrics", "", "", &r);
    double last = 0;
    size_t lines = 0;
    for (char *s = r.body, *next; *s; s = next, lines++) {
        next = strchr(s, '\n');
        assert_non_null(next);
        *next++ = 0;
        if (sscanf(s, "# TYPE %199s", type_of) == 1 || !strncmp(s, "# HELP ", 7))
            continue;
        size_t n = strcspn(s, "{ ");
        snprintf(name, sizeof name, "%.*s", (int)n, s);
        if (strncmp(name, type_of, strlen(type_of)) != 0)
            fail_msg("%s below %s", s, type_of);
        char *value = strrchr(s, ' '), *end_of;
        assert_non_null(value);
        double v = strtod(value + 1, &end_of);
        assert_true(end_of > value + 1 && !*end_of);
        bool bucket = strstr(name, "_bucket") != NULL;
        if (bucket && strstr(s, "le=\"0.0") == NULL)
            assert_true(v >= last || strstr(s, "le=\"0.3\"") || strstr(s, "le=\"1.0\""));
        last = bucket ? v : 0;
    }
    assert_true(lines > 200);
    reply_free(&r);
    bench_end(&b);
}

/* A format that cannot be held to is named as the request called it. */
static void faults_of_formats_name_their_field(void **state)
{
#define FORMAT "{\"type\":\"string\",\"format\":\"\"}"
    static const struct {
        const char *path, *members, *start, *param;
    } ask[] = {
        {"/v1/chat/completions",
         "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"\","
         "\"schema\":" FORMAT "}}",
         "response_format.json_schema: the schema: #/format: \"\" is none of ", "response_format"},
        {"/v1/chat/completions", "\"guided_json\":{\"properties\":{\"\":" FORMAT "}}",
         "guided_json: the schema: #/properties//format: \"\" is none of ", "guided_json"},
        {"/v1/chat/completions", "\"guided_regex\":\"(\"", "guided_regex: ", "guided_regex"},
        {"/v1/chat/completions", "\"guided_grammar\":\"\"", "guided_grammar: ", "guided_grammar"},
        {"/v1/chat/completions", "\"structured_outputs\":{\"regex\":\"[\"}",
         "structured_outputs.regex: ", "structured_outputs"},
        {"/api/chat", "\"format\":" FORMAT, "format: the schema: #/format: \"\" is none of ", NULL},
        {"/v1/responses",
         "\"input\":\"hi\",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"\","
         "\"schema\":" FORMAT "}}",
         "text.format.schema: the schema: #/format: \"\" is none of ", NULL},
    };
    struct bench b;
    bench_begin(&b, NULL, 0);
    for (size_t i = 0; i < sizeof ask / sizeof *ask; i++) {
        struct reply r;
        char body[600];
        snprintf(body, sizeof body, CHAT "%s}", ask[i].members);
        bench_ask(&b, "POST", ask[i].path, "", body, &r);
        json_t *v = json_loads(r.body, 0, NULL), *e = json_object_get(v, "error");
        json_t *text = json_is_string(e) ? e : json_object_get(e, "message");
        json_t *param = json_object_get(e, "param");
        if (r.status != 400 || !json_is_string(text) ||
            strncmp(json_string_value(text), ask[i].start, strlen(ask[i].start)) != 0)
            fail_msg("%s: %d %s", ask[i].path, r.status, r.body);
        if (ask[i].param)
            assert_string_equal(json_string_value(param), ask[i].param);
        json_decref(v);
        reply_free(&r);
    }
    bench_end(&b);
#undef FORMAT
}

static void clients_that_leave_free_their_places(void **state)
{
    struct bench b;
    bench_begin(&b, NULL, 0);
    int fd = client_open(b.port);
    static const char body[] = CHAT "\"max_tokens\":900,\"ignore_eos\":true,\"stream\":true}";
    char text[1024], c;
    snprintf(
        text, sizeof text,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    client_puts(fd, text);
    assert_true(client_expect(fd, "HTTP/1.1 200"));
    assert_true(client_expect(fd, " OK") && client_recv(fd, &c, 1) == 1);
    close(fd);
    double t0 = clock_seconds(), n = 0;
    while (n < 1 && clock_seconds() - t0 < 30) {
        n = metric(&b, "\nvllm:request_success_total" M ",finished_reason=\"abort\"} ");
        nap(0.05);
    }
    assert_true(n == 1);
    assert_true(metric_becomes(&b, "\nvllm:num_requests_running" M "} ", 0));
    assert_true(metric(&b, "\nvllm:generation_tokens_total" M "} ") < 900);
    fflush(b.log.out);
    assert_non_null(strstr(b.text, "  the client left\n"));
    bench_end(&b);
}

static bool never(void *arg)
{
    return false;
}

static bool at_once(void *arg)
{
    return true;
}

static int stream_begin(struct bench *b, int tokens)
{
    char text[1024], body[512];
    snprintf(body, sizeof body, CHAT "\"max_tokens\":%d,\"ignore_eos\":true,\"stream\":true}",
             tokens);
    snprintf(
        text, sizeof text,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    int fd = client_open(b->port);
    client_puts(fd, text);
    /* It has begun when there is a byte. */
    assert_true(client_expect(fd, "H"));
    return fd;
}

static void draining_waits_for_answers(void **state)
{
    struct bench b;
    char all[1 << 16];
    size_t n = 0;
    ssize_t got;
    bench_begin(&b, NULL, 0);
    int fd = stream_begin(&b, 40);
    server_drain(b.s, never, NULL);
    assert_int_equal(client_open(b.port), -1);
    while ((got = client_recv(fd, all + n, sizeof all - 1 - n)) > 0)
        n += (size_t)got;
    all[n] = 0;
    assert_non_null(strstr(all, "data: [DONE]\n\n"));
    close(fd);
    bench_end(&b);
}

static void draining_can_be_cut_short(void **state)
{
    struct bench b;
    bench_begin(&b, NULL, 0);
    int fd = stream_begin(&b, 900);
    server_drain(b.s, at_once, NULL);
    assert_int_equal(http_active(b.s->http), 1);
    server_free(b.s);
    b.s = NULL;
    assert_true(client_ends(fd, 10));
    close(fd);
    bench_end(&b);
}

static void idle_models_and_idle_connections_are_cheap(void **state)
{
    struct bench b;
    enum { N = 300 };
    static int fd[N];
    bench_begin(&b, NULL, 0);
    int stream = stream_begin(&b, 900);
    for (int i = 0; i < N; i++)
        fd[i] = client_open(b.port);
    double worst = 0;
    for (int i = 0; i < 50; i++) {
        double t0 = clock_seconds();
        assert_int_equal(bench_status(&b, "GET", "/health", ""), 200);
        assert_int_equal(bench_status(&b, "GET", "/api/tags", ""), 200);
        double took = clock_seconds() - t0;
        worst = took > worst ? took : worst;
    }
    assert_true(worst < 20); /* not held up by what computes */
    for (int i = 0; i < N; i++)
        close(fd[i]);
    close(stream);
    bench_end(&b);
}

/* ---- more answers than the memory holds ----------------------------------------------------- */

static int answer_begin(struct bench *b, const char *members)
{
    char text[1400], body[1024];
    snprintf(
        body, sizeof body,
        "{\"model\":\"plain\",\"stream\":true,\"stream_options\":{\"include_usage\":true},%.*s}",
        (int)sizeof body / 2, members);
    snprintf(
        text, sizeof text,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    int fd = client_open(b->port);
    assert_true(client_puts(fd, text));
    return fd;
}

/* What the stream says: all deltas, why it ended, how many tokens it has. Allocated. */
static char *answer_read(int fd)
{
    struct reply r;
    char *all, *save = NULL;
    size_t n;
    FILE *out = open_memstream(&all, &n);
    client_read(fd, &r, false);
    close(fd);
    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_non_null(strstr(r.body, "data: [DONE]"));
    for (char *s = strtok_r(r.body, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
        json_t *v = strncmp(s, "data: {", 7) ? NULL : json_loads(s + 6, JSON_ALLOW_NUL, NULL), *u;
        json_t *c = json_array_get(json_object_get(v, "choices"), 0);
        json_t *text = json_object_get(json_object_get(c, "delta"), "content");
        if (text)
            fwrite(json_string_value(text), 1, json_string_length(text), out);
        if (json_is_string(json_object_get(c, "finish_reason")))
            fprintf(out, "|%s", json_string_value(json_object_get(c, "finish_reason")));
        if (json_is_object(u = json_object_get(v, "usage")))
            fprintf(out, "|%d of %d",
                    (int)json_integer_value(json_object_get(u, "completion_tokens")),
                    (int)json_integer_value(json_object_get(u, "prompt_tokens")));
        json_decref(v);
    }
    fclose(out);
    reply_free(&r);
    return all;
}

/* Six answers that need five times the memory there is: they take each other's, and each says what
   it says alone. */
static void answers_that_preempt_each_other_stay_the_same(void **state)
{
    enum { N = 6 };
    static const char preempted[] = "\nvllm:num_preemptions_total" M "} ";
    struct bench b;
    char *alone[N], members[N][400];
    int fd[N];
    (void)state;
    for (int i = 0; i < N; i++)
        snprintf(members[i], sizeof members[i],
                 "\"messages\":[{\"role\":\"user\",\"content\":\"answer %d, please\"}],"
                 "\"temperature\":%s,\"seed\":%d,\"max_tokens\":900,\"ignore_eos\":true%s",
                 i, i % 2 ? "1.2" : "0", i,
                 i == 5 ? ",\"guided_regex\":\"([a-z]{3} ){2000}\"" : "");
    bench_begin_kv(&b, 1024);
    for (int i = 0; i < N; i++)
        alone[i] = answer_read(answer_begin(&b, members[i]));
    assert_true(metric(&b, preempted) == 0);
    /* Once is enough, unless one ends before the next has come. */
    for (int round = 0; round < 20 && metric(&b, preempted) < 1; round++) {
        for (int i = 0; i < N; i++)
            fd[i] = answer_begin(&b, members[i]);
        for (int i = 0; i < N; i++) {
            char *together = answer_read(fd[i]);
            assert_string_equal(together, alone[i]);
            assert_non_null(strstr(together, "|length|900 of "));
            free(together);
        }
    }
    assert_true(metric(&b, preempted) >= 1);
    assert_true(metric_becomes(&b, "\nvllm:num_requests_running" M "} ", 0));
    for (int i = 0; i < N; i++)
        free(alone[i]);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_of_the_server_itself),
        cmocka_unit_test(keys_guard_every_route),
        cmocka_unit_test(requests_appear_in_metrics_and_log),
        cmocka_unit_test(metrics_are_well_formed),
        cmocka_unit_test(faults_of_formats_name_their_field),
        cmocka_unit_test(clients_that_leave_free_their_places),
        cmocka_unit_test(draining_waits_for_answers),
        cmocka_unit_test(draining_can_be_cut_short),
        cmocka_unit_test(answers_that_preempt_each_other_stay_the_same),
        cmocka_unit_test(idle_models_and_idle_connections_are_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
