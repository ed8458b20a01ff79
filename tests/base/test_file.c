#include "base/file.h"

#include "support/fail_alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <signal.h>

#include <cmocka.h>

static char folder[64], path[128];

/* Each test has an empty folder; path = folder/NAME after at(NAME). */
static const char *at(const char *name)
{
    assert_true(file_join(path, sizeof path, folder, name));
    return path;
}

static int setup(void **state)
{
    strcpy(folder, "/tmp/ponder-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    DIR *d = opendir(folder);
    if (!d)
        return -1;
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] != '.')
            remove(at(x->d_name));
    closedir(d);
    return rmdir(folder);
}

static size_t files_in_folder(void)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *x; (x = readdir(d));)
        n += x->d_name[0] != '.';
    closedir(d);
    return n;
}

static void put(const char *name, const void *p, size_t n)
{
    FILE *f = fopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void mapped_files_show_their_bytes(void **state)
{
    static char bytes[10000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 7);
    put("x", bytes, sizeof bytes);
    struct file_map m;
    struct err e;
    assert_int_equal(file_map(&m, path, &e), 0);
    assert_int_equal(m.size, sizeof bytes);
    assert_memory_equal(m.data, bytes, sizeof bytes);
    file_map_drop(&m, 0, m.size);
    file_map_drop(&m, 5000, SIZE_MAX);
    file_map_drop(&m, 10000, 1);
    file_map_drop(&m, 1, 0);
    assert_memory_equal(m.data, bytes, sizeof bytes); /* dropping loses nothing */
    file_map_release(&m);
    assert_null(m.data);
    file_map_release(&m);

    put("empty", "", 0);
    assert_int_equal(file_map(&m, path, &e), 0);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    file_map_drop(&m, 0, 1);
    file_map_release(&m);
}

static void what_cannot_be_mapped_is_named(void **state)
{
    struct file_map m;
    struct err e;
    char want[256];
    assert_int_equal(file_map(&m, at("none.gguf"), &e), ERR_IO);
    snprintf(want, sizeof want, "%s: No such file or directory", path);
    assert_string_equal(e.text, want);

    assert_int_equal(file_map(&m, folder, &e), ERR_IO);
    assert_int_equal(strncmp(e.text, folder, strlen(folder)), 0);
    assert_non_null(strstr(e.text, "is a directory"));

    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    assert_int_equal(file_map(&m, path, &e), ERR_IO); /* and does not hang */
    assert_non_null(strstr(e.text, "FIFO"));

    assert_int_equal(file_map(&m, "/dev/null", &e), ERR_IO);
    assert_non_null(strstr(e.text, "character device"));

    put("full", "x", 1);
    fail_alloc_at(1);
    assert_int_equal(file_map(&m, path, &e), ERR_NOMEM);
    assert_true(fail_alloc_stop());
    assert_null(m.data);
}

static void reading_appends_and_is_bounded(void **state)
{
    struct buf b;
    struct err e;
    put("x", "0123456789", 10);
    buf_init(&b, 20);
    assert_int_equal(buf_puts(&b, ">", &e), 0);
    assert_int_equal(file_read(&b, path, &e), 0);
    assert_string_equal(b.data, ">0123456789");
    assert_int_equal(file_read(&b, path, &e), ERR_LIMIT);
    assert_int_equal(strncmp(e.text, path, strlen(path)), 0);
    assert_string_equal(b.data, ">0123456789"); /* kept */
    buf_release(&b);

    buf_init(&b, 10); /* exactly */
    assert_int_equal(file_read(&b, path, &e), 0);
    assert_int_equal(b.len, 10);
    buf_release(&b);

    buf_init(&b, 1000);
    assert_int_equal(file_read(&b, at("none"), &e), ERR_IO);
    assert_int_equal(file_read(&b, folder, &e), ERR_IO);
    assert_non_null(strstr(e.text, "directory"));
    put("empty", "", 0);
    assert_int_equal(file_read(&b, path, &e), 0);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_release(&b);

    buf_init(&b, 1000); /* endless */
    assert_int_equal(file_read(&b, "/dev/zero", &e), ERR_LIMIT);
    assert_int_equal(b.len, 0);
    buf_release(&b);
    buf_init(&b, 1 << 20); /* its size is said to be 0 */
    assert_int_equal(file_read(&b, "/proc/self/status", &e), 0);
    assert_true(b.len > 0);
    buf_release(&b);

    put("x", "0123456789", 10);
    for (size_t n = 1;; n++) {
        buf_init(&b, 1000);
        fail_alloc_at(n);
        int rc = file_read(&b, path, &e);
        bool failed = fail_alloc_stop();
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        buf_release(&b);
        if (!failed)
            break;
    }
}

static void kinds_and_names(void **state)
{
    put("x", "1", 1);
    assert_int_equal(file_kind(path), FILE_REGULAR);
    assert_int_equal(file_kind(at("none")), FILE_NONE);
    assert_int_equal(file_kind(folder), FILE_DIR);
    assert_int_equal(file_kind("/dev/null"), FILE_OTHER);
    char out[8];
    assert_true(file_join(out, 8, "ab", "cd"));
    assert_string_equal(out, "ab/cd");
    assert_true(file_join(out, 8, "ab/", "/cd"));
    assert_string_equal(out, "ab/cd");
    assert_true(file_join(out, 8, "", "cd"));
    assert_string_equal(out, "cd");
    assert_true(file_join(out, 8, "/", "cd"));
    assert_string_equal(out, "/cd");
    assert_true(file_join(out, 8, "abc", "def"));
    assert_false(file_join(out, 8, "abcd", "efg"));
    assert_false(file_join(out, 0, "a", "b"));
}

static void expect_content(const char *name, const char *text)
{
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(file_read(&b, at(name), NULL), 0);
    assert_string_equal(b.data, text);
    buf_release(&b);
}

static void output_appears_only_when_whole(void **state)
{
    struct file_out f;
    struct err e;
    put("x", "old", 3);
    assert_int_equal(file_out_open(&f, path, &e), 0);
    assert_int_equal(file_out_write(&f, "new ", 4, &e), 0);
    assert_int_equal(file_out_write(&f, NULL, 0, &e), 0);
    assert_int_equal(file_out_write(&f, "text", 4, &e), 0);
    assert_int_equal(f.offset, 8);
    expect_content("x", "old");
    assert_int_equal(files_in_folder(), 2);
    assert_int_equal(file_out_commit(&f, &e), 0);
    expect_content("x", "new text");
    assert_int_equal(files_in_folder(), 1);
    file_out_abort(&f); /* after a commit: nothing */
    expect_content("x", "new text");
    assert_int_equal(file_out_write(&f, "y", 1, &e), ERR_IO);
    assert_int_equal(file_out_commit(&f, &e), ERR_IO);

    assert_int_equal(file_out_open(&f, at("x"), &e), 0);
    assert_int_equal(file_out_write(&f, "lost", 4, &e), 0);
    file_out_abort(&f);
    file_out_abort(&f);
    expect_content("x", "new text");
    assert_int_equal(files_in_folder(), 1);
}

static void two_writers_do_not_meet(void **state)
{
    struct file_out a, b;
    struct err e;
    assert_int_equal(file_out_open(&a, at("x"), &e), 0);
    assert_int_equal(file_out_open(&b, at("x"), &e), 0);
    assert_string_not_equal(a.part, b.part);
    assert_int_equal(file_out_write(&a, "a", 1, &e), 0);
    assert_int_equal(file_out_write(&b, "b", 1, &e), 0);
    assert_int_equal(file_out_commit(&a, &e), 0);
    assert_int_equal(file_out_commit(&b, &e), 0);
    expect_content("x", "b");
    assert_int_equal(files_in_folder(), 1);
}

static void output_that_cannot_be_is_named(void **state)
{
    struct file_out f;
    struct err e;
    assert_int_equal(file_out_open(&f, folder, &e), ERR_IO);
    assert_non_null(strstr(e.text, "directory"));
    file_out_abort(&f);
    assert_int_equal(file_out_open(&f, at("no/such/x"), &e), ERR_IO);
    assert_int_equal(strncmp(e.text, path, strlen(path)), 0);
    assert_int_equal(file_out_open(&f, "/dev/null", &e), ERR_IO);
    assert_int_equal(file_out_open(&f, "", &e), ERR_IO);

    /* The name turns into a folder while we write: an error, and no part is left. */
    assert_int_equal(file_out_open(&f, at("x"), &e), 0);
    assert_int_equal(mkdir(at("x"), 0700), 0);
    assert_int_equal(file_out_commit(&f, &e), ERR_IO);
    assert_int_equal(strncmp(e.text, path, strlen(path)), 0);
    assert_int_equal(files_in_folder(), 1);

    for (size_t n = 1;; n++) {
        fail_alloc_at(n);
        int rc = file_out_open(&f, at("y"), &e);
        rc = rc ? rc : file_out_write(&f, "z", 1, &e);
        rc = rc ? rc : file_out_commit(&f, &e);
        file_out_abort(&f);
        bool failed = fail_alloc_stop();
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        assert_true(files_in_folder() <= 2); /* never a part */
        if (!failed)
            break;
    }
    expect_content("y", "z");
}

/* A file size limit stands for a full disk. What is shorter than a chunk meets it at the end. */
static void a_full_disk_is_an_error(void **state)
{
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 8192;
    signal(SIGXFSZ, SIG_IGN);
    struct file_out f;
    struct err e = {0};
    static char block[3 * FILE_CHUNK];
    static const size_t sizes[] = {5000, sizeof block};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(file_out_open(&f, at("x"), &e), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        int first = file_out_write(&f, block, 5000, &e);
        int second = file_out_write(&f, block, sizes[i], &e);
        int end = second ? second : file_out_commit(&f, &e);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(first, 0);
        assert_int_equal(second, i ? ERR_IO : 0);
        assert_int_equal(end, ERR_IO);
        assert_int_equal(strncmp(e.text, path, strlen(path)), 0);
        file_out_abort(&f);
        assert_int_equal(files_in_folder(), 0);
    }
}

/* Pieces of any length arrive in order, over several chunks. */
static void pieces_become_chunks(void **state)
{
    static const size_t sizes[] = {1, 5000, FILE_CHUNK, 3 * FILE_CHUNK + 7, FILE_CHUNK - 5008, 99};
    struct file_out f;
    struct file_map m;
    struct err e = {0};
    size_t n = 0, all = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        all += sizes[i];
    uint8_t *v = malloc(all);
    assert_non_null(v);
    for (size_t i = 0; i < all; i++)
        v[i] = (uint8_t)(i * 2654435761u >> 24);
    assert_int_equal(file_out_open(&f, at("pieces"), &e), 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; n += sizes[i++]) {
        assert_int_equal(file_out_write(&f, v + n, sizes[i], &e), 0);
        assert_int_equal(f.offset, n + sizes[i]);
    }
    assert_int_equal(file_out_commit(&f, &e), 0);
    assert_int_equal(file_map(&m, at("pieces"), &e), 0);
    assert_int_equal(m.size, all);
    assert_memory_equal(m.data, v, all);
    file_map_release(&m);
    unlink(at("pieces"));
    free(v);
}

int main(void)
{
#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        FILE_TEST(mapped_files_show_their_bytes),  FILE_TEST(what_cannot_be_mapped_is_named),
        FILE_TEST(reading_appends_and_is_bounded), FILE_TEST(kinds_and_names),
        FILE_TEST(output_appears_only_when_whole), FILE_TEST(two_writers_do_not_meet),
        FILE_TEST(output_that_cannot_be_is_named), FILE_TEST(a_full_disk_is_an_error),
        FILE_TEST(pieces_become_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
