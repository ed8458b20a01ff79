/* Checkpoints: what comes back, what is kept, and that neither kill -9 nor a disk that fails at any
 * point loses one that was there. */
#include "base/file.h"
#include "base/num.h"
#include "support/fail_io.h"
#include "support/scratch.h"
#include "train/checkpoint.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 33, COLS = 48, BIG = 700001 };

struct place {
    char dir[64];
    float small[ROWS * COLS];
};

static int setup(void **state)
{
    static struct place p;
    *state = &p;
    return scratch_make(p.dir, sizeof p.dir, "checkpoint") ? 0 : -1;
}

static int teardown(void **state)
{
    struct place *p = *state;
    scratch_remove(p->dir);
    return 0;
}

/* Every value of a checkpoint is a function of its step. */
static float value(int64_t step, size_t i)
{
    return (float)(step * 1000 + (int64_t)(i % 997)) * 0.5f;
}

static int read_big(void *arg, const struct checkpoint_tensor *t, uint64_t offset, void *dst,
                    size_t n, struct err *e)
{
    float *out = dst;
    assert_true(n <= CHECKPOINT_PIECE && n % 4 == 0);
    for (size_t i = 0; i < n / 4; i++)
        out[i] = value(*(const int64_t *)arg, (size_t)offset / 4 + i);
    return 0;
}

/* `big`: with a tensor of several pieces. */
static int save(struct place *p, int64_t step, double metric, const struct checkpoint_keep *keep,
                bool big, struct err *e)
{
    static const int64_t counters[] = {1, -2, 3};
    for (size_t i = 0; i < ROWS * COLS; i++)
        p->small[i] = value(step, i);
    struct checkpoint_tensor model[] = {
        {.name = "w", .dtype = "F32", .dims = 2, .shape = {ROWS, COLS}, .data = p->small},
        {.name = "empty", .dtype = "F32", .dims = 1, .shape = {0}},
        {.name = "big", .dtype = "F32", .dims = 1, .shape = {BIG}, .read = read_big, .arg = &step},
    };
    struct checkpoint_tensor rest[] = {
        {.name = "n", .dtype = "I64", .dims = 1, .shape = {3}, .data = counters}};
    struct checkpoint_part parts[] = {{"model", model, big ? 3 : 2}, {"optimizer", rest, 1}};
    json_t *state = json_pack("{s:I, s:f}", "tokens", (json_int_t)(step * 100), "best", 0.1);
    struct checkpoint c = {
        .step = step, .state = state, .metric = metric, .parts = parts, .n_parts = 2};
    int rc = checkpoint_save(p->dir, &c, keep, e);
    json_decref(state);
    return rc;
}

static void must_save(struct place *p, int64_t step, double metric,
                      const struct checkpoint_keep *keep)
{
    struct err e = {0};
    if (save(p, step, metric, keep, false, &e))
        fail_msg("%s", e.text);
}

/* Opens the newest and holds what is in it against its step; returns the step. */
static int64_t load(struct place *p, struct buf *skipped)
{
    struct checkpoint_in *c;
    struct err e = {0};
    const void *data;
    size_t bytes;
    if (checkpoint_open(&c, p->dir, -1, skipped, &e))
        fail_msg("%s", e.text);
    int64_t step = checkpoint_step(c);
    struct checkpoint_tensor w = {.name = "w", .dtype = "F32", .dims = 2, .shape = {ROWS, COLS}};
    struct checkpoint_tensor b = {.name = "big", .dtype = "F32", .dims = 1, .shape = {BIG}};
    assert_int_equal(checkpoint_data(c, "model", &w, &data, &bytes, &e), 0);
    assert_int_equal(bytes, sizeof p->small);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        float x;
        memcpy(&x, (const char *)data + 4 * i, 4);
        assert_true(x == value(step, i));
    }
    if (!checkpoint_data(c, "model", &b, &data, &bytes, &e))
        for (size_t i = 0; i < BIG; i++) {
            float x;
            memcpy(&x, (const char *)data + 4 * i, 4);
            assert_true(x == value(step, i));
        }
    assert_int_equal(json_integer_value(json_object_get(checkpoint_state(c), "tokens")),
                     step * 100);
    assert_true(json_real_value(json_object_get(checkpoint_state(c), "best")) == 0.1);
    checkpoint_free(c);
    return step;
}

static void test_round_trip(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    struct checkpoint_in *c;
    const void *data;
    size_t bytes;
    assert_int_equal(save(p, 40, 0.75, NULL, true, &e), 0);
    assert_int_equal(load(p, NULL), 40);
    assert_int_equal(checkpoint_open(&c, p->dir, 40, NULL, &e), 0);
    assert_true(checkpoint_metric(c) == 0.75);
    assert_true(checkpoint_has_part(c, "optimizer"));
    assert_false(checkpoint_has_part(c, "ref"));
    struct checkpoint_tensor n = {.name = "n", .dtype = "I64", .dims = 1, .shape = {3}};
    assert_int_equal(checkpoint_data(c, "optimizer", &n, &data, &bytes, &e), 0);
    assert_memory_equal(data, ((int64_t[]){1, -2, 3}), 24);
    checkpoint_drop(c, "optimizer");
    assert_memory_equal(data, ((int64_t[]){1, -2, 3}), 24);
    n.shape[0] = 4;
    assert_int_equal(checkpoint_data(c, "optimizer", &n, &data, &bytes, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "I64 [3] and has to be I64 [4]"));
    n.name = "m";
    assert_int_equal(checkpoint_data(c, "optimizer", &n, &data, &bytes, &e), ERR_NOTFOUND);
    assert_int_equal(checkpoint_data(c, "ref", &n, &data, &bytes, &e), ERR_NOTFOUND);
    checkpoint_free(c);
    assert_int_equal(checkpoint_open(&c, p->dir, 41, NULL, &e), ERR_IO);
    assert_null(c);
}

static void test_none(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    struct checkpoint_in *c;
    int64_t step;
    assert_int_equal(checkpoint_open(&c, p->dir, -1, NULL, &e), ERR_NOTFOUND);
    assert_non_null(strstr(e.text, p->dir));
    assert_int_equal(checkpoint_best(p->dir, true, &step, &e), ERR_NOTFOUND);
    assert_int_equal(checkpoint_remove_all(p->dir, &e), 0);
}

static void assert_steps(struct place *p, size_t n, const int64_t *want)
{
    struct checkpoint_info *v;
    struct err e = {0};
    size_t got;
    assert_int_equal(checkpoint_list(p->dir, &v, &got, &e), 0);
    assert_int_equal(got, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(v[i].step, want[i]);
    free(v);
}

static void test_keep(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    int64_t step;
    struct checkpoint_keep keep = {.last = 2, .best = true, .greater = true};
    must_save(p, 10, 0.1, &keep);
    must_save(p, 20, 0.9, &keep);
    must_save(p, 30, 0.5, &keep);
    must_save(p, 40, NAN, &keep);
    must_save(p, 100, 0.9, &keep); /* as good as 20, which was first */
    assert_steps(p, 3, (int64_t[]){20, 40, 100});
    assert_int_equal(checkpoint_best(p->dir, true, &step, &e), 0);
    assert_int_equal(step, 20);
    assert_int_equal(checkpoint_best(p->dir, false, &step, &e), 0);
    assert_int_equal(step, 20);
    keep = (struct checkpoint_keep){.last = 1};
    must_save(p, 110, 1, &keep);
    assert_steps(p, 1, (int64_t[]){110});
    must_save(p, 110, 2, NULL); /* the same step again */
    assert_steps(p, 1, (int64_t[]){110});
    assert_int_equal(load(p, NULL), 110);
    must_save(p, 120, 2, NULL);
    assert_int_equal(checkpoint_remove_all(p->dir, &e), 0);
    assert_steps(p, 0, NULL);
    assert_int_equal(rmdir(p->dir), 0); /* nothing was left */
    assert_int_equal(mkdir(p->dir, 0777), 0);
}

/* Changes one byte of a file, or cuts it. */
static void damage(struct place *p, const char *name, long at, bool cut)
{
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoints/%s", p->dir, name);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    if (cut) {
        assert_int_equal(ftruncate(fileno(f), at), 0);
    } else {
        fseek(f, at, SEEK_SET);
        int c = getc(f);
        fseek(f, at, SEEK_SET);
        putc(c ^ 1, f);
    }
    fclose(f);
}

static void test_damaged(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    struct buf skipped;
    struct checkpoint_in *c;
    char path[256];
    buf_init(&skipped, 4096);
    for (int64_t i = 1; i <= 6; i++)
        must_save(p, i, 0, NULL);
    damage(p, "step-6/model.safetensors", 3000, false);
    damage(p, "step-5/optimizer.safetensors", 90, true);
    damage(p, "step-4/manifest.json", 30, true);
    damage(p, "step-3/state.json", 5, false);
    snprintf(path, sizeof path, "%s/checkpoints/step-2/model.safetensors", p->dir);
    unlink(path);
    assert_int_equal(load(p, &skipped), 1);
    assert_non_null(strstr(skipped.data, "step-6: model.safetensors: its bytes are not"));
    assert_non_null(strstr(skipped.data, "step-5: optimizer.safetensors has 90 bytes"));
    assert_non_null(strstr(skipped.data, "step-4: manifest.json: not valid JSON"));
    assert_non_null(strstr(skipped.data, "step-3: state.json: its bytes"));
    assert_non_null(strstr(skipped.data, "step-2: model.safetensors is missing"));
    assert_int_equal(checkpoint_open(&c, p->dir, 6, NULL, &e), ERR_FORMAT);
    damage(p, "step-1/state.json", 5, false);
    buf_clear(&skipped);
    assert_int_equal(checkpoint_open(&c, p->dir, -1, &skipped, &e), ERR_NOTFOUND);
    buf_release(&skipped);
}

/* Files of a manifest are in its folder. */
static void test_hostile_manifest(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    struct checkpoint_in *c;
    char path[256];
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"version\": 1, \"step\": 1, \"files\": 3}",
        "{\"version\": 2, \"step\": 1, \"files\": []}",
        "{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"../step-2/state.json\", \"bytes\": "
        "1, "
        "\"xxh64\": \"0000000000000000\"}]}",
        "{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"state.json\", \"bytes\": -1, "
        "\"xxh64\": \"0000000000000000\"}]}",
        "{\"version\": 1, \"step\": 1, \"files\": [{\"name\": \"state.json\", \"bytes\": 1}]}",
        "{\"version\": 1, \"step\": 1, \"files\": []} x",
    };
    must_save(p, 1, 0, NULL);
    must_save(p, 2, 0, NULL);
    snprintf(path, sizeof path, "%s/checkpoints/step-1/manifest.json", p->dir);
    for (size_t i = 0; i < NUM_COUNT(texts); i++) {
        FILE *f = fopen(path, "w");
        fputs(texts[i], f);
        fclose(f);
        assert_int_not_equal(checkpoint_open(&c, p->dir, 1, NULL, &e), 0);
        assert_null(c);
    }
}

static void test_usage(void **state)
{
    struct place *p = *state;
    struct err e = {0};
    json_t *o = json_object();
    struct checkpoint_tensor t = {
        .name = "w", .dtype = "F99", .dims = 2, .shape = {ROWS, COLS}, .data = p->small};
    struct checkpoint_part part = {"model", &t, 1};
    struct checkpoint c = {.step = 1, .state = o, .metric = NAN, .parts = &part, .n_parts = 1};
    assert_int_equal(checkpoint_save(p->dir, &c, NULL, &e), ERR_USAGE);
    t.dtype = "F32";
    t.shape[0] = UINT64_MAX;
    assert_int_equal(checkpoint_save(p->dir, &c, NULL, &e), ERR_USAGE);
    t.shape[0] = ROWS;
    part.name = "../x";
    assert_int_equal(checkpoint_save(p->dir, &c, NULL, &e), ERR_USAGE);
    part.name = "model";
    c.step = -1;
    assert_int_equal(checkpoint_save(p->dir, &c, NULL, &e), ERR_USAGE);
    c.step = 1;
    t.shape[0] = 1ull << 45; /* more than any disk here has */
    t.data = NULL;
    t.read = read_big;
    assert_int_equal(checkpoint_save(p->dir, &c, NULL, &e), ERR_IO);
    assert_non_null(strstr(e.text, "are free there"));
    assert_steps(p, 0, NULL);
    json_decref(o);
}

/* Names that begin with a dot in the folder of checkpoints. */
static size_t leftovers(struct place *p)
{
    char path[128];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/checkpoints", p->dir);
    DIR *d = opendir(path);
    for (struct dirent *x; d && (x = readdir(d));)
        n += x->d_name[0] == '.' && strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

/* The n-th write, sync, rename … fails, for every n: saving says so or succeeds, what was there is
   whole, and the next one goes well. */
static void test_failing_disk(void **state)
{
    static const int errors[] = {EIO, ENOSPC};
    struct place *p = *state;
    struct checkpoint_keep keep = {.last = 2};
    for (int from = 0; from < 2; from++)
        for (size_t k = 0; k < 2; k++) {
            size_t n = 1;
            struct err e = {0};
            assert_int_equal(checkpoint_remove_all(p->dir, &e), 0);
            must_save(p, 1, 0, &keep);
            must_save(p, 2, 0, &keep);
            for (bool hit = true; hit; n++) {
                e = (struct err){0};
                (from ? fail_io_from : fail_io_at)(n, errors[k]);
                int rc = save(p, 3, 0, &keep, false, &e);
                hit = fail_io_stop();
                int64_t newest = load(p, NULL);
                assert_true(newest == 3 || (newest == 2 && rc));
                if (rc) {
                    assert_int_equal(e.code, rc);
                    assert_non_null(strstr(e.text, "checkpoint of step 3: "));
                    assert_non_null(strstr(e.text, "is kept)"));
                } else {
                    assert_steps(p, 2, (int64_t[]){2, 3});
                }
                must_save(p, 3, 0, &keep); /* also replaces one that is there */
                assert_int_equal(load(p, NULL), 3);
                assert_int_equal(leftovers(p), 0);
                assert_int_equal(checkpoint_remove_all(p->dir, &e), 0);
                must_save(p, 1, 0, &keep);
                must_save(p, 2, 0, &keep);
            }
            assert_true(n > 25);
        }
}

/* SIGKILL in the n-th of them, a write in its middle, for every n; with a new step and with one
 * that replaces another. */
static void test_killed(void **state)
{
    struct place *p = *state;
    struct checkpoint_keep keep = {.last = 2};
    for (int again = 0; again < 2; again++) {
        size_t n = 1;
        for (bool killed = true; killed; n++) {
            struct err e = {0};
            int status;
            assert_int_equal(checkpoint_remove_all(p->dir, &e), 0);
            must_save(p, 1, 0, &keep);
            must_save(p, 2, 0, &keep);
            pid_t pid = fork();
            if (pid == 0) {
                fail_io_kill_at(n);
                _exit(save(p, again ? 2 : 3, 0, &keep, false, &e) != 0);
            }
            waitpid(pid, &status, 0);
            killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            assert_true(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
            int64_t newest = load(p, NULL);
            assert_true(again ? newest == 2 : newest == 2 || newest == 3);
            assert_true(killed || newest == (again ? 2 : 3));
            must_save(p, 4, 0, &keep);
            assert_int_equal(load(p, NULL), 4);
            assert_int_equal(leftovers(p), 0);
        }
        assert_true(n > 25);
    }
}

/* A process that saves without end is killed at instants that nobody chose. */
static void test_killed_at_random(void **state)
{
    struct place *p = *state;
    struct checkpoint_keep keep = {.last = 2};
    int64_t newest = 1;
    must_save(p, 1, 0, &keep);
    for (int round = 0; round < 10; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            struct err e = {0};
            for (int64_t i = newest + 1;; i++)
                if (save(p, i, 0, &keep, true, &e))
                    _exit(1);
        }
        nanosleep(&(struct timespec){.tv_nsec = 3000000 + round * 7310123L}, NULL);
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        int64_t got = load(p, NULL);
        assert_true(got >= newest);
        newest = got;
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_round_trip),       CASE(test_none),  CASE(test_keep),         CASE(test_damaged),
        CASE(test_hostile_manifest), CASE(test_usage), CASE(test_failing_disk), CASE(test_killed),
        CASE(test_killed_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
