/*
 * The folder of the prefix cache without its thread: names, the set of keys, and what goes when the
 * bound is passed.
 */
#include "base/num.h"
#include "base/rng.h"
#include "engine/prefix_disk.h"
#include "engine/prefix_scan.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const uint64_t ours[2] = {0x1234, 0xffffffffffffffff}, theirs[2] = {7, 8};

static void test_names(void **state)
{
    static const char *const wrong[] = {
        "",
        "x",
        "0000000000000000-0000000000000001.kv", /* no page has key 0 */
        "0000000000000001-0000000000000001.k",
        "0000000000000001-0000000000000001.kvx",
        "000000000000000g-0000000000000001.kv",
        "0000000000000001+0000000000000001.kv",
        "0000000000000001-000000000000000g.kv",
        "000000000000000A-0000000000000001.kv",
        "0x00000000000001-0000000000000001.kv",
        " 000000000000001-0000000000000001.kv",
        "+000000000000001-0000000000000001.kv",
        "0000000000000001--000000000000001.kv",
    };
    (void)state;
    char name[PREFIX_NAME];
    uint64_t key = 0, parent = 0;
    prefix_file_name(name, 0xfedcba9876543210, 3);
    assert_string_equal(name, "fedcba9876543210-0000000000000003.kv");
    assert_true(prefix_file_parse(name, &key, &parent));
    assert_true(key == 0xfedcba9876543210 && parent == 3);
    for (size_t i = 0; i < NUM_COUNT(wrong); i++)
        assert_false(prefix_file_parse(wrong[i], &key, &parent));
}

/* Keys depend on the model, the salt and all tokens before. */
static void test_keys_of_pages(void **state)
{
    (void)state;
    int32_t ids[PREFIX_PAGE] = {1, 2, 3};
    const uint64_t a[2] = {1, 2}, b[2] = {1, 3};
    uint64_t root = prefix_root(ours, a), key = prefix_key(root, ids);
    assert_true(root != prefix_root(ours, b));
    assert_true(root != prefix_root(theirs, a));
    assert_true(key == prefix_key(root, ids));
    assert_true(key != prefix_key(prefix_root(ours, b), ids));
    assert_true(prefix_key(key, ids) != key);
    ids[63] = 1;
    assert_true(key != prefix_key(root, ids));
}

/* The set beside a plain list: many keys come and go. */
static void test_set(void **state)
{
    enum { KEYS = 600, ROUNDS = 20000 };
    (void)state;
    struct prefix_keys k = {0};
    struct rng r;
    int want[KEYS] = {0}; /* 1: soon, 2: stored */
    size_t n = 0;
    rng_init(&r, 1, 0);
    assert_false(prefix_keys_has(&k, 5, true));
    prefix_keys_remove(&k, 5);
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t i = rng_u32(&r) % KEYS;
        uint64_t key = i * 256 + 1;
        switch (rng_u32(&r) % 3) {
        case 0:
            n -= want[i] > 0;
            want[i] = 0;
            prefix_keys_remove(&k, key);
            break;
        case 1:
            n += !want[i];
            want[i] = want[i] == 2 ? 2 : 1;
            assert_true(prefix_keys_add(&k, key, false));
            break;
        default:
            n += !want[i];
            want[i] = 2;
            assert_true(prefix_keys_add(&k, key, true));
        }
        assert_int_equal(k.n, n);
        i = rng_u32(&r) % KEYS;
        assert_int_equal(prefix_keys_has(&k, i * 256 + 1, true), want[i] > 0);
        assert_int_equal(prefix_keys_has(&k, i * 256 + 1, false), want[i] == 2);
    }
    prefix_keys_release(&k);
}

struct rig {
    char path[64];
    int root, own, other;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct err e = {0};
    strcpy(r->path, "/tmp/ponder-scan-XXXXXX");
    if (!mkdtemp(r->path))
        return -1;
    r->root = prefix_scan_root(r->path, &e);
    r->own = prefix_scan_folder(r->root, ours, &e);
    r->other = prefix_scan_folder(r->root, theirs, &e);
    *state = r;
    return r->root < 0 || r->own < 0 || r->other < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    struct prefix_scan s = {.root = r->root, .id = {1, 1}, .bound = 0};
    struct err e = {0};
    int rc = prefix_scan(&s, &e); /* bound 0: all pages, and their folders */
    free(s.key);
    close(r->own);
    close(r->other);
    unlinkat(r->root, "0000000000001234ffffffffffffffff", AT_REMOVEDIR);
    unlinkat(r->root, "00000000000000070000000000000008", AT_REMOVEDIR);
    close(r->root);
    rc |= rmdir(r->path);
    free(r);
    return rc;
}

static void put(int dir, uint64_t key, uint64_t parent, size_t bytes, time_t age)
{
    char name[PREFIX_NAME];
    prefix_file_name(name, key, parent);
    int fd = openat(dir, name, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    struct timespec t[2] = {{.tv_sec = time(NULL) - age}, {.tv_sec = time(NULL) - age}};
    assert_int_equal(futimens(fd, t), 0);
    close(fd);
}

static bool there(int dir, uint64_t key, uint64_t parent)
{
    char name[PREFIX_NAME];
    prefix_file_name(name, key, parent);
    return !faccessat(dir, name, F_OK, 0);
}

static uint64_t scan(const struct rig *r, uint64_t bound, size_t *keys, size_t *gone)
{
    struct prefix_scan s = {.root = r->root, .id = {ours[0], ours[1]}, .bound = bound};
    struct err e = {0};
    if (prefix_scan(&s, &e))
        fail_msg("%s", e.text);
    *keys = s.n_key;
    *gone = 0;
    for (size_t i = 0; i < s.n_key; i++)
        *gone += s.key[i].gone;
    free(s.key);
    return s.bytes;
}

static void test_bound(void **state)
{
    const struct rig *r = *state;
    size_t keys, gone;
    /* A timeline of ours, begun long ago and used just now at its end, and one from between; one of
       another model, the oldest. */
    put(r->own, 1, 100, 1000, 5000);
    put(r->own, 2, 1, 1001, 4000);
    put(r->own, 3, 2, 1002, 10);
    put(r->own, 4, 1, 1001, 3000);
    put(r->own, 5, 4, 1002, 3000);
    put(r->other, 1, 100, 1000, 6000);
    put(r->other, 6, 1, 1001, 6000);
    assert_int_equal(scan(r, 7007, &keys, &gone), 7007);
    assert_int_equal(keys, 5);
    assert_int_equal(gone, 0);
    /* One too many: down to nine tenths; ends first. */
    assert_int_equal(scan(r, 7006, &keys, &gone), 6006);
    assert_int_equal(gone, 0);
    assert_false(there(r->other, 6, 1));
    assert_true(there(r->other, 1, 100));
    assert_int_equal(scan(r, 4500, &keys, &gone), 4004);
    assert_int_equal(keys, 5);
    assert_int_equal(gone, 1);
    assert_false(there(r->own, 5, 4));
    assert_true(there(r->own, 4, 1));
    assert_true(faccessat(r->root, "00000000000000070000000000000008", F_OK, 0) != 0);
    scan(r, 3600, &keys, &gone);
    assert_int_equal(gone, 1);
    assert_false(there(r->own, 4, 1));
    /* The beginning is as young as what follows it. */
    assert_int_equal(scan(r, 2500, &keys, &gone), 2001);
    assert_true(there(r->own, 1, 100) && there(r->own, 2, 1));
    assert_false(there(r->own, 3, 2));
    prefix_scan_touch(r->own, 2, 1);
    prefix_scan_touch(r->own, 77, 1); /* not there: nothing happens */
    assert_false(there(r->own, 77, 1));
    put(r->own, 9, 100, 1000, 2000); /* younger than 1 and 2 were */
    assert_int_equal(scan(r, 2500, &keys, &gone), 2001);
    assert_true(there(r->own, 1, 100) && there(r->own, 2, 1));
    assert_false(there(r->own, 9, 100));
}

/* Names that hang on one another in a circle, or on nothing, are files like others. */
static void test_circle(void **state)
{
    const struct rig *r = *state;
    size_t keys, gone;
    put(r->own, 1, 2, 1000, 50);
    put(r->own, 2, 3, 1000, 40);
    put(r->own, 3, 1, 1000, 30);
    put(r->own, 4, 4, 1000, 60);
    put(r->own, 4, 5, 1000, 10); /* the same key twice */
    assert_int_equal(scan(r, 4000, &keys, &gone), 3000);
    assert_int_equal(keys, 5);
    assert_int_equal(gone, 2);
    assert_int_equal(scan(r, 0, &keys, &gone), 0);
}

/* What others put there stays; what a killed writer left goes after a while. */
static void test_strangers(void **state)
{
    const struct rig *r = *state;
    size_t keys, gone;
    static const char *const names[] = {"notes.txt", "a.part", "b.part", ".part", "c.kv"};
    for (size_t i = 0; i < NUM_COUNT(names); i++) {
        int fd = openat(r->own, names[i], O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, 1 << 20), 0);
        if (i == 1) {
            struct timespec t[2] = {{.tv_sec = time(NULL) - 700}, {.tv_sec = time(NULL) - 700}};
            assert_int_equal(futimens(fd, t), 0);
        }
        close(fd);
    }
    assert_int_equal(mkdirat(r->root, "0123", 0700), 0);
    assert_int_equal(mkdirat(r->own, "0000000000000001-0000000000000001.kv", 0700), 0);
    assert_int_equal(symlinkat("/etc", r->root, "000000000000000000000000000000aa"), 0);
    put(r->own, 1, 2, 1000, 50);
    assert_int_equal(scan(r, 100, &keys, &gone), 0);
    assert_int_equal(gone, 1);
    for (size_t i = 0; i < NUM_COUNT(names); i++) {
        assert_int_equal(faccessat(r->own, names[i], F_OK, 0) == 0, i != 1);
        unlinkat(r->own, names[i], 0);
    }
    assert_int_equal(unlinkat(r->root, "0123", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(r->root, "000000000000000000000000000000aa", 0), 0);
    assert_int_equal(unlinkat(r->own, "0000000000000001-0000000000000001.kv", AT_REMOVEDIR), 0);
}

/* Pages stay off a disk that has little room; one line says so, and jobs come back all the same. */
static void test_little_room(void **state)
{
    const struct rig *r = *state;
    FILE *lines = tmpfile();
    struct log log = {.out = lines, .level = LOG_WARN};
    char line[256];
    for (int little = 1; little >= 0; little--) {
        struct prefix_disk_opts o = {.dir = r->path,
                                     .bytes = 1 << 30,
                                     .spare = little ? UINT64_MAX / 2 : 0,
                                     .id = {ours[0], ours[1]},
                                     .page_bytes = 100,
                                     .max_ids = 4 * PREFIX_PAGE,
                                     .reads = 2,
                                     .writes = 3,
                                     .log = &log};
        struct prefix_disk *d;
        struct err e = {0};
        int32_t ids[PREFIX_PAGE] = {0};
        uint8_t page[100] = {1};
        if (prefix_disk_open(&d, &o, &e))
            fail_msg("%s", e.text);
        struct prefix_job j = {.write = true,
                               .page = {.id = {ours[0], ours[1]},
                                        .ids = ids,
                                        .n = PREFIX_PAGE,
                                        .data = page,
                                        .bytes = 100}};
        for (uint64_t k = 1; k <= 4; k++) {
            j.page.key = k;
            assert_int_equal(prefix_disk_push(d, &j), k <= 3); /* as many as there may be */
        }
        prefix_disk_stop(d);
        for (size_t k = 0; k < 3; k++) {
            assert_true(prefix_disk_next(d, &j));
            assert_true(j.ok && j.page.data == page);
        }
        assert_false(prefix_disk_next(d, &j));
        for (uint64_t k = 1; k <= 3; k++) {
            assert_int_equal(there(r->own, k, 0), !little);
            assert_int_equal(prefix_disk_has(d, k, true), !little);
        }
        prefix_disk_free(d);
    }
    rewind(lines);
    assert_non_null(fgets(line, sizeof line, lines));
    assert_non_null(strstr(line, "free"));
    assert_null(fgets(line, sizeof line, lines));
    fclose(lines);
    size_t keys, gone;
    assert_int_equal(scan(r, 0, &keys, &gone), 0);
    assert_int_equal(gone, 3);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_keys_of_pages),
        cmocka_unit_test(test_set),    WITH_FOLDER(test_bound),
        WITH_FOLDER(test_circle),      WITH_FOLDER(test_strangers),
        WITH_FOLDER(test_little_room),
    };
    return cmocka_run_group_tests_name("engine/prefix_scan", tests, NULL, NULL);
}
