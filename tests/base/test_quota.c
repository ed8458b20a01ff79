#include "base/quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* A small copy of /proc and /sys under a temporary root. */
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

static void put(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", root, path);
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

static void check(double want)
{
    assert_true(quota_cpus(root) == want);
}

static void without_control_groups_there_is_no_quota(void **state)
{
    check(0);
    put("/proc/self/cgroup", "garbage\n0::\n:::\n");
    put("/proc/self/mountinfo", "x - y\n - \n1 2 3 - cgroup2\n");
    check(0);
}

static void version_2_takes_the_smallest_limit_on_the_way_up(void **state)
{
    put("/proc/self/cgroup", "0::/user.slice/app.scope\n");
    put("/proc/self/mountinfo",
        "22 1 0:21 / /proc rw - proc proc rw\n"
        "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
    check(0);
    put("/sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
    check(2.5);
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "400000 100000\n");
    check(2.5);
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "50000 100000\n");
    check(0.5);
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "nonsense");
    check(2.5);
    put("/sys/fs/cgroup/user.slice/cpu.max", "250000 0\n"); /* no division by it */
    check(0);
}

static void a_container_sees_its_own_group_as_the_top(void **state)
{
    put("/proc/self/mountinfo", "31 23 0:28 /docker/ab12 /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    put("/proc/self/cgroup", "0::/docker/ab12\n");
    check(1.5);
    put("/proc/self/cgroup", "0::/\n");
    check(1.5);
    put("/proc/self/cgroup", "0::/docker/ab12/inner\n");
    put("/sys/fs/cgroup/inner/cpu.max", "100000 100000\n");
    check(1);
    put("/proc/self/cgroup", "0::/somewhere/else\n"); /* a foreign path: the top counts */
    check(1.5);
}

static void version_1_has_two_files(void **state)
{
    put("/proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/box\n1:name=systemd:/\n");
    put("/proc/self/mountinfo",
        "33 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "34 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
    put("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
    check(0);
    put("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "300000\n");
    check(3);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "120000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "60000\n");
    check(2);
}

static void memory_is_what_machine_and_group_leave(void **state)
{
    assert_true(quota_memory(root) == SIZE_MAX);
    put("/proc/meminfo", "MemTotal: 900 kB\nMemAvailable:     500 kB\n");
    assert_int_equal(quota_memory(root), 512000);
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
    put("/sys/fs/cgroup/app/memory.max", "max\n");
    put("/sys/fs/cgroup/app/memory.current", "100000\n");
    assert_int_equal(quota_memory(root), 512000);
    put("/sys/fs/cgroup/app/memory.max", "300000\n");
    put("/sys/fs/cgroup/app/memory.stat", "anon 7\ninactive_file 50000\n");
    assert_int_equal(quota_memory(root), 250000);
    put("/sys/fs/cgroup/app/memory.current", "900000\n"); /* over its limit: nothing is left */
    assert_int_equal(quota_memory(root), 1);
}

int main(void)
{
#define QUOTA_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        QUOTA_TEST(without_control_groups_there_is_no_quota),
        QUOTA_TEST(version_2_takes_the_smallest_limit_on_the_way_up),
        QUOTA_TEST(a_container_sees_its_own_group_as_the_top),
        QUOTA_TEST(version_1_has_two_files),
        QUOTA_TEST(memory_is_what_machine_and_group_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
