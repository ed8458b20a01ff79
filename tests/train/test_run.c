/* Run folders: what is written, who may write, and that a run which was killed anywhere and went on
 * from a checkpoint leaves the bytes of one that was not. */
#include "base/file.h"
#include "support/fail_io.h"
#include "support/scratch.h"
#include "train/run.h"
#include "train/steplog.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef PONDER_SQLITE
#include <sqlite3.h>
#endif

enum { STEPS = 12 };

struct place {
    char dir[64], run[96];
};

static int setup(void **state)
{
    static struct place p;
    if (!scratch_make(p.dir, sizeof p.dir, "run"))
        return -1;
    snprintf(p.run, sizeof p.run, "%s/a/run", p.dir);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    scratch_remove(p->dir);
    return 0;
}

static json_t *config(void)
{
    return json_pack("{s:i, s:{s:f, s:s}}", "seed", 7, "train", "learning_rate", 0.001, "model",
                     "m.gguf");
}

static struct run *open_run(const char *dir, enum run_mode mode)
{
    struct run *r;
    struct err e = {0};
    json_t *c = config();
    int rc = run_open(&r, dir, mode, c, &e);
    json_decref(c);
    if (rc)
        fail_msg("%s", e.text);
    return r;
}

static char *text_of(const char *dir, const char *name)
{
    char path[256];
    struct buf b;
    struct err e = {0};
    buf_init(&b, 1 << 20);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (file_read(&b, path, &e))
        fail_msg("%s", e.text);
    char *s = strdup(b.data);
    buf_release(&b);
    return s;
}

static void assert_text(const char *dir, const char *name, const char *want)
{
    char *s = text_of(dir, name);
    assert_string_equal(s, want);
    free(s);
}

/* One step of a run: a line each, sometimes a sample. */
static int do_step(struct run *r, int64_t step, struct err *e)
{
    struct run_value v[] = {{"loss", 3.0 / (double)(step + 1)}, {"learning_rate", 1e-3}};
    struct run_value t[] = {{"step_time", 0.25 * (double)step}};
    int rc = run_log(r, step, v, 2, e);
    if (!rc)
        rc = run_timing(r, step, t, 1, e);
    if (!rc && step % 3 == 0) {
        json_t *o = json_pack("{s:s, s:{s:i}}", "prompt", "1+1=\n\"你\"", "rewards", "accuracy", 1);
        rc = run_sample(r, step, o, e);
        json_decref(o);
    }
    return rc;
}

static void do_steps(struct run *r, int64_t from, int64_t to)
{
    struct err e = {0};
    for (int64_t i = from; i <= to; i++)
        if (do_step(r, i, &e))
            fail_msg("%s", e.text);
}

static void test_lines(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    struct run *r = open_run(p->run, RUN_NEW);
    struct run_value v[] = {
        {"loss", 0.1f}, {"kl", 0.1}, {"n", 1234567}, {"bad", NAN}, {"a\"b", -0.0}};
    assert_int_equal(run_log(r, 1, v, 5, &e), 0);
    assert_int_equal(run_log(r, 1, NULL, 0, &e), 0);
    assert_int_equal(run_log(r, 0, v, 1, &e), ERR_USAGE); /* steps never go back */
    json_t *o = json_pack("{s:s}", "text", "x\n");
    assert_int_equal(run_sample(r, 2, o, &e), 0);
    json_decref(o);
    assert_int_equal(run_sync(r, &e), 0);
    run_free(r);
    assert_text(p->run, "log.jsonl",
                "{\"step\":1,\"loss\":0.1,\"kl\":0.1,\"n\":1234567,\"bad\":null,\"a\\\"b\":0}\n"
                "{\"step\":1}\n");
    assert_text(p->run, "samples.jsonl", "{\"step\":2,\"text\":\"x\\n\"}\n");
    json_t *c, *want = config();
    assert_int_equal(run_config(&c, p->run, &e), 0);
    assert_true(json_equal(c, want));
    json_decref(c);
    json_decref(want);
}

/* A number in a log is the number. */
static void test_numbers(void **state)
{
    static const double values[] = {1.0 / 3, 1e-45, 3.4e38, 5e-324,       1.7976931348623157e308,
                                    -2.5e-7, 1e15,  1e22,   123456789.125};
    struct err e;
    struct buf b;
    buf_init(&b, 256);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        buf_clear(&b);
        assert_int_equal(steplog_put_number(&b, values[i], &e), 0);
        assert_true(strtod(b.data, NULL) == values[i]);
        json_t *v = json_loads(b.data, JSON_DECODE_ANY, NULL);
        assert_true(json_is_number(v));
        json_decref(v);
        float f = (float)values[i] / 3;
        buf_clear(&b);
        assert_int_equal(steplog_put_number(&b, f, &e), 0);
        assert_true(isinf(f) || strtof(b.data, NULL) == f);
        assert_true(isinf(f) || b.len <= 15);
    }
    buf_release(&b);
}

static void test_modes(void **state)
{
    struct place *p = *state;
    char path[256];
    struct err e = {0};
    struct run *r = open_run(p->run, RUN_RESUME); /* nothing there: begins */
    assert_false(run_resumed(r));
    do_steps(r, 1, 3);
    run_free(r);

    json_t *c = config();
    assert_int_equal(run_open(&r, p->run, RUN_NEW, c, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "--resume"));
    json_decref(c);

    snprintf(path, sizeof path, "%s/notes.txt", p->run);
    FILE *f = fopen(path, "w");
    fclose(f);
    r = open_run(p->run, RUN_OVERWRITE);
    assert_false(run_resumed(r));
    run_free(r);
    assert_text(p->run, "log.jsonl", "");
    assert_int_equal(file_kind(path), FILE_REGULAR); /* what is not a run's own stays */

    c = json_integer(1);
    assert_int_equal(run_open(&r, p->run, RUN_RESUME, c, &e), ERR_USAGE);
    json_decref(c);
    c = config();
    assert_int_equal(run_open(&r, path, RUN_NEW, c, &e), ERR_IO); /* a file, no folder */
    assert_null(r);
    json_decref(c);
}

static void test_lock(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    int ready[2];
    char c, want[64];
    struct run *r;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        r = open_run(p->run, RUN_NEW);
        do_steps(r, 1, 2);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    json_t *o = config();
    assert_int_equal(run_open(&r, p->run, RUN_RESUME, o, &e), ERR_BUSY);
    snprintf(want, sizeof want, "process %ld", (long)pid);
    assert_non_null(strstr(e.text, want));
    json_decref(o);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    r = open_run(p->run, RUN_RESUME); /* a dead process holds nothing */
    assert_true(run_resumed(r));
    run_free(r);
    close(ready[0]);
    close(ready[1]);
}

static void test_rewind(void **state)
{
    struct place *p = *state;
    char other[128], path[160];
    struct err e = {0};
    size_t dropped;
    snprintf(other, sizeof other, "%s/whole", p->dir);
    struct run *r = open_run(other, RUN_NEW);
    do_steps(r, 1, STEPS);
    run_free(r);

    r = open_run(p->run, RUN_NEW);
    do_steps(r, 1, 8);
    run_free(r);
    snprintf(path, sizeof path, "%s/log.jsonl", p->run);
    FILE *f = fopen(path, "a");
    fputs("{\"step\":9,\"lo", f);
    fclose(f);

    r = open_run(p->run, RUN_RESUME);
    assert_int_equal(run_rewind(r, 5, &dropped, &e), 0);
    assert_int_equal(dropped, 3);
    do_steps(r, 6, STEPS);
    run_free(r);
    static const char *const names[] = {"log.jsonl", "samples.jsonl", "timings.jsonl"};
    for (size_t i = 0; i < 3; i++) {
        char *want = text_of(other, names[i]);
        assert_true(strlen(want) > 50);
        assert_text(p->run, names[i], want);
        free(want);
    }
    r = open_run(p->run, RUN_RESUME); /* no checkpoint yet: from the beginning */
    assert_int_equal(run_rewind(r, -1, &dropped, &e), 0);
    assert_int_equal(dropped, STEPS);
    assert_text(p->run, "log.jsonl", "");
    run_free(r);
}

#ifdef PONDER_SQLITE
static void assert_query(const char *dir, const char *sql, double want)
{
    char path[256];
    sqlite3 *db;
    sqlite3_stmt *s;
    snprintf(path, sizeof path, "%s/metrics.sqlite", dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_true(sqlite3_column_double(s, 0) == want);
    sqlite3_finalize(s);
    sqlite3_close(db);
}

static void test_table(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    char path[256];
    struct run *r = open_run(p->run, RUN_NEW);
    do_steps(r, 1, 8);
    /* another program may read while the run writes */
    assert_query(p->run, "SELECT count(*) FROM metrics", 24);
    run_free(r);
    snprintf(path, sizeof path, "%s/metrics.sqlite", p->run);
    FILE *f = fopen(path, "w"); /* damaged, or lost: it is made from the logs */
    fputs("this is no database", f);
    fclose(f);
    r = open_run(p->run, RUN_RESUME);
    assert_int_equal(run_rewind(r, 5, NULL, &e), 0);
    assert_query(p->run, "SELECT count(*) FROM metrics", 15);
    do_steps(r, 6, 7);
    assert_query(p->run, "SELECT max(step) FROM metrics WHERE name = 'loss'", 7);
    assert_query(p->run, "SELECT value FROM metrics WHERE name = 'loss' AND step = 5", 0.5);
    assert_query(p->run, "SELECT value FROM metrics WHERE name = 'step_time' AND step = 6", 1.5);
    assert_query(p->run, "SELECT json_extract(config, '$.seed') FROM runs", 7);
    run_free(r);
}
#endif

/* Killed in the n-th thing that it does to files, for every n: the folder goes on to the same end.
 */
static void test_killed(void **state)
{
    struct place *p = *state;
    char other[128], dir[128];
    struct err e = {0};
    snprintf(other, sizeof other, "%s/whole", p->dir);
    struct run *r = open_run(other, RUN_NEW);
    do_steps(r, 1, STEPS);
    run_free(r);
    size_t n = 1;
    for (bool killed = true; killed; n++) {
        int status;
        snprintf(dir, sizeof dir, "%s/killed-%zu", p->dir, n);
        pid_t pid = fork();
        if (pid == 0) {
            fail_io_kill_at(n);
            r = open_run(dir, RUN_RESUME);
            do_steps(r, 1, STEPS);
            run_free(r);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        r = open_run(dir, RUN_RESUME);
        char *text = text_of(dir, "log.jsonl");
        char *last = strrchr(text, '\n');
        /* goes on three steps before the last whole line, as from a checkpoint */
        int64_t from = -1;
        if (last) {
            *last = '\0';
            char *line = strrchr(text, '\n');
            assert_true(
                steplog_step(line ? line + 1 : text, strlen(line ? line + 1 : text), &from));
            from = from > 3 ? from - 3 : 0;
        }
        free(text);
        assert_int_equal(run_rewind(r, from, NULL, &e), 0);
        do_steps(r, from < 0 ? 1 : from + 1, STEPS);
        run_free(r);
        char *want = text_of(other, "log.jsonl");
        assert_text(dir, "log.jsonl", want);
        free(want);
        want = text_of(other, "samples.jsonl");
        assert_text(dir, "samples.jsonl", want);
        free(want);
    }
    assert_true(n > 20);
}

static void test_full_disk(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    struct run *r = open_run(p->run, RUN_NEW);
    do_steps(r, 1, 4);
    char *before = text_of(p->run, "log.jsonl");
    fail_io_from(1, ENOSPC);
    assert_int_equal(do_step(r, 5, &e), ERR_IO);
    assert_true(fail_io_stop());
    assert_non_null(strstr(e.text, "log.jsonl"));
    assert_non_null(strstr(e.text, "No space left"));
    assert_text(p->run, "log.jsonl", before); /* no half line */
    free(before);
    do_steps(r, 5, 6); /* and goes on when there is space again */
    run_free(r);
    char *text = text_of(p->run, "log.jsonl");
    assert_non_null(
        strstr(text, "\n{\"step\":5,\"loss\":0.5,\"learning_rate\":0.001}\n{\"step\":6,"));
    free(text);
}

static void test_config_same(void **state)
{
    static const char *const any[] = {"threads", "train.note", NULL};
    struct err e = {0};
    json_t *a = json_loads("{\"seed\": 1, \"threads\": 2, \"train\": {\"lr\": 1.0}}", 0, NULL);
    json_t *b = json_loads("{\"train\": {\"lr\": 1, \"note\": \"x\"}, \"seed\": 1, \"threads\": 4}",
                           0, NULL);
    assert_int_equal(run_config_same(a, b, any, &e), 0);
    json_object_set_new(json_object_get(b, "train"), "lr", json_real(0.5));
    assert_int_equal(run_config_same(a, b, any, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "train.lr"));
    assert_non_null(strstr(e.text, "0.5"));
    json_object_set_new(json_object_get(b, "train"), "lr", json_real(1));
    json_object_set_new(b, "new", json_true());
    assert_int_equal(run_config_same(a, b, any, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "new"));
    assert_int_equal(run_config_same(b, a, any, &e), ERR_USAGE);
    json_decref(a);
    json_decref(b);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_lines),
        cmocka_unit_test(test_numbers),
        CASE(test_modes),
        CASE(test_lock),
        CASE(test_rewind),
#ifdef PONDER_SQLITE
        CASE(test_table),
#endif
        CASE(test_killed),
        CASE(test_full_disk),
        cmocka_unit_test(test_config_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
