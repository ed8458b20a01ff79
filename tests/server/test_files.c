/*
 * Models whose files change while a server has them: removed, replaced by another model, by
 * something that is none, by other weights. What is loaded goes on with what it has; what is loaded
 * next sees the files as they are then, and no cached page of what they were.
 */
#include "server/bench.h"
#include "server/http_fixture.h"
#include "server/models.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
#define ASK "{\"model\":\"plain\"," HI "\"max_tokens\":4}"

static char *path_of(const struct bench *b, const char *name)
{
    static char path[8][700];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, 700, "%s/%s", b->folder, name);
    return p;
}

static void move(const char *from, const char *to)
{
    assert_int_equal(rename(from, to), 0);
}

/* Asks for a model's end, and waits for it. */
static void unload(struct bench *b)
{
    struct reply r;
    bench_ask(b, "POST", "/api/generate", "", "{\"model\":\"plain\",\"keep_alive\":0}", &r);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    for (double t0 = clock_seconds(); clock_seconds() - t0 < 30; nap(0.02)) {
        bench_ask(b, "GET", "/api/ps", "", "", &r);
        bool none = !strcmp(r.body, "{\"models\":[]}");
        reply_free(&r);
        if (none)
            return;
    }
    fail_msg("the model is still loaded");
}

/* What every API says to a request for it: the status, in its own shape, with `words`. */
static void all_say(struct bench *b, int status, const char *words)
{
    static const struct {
        const char *path, *body, *start; /* of the answer */
    } ask[] = {
        {"/v1/chat/completions", ASK, "{\"error\":{\"message\":\""},
        {"/v1/chat/completions", "{\"model\":\"plain\"," HI "\"stream\":true}",
         "{\"error\":{\"message\":\""},
        {"/v1/completions", "{\"model\":\"plain\",\"prompt\":\"hi\"}",
         "{\"error\":{\"message\":\""},
        {"/v1/responses", "{\"model\":\"plain\",\"input\":\"hi\"}", "{\"error\":{\"message\":\""},
        {"/v1/embeddings", "{\"model\":\"plain\",\"input\":\"hi\"}", "{\"error\":{\"message\":\""},
        {"/v1/messages", ASK, "{\"type\":\"error\",\"error\":{\"type\":\""},
        {"/api/chat", ASK, "{\"error\":\""},
        {"/api/generate", "{\"model\":\"plain\",\"prompt\":\"hi\"}", "{\"error\":\""},
        {"/api/generate", "{\"model\":\"plain\"}", "{\"error\":\""},
        {"/api/embed", "{\"model\":\"plain\",\"input\":\"hi\"}", "{\"error\":\""},
        {"/api/show", "{\"model\":\"plain\"}", "{\"error\":\""},
        {"/tokenize", "{\"model\":\"plain\",\"prompt\":\"hi\"}", "{\"error\":"},
    };
    for (size_t i = 0; i < sizeof ask / sizeof *ask; i++) {
        struct reply r;
        bench_ask(b, "POST", ask[i].path, "", ask[i].body, &r);
        if (!r.complete || r.status != status || !strstr(r.body, words) ||
            strncmp(r.body, ask[i].start, strlen(ask[i].start)) != 0)
            fail_msg("%s: %d, not %d: %s", ask[i].path, r.status, status, r.body);
        reply_free(&r);
    }
    assert_int_equal(bench_status(b, "GET", "/health", ""), 200);
    assert_int_equal(bench_status(b, "GET", "/api/tags", ""), 200);
    assert_int_equal(bench_status(b, "POST", "/v1/chat/completions",
                                  "{\"model\":\"strict\"," HI "\"max_tokens\":4}"),
                     200);
    static const char end[] = "{\"model\":\"strict\",\"keep_alive\":0}";
    assert_int_equal(bench_status(b, "POST", "/api/generate", end), 200);
}

static int stream_begin(struct bench *b)
{
    static const char body[] =
        "{\"model\":\"plain\"," HI "\"max_tokens\":900,\"ignore_eos\":true,\"stream\":true}";
    char text[1024];
    snprintf(text, sizeof text,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: "
             "close\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    int fd = client_open(b->port);
    client_puts(fd, text);
    assert_true(client_expect(fd, "HTTP/1.1 200"));
    return fd;
}

static void stream_ends_well(int fd)
{
    struct buf all;
    char piece[4096];
    ssize_t got;
    buf_init(&all, 8 << 20);
    while ((got = client_recv(fd, piece, sizeof piece)) > 0)
        assert_int_equal(buf_append(&all, piece, (size_t)got, NULL), 0);
    assert_non_null(strstr(all.data, "\"finish_reason\":\"length\""));
    assert_non_null(strstr(all.data, "data: [DONE]\n\n"));
    buf_release(&all);
    close(fd);
}

/* The family that Ollama's API shows. */
static void family_is(struct bench *b, const char *want)
{
    struct reply r;
    for (int show = 0; show < 2; show++) {
        bench_ask(b, show ? "POST" : "GET", show ? "/api/show" : "/api/ps", "",
                  show ? "{\"model\":\"plain\"}" : "", &r);
        json_t *v = json_loads(r.body, 0, NULL),
               *m = json_array_get(json_object_get(v, "models"), 0);
        json_t *details = json_object_get(show ? v : m, "details");
        assert_string_equal(json_string_value(json_object_get(details, "family")), want);
        json_decref(v);
        reply_free(&r);
    }
}

static void removed_models_end_what_they_have_begun(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, NULL, 0);
    int fd = stream_begin(&b);
    move(path_of(&b, "plain"), path_of(&b, "away"));
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200); /* loaded */
    stream_ends_well(fd);
    unload(&b);
    all_say(&b, 404, "/plain is no longer there");
    move(path_of(&b, "away"), path_of(&b, "plain"));
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    bench_end(&b);
}

static void replaced_models_are_picked_up_when_they_are_loaded_again(void **state)
{
    struct bench b;
    (void)state;
    bench_begin(&b, NULL, 0);
    models_add(b.folder, "other", "llama_rope_llama3", NULL); /* no model of this server */
    int fd = stream_begin(&b);
    move(path_of(&b, "plain"), path_of(&b, "away"));
    move(path_of(&b, "other"), path_of(&b, "plain"));
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    stream_ends_well(fd);
    unload(&b);
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    family_is(&b, "llama");
    unload(&b);
    move(path_of(&b, "plain"), path_of(&b, "other"));
    move(path_of(&b, "away"), path_of(&b, "plain"));
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    family_is(&b, "qwen2");
    bench_end(&b);
}

static void write_file(const char *path, const char *data, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void what_is_no_model_any_more_is_refused(void **state)
{
    static const char *const texts[] = {"", "{}", "this is no model"};
    struct bench b;
    (void)state;
    bench_begin(&b, NULL, 0);
    char *weights = path_of(&b, "plain/model.safetensors"), *kept = path_of(&b, "kept");
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    move(weights, kept);
    unload(&b);
    all_say(&b, 500, "/plain");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(weights, texts[i], strlen(texts[i]));
        all_say(&b, 500, "/plain");
    }
    unlink(weights);
    move(kept, weights);
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    bench_end(&b);
}

/* ---- a log that nobody reads ------------------------------------------------------------------
 */

static int log_end; /* where its lines come out */

static void with_full_log(struct bench *b)
{
    int ends[2];
    struct err e;
    assert_int_equal(pipe(ends), 0);
    log_end = ends[0];
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends[1], "full\n", 5) > 0)
        ;
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
    write_file(path_of(b, "junk.gguf"), "GGUF", 4);
    fclose(b->log.out);
    b->log = (struct log){.out = fdopen(ends[1], "w"), .level = LOG_DEBUG};
    assert_int_equal(log_writer_start(&b->log, &e), 0);
    b->o.http.access_log = true;
    b->o.hub.log = b->o.hub.engine.log = b->o.hub.sched.log = &b->log;
    b->o.hub.sched.disk = "/dev/null/kv"; /* there is something to say about it */
}

/* Lines of every thread: of connections, workers, loading, computing. */
static void a_log_that_is_not_read_holds_nobody_up(void **state)
{
    static const char *const said[] = {"left out: ",
                                       "not kept on disk",
                                       " thread on ",
                                       "loaded in",
                                       "POST /v1/chat/completions plain 200",
                                       "plain: unloaded",
                                       "plain: not loaded",
                                       "/v1/chat/completions plain 404"};
    enum { N = sizeof said / sizeof *said };
    struct bench b;
    bool seen[N] = {false};
    char *line = NULL;
    size_t cap = 0, left = N;
    (void)state;
    bench_begin_with(&b, with_full_log);
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    unload(&b);
    move(path_of(&b, "plain"), path_of(&b, "away"));
    all_say(&b, 404, "/plain is no longer there");
    move(path_of(&b, "away"), path_of(&b, "plain"));
    assert_int_equal(bench_status(&b, "POST", "/v1/chat/completions", ASK), 200);
    server_free(b.s);
    b.s = NULL;
    FILE *in = fdopen(log_end, "r");
    while (left && getline(&line, &cap, in) > 0)
        for (size_t i = 0; i < N; i++)
            if (!seen[i] && strstr(line, said[i])) {
                seen[i] = true;
                left--;
            }
    log_writer_stop(&b.log, 10);
    fclose(in);
    free(line);
    bench_end(&b);
}

/* ---- cached pages ---------------------------------------------------------------------------- */

static void with_disk(struct bench *b)
{
    static char disk[700]; /* the server keeps it */
    snprintf(disk, sizeof disk, "%s/.kv", b->folder);
    b->o.hub.sched.disk = disk;
    b->o.hub.sched.disk_bytes = 64 << 20;
}

/* The answer to a long prompt, owned; *cached: how much of the prompt was known. */
static char *long_answer(struct bench *b, int *cached)
{
    static const char start[] = "{\"model\":\"plain\",\"temperature\":0,\"max_tokens\":24,"
                                "\"ignore_eos\":true,\"prompt\":\"";
    char body[4096];
    size_t n = (size_t)snprintf(body, sizeof body, "%s", start);
    for (int i = 0; i < 60; i++)
        n += (size_t)snprintf(body + n, sizeof body - n, "%d and ", i * 37 % 101);
    snprintf(body + n, sizeof body - n, "\"}");
    struct reply r;
    bench_ask(b, "POST", "/v1/completions", "", body, &r);
    if (r.status != 200)
        fail_msg("%s", r.body);
    json_t *v = json_loads(r.body, 0, NULL), *u = json_object_get(v, "usage");
    json_t *of = json_object_get(u, "prompt_tokens_details");
    *cached = (int)json_integer_value(json_object_get(of, "cached_tokens"));
    json_t *c = json_array_get(json_object_get(v, "choices"), 0);
    char *text = strdup(json_string_value(json_object_get(c, "text")));
    json_decref(v);
    reply_free(&r);
    return text;
}

/* The file at `from` with other weights, of which the first of every tensor are the same. */
static void other_weights(const char *from, const char *to)
{
    struct buf all;
    uint64_t head;
    buf_init(&all, 64 << 20);
    assert_int_equal(file_read(&all, from, NULL), 0);
    memcpy(&head, all.data, sizeof head);
    json_t *o = json_loadb(all.data + 8, head, 0, NULL), *t;
    const char *name;
    json_object_foreach(o, name, t)
    {
        json_t *at = json_object_get(t, "data_offsets");
        size_t a = (size_t)json_integer_value(json_array_get(at, 0));
        size_t z = (size_t)json_integer_value(json_array_get(at, 1));
        if (strstr(name, "mlp"))
            for (size_t i = a + 64; i < z; i += 2) /* BF16: mantissas and last bits of exponents */
                all.data[8 + head + i] ^= 0x55;
    }
    json_decref(o);
    write_file(to, all.data, all.len);
    buf_release(&all);
}

static void pages_of_other_weights_are_not_used(void **state)
{
    struct bench b;
    int cached;
    (void)state;
    bench_begin(&b, NULL, 0); /* what the other weights say, without a cache */
    char *link = path_of(&b, "strict/model.safetensors");
    other_weights(link, path_of(&b, "other"));
    move(path_of(&b, "other"), path_of(&b, "plain/model.safetensors"));
    char *want = long_answer(&b, &cached);
    bench_end(&b);

    bench_begin_with(&b, with_disk);
    char *weights = path_of(&b, "plain/model.safetensors"), *kept = path_of(&b, "kept");
    char *other = path_of(&b, "other");
    other_weights(weights, other);
    char *first = long_answer(&b, &cached);
    assert_int_equal(cached, 0);
    free(long_answer(&b, &cached));
    assert_true(cached >= 64);
    unload(&b);
    char *again = long_answer(&b, &cached); /* from the disk */
    assert_true(cached >= 64);
    assert_string_equal(again, first);
    free(again);

    move(weights, kept);
    move(other, weights);
    again = long_answer(&b, &cached); /* what is loaded has its file */
    assert_true(cached >= 64);
    assert_string_equal(again, first);
    free(again);
    unload(&b);
    char *changed = long_answer(&b, &cached);
    assert_int_equal(cached, 0);
    assert_string_equal(changed, want);
    assert_string_not_equal(changed, first);

    unload(&b);
    move(weights, other);
    move(kept, weights);
    again = long_answer(&b, &cached); /* a file that comes back has its pages */
    assert_true(cached >= 64);
    assert_string_equal(again, first);
    free(again);
    free(want);
    free(changed);
    free(first);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(removed_models_end_what_they_have_begun),
        cmocka_unit_test(replaced_models_are_picked_up_when_they_are_loaded_again),
        cmocka_unit_test(what_is_no_model_any_more_is_refused),
        cmocka_unit_test(a_log_that_is_not_read_holds_nobody_up),
        cmocka_unit_test(pages_of_other_weights_are_not_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
