/*
 * The prefix cache on disk: found again after a restart with the bits of before; whatever is wrong
 * with a file costs that file and nothing else; bounds, other processes, kills, a full disk.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/engine_private.h"
#include "engine/prefix.h"
#include "engine/prefix_file.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CTX = 512, PAGES = 20, LEN = 300 };

static const uint64_t salt[2] = {1, 2}, other_salt[2] = {1, 3};

/* ---- a folder of the test ------------------------------------------------------------------- */

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    char file[1024];
    for (const struct dirent *t; d && (t = readdir(d));) {
        if (!strcmp(t->d_name, ".") || !strcmp(t->d_name, ".."))
            continue;
        snprintf(file, sizeof file, "%s/%s", path, t->d_name);
        struct stat st;
        if (!lstat(file, &st) && S_ISDIR(st.st_mode))
            remove_tree(file);
        else
            unlink(file);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ponder-prefix-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(folder);
    return 0;
}

struct files {
    size_t n, other; /* pages; anything else */
    uint64_t bytes;
    char path[200][256];
    struct stat st[200];
};

static int by_size(const void *a, const void *b)
{
    struct stat x, y;
    stat(a, &x);
    stat(b, &y);
    return (x.st_size > y.st_size) - (x.st_size < y.st_size);
}

/* The pages in the folder, those of short timelines first. */
static void list(struct files *f)
{
    DIR *top = opendir(folder), *d;
    memset(f, 0, sizeof *f);
    assert_non_null(top);
    for (const struct dirent *t; (t = readdir(top));) {
        char path[128];
        if (strlen(t->d_name) != 32)
            continue;
        snprintf(path, sizeof path, "%.60s/%.32s", folder, t->d_name);
        assert_non_null(d = opendir(path));
        for (const struct dirent *u; (u = readdir(d));) {
            uint64_t key, parent;
            if (*u->d_name == '.')
                continue;
            if (!prefix_file_parse(u->d_name, &key, &parent)) {
                f->other++;
                continue;
            }
            assert_true(f->n < NUM_COUNT(f->path));
            snprintf(f->path[f->n], sizeof *f->path, "%.100s/%.100s", path, u->d_name);
            f->n++;
        }
        closedir(d);
    }
    closedir(top);
    qsort(f->path, f->n, sizeof *f->path, by_size);
    for (size_t i = 0; i < f->n; i++) {
        assert_int_equal(stat(f->path[i], &f->st[i]), 0);
        f->bytes += (uint64_t)f->st[i].st_size;
    }
}

/* ---- an engine and its cache ---------------------------------------------------------------- */

struct rig {
    struct engine *g;
    struct prefix *p;
    int wake[2]; /* a pipe */
    const struct how *how;
};

static void rig_wake(void *arg)
{
    const struct rig *r = arg;
    assert_int_equal(write(r->wake[1], "w", 1), 1);
}

struct how {
    const char *model;
    enum quant_id kv;
    enum engine_act act;
    enum cpu_isa isa; /* CPU_SCALAR: the best */
    bool mtp;
    uint64_t bytes;
    const struct log *log;
};

static const struct how plain = {.model = "qwen2_tied", .kv = QUANT_F16};

static void rig_cache(struct rig *r)
{
    struct err e = {0};
    struct prefix_opts po = {.disk = folder,
                             .disk_bytes = r->how->bytes,
                             .wake = rig_wake,
                             .wake_arg = r,
                             .log = r->how->log};
    if (prefix_new(&r->p, r->g, &po, &e))
        fail_msg("%s", e.text);
}

static void rig_open(struct rig *r, const struct how *how)
{
    struct engine_opts o;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, how->model);
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = CTX;
    o.cache = PAGES * 64;
    o.kv_type = how->kv;
    o.act = how->act;
    o.isa = how->isa ? how->isa : o.isa;
    o.mtp = how->mtp;
    if (engine_open(&r->g, path, &o, &e))
        fail_msg("%s", e.text);
    assert_int_equal(pipe(r->wake), 0);
    r->how = how;
    rig_cache(r);
}

/* The cache anew, as after a restart. */
static void rig_again(struct rig *r)
{
    prefix_free(r->p);
    assert_int_equal(engine_pages_unused(r->g), PAGES);
    rig_cache(r);
}

static void rig_close(struct rig *r)
{
    prefix_free(r->p);
    assert_int_equal(engine_pages_unused(r->g), PAGES);
    engine_free(r->g);
    close(r->wake[0]);
    close(r->wake[1]);
}

static void some_ids(int32_t *ids, size_t n, size_t which)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + which * 31 + 3) % 250);
}

/* Asks the disk, and sleeps until `wake` says that it is there. */
static void fetch(struct rig *r, const uint64_t s[2], const int32_t *ids, size_t n)
{
    uint64_t ticket = prefix_fetch(r->p, s, ids, n, PAGES);
    while (!prefix_fetched(r->p, ticket)) {
        struct pollfd f = {.fd = r->wake[0], .events = POLLIN};
        char c;
        assert_int_equal(poll(&f, 1, 30000), 1);
        assert_int_equal(read(r->wake[0], &c, 1), 1);
    }
}

/* Computes a prompt with what there is; returns how much that was. Logits go to `row`. */
static size_t ask(struct rig *r, const uint64_t sa[2], const int32_t *ids, size_t n, float *row)
{
    struct session *s;
    struct err e = {0};
    fetch(r, sa, ids, n);
    assert_int_equal(session_new(&s, r->g, &e), 0);
    size_t had = prefix_attach(r->p, s, sa, ids, n);
    prefix_evict(r->p, session_need(s, n - had));
    for (size_t i = had; i < n;) {
        size_t k = n - i > 1 ? n - i - 1 : 1;
        if (session_append(s, ids + i, k, &e))
            fail_msg("%s", e.text);
        i += k;
        prefix_note(r->p, s, sa, n);
    }
    if (row)
        memcpy(row, session_logits(s), engine_info(r->g)->vocab * sizeof *row);
    session_free(s);
    return had;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void check_restart(const struct how *how)
{
    struct rig r;
    int32_t ids[LEN];
    float row[2][2048];
    struct files f;
    struct prefix_stats st;
    some_ids(ids, LEN, 0);
    rig_open(&r, how);
    size_t vocab = engine_info(r.g)->vocab;
    assert_true(vocab <= 2048);
    assert_int_equal(ask(&r, salt, ids, LEN, row[0]), 0);
    rig_close(&r); /* writes what is queued */
    list(&f);
    assert_int_equal(f.n, LEN / 64);
    assert_int_equal(f.other, 0);
    for (size_t i = 0; i < f.n; i++)
        assert_int_equal(f.st[i].st_mode & 0777, 0600);
    rig_open(&r, how);
    assert_int_equal(prefix_find(r.p, salt, ids, LEN), 0);
    assert_int_equal(prefix_fetch(r.p, other_salt, ids, LEN, PAGES), 0);
    assert_int_equal(prefix_fetch(r.p, salt, ids + 1, LEN - 1, PAGES), 0);
    assert_int_equal(prefix_fetch(r.p, salt, ids, 64, PAGES), 0);
    assert_int_equal(prefix_fetch(r.p, salt, ids, LEN, 0), 0);
    assert_int_equal(ask(&r, salt, ids, LEN, row[1]), LEN / 64 * 64);
    assert_memory_equal(row[0], row[1], vocab * sizeof(float));
    prefix_stats(r.p, &st);
    assert_int_equal(st.hit, LEN / 64 * 64);
    assert_int_equal(st.disk_hit, LEN / 64 * 64);
    /* In memory now: nothing to ask for, and no hit of the disk. */
    assert_int_equal(prefix_fetch(r.p, salt, ids, LEN, PAGES), 0);
    assert_int_equal(ask(&r, salt, ids, LEN, row[1]), LEN / 64 * 64);
    prefix_stats(r.p, &st);
    assert_int_equal(st.disk_hit, LEN / 64 * 64);
    assert_int_equal(st.hit, 2 * (LEN / 64 * 64));
    /* Only so many pages as one may take. */
    prefix_evict(r.p, PAGES);
    uint64_t ticket = prefix_fetch(r.p, salt, ids, LEN, 2);
    assert_true(ticket > 0);
    fetch(&r, salt, ids, 100); /* waits for the same pages */
    while (!prefix_fetched(r.p, ticket))
        ;
    assert_int_equal(prefix_find(r.p, salt, ids, LEN), 128);
    /* The folder is counted when there is nothing else to do. */
    for (int i = 0; st.disk_bytes != f.bytes && i < 10000; i++) {
        poll(NULL, 0, 1);
        prefix_stats(r.p, &st);
    }
    assert_int_equal(st.disk_bytes, f.bytes);
    rig_close(&r);
}

static void test_restart(void **state)
{
    (void)state;
    check_restart(&plain);
}

static void test_restart_int8(void **state)
{
    (void)state;
    check_restart(&(struct how){.model = "llama_rope_llama3", .kv = QUANT_Q8_0});
}

static void test_restart_latents(void **state)
{
    (void)state;
    check_restart(&(struct how){.model = "dsv3_qlora_yarn_mtp", .kv = ENGINE_KV_AUTO, .mtp = true});
}

/* Answers go to the disk when a prompt begins with them. */
static void test_answers(void **state)
{
    (void)state;
    struct rig r;
    struct files f;
    struct err e = {0};
    struct session *s;
    int32_t ids[LEN];
    some_ids(ids, LEN, 0);
    rig_open(&r, &plain);
    assert_int_equal(session_new(&s, r.g, &e), 0);
    assert_int_equal(session_append(s, ids, 280, &e), 0);
    prefix_note(r.p, s, salt, 140); /* 140 of prompt */
    session_free(s);
    rig_close(&r);
    list(&f);
    assert_int_equal(f.n, 2);
    rig_open(&r, &plain);
    fetch(&r, salt, ids, LEN);
    assert_int_equal(session_new(&s, r.g, &e), 0);
    assert_int_equal(prefix_attach(r.p, s, salt, ids, LEN), 128);
    assert_int_equal(session_append(s, ids + 128, 152, &e), 0);
    prefix_note(r.p, s, salt, 140);
    session_free(s);
    assert_int_equal(session_new(&s, r.g, &e), 0);
    assert_int_equal(prefix_attach(r.p, s, salt, ids, LEN), 256);
    session_free(s);
    rig_close(&r);
    list(&f);
    assert_int_equal(f.n, 4);
}

/* Other bits, other folder. */
static void test_identity(void **state)
{
    static const struct how hows[] = {
        {.model = "qwen2_tied", .kv = QUANT_F16},
        {.model = "qwen2_tied", .kv = QUANT_BF16},
        {.model = "qwen2_tied", .kv = QUANT_F16, .act = ENGINE_ACT_F32},
        {.model = "qwen2_tied", .kv = QUANT_F16, .act = ENGINE_ACT_INT8},
        {.model = "qwen2_untied", .kv = QUANT_F16},
        {.model = "dsv3_qlora_yarn_mtp", .kv = QUANT_F16},
        {.model = "dsv3_qlora_yarn_mtp", .kv = QUANT_F16, .mtp = true},
    };
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    some_ids(ids, LEN, 0);
    for (int again = 0; again < 2; again++)
        for (size_t i = 0; i < NUM_COUNT(hows); i++) {
            rig_open(&r, &hows[i]);
            assert_int_equal(ask(&r, salt, ids, LEN, NULL), again ? 256 : 0);
            rig_close(&r);
        }
}

/*
 * What pages hold is the same in all processes that read one another's files. When this fails, the
 * numerics or the layout of pages have changed: IDENTITY_VERSION of engine/identity.c goes up, and
 * the numbers here are written anew.
 */
static void test_bits_of_the_version(void **state)
{
    static const struct {
        struct how how;
        uint64_t sum;
    } want[] = {
        {{.model = "qwen2_tied", .kv = QUANT_F16}, 0xb38036ddf8af5b7e},
        {{.model = "llama_rope_llama3", .kv = QUANT_Q8_0}, 0xfe8638d1b32264bd},
        {{.model = "dsv3_qlora_yarn_mtp", .kv = QUANT_F16, .act = ENGINE_ACT_F32},
         0x403ec5dc9280e062},
        {{.model = "dsv3_qlora_yarn_mtp", .kv = QUANT_Q8_0, .act = ENGINE_ACT_INT8},
         0x6a455776b794885e},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(want); i++) {
        struct rig r;
        struct session *s;
        struct err e = {0};
        int32_t ids[LEN];
        some_ids(ids, LEN, 0);
        struct how how = want[i].how;
        how.isa = cpu_best() > CPU_AVX2 && i % 2 == 0 ? CPU_AVX2 : cpu_best(); /* the same in all */
        rig_open(&r, &how);
        assert_int_equal(session_new(&s, r.g, &e), 0);
        assert_int_equal(session_append(s, ids, 70, &e), 0);
        uint64_t sum = hash_xxh64(kv_page_data(r.g->kv, s->seq.page[0]),
                                  kv_page_bytes(kv_pool_shape(r.g->kv)), 0);
        if (sum != want[i].sum)
            fail_msg("%s: 0x%016llx", how.model, (unsigned long long)sum);
        session_free(s);
        rig_close(&r);
    }
}

/* Every way in which file number k may be wrong; false at the end. */
static bool damage(size_t way, char path[][256], size_t k, size_t page_bytes)
{
    static const size_t cut[] = {0, 1, 50, 95, 96, 200};
    struct stat st;
    char other[512];
    assert_int_equal(stat(path[k], &st), 0);
    size_t front = (size_t)st.st_size - page_bytes;
    snprintf(other, sizeof other, "%s/elsewhere", folder);
    if (way < PREFIX_HEAD + 20) { /* every byte of the head, some of the ids */
        if (way >= PREFIX_HEAD)
            way = PREFIX_HEAD + (way - PREFIX_HEAD) * (front - 1 - PREFIX_HEAD) / 19;
        int fd = open(path[k], O_RDWR);
        uint8_t c;
        assert_int_equal(pread(fd, &c, 1, (off_t)way), 1);
        c ^= (uint8_t)(1 << way % 8);
        assert_int_equal(pwrite(fd, &c, 1, (off_t)way), 1);
        close(fd);
        return true;
    }
    way -= PREFIX_HEAD + 20;
    if (way < 10) { /* some of the page */
        int fd = open(path[k], O_RDWR);
        off_t at = (off_t)(front + (page_bytes - 1) * way / 9);
        uint8_t c;
        assert_int_equal(pread(fd, &c, 1, at), 1);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, at), 1);
        close(fd);
        return true;
    }
    way -= 10;
    if (way < NUM_COUNT(cut)) {
        assert_int_equal(truncate(path[k], (off_t)cut[way]), 0);
        return true;
    }
    way -= NUM_COUNT(cut);
    switch (way) {
    case 0:
    case 1:
        assert_int_equal(truncate(path[k], st.st_size + (way ? 1 : -1)), 0);
        return true;
    case 2: /* a hole of zeros */
        assert_int_equal(truncate(path[k], 96), 0);
        assert_int_equal(truncate(path[k], st.st_size), 0);
        return true;
    case 3: /* another page under its name */
        assert_int_equal(unlink(path[k]), 0);
        assert_int_equal(rename(path[k + 1], path[k]), 0);
        return true;
    case 4: /* the right file, but not in its place */
        assert_int_equal(rename(path[k], other), 0);
        assert_int_equal(symlink(other, path[k]), 0);
        return true;
    case 5:
        assert_int_equal(unlink(path[k]), 0);
        assert_int_equal(symlink("/dev/zero", path[k]), 0);
        return true;
    case 6:
        assert_int_equal(unlink(path[k]), 0);
        assert_int_equal(mkfifo(path[k], 0600), 0);
        return true;
    case 7:
        assert_int_equal(unlink(path[k]), 0);
        assert_int_equal(mkdir(path[k], 0700), 0);
        return true;
    case 8:
        assert_int_equal(unlink(path[k]), 0);
        return true;
    default:
        return false;
    }
}

static void test_damage(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    float row[2][2048];
    char other[512];
    some_ids(ids, LEN, 0);
    rig_open(&r, &plain);
    size_t vocab = engine_info(r.g)->vocab, bytes = kv_page_bytes(kv_pool_shape(r.g->kv));
    snprintf(other, sizeof other, "%s/elsewhere", folder);
    ask(&r, salt, ids, LEN, row[0]);
    for (size_t way = 0;; way++) {
        struct files f, g;
        struct stat now;
        const size_t k = 2;
        rig_again(&r); /* what is queued is written */
        list(&f);
        assert_int_equal(f.n, 4);
        assert_int_equal(f.other, 0);
        if (!damage(way, f.path, k, bytes))
            break;
        rig_again(&r);
        assert_int_equal(ask(&r, salt, ids, LEN, row[1]), k * 64);
        assert_memory_equal(row[0], row[1], vocab * sizeof(float));
        if (!lstat(f.path[k], &now) && S_ISDIR(now.st_mode)) { /* nothing can take its place */
            assert_int_equal(rmdir(f.path[k]), 0);
            rig_again(&r);
            ask(&r, salt, ids, LEN, NULL);
        }
        /* It was removed and has been written again, whole. */
        rig_again(&r);
        list(&g);
        assert_int_equal(g.n, 4);
        for (size_t i = 0; i < 4; i++) {
            assert_string_equal(g.path[i], f.path[i]);
            assert_true(S_ISREG(g.st[i].st_mode));
            assert_int_equal(g.st[i].st_size, f.st[i].st_size);
        }
        assert_int_equal(ask(&r, salt, ids, LEN, row[1]), 256);
        assert_memory_equal(row[0], row[1], vocab * sizeof(float));
        unlink(other);
    }
    rig_close(&r);
}

/* Below the bound at the end, and the longest unused are gone, ends before beginnings. */
static void test_bound(void **state)
{
    (void)state;
    struct rig r;
    struct files f;
    struct how how = plain;
    int32_t ids[4][LEN];
    rig_open(&r, &plain);
    size_t page = kv_page_bytes(kv_pool_shape(r.g->kv));
    rig_close(&r);
    how.bytes = 12 * (page + 1500); /* ten or eleven are left when it is reached */
    for (size_t i = 0; i < 4; i++) {
        some_ids(ids[i], LEN, i);
        rig_open(&r, &how);
        ask(&r, salt, ids[i], LEN, NULL);
        ask(&r, salt, ids[0], LEN, NULL); /* the first is used all the time */
        rig_close(&r);
        list(&f);
        assert_true(f.bytes <= how.bytes);
    }
    assert_true(f.n >= 8);
    rig_open(&r, &how);
    assert_int_equal(ask(&r, salt, ids[0], LEN, NULL), 256);
    assert_int_equal(ask(&r, salt, ids[3], LEN, NULL), 256);
    assert_true(ask(&r, salt, ids[1], LEN, NULL) < 256);
    rig_close(&r);
    /* A smaller bound holds at once. */
    how.bytes = 3 * (page + 1500);
    rig_open(&r, &how);
    rig_close(&r);
    list(&f);
    assert_true(f.n >= 1 && f.n <= 3);
    assert_true(f.bytes <= how.bytes);
}

static size_t count_lines(FILE *f, const char *word)
{
    char line[1024];
    size_t n = 0;
    rewind(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, word) != NULL;
    return n;
}

/* A disk without room: one line, and all goes on from memory; later there is room again. */
static void test_full_disk(void **state)
{
    (void)state;
    struct rig r;
    struct files f;
    struct rlimit old, none;
    FILE *lines = tmpfile();
    struct log log = {.out = lines, .level = LOG_WARN};
    struct how how = plain;
    int32_t ids[2][LEN];
    some_ids(ids[0], LEN, 0);
    some_ids(ids[1], LEN, 1);
    how.log = &log;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 1024;
    rig_open(&r, &how);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(ask(&r, salt, ids[0], LEN, NULL), 0);
    assert_int_equal(ask(&r, salt, ids[0], LEN, NULL), 256);
    rig_close(&r);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(count_lines(lines, "pages are not kept"), 1);
    assert_int_equal(count_lines(lines, ""), 1);
    list(&f);
    assert_int_equal(f.n + f.other, 0);
    rig_open(&r, &how);
    ask(&r, salt, ids[1], LEN, NULL);
    rig_close(&r);
    list(&f);
    assert_int_equal(f.n, 4);
    fclose(lines);
}

static void test_folders(void **state)
{
    (void)state;
    struct rig r;
    struct err e = {0};
    struct prefix *p;
    struct stat st;
    char path[256];
    rig_open(&r, &plain);
    snprintf(path, sizeof path, "%s/a/b", folder);
    assert_int_equal(prefix_new(&p, r.g, &(struct prefix_opts){.disk = path}, &e), 0);
    prefix_free(p);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(chmod(path, 0777), 0);
    assert_int_equal(prefix_new(&p, r.g, &(struct prefix_opts){.disk = path}, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, path));
    assert_null(p);
    assert_int_equal(
        prefix_new(&p, r.g, &(struct prefix_opts){.disk = "/proc/self/nothing/here"}, &e), ERR_IO);
    assert_int_equal(prefix_new(&p, r.g, &(struct prefix_opts){.disk = "/dev/null"}, &e), ERR_IO);
    assert_int_equal(prefix_new(&p, r.g, &(struct prefix_opts){.disk = ""}, &e), ERR_IO);
    rig_close(&r);
}

/* Two caches on one folder, in a small memory, with damage and removal all the time: the bits are
   always those of a session alone. */
static void test_crowd(void **state)
{
    enum { ROUNDS = 150, LONG = 400, PROMPTS = 12 };
    (void)state;
    struct rig r[2];
    struct how how = plain;
    struct engine *g;
    struct session *alone;
    struct engine_opts o;
    struct err e = {0};
    struct rng rng;
    float row[2048];
    size_t from_disk = 0;
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = CTX;
    if (engine_open(&g, GOLDEN_DIR "/models/qwen2_tied", &o, &e) || session_new(&alone, g, &e))
        fail_msg("%s", e.text);
    size_t vocab = engine_info(g)->vocab;
    how.bytes = 40 * 20000;
    rng_init(&rng, 7, 0);
    rig_open(&r[0], &how);
    rig_open(&r[1], &how);
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t k = rng_u32(&rng) % 2, which = rng_u32(&rng) % PROMPTS, n = 1 + rng_u32(&rng) % LONG;
        const uint64_t who[2] = {which % 2, 0};
        struct prefix_stats st;
        int32_t ids[LONG];
        some_ids(ids, LONG, which % 2);
        for (size_t i = 0; i < 3; i++)
            ids[i * 90 + 70] = (int32_t)(which >> i & 1);
        ask(&r[k], who, ids, n, row);
        session_truncate(alone, 0);
        assert_int_equal(session_append(alone, ids, n, &e), 0);
        assert_memory_equal(row, session_logits(alone), vocab * sizeof *row);
        if (round % 10 == 9) {
            struct files f;
            list(&f);
            for (size_t i = 0; i < 2 && f.n; i++) {
                const char *path = f.path[rng_u32(&rng) % f.n];
                if (i) {
                    unlink(path);
                } else if (truncate(path, 1000)) {
                    continue; /* its owner was faster */
                }
            }
        }
        if (round % 25 == 24) {
            prefix_stats(r[k].p, &st);
            from_disk += st.disk_hit;
            rig_close(&r[k]);
            rig_open(&r[k], &how);
        }
    }
    assert_true(from_disk > 1000);
    rig_close(&r[0]);
    rig_close(&r[1]);
    session_free(alone);
    engine_free(g);
}

/* Killed while it writes, at many moments: what is left under a good name is good. */
static void test_killed(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    float row[2][2048];
    size_t found = 0;
    for (int round = 0; round < 25; round++) {
        int ready[2];
        char c;
        assert_int_equal(pipe(ready), 0);
        pid_t child = fork();
        if (child == 0) {
            rig_open(&r, &plain);
            if (write(ready[1], "r", 1) != 1)
                _exit(1);
            for (size_t i = 0;; i++) {
                some_ids(ids, LEN, i % 200);
                ask(&r, salt, ids, LEN, NULL);
            }
        }
        assert_int_equal(read(ready[0], &c, 1), 1);
        nanosleep(&(struct timespec){.tv_nsec = 1000000L * (1 + round * 3)}, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        close(ready[0]);
        close(ready[1]);
        if (round % 5 != 4)
            continue;
        rig_open(&r, &plain);
        size_t vocab = engine_info(r.g)->vocab;
        for (size_t i = 0; i < 6; i++) {
            const uint64_t fresh[2] = {77, i};
            some_ids(ids, LEN, i);
            found += ask(&r, salt, ids, LEN, row[0]);
            assert_int_equal(prefix_fetch(r.p, fresh, ids, LEN, PAGES), 0);
            struct session *s;
            struct err e = {0};
            prefix_evict(r.p, PAGES);
            assert_int_equal(session_new(&s, r.g, &e), 0);
            assert_int_equal(session_append(s, ids, LEN, &e), 0);
            memcpy(row[1], session_logits(s), vocab * sizeof(float));
            session_free(s);
            assert_memory_equal(row[0], row[1], vocab * sizeof(float));
        }
        struct prefix_stats st;
        prefix_stats(r.p, &st);
        assert_int_equal(st.disk_failed, 0); /* no name of a file that is not whole */
        rig_close(&r);
    }
    assert_true(found > 1000);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &plain);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct prefix *p = NULL;
        fail_alloc_at(n);
        int rc = prefix_new(&p, r.g, &(struct prefix_opts){.disk = folder}, &e);
        bool failed = fail_alloc_stop();
        prefix_free(p);
        if (!failed)
            break;
        /* The thread may do without. */
        assert_true(!rc || rc == ERR_NOMEM);
        assert_true(n < 40);
    }
    rig_close(&r);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_restart),         WITH_FOLDER(test_restart_int8),
        WITH_FOLDER(test_restart_latents), WITH_FOLDER(test_answers),
        WITH_FOLDER(test_identity),        WITH_FOLDER(test_bits_of_the_version),
        WITH_FOLDER(test_damage),          WITH_FOLDER(test_bound),
        WITH_FOLDER(test_full_disk),       WITH_FOLDER(test_folders),
        WITH_FOLDER(test_crowd),           WITH_FOLDER(test_killed),
        WITH_FOLDER(test_no_memory),
    };
    return cmocka_run_group_tests_name("engine/prefix_disk", tests, NULL, NULL);
}
