#include "base/topology_impl.h"

#include "support/fail_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static void list_grid(struct topology_list *l, unsigned nodes, unsigned caches, unsigned cores,
                      unsigned siblings)
{
    /* As Linux counts on most machines: all first threads, then all second ones. */
    unsigned all = nodes * caches * cores;
    for (unsigned s = 0; s < siblings; s++)
        for (unsigned i = 0; i < all; i++) {
            struct topology_cpu c = {
                .os = s * all + i, .core = i, .cache = i / cores, .node = i / cores / caches};
            assert_int_equal(topology_add(l, &c, NULL), 0);
        }
}

static struct topology *ordered(struct topology_list *l, bool (*may)(const void *, unsigned),
                                const void *arg, double quota)
{
    struct topology *t;
    struct err e;
    assert_int_equal(topology_order(&t, l, may, arg, quota, "test", &e), 0);
    free(l->cpu);
    memset(l, 0, sizeof *l);
    return t;
}

static bool from_to(const void *arg, unsigned os)
{
    const unsigned *range = arg;
    return os >= range[0] && os < range[1];
}

/* Two nodes of two caches of four cores of two threads. */
static void check_grid(const struct topology *t)
{
    assert_int_equal(t->n, 32);
    assert_int_equal(t->cores, 16);
    assert_int_equal(t->nodes, 2);
    unsigned core_seen[16] = {0};
    for (size_t i = 0; i < 32; i++) {
        assert_int_equal(t->cpu[i].sibling, i / 16);
        assert_int_equal(core_seen[t->cpu[i].core]++, i / 16);
        assert_int_equal(t->cpu[i].node, i % 2); /* in turn */
    }
    for (size_t i = 0; i < 16; i += 4) { /* four threads have four caches */
        unsigned caches = 0;
        for (size_t k = i; k < i + 4; k++)
            caches |= 1u << t->cpu[k].cache;
        assert_int_equal(caches, 15);
    }
}

static void first_threads_of_cores_spread_over_nodes_and_caches(void **state)
{
    struct topology_list l = {0};
    list_grid(&l, 2, 2, 4, 2);
    struct topology *t = ordered(&l, NULL, NULL, 0);
    check_grid(t);
    assert_int_equal(topology_threads(t), 16);
    assert_int_equal(topology_most(t), 32);
    topology_free(t);
}

static void workers_are_numbered_node_by_node(void **state)
{
    struct topology_list l = {0};
    size_t place[32];
    list_grid(&l, 2, 2, 4, 2);
    struct topology *t = ordered(&l, NULL, NULL, 0);
    for (size_t n = 1; n <= 32; n++) {
        unsigned taken[32] = {0};
        size_t on_second = 0;
        topology_places(t, n, place);
        for (size_t i = 0; i < n; i++) {
            const struct topology_cpu *c = &t->cpu[place[i]];
            assert_int_equal(taken[c->os]++, 0);
            assert_true(place[i] < n); /* the first ones in the order, however numbered */
            on_second += c->node;
            if (i)
                assert_true(c->node >= t->cpu[place[i - 1]].node);
        }
        assert_int_equal(on_second, n / 2);
    }
    topology_free(t);
}

static void what_the_mask_leaves_counts(void **state)
{
    struct topology_list l = {0};
    list_grid(&l, 2, 2, 4, 2);
    /* The second threads of the second node: eight cores of their own. */
    struct topology *t = ordered(&l, from_to, (unsigned[]){24, 32}, 0);
    assert_int_equal(t->n, 8);
    assert_int_equal(t->cores, 8);
    assert_int_equal(t->nodes, 1);
    for (size_t i = 0; i < t->n; i++) {
        assert_int_equal(t->cpu[i].sibling, 0);
        assert_int_equal(t->cpu[i].node, 0);
        assert_in_range(t->cpu[i].os, 24, 31);
    }
    topology_free(t);
    /* One core of the first node and all of the second: the nodes are uneven. */
    list_grid(&l, 2, 1, 4, 1);
    t = ordered(&l, from_to, (unsigned[]){3, 8}, 0);
    static const unsigned order[] = {3, 4, 5, 6, 7};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(t->cpu[i].os, order[i]);
    assert_int_equal(t->nodes, 2);
    topology_free(t);
    list_grid(&l, 1, 1, 2, 1);
    struct err e;
    assert_int_equal(topology_order(&t, &l, from_to, (unsigned[]){7, 9}, 0, "test", &e),
                     ERR_UNSUPPORTED);
    assert_null(t);
    free(l.cpu);
}

static void a_quota_bounds_the_threads(void **state)
{
    static const struct {
        double quota;
        size_t threads, most;
    } rows[] = {{0, 4, 8}, {0.5, 1, 1}, {1, 1, 1}, {2.5, 3, 3}, {4, 4, 4}, {6, 4, 6}, {99, 4, 8}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct topology_list l = {0};
        list_grid(&l, 1, 1, 4, 2);
        struct topology *t = ordered(&l, NULL, NULL, rows[i].quota);
        assert_int_equal(topology_threads(t), rows[i].threads);
        assert_int_equal(topology_most(t), rows[i].most);
        topology_free(t);
    }
}

static void the_description_names_what_was_found(void **state)
{
    char text[160];
    struct topology_list l = {0};
    list_grid(&l, 2, 2, 4, 2);
    struct topology *t = ordered(&l, NULL, NULL, 2.5);
    topology_describe(t, text, sizeof text);
    assert_string_equal(text, "16 cores with 32 threads, 2 memory nodes, a quota of 2.5 (test)");
    topology_free(t);
    list_grid(&l, 1, 1, 1, 1);
    t = ordered(&l, NULL, NULL, 0);
    topology_describe(t, text, sizeof text);
    assert_string_equal(text, "1 core, 1 memory node (test)");
    topology_free(t);
}

/* ---- sources --------------------------------------------------------------------------------- */

static void hwloc_reads_made_up_machines(void **state)
{
    struct topology_list l = {0};
    char source[32] = "";
    struct err e;
#ifdef PONDER_HWLOC
    assert_int_equal(topology_hwloc(&l, "pack:2 [numa] l3:2 core:4 pu:2", source, &e), 0);
    assert_non_null(strstr(source, "hwloc"));
    struct topology *t = ordered(&l, NULL, NULL, 0);
    check_grid(t);
    topology_free(t);
    /* Four nodes in one package, no third level of cache, one thread a core. */
    assert_int_equal(topology_hwloc(&l, "pack:1 numa:4 core:3 pu:1", source, &e), 0);
    t = ordered(&l, NULL, NULL, 0);
    assert_int_equal(t->n, 12);
    assert_int_equal(t->cores, 12);
    assert_int_equal(t->nodes, 4);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(t->cpu[i].node, i % 4);
    topology_free(t);
    assert_int_equal(topology_hwloc(&l, "no machine", source, &e), ERR_UNSUPPORTED);
    free(l.cpu);
#else
    assert_int_equal(topology_hwloc(&l, NULL, source, &e), ERR_UNSUPPORTED);
#endif
}

static char root[64];

static int setup(void **state)
{
    strcpy(root, "/tmp/ponder-test-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void put(const char *text, const char *fmt, unsigned i)
{
    char full[256], rest[128];
    snprintf(rest, sizeof rest, fmt, i);
    snprintf(full, sizeof full, "%s/sys/devices/system/%s", root, rest);
    for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')); s++) {
        *s = 0;
        mkdir(full, 0700);
        *s = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void sysfs_tells_the_same(void **state)
{
    struct topology_list l = {0};
    char source[32], text[32];
    for (unsigned i = 0; i < 32; i++) {
        snprintf(text, sizeof text, "%u,%u\n", i % 16, i % 16 + 16);
        put(text, "cpu/cpu%u/topology/thread_siblings_list", i);
        snprintf(text, sizeof text, "%u-%u\n", i % 16 / 4 * 4, i % 16 / 4 * 4 + 3);
        put(text, "cpu/cpu%u/cache/index3/shared_cpu_list", i);
        assert_int_equal(topology_add(&l, &(struct topology_cpu){.os = i}, NULL), 0);
    }
    put("0-7,16-23\n", "node/node%u/cpulist", 0);
    put("8-15,24-31\n", "node/node%u/cpulist", 2); /* numbers have gaps */
    put("\n", "node/node%u/cpulist", 3);           /* memory without processors */
    topology_sysfs(&l, root, source);
    assert_string_equal(source, "sysfs");
    struct topology *t = ordered(&l, NULL, NULL, 0);
    check_grid(t);
    topology_free(t);
}

static void without_any_source_each_processor_is_a_core(void **state)
{
    struct topology_list l = {0};
    char source[32];
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(topology_add(&l, &(struct topology_cpu){.os = 2 * i}, NULL), 0);
    topology_sysfs(&l, root, source);
    assert_string_equal(source, "affinity mask");
    struct topology *t = ordered(&l, NULL, NULL, 0);
    assert_int_equal(t->cores, 5);
    assert_int_equal(t->nodes, 1);
    assert_int_equal(t->cpu[4].os, 8);
    topology_free(t);
}

static void this_machine_has_processors(void **state)
{
    struct topology *t;
    struct err e;
    assert_int_equal(topology_new(&t, &e), 0);
    assert_true(t->n >= 1 && t->cores >= 1 && t->cores <= t->n && t->nodes >= 1);
    assert_true(topology_threads(t) >= 1 && topology_threads(t) <= topology_most(t));
    topology_free(t);
    topology_free(NULL);
}

static void no_memory_is_an_error(void **state)
{
    struct err e;
    for (int i = 1; i <= 3; i++) {
        struct topology_list l = {0};
        struct topology *t;
        list_grid(&l, 1, 1, 2, 1);
        fail_alloc_at(i);
        int rc = topology_order(&t, &l, NULL, NULL, 0, "test", &e);
        assert_true(fail_alloc_stop());
        assert_int_equal(rc, ERR_NOMEM);
        assert_null(t);
        free(l.cpu);
    }
}

int main(void)
{
#define SYSFS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_threads_of_cores_spread_over_nodes_and_caches),
        cmocka_unit_test(workers_are_numbered_node_by_node),
        cmocka_unit_test(what_the_mask_leaves_counts),
        cmocka_unit_test(a_quota_bounds_the_threads),
        cmocka_unit_test(the_description_names_what_was_found),
        cmocka_unit_test(hwloc_reads_made_up_machines),
        SYSFS_TEST(sysfs_tells_the_same),
        SYSFS_TEST(without_any_source_each_processor_is_a_core),
        cmocka_unit_test(this_machine_has_processors),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
