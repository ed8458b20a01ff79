/* Rewards by a program: what it is asked and says, what it may not do, and every way to fail. */
#include "train/command.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs `cmd` over two completions; the code, and the rewards. */
static int ask(const char *cmd, double seconds, float out[2], struct reward_why why[2],
               struct err *e)
{
    struct command_reward *c;
    json_t *record = json_pack("{s:s,s:i}", "prompt", "2+2?", "gold", 4);
    struct span text[] = {{"four", 4}, {"\"5\"\n\xff", 5}};
    int rc = command_reward_open(&c, cmd, seconds, NULL, e);
    if (!rc)
        rc = command_reward_group(c, record, text, 2, out, why, e);
    command_reward_free(c);
    json_decref(record);
    return rc;
}

static void completions_go_in_and_rewards_come_out(void **state)
{
    (void)state;
    float out[2];
    struct err e = {0};
    struct reward_why why[2];
    /* It sees the record and the completion, a line each. */
    const char *cmd = "awk '{print /\"prompt\":\"2\\+2\\?\"/ && /\"gold\":4/ && "
                      "/\"completion\":\"four\"/ ? 1.5 : \"null\"}'";
    if (ask(cmd, 20, out, why, &e))
        fail_msg("%s", e.text);
    assert_true(out[0] == 1.5F && isnan(out[1]));
    if (ask("printf '{\"reward\":-2,\"why\":\"bad\"}\\n3\\n'", 20, out, why, &e))
        fail_msg("%s", e.text);
    assert_true(out[0] == -2 && out[1] == 3);
    assert_string_equal(why[0].text, "bad");
    assert_string_equal(why[1].text, "");
}

static void no_shell_sees_the_words(void **state)
{
    (void)state;
    float out[2];
    struct err e = {0};
    /* A shell would run two programs, and replace the variable. */
    assert_int_equal(ask("echo 1;echo 2", 20, out, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "1;echo 2"));
    assert_int_equal(ask("printf %s\\\\n7\\\\n $HOME", 20, out, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "$HOME"));
}

static void the_program_has_little(void **state)
{
    (void)state;
    float out[2];
    struct err e = {0};
    setenv("PONDER_TEST_SECRET", "1", 1);
    /* Environment, descriptors, privileges, memory: a line each, then two rewards. */
    if (ask("sh -c 'env | grep -c SECRET; ls /proc/self/fd | grep -vc \"^[0123]$\"; :'", 20, out,
            NULL, &e))
        fail_msg("%s", e.text);
    assert_true(out[0] == 0 && out[1] == 0);
    if (ask("sh -c 'grep NoNewPrivs /proc/self/status | grep -o \"[0-9]*\"; ulimit -v'", 20, out,
            NULL, &e))
        fail_msg("%s", e.text);
    assert_true(out[0] == 1 && out[1] == 2 << 20);
    unsetenv("PONDER_TEST_SECRET");
}

static void failures_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *cmd;
        int code;
        const char *says;
    } cases[] = {
        {"/no/such/program", ERR_USAGE, "/no/such/program"},
        {"false", ERR_FORMAT, "status 1"},
        {"true", ERR_FORMAT, "2 lines"},
        {"echo 1", ERR_FORMAT, "line 2"},
        {"printf x\\\\n1\\\\n", ERR_FORMAT, "\"x\""},
        {"printf 1e999\\\\n1\\\\n", ERR_FORMAT, "line 1"},
        {"sleep 60", ERR_LIMIT, "no answer"},
        {"yes", ERR_LIMIT, "bytes"},
        {"sh -c 'kill -9 $$'", ERR_LIMIT, "signal 9"},
        {"echo 'open", ERR_USAGE, "quote"},
        {"  ", ERR_USAGE, "empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float out[2];
        struct err e = {0};
        int rc = ask(cases[i].cmd, strcmp(cases[i].cmd, "sleep 60") ? 20 : 0.2, out, NULL, &e);
        if (rc != cases[i].code || !strstr(e.text, cases[i].says))
            fail_msg("%s: code %d, \"%s\"", cases[i].cmd, rc, e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completions_go_in_and_rewards_come_out),
        cmocka_unit_test(no_shell_sees_the_words),
        cmocka_unit_test(the_program_has_little),
        cmocka_unit_test(failures_are_told),
    };
    return cmocka_run_group_tests_name("train/command", tests, NULL, NULL);
}
