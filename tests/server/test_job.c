#include "fake_http.h"
#include "models.h"
#include "server/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <unistd.h>

static char *folder;
static struct server *server;

static int setup(void **state)
{
    (void)state;
    folder = models_folder();
    models_add(folder, "always", "qwen2_tied", models_always);
    models_add(folder, "plain", "qwen2_tied", models_plain);
    models_add(folder, "strict", "qwen2_tied", models_strict);
    models_add(folder, "switch", "qwen2_tied", models_switch);
    server = fake_server(folder, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_stop(server);
    models_drop(folder);
    return 0;
}

/* ---- a sink that remembers ------------------------------------------------------------------ */

struct told {
    struct job_spec spec;
    int begins, dones, fails, frees, pieces;
    struct err err;
    char prompt[2000], text[4000], thought[4000];
    size_t prompts, tokens[8];
    bool open;
    struct request_stats stats;
    enum request_end end;
    size_t samples;
    int stop_after; /* an error after so many pieces */
};

static int told_begin(void *arg, struct job *j, struct err *e)
{
    struct told *t = arg;
    struct buf b;
    size_t n;
    (void)e;
    t->begins++;
    t->open = job_thinking_open(j);
    t->prompts = job_prompt_tokens(j);
    const int32_t *ids = job_prompt_ids(j, 0, &n);
    buf_init(&b, sizeof t->prompt - 1);
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *s = tokenizer_bytes(engine_tokenizer(job_use(j)->engine), ids[i], &k);
        buf_append(&b, s, k, NULL);
    }
    snprintf(t->prompt, sizeof t->prompt, "%s", b.data);
    buf_release(&b);
    return 0;
}

static int told_event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct told *t = arg;
    (void)j;
    assert_int_equal(t->begins, 1);
    if (ev->kind == REQUEST_PIECE) {
        char *to = ev->piece == PARSE_REASONING ? t->thought : t->text;
        strncat(to, ev->text, ev->n < 1000 ? ev->n : 1000);
        if (ev->sample < 8)
            t->tokens[ev->sample] += ev->n_info;
        if (++t->pieces == t->stop_after)
            return err_set(e, ERR_LIMIT, "enough");
    }
    if (ev->kind == REQUEST_SAMPLE) {
        t->samples++;
        t->end = ev->end;
    }
    if (ev->kind == REQUEST_DONE) {
        t->dones++;
        t->stats = *ev->stats;
    }
    return 0;
}

static void told_fail(void *arg, struct job *j, const struct err *e)
{
    struct told *t = arg;
    (void)j;
    t->fails++;
    t->err = *e;
}

static struct http_exchange *told_x;

static void told_free(void *arg)
{
    struct told *t = arg;
    t->frees++;
    http_end(told_x);
}

static const struct job_sink told_sink = {told_begin, told_event, told_fail, told_free};

static void told_run(void *arg, struct http_exchange *x)
{
    (void)arg;
    (void)x;
}

static void told_init(struct told *t, const char *model)
{
    memset(t, 0, sizeof *t);
    job_spec_init(&t->spec);
    t->spec.model = model;
    t->spec.sampling.temperature = 0;
    t->spec.max_tokens = 4;
    t->spec.ignore_end = true;
}

static void run_as(struct told *t, uint64_t owner)
{
    struct http_exchange *x = fake_send(server, told_run, NULL);
    x->owner = owner;
    told_x = x;
    job_run(server, x, &t->spec, &told_sink, t);
    fake_free(x);
    assert_int_equal(t->dones + t->fails, 1); /* exactly one end */
    assert_int_equal(t->frees, 1);
}

static void run(struct told *t)
{
    run_as(t, 0);
}

static void run_ok(struct told *t)
{
    run(t);
    if (t->fails)
        fail_msg("%s", t->err.text);
}

/* A chat of this JSON. */
static void chat(struct told *t, const char *model, const char *messages)
{
    struct err e;
    json_t *in = json_loads(messages, 0, NULL), *out;
    assert_non_null(in);
    told_init(t, model);
    t->spec.prompt = JOB_CHAT;
    if (job_messages(in, &out, &e))
        fail_msg("%s", e.text);
    json_decref(in);
    t->spec.messages = out;
}

static void chat_ok(struct told *t, const char *model, const char *messages)
{
    chat(t, model, messages);
    run_ok(t);
    json_decref(t->spec.messages);
}

#define HELLO "[{\"role\": \"user\", \"content\": \"hello\"}]"

/* ---- messages ------------------------------------------------------------------------------- */

static void expect_messages(const char *in, const char *want)
{
    struct err e;
    json_t *a = json_loads(in, JSON_ALLOW_NUL, NULL), *b = NULL, *w = json_loads(want, 0, NULL);
    assert_non_null(a);
    assert_non_null(w);
    if (job_messages(a, &b, &e))
        fail_msg("%s", e.text);
    if (!json_equal(b, w)) {
        char *s = json_dumps(b, 0);
        fail_msg("%s\nis\n%s", want, s);
    }
    json_decref(a);
    json_decref(b);
    json_decref(w);
}

static void messages_of_all_clients_look_alike(void **state)
{
    (void)state;
    expect_messages("[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"be \"},"
                    "{\"type\":\"input_text\",\"text\":\"brief\"},\"!\"]},"
                    "{\"role\":\"user\",\"content\":null,\"extra\":1}]",
                    "[{\"role\":\"system\",\"content\":\"be brief!\"},"
                    "{\"role\":\"user\",\"content\":\"\"}]");
    expect_messages(
        "[{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"hm\",\"tool_calls\":"
        "[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{\\\"x\\\": [1, null]}\"}},{\"function\":{\"name\":\"g\",\"arguments\":{\"y\":2}}},"
        "{\"id\":\"c\",\"function\":{\"name\":\"h\",\"arguments\":\"not json\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"1\"},"
        "{\"role\":\"tool\",\"tool_name\":\"g\",\"content\":\"2\"}]",
        "[{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"hm\",\"tool_calls\":"
        "[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
        "{\"x\":[1,null]}}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":"
        "{\"y\":2}}},{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"h\","
        "\"arguments\":\"not json\"}}]},"
        "{\"role\":\"tool\",\"content\":\"1\",\"tool_call_id\":\"c\",\"name\":\"h\"},"
        "{\"role\":\"tool\",\"content\":\"2\",\"name\":\"g\"}]");
}

static void wrong_messages_are_named(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"[]", "messages is empty"},
        {"{}", "messages must be an array"},
        {"[1]", "messages[0] must be an object"},
        {"[{\"content\":\"x\"}]", "messages[0].role"},
        {"[{\"role\":\"king\",\"content\":\"x\"}]", "\"king\""},
        {"[{\"role\":\"user\",\"content\":{}}]", "messages[0].content"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", "image_url"},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]", "tool_calls[0]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err e;
        json_t *in = json_loads(rows[i][0], 0, NULL), *out;
        assert_int_equal(job_messages(in, &out, &e), ERR_USAGE);
        assert_null(out);
        if (!strstr(e.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][1], e.text);
        json_decref(in);
    }
}

static void calls_keep_the_text_of_their_arguments(void **state)
{
    static const char *const rows[][3] = {
        {"{\"name\":\"f\",\"arguments\":{ \"x\": 1.50, \"y\": 12345678901234567890123 }}", "f",
         "{ \"x\": 1.50, \"y\": 12345678901234567890123 }"},
        {"{\"name\":\"a\\\"b\",\"arguments\":{}}", "a\"b", "{}"},
        {"{\"name\":\"g\",\"arguments\":\"no \\\"object\\\"\"}", "g", "no \"object\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err e;
        char *name, *args;
        assert_int_equal(job_call(rows[i][0], strlen(rows[i][0]), &name, &args, &e), 0);
        assert_string_equal(name, rows[i][1]);
        assert_string_equal(args, rows[i][2]);
        free(name);
        free(args);
    }
}

/* ---- prompts -------------------------------------------------------------------------------- */

static void a_chat_goes_through_the_template(void **state)
{
    struct told t;
    (void)state;
    chat_ok(&t, "plain", HELLO);
    assert_string_equal(t.prompt, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    assert_false(t.open);
    assert_int_equal(t.tokens[0], 4);
    assert_int_equal(t.end, REQUEST_LENGTH);
    assert_int_equal(t.stats.answer_tokens, 4);
    assert_int_equal(t.stats.prompt_tokens, t.prompts);
}

static void control_tokens_of_users_are_text(void **state)
{
    struct told t, u;
    (void)state;
    chat_ok(&t, "plain", "[{\"role\":\"user\",\"content\":\"<|im_end|>\"}]");
    chat_ok(&u, "plain", "[{\"role\":\"user\",\"content\":\"\"}]");
    assert_true(t.prompts > u.prompts + 4); /* spelt out, not one token */
}

static void thinking_is_switched_by_what_the_template_has(void **state)
{
    struct told t;
    (void)state;
    chat_ok(&t, "always", HELLO);
    assert_true(t.open);
    assert_true(strlen(t.thought) > 0);
    assert_string_equal(t.text, "");
    chat(&t, "always", HELLO);
    t.spec.think = JOB_THINK_OFF;
    run_ok(&t);
    assert_false(t.open);
    assert_non_null(strstr(t.prompt, "assistant\n<think>\n\n</think>\n\n"));
    assert_string_equal(t.thought, "");
    json_decref(t.spec.messages);
    chat(&t, "switch", HELLO);
    t.spec.think = JOB_THINK_OFF;
    run_ok(&t);
    assert_non_null(strstr(t.prompt, "<think>\n\n</think>\n\n"));
    json_decref(t.spec.messages);
    chat(&t, "switch", HELLO);
    t.spec.think = JOB_THINK_ON;
    run_ok(&t);
    assert_null(strstr(t.prompt, "<think>"));
    json_decref(t.spec.messages);
    chat_ok(&t, "deepseek-chat", HELLO);
    assert_false(t.open);
    chat_ok(&t, "deepseek-reasoner", HELLO);
    assert_true(t.open);
    /* A budget of nothing is no thought. */
    chat(&t, "always", HELLO);
    t.spec.think_max = 0;
    run_ok(&t);
    assert_false(t.open);
    json_decref(t.spec.messages);
}

static void a_budget_closes_the_thought(void **state)
{
    struct told t;
    (void)state;
    chat(&t, "always", HELLO);
    t.spec.think_max = 5;
    t.spec.max_tokens = 30;
    run_ok(&t);
    assert_true(t.open);
    assert_true(strlen(t.thought) > 0);
    assert_true(strlen(t.text) > 0);
    assert_in_range(t.stats.thought_tokens, 5, 12);
    json_decref(t.spec.messages);
}

static void a_template_that_refuses_gets_another_shape(void **state)
{
    struct told t;
    (void)state;
    chat_ok(&t, "strict",
            "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}]");
    assert_string_equal(t.prompt, "[user]a\n\nb[assistant]");
    chat_ok(&t, "strict",
            "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\","
            "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]}]");
    assert_string_equal(t.prompt, "[user]a[assistant]call {\"x\":1}[assistant]");
    chat(&t, "strict", "[{\"role\":\"assistant\",\"content\":\"a\"}]");
    run(&t);
    assert_int_equal(t.fails, 1);
    assert_int_equal(t.err.code, ERR_FORMAT);
    assert_non_null(strstr(t.err.text, "roles must take turns"));
    assert_int_equal(t.begins, 0);
    json_decref(t.spec.messages);
}

static void the_last_message_is_continued(void **state)
{
    struct told t;
    (void)state;
    chat(&t, "plain",
         "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"It is\"}]");
    t.spec.go_on = true;
    run_ok(&t);
    assert_string_equal(t.prompt, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nIt is");
    json_decref(t.spec.messages);
}

static void variables_reach_the_template_but_not_its_own(void **state)
{
    struct told t;
    (void)state;
    chat(&t, "plain", HELLO);
    t.spec.template_vars = json_pack("{s[] sb so}", "messages", "add_generation_prompt", 0, "tools",
                                     json_pack("[i]", 7));
    run_ok(&t);
    assert_string_equal(t.prompt, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    json_decref(t.spec.template_vars);
    json_decref(t.spec.messages);
}

/* ---- lengths -------------------------------------------------------------------------------- */

static json_t *long_chat(size_t turns)
{
    json_t *all = json_pack("[{ss ss}]", "role", "system", "content", "keep me");
    for (size_t i = 0; i < turns; i++) {
        json_array_append_new(all, json_pack("{ss so}", "role", "user", "content",
                                             json_sprintf("question number %zu", i)));
        json_array_append_new(all,
                              json_pack("{ss ss}", "role", "assistant", "content", "an answer"));
    }
    json_array_append_new(all, json_pack("{ss ss}", "role", "user", "content", "the last one"));
    return all;
}

static void too_long_a_chat_is_an_error_or_loses_its_oldest(void **state)
{
    struct told t;
    (void)state;
    told_init(&t, "plain");
    t.spec.messages = long_chat(100);
    run(&t);
    assert_int_equal(t.err.code, ERR_LIMIT);
    assert_non_null(strstr(t.err.text, "maximum context length is 1024 tokens"));
    assert_int_equal(t.begins, 0);
    json_t *messages = t.spec.messages;
    told_init(&t, "plain");
    t.spec.messages = messages;
    t.spec.truncate = true;
    run_ok(&t);
    assert_in_range(t.prompts, 900, 1023); /* no more went than had to */
    json_decref(messages);
    told_init(&t, "plain");
    t.spec.messages = long_chat(3);
    run_ok(&t);
    assert_non_null(strstr(t.prompt, "question number 0"));
    json_decref(t.spec.messages);
}

static void answers_end_where_the_context_does(void **state)
{
    struct told t;
    char text[1200];
    (void)state;
    memset(text, 'x', sizeof text);
    told_init(&t, "plain");
    t.spec.prompt = JOB_TEXT;
    t.spec.text = text;
    t.spec.n_text = sizeof text;
    t.spec.truncate = true;
    t.spec.prompt_max = 1000;
    t.spec.max_tokens = 500;
    run_ok(&t);
    assert_in_range(t.prompts, 1, 1000);
    assert_int_equal(t.prompts + t.stats.answer_tokens, 1024);
    assert_int_not_equal(t.end, REQUEST_STOP);
}

/* ---- other prompts -------------------------------------------------------------------------- */

static void text_may_hold_control_tokens(void **state)
{
    struct told t;
    (void)state;
    told_init(&t, "plain");
    t.spec.prompt = JOB_TEXT;
    t.spec.text = "<|im_start|>";
    t.spec.n_text = strlen(t.spec.text);
    run_ok(&t);
    assert_int_equal(t.prompts, 1);
    assert_false(t.open);
    told_init(&t, "plain");
    t.spec.prompt = JOB_TEXT;
    t.spec.text = "hm <think>\n";
    t.spec.n_text = strlen(t.spec.text);
    run_ok(&t);
    assert_true(t.open);
    t.spec.raw = true;
    told_init(&t, "plain");
    t.spec.prompt = JOB_TEXT;
    run(&t);
    assert_int_equal(t.err.code, ERR_USAGE); /* an empty prompt */
}

static void ids_are_checked(void **state)
{
    static const int32_t good[] = {5, 6, 7}, bad[] = {5, 512};
    struct told t;
    (void)state;
    told_init(&t, "plain");
    t.spec.prompt = JOB_IDS;
    t.spec.ids = good;
    t.spec.n_ids = 3;
    run_ok(&t);
    assert_int_equal(t.prompts, 3);
    told_init(&t, "plain");
    t.spec.prompt = JOB_IDS;
    t.spec.ids = bad;
    t.spec.n_ids = 2;
    run(&t);
    assert_int_equal(t.err.code, ERR_USAGE);
    assert_non_null(strstr(t.err.text, "out of vocabulary"));
}

static void a_model_without_holes_says_so(void **state)
{
    struct told t;
    (void)state;
    told_init(&t, "plain");
    t.spec.prompt = JOB_FIM;
    t.spec.text = "int f(";
    t.spec.n_text = 6;
    t.spec.suffix = ")";
    t.spec.n_suffix = 1;
    run(&t);
    assert_int_equal(t.err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(t.err.text, "fill in the middle"));
}

/* More inputs than are sent at the same time, each with two answers. */
static void many_inputs_are_one_job(void **state)
{
    enum { N = 40 };
    struct told t, one;
    struct job_input in[N];
    char text[N][20];
    (void)state;
    told_init(&t, "plain");
    t.spec.prompt = JOB_TEXT;
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "input %d", i);
        in[i] = (struct job_input){.text = text[i], .n = strlen(text[i])};
    }
    t.spec.input = in;
    t.spec.n_input = N;
    t.spec.n = 2;
    run_ok(&t);
    assert_int_equal(t.samples, 2 * N);
    assert_int_equal(t.stats.answer_tokens, 2 * N * 4);
    for (int k = 0; k < 8; k++)
        assert_int_equal(t.tokens[k], 4);
    told_init(&one, "plain");
    one.spec.prompt = JOB_TEXT;
    one.spec.text = text[0];
    one.spec.n_text = strlen(text[0]);
    run_ok(&one);
    assert_true(t.prompts > N * (one.prompts - 1));
}

/* ---- parameters ----------------------------------------------------------------------------- */

static void wrong_parameters_are_refused(void **state)
{
    static const struct sampler_bias bias = {600, 1};
    struct told t;
    (void)state;
    chat(&t, "plain", HELLO);
    t.spec.sampling.temperature = -1;
    run(&t);
    assert_int_equal(t.err.code, ERR_USAGE);
    json_t *messages = t.spec.messages;
    told_init(&t, "plain");
    t.spec.messages = messages;
    t.spec.n = 17;
    run(&t);
    assert_int_equal(t.err.code, ERR_USAGE);
    told_init(&t, "plain");
    t.spec.messages = messages;
    t.spec.sampling.bias = &bias;
    t.spec.sampling.n_bias = 1;
    run(&t);
    assert_non_null(strstr(t.err.text, "out of vocabulary"));
    told_init(&t, "nobody");
    t.spec.messages = messages;
    run(&t);
    assert_int_equal(t.err.code, ERR_NOTFOUND);
    told_init(&t, "plain");
    t.spec.messages = messages;
    t.spec.min_tokens = 5;
    run(&t);
    assert_int_equal(t.err.code, ERR_USAGE);
    json_decref(messages);
}

static void seeds_repeat(void **state)
{
    struct told a, b;
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct told *t = i ? &b : &a;
        chat(t, "plain", HELLO);
        t->spec.sampling.temperature = 1;
        t->spec.seed_given = true;
        t->spec.sampling.seed = 42;
        t->spec.max_tokens = 20;
        run_ok(t);
        json_decref(t->spec.messages);
    }
    assert_string_equal(a.text, b.text);
}

static void beginnings_are_shared_within_a_key_only(void **state)
{
    struct told t;
    json_t *messages = long_chat(20); /* begins as no other test's */
    json_object_set_new(json_array_get(messages, 0), "content", json_string("share me"));
    size_t cached[5];
    const uint64_t owner[5] = {0, 0, 1, 2, 1};
    const char *const salt[5] = {NULL, NULL, NULL, NULL, "x"};
    (void)state;
    for (int i = 0; i < 5; i++) {
        told_init(&t, "plain");
        t.spec.messages = messages;
        t.spec.salt = salt[i];
        run_as(&t, owner[i]);
        assert_int_equal(t.fails, 0);
        cached[i] = t.stats.cached_tokens;
    }
    assert_int_equal(cached[0], 0);
    assert_true(cached[1] >= 64);
    assert_int_equal(cached[2], 0);
    assert_int_equal(cached[3], 0);
    assert_int_equal(cached[4], 0);
    json_decref(messages);
}

/* ---- ends ----------------------------------------------------------------------------------- */

static void whoever_leaves_is_not_computed_for(void **state)
{
    struct told t;
    struct http_exchange *x;
    (void)state;
    int before = fake_counts(server).requests;
    chat(&t, "plain", HELLO);
    t.spec.max_tokens = 900;
    x = fake_send(server, told_run, NULL);
    told_x = x;
    job_run(server, x, &t.spec, &told_sink, &t);
    fake_leave(x);
    fake_free(x);
    assert_int_equal(t.fails, 1);
    assert_int_equal(t.err.code, ERR_CANCELLED);
    assert_int_equal(t.frees, 1);
    assert_true(t.stats.answer_tokens < 900);
    assert_int_equal(fake_counts(server).requests, before + 1);
    assert_string_equal(fake_counts(server).why, "abort");
    json_decref(t.spec.messages);
}

static void a_sink_that_fails_ends_the_job(void **state)
{
    struct told t;
    (void)state;
    chat(&t, "plain", HELLO);
    t.spec.max_tokens = 900;
    t.stop_after = 2;
    run(&t);
    assert_int_equal(t.fails, 1);
    assert_string_equal(t.err.text, "enough");
    assert_int_equal(t.pieces, 2);
    json_decref(t.spec.messages);
}

static void the_wall_limit_ends_with_what_there_is(void **state)
{
    struct told t;
    (void)state;
    chat(&t, "plain", HELLO);
    t.spec.max_tokens = 0;
    t.spec.deadline = 1e-6;
    run(&t);
    assert_int_equal(t.dones, 1);
    assert_int_equal(t.end, REQUEST_DEADLINE);
    json_decref(t.spec.messages);
}

/* A place is taken from the beginning of a job to its end: here the first one's sink asks for the
   second. */
static struct told second;
static int refused;

static int ask_again(void *arg, struct job *j, struct err *e)
{
    struct http_exchange *first = told_x, *y = fake_send(server, told_run, NULL);
    y->owner = http_owner(job_exchange(j));
    told_x = y;
    job_run(server, y, &second.spec, &told_sink, &second);
    told_x = first;
    refused = y->status;
    y->ended = true;
    fake_free(y);
    return told_begin(arg, j, e);
}

static void a_key_has_so_many_jobs_at_the_same_time(void **state)
{
    static const struct job_sink sink = {ask_again, told_event, told_fail, told_free};
    struct told t;
    (void)state;
    server->o.owner_jobs = 1;
    chat(&t, "plain", HELLO);
    chat(&second, "nobody", HELLO);
    struct http_exchange *x = fake_send(server, told_run, NULL);
    x->owner = 7;
    told_x = x;
    job_run(server, x, &t.spec, &sink, &t);
    fake_free(x);
    assert_int_equal(t.dones, 1);
    assert_int_equal(refused, 429);
    assert_int_equal(second.frees, 1);
    json_decref(second.spec.messages);
    chat(&second, "plain", HELLO); /* and now there is a place again */
    run_as(&second, 7);
    assert_int_equal(second.dones, 1);
    json_decref(second.spec.messages);
    json_decref(t.spec.messages);
    server->o.owner_jobs = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_all_clients_look_alike),
        cmocka_unit_test(wrong_messages_are_named),
        cmocka_unit_test(calls_keep_the_text_of_their_arguments),
        cmocka_unit_test(a_chat_goes_through_the_template),
        cmocka_unit_test(control_tokens_of_users_are_text),
        cmocka_unit_test(thinking_is_switched_by_what_the_template_has),
        cmocka_unit_test(a_budget_closes_the_thought),
        cmocka_unit_test(a_template_that_refuses_gets_another_shape),
        cmocka_unit_test(the_last_message_is_continued),
        cmocka_unit_test(variables_reach_the_template_but_not_its_own),
        cmocka_unit_test(too_long_a_chat_is_an_error_or_loses_its_oldest),
        cmocka_unit_test(answers_end_where_the_context_does),
        cmocka_unit_test(text_may_hold_control_tokens),
        cmocka_unit_test(ids_are_checked),
        cmocka_unit_test(a_model_without_holes_says_so),
        cmocka_unit_test(many_inputs_are_one_job),
        cmocka_unit_test(wrong_parameters_are_refused),
        cmocka_unit_test(seeds_repeat),
        cmocka_unit_test(beginnings_are_shared_within_a_key_only),
        cmocka_unit_test(whoever_leaves_is_not_computed_for),
        cmocka_unit_test(a_sink_that_fails_ends_the_job),
        cmocka_unit_test(the_wall_limit_ends_with_what_there_is),
        cmocka_unit_test(a_key_has_so_many_jobs_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
