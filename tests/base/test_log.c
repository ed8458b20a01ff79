#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdbool.h>

static void lines_below_the_level_are_written(void **state)
{
    char *text = NULL;
    size_t n = 0;
    struct log l = {.out = open_memstream(&text, &n), .level = LOG_INFO};
    assert_non_null(l.out);
    log_line(&l, LOG_ERROR, "e%d", 1);
    log_line(&l, LOG_WARN, "w");
    log_line(&l, LOG_INFO, "i");
    log_line(&l, LOG_DEBUG, "d");
    log_bare(&l, "bare %d\n", 7); /* without a name, at any level, and still one line */
    fclose(l.out);
    assert_string_equal(text, "ponder: e1\nponder: warning: w\nponder: i\nbare 7 \n");
    free(text);
    log_line(NULL, LOG_ERROR, "nothing");
    log_line(&(struct log){0}, LOG_ERROR, "nothing");
}

/* Lines of many threads go through the writer, whole, in each one's order; and the end waits. */
struct talker {
    struct log *log;
    int no;
};

static void *talk(void *arg)
{
    const struct talker *t = arg;
    for (int i = 0; i < 500; i++)
        log_line(t->log, LOG_ERROR, "%d %d", t->no, i);
    return NULL;
}

static void a_writer_writes_all_before_it_stops(void **state)
{
    enum { N = 4 };
    char *text = NULL;
    size_t n = 0;
    int next[N] = {0}, no, i;
    struct err e;
    pthread_t thread[N];
    struct talker talker[N];
    struct log l = {.out = open_memstream(&text, &n), .level = LOG_INFO};
    assert_int_equal(log_writer_start(&l, &e), 0);
    for (int k = 0; k < N; k++) {
        talker[k] = (struct talker){&l, k};
        assert_int_equal(pthread_create(&thread[k], NULL, talk, &talker[k]), 0);
    }
    for (int k = 0; k < N; k++)
        pthread_join(thread[k], NULL);
    log_writer_stop(&l, 100);
    assert_null(l.writer);
    log_bare(&l, "%d 500", 0); /* by itself again */
    fclose(l.out);
    char *save = NULL;
    for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
        bool bare = sscanf(s, "ponder: %d %d", &no, &i) != 2;
        assert_true(!bare || sscanf(s, "%d %d", &no, &i) == 2);
        assert_in_range(no, 0, N - 1);
        assert_int_equal(i, next[no]++);
    }
    assert_int_equal(next[0], 501);
    for (int k = 1; k < N; k++)
        assert_int_equal(next[k], 500);
    free(text);
}

static void hostile_text_stays_one_line(void **state)
{
    char *text = NULL, big[10000];
    size_t n = 0;
    struct log l = {.out = open_memstream(&text, &n), .level = LOG_DEBUG};
    assert_non_null(l.out);
    log_line(&l, LOG_INFO, "name %s", "a\nb\x1b]0;x\a");
    memset(big, 'y', sizeof big - 1);
    big[sizeof big - 1] = 0;
    log_line(&l, LOG_INFO, "%s", big);
    fclose(l.out);
    assert_int_equal(strncmp(text, "ponder: name a b ]0;x \n", 23), 0);
    assert_string_equal(text + strlen(text) - 5, "y...\n"); /* cut, and says so */
    free(text);
}

static void levels_have_names(void **state)
{
    enum log_level l;
    assert_int_equal(log_level_parse(&l, "error"), 0);
    assert_int_equal(l, LOG_ERROR);
    assert_int_equal(log_level_parse(&l, "warn"), 0);
    assert_int_equal(l, LOG_WARN);
    assert_int_equal(log_level_parse(&l, "info"), 0);
    assert_int_equal(l, LOG_INFO);
    assert_int_equal(log_level_parse(&l, "debug"), 0);
    assert_int_equal(l, LOG_DEBUG);
    assert_int_equal(log_level_parse(&l, "loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_below_the_level_are_written),
        cmocka_unit_test(a_writer_writes_all_before_it_stops),
        cmocka_unit_test(hostile_text_stays_one_line),
        cmocka_unit_test(levels_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
