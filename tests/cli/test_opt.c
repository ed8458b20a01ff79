/* Option tables: values of every kind, ranges, spellings, where options end, the environment. */
#include "base/num.h"
#include "base/opt.h"
#include "cli/command.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct shared {
    int64_t threads;
};

struct target {
    int verbose, think;
    int64_t count, ctx;
    double temperature, bias;
    const char *name, *type;
    struct opt_list stop;
    struct shared shared;
};

#define AT(f) offsetof(struct target, f)
// clang-format off
static const struct opt rows[] = {
    {.name = "verbose", .brief = 'v', .kind = OPT_FLAG, .offset = AT(verbose), .help = "talk"},
    {.name = "think", .kind = OPT_SWITCH, .offset = AT(think), .help = "think"},
    {.name = "count", .brief = 'n', .alias = "number amount", .kind = OPT_INT, .min = -1, .max = 10, .value = "3", .offset = AT(count), .help = "count"},
    {.name = "ctx", .kind = OPT_SIZE, .min = 1, .max = 1 << 30, .offset = AT(ctx), .help = "context"},
    {.name = "temperature", .kind = OPT_FLOAT, .min = 0, .max = 2, .offset = AT(temperature), .help = "heat"},
    {.name = "bias", .kind = OPT_FLOAT, .min = -1e300, .max = 1e300, .offset = AT(bias), .help = "bias"},
    {.name = "name", .kind = OPT_STRING, .arg = "TEXT", .env = "PONDER_TEST_NAME", .offset = AT(name), .help = "name"},
    {.name = "type", .kind = OPT_ENUM, .choices = "f16|q8_0", .offset = AT(type), .help = "type"},
    {.name = "stop", .kind = OPT_LIST, .offset = AT(stop), .help = "stop"},
};
static const struct opt more[] = {
    {.name = "threads", .brief = 't', .kind = OPT_INT, .min = 1, .max = 256, .env = "PONDER_TEST_THREADS", .offset = 0, .help = "threads"},
};
// clang-format on
static const struct opt_group groups[] = {
    {"Some", rows, NUM_COUNT(rows), 0},
    {"Shared", more, NUM_COUNT(more), offsetof(struct target, shared)},
};
static const struct opt_spec spec = {groups, NUM_COUNT(groups)};

static struct err err;
static int n_args;
static bool help;
static char *words[16];

/* Splits at '|', parses; what is no option is in words[0..n_args). */
static int parse(struct target *t, const char *line)
{
    static char copy[512];
    int n = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *p = copy; p && *line;) {
        words[n++] = p;
        p = strchr(p, '|');
        if (p)
            *p++ = 0;
    }
    memset(t, 0, sizeof *t);
    memset(&err, 0, sizeof err);
    assert_int_equal(opt_defaults(&spec, t, &err), 0);
    return opt_parse(&spec, t, n, words, &n_args, &help, &err);
}

static void test_kinds(void **state)
{
    struct target t;
    assert_int_equal(parse(&t,
                           "--verbose|--count|7|--ctx=16k|--temperature=0.5|--name|x|--type|Q8_0|"
                           "--stop=a|--stop|b|-t4|--bias|-inf"),
                     ERR_USAGE); /* -inf is below the row's bound */
    assert_string_equal(err.text, "--bias -inf: must be -1e+300 or more");
    assert_int_equal(parse(&t,
                           "--verbose|--count|7|--ctx=16k|--temperature=0.5|--name|x|--type|Q8_0|"
                           "--stop=a|--stop|b|-t4|--no-think|--bias|-2.5"),
                     0);
    assert_int_equal(t.verbose, 1);
    assert_int_equal(t.think, 0);
    assert_int_equal(t.count, 7);
    assert_int_equal(t.ctx, 16384);
    assert_true(t.temperature == 0.5 && t.bias == -2.5);
    assert_string_equal(t.name, "x");
    assert_string_equal(t.type, "Q8_0");
    assert_int_equal(t.stop.n, 2);
    assert_string_equal(t.stop.v[1], "b");
    assert_int_equal(t.shared.threads, 4);
    assert_int_equal(n_args, 0);
    /* a long name after one dash; others are letters with a value */
    assert_int_equal(parse(&t, "-amount|5|-threads=8|-think"), 0);
    assert_int_equal(t.count, 5);
    assert_int_equal(t.shared.threads, 8);
    assert_int_equal(t.think, 1);
    assert_int_equal(parse(&t, "-amounts|5"), ERR_USAGE);
}

static void test_defaults(void **state)
{
    struct target t;
    assert_int_equal(parse(&t, ""), 0);
    assert_int_equal(t.verbose, 0);
    assert_int_equal(t.think, -1);
    assert_int_equal(t.count, 3);
    assert_true(t.ctx == OPT_UNSET);
    assert_true(isnan(t.temperature));
    assert_null(t.name);
    assert_int_equal(t.stop.n, 0);
}

static void test_arguments(void **state)
{
    struct target t;
    assert_int_equal(parse(&t, "model|-v|why is|-|-5 + 3|--|--count|-v"), 0);
    assert_int_equal(n_args, 6);
    assert_string_equal(words[0], "model");
    assert_string_equal(words[1], "why is");
    assert_string_equal(words[2], "-");
    assert_string_equal(words[3], "-5 + 3");
    assert_string_equal(words[4], "--count");
    assert_string_equal(words[5], "-v");
    assert_int_equal(t.verbose, 1);
    assert_int_equal(t.count, 3);
    assert_int_equal(parse(&t, "-vn|-1"), 0);
    assert_int_equal(t.count, -1);
    assert_int_equal(parse(&t, "--amount|5|--verbose|--no-verbose"), 0);
    assert_int_equal(t.count, 5);
    assert_int_equal(t.verbose, 0);
    assert_int_equal(parse(&t, "a|--help|--nonsense"), 0);
    assert_true(help);
}

static void test_errors(void **state)
{
    static const struct {
        const char *line, *text;
    } all[] = {
        {"--temperature|9", "--temperature 9: must be between 0 and 2"},
        {"--temperature|hot", "--temperature hot: must be a number"},
        {"--temperature|nan", "--temperature nan: must be a number"},
        {"--count|2.5", "--count 2.5: must be a whole number"},
        {"--count|", "--count : must be a whole number"},
        {"--count|99999999999999999999", "--count 99999999999999999999: must be between -1 and 10"},
        {"--ctx|0", "--ctx 0: must be 1 or more"},
        {"--ctx|9999999999m", "--ctx 9999999999m: must be 1073741824 or less"},
        {"--ctx|5g", "--ctx 5g: must be a whole number"},
        {"--count", "--count needs a value: --count VALUE"},
        {"--name", "--name needs a value: --name TEXT"},
        {"--type|q4", "--type q4: must be f16 or q8_0"},
        {"--verbos", "unknown option \"--verbos\"; did you mean \"--verbose\"?"},
        {"--hepl", "unknown option \"--hepl\"; did you mean \"--help\"?"},
        {"--xyzzy-plugh", "unknown option \"--xyzzy-plugh\"; --help lists the options"},
        {"--no-count", "unknown option \"--no-count\"; did you mean \"--count\"?"},
        {"--no-verbose=1", "--no-verbose takes no value"},
        {"--verbose=maybe", "--verbose maybe: must be on or off"},
        {"-x", "unknown option \"-x\"; --help lists the options"},
        {"-t|0", "-t 0: must be between 1 and 256"},
    };
    struct target t;
    for (size_t i = 0; i < NUM_COUNT(all); i++) {
        assert_int_equal(parse(&t, all[i].line), ERR_USAGE);
        assert_string_equal(err.text, all[i].text);
    }
}

static void test_environment(void **state)
{
    struct target t;
    setenv("PONDER_TEST_THREADS", "8", 1);
    assert_int_equal(parse(&t, ""), 0);
    assert_int_equal(t.shared.threads, 8);
    assert_int_equal(parse(&t, "--threads|2"), 0);
    assert_int_equal(t.shared.threads, 2);
    setenv("PONDER_TEST_THREADS", "many", 1);
    assert_int_equal(parse(&t, ""), ERR_USAGE);
    assert_string_equal(err.text, "PONDER_TEST_THREADS=many: must be a whole number");
    assert_int_equal(parse(&t, "-t1"), 0); /* not looked at when the option is given */
    setenv("PONDER_TEST_THREADS", "", 1);
    assert_int_equal(parse(&t, ""), 0);
    unsetenv("PONDER_TEST_THREADS");
}

static void test_list_is_bounded(void **state)
{
    struct target t;
    assert_int_equal(parse(&t, ""), 0);
    for (int i = 0; i < OPT_LIST_MAX; i++)
        assert_int_equal(opt_assign(&spec, &t, "stop", "x", &err), 0);
    assert_int_equal(opt_assign(&spec, &t, "stop", "x", &err), ERR_USAGE);
}

static void test_assign_and_show(void **state)
{
    struct target t;
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(parse(&t, ""), 0);
    assert_int_equal(opt_show(&rows[4], &t, 0, &b, &err), 0);
    assert_int_equal(b.len, 0);
    assert_int_equal(opt_assign(&spec, &t, "temperature", "0.6", &err), 0);
    assert_int_equal(opt_show(&rows[4], &t, 0, &b, &err), 0);
    assert_string_equal(b.data, "0.6");
    assert_int_equal(opt_assign(&spec, &t, "temperatur", "0.6", &err), ERR_USAGE);
    assert_string_equal(err.text,
                        "unknown parameter \"temperatur\"; did you mean \"temperature\"?");
    assert_int_equal(opt_assign(&spec, &t, "temperature", "3", &err), ERR_USAGE);
    buf_release(&b);
}

/* The tables of all commands: names are unique, defaults are within bounds, every row has words. */
static void test_all_commands(void **state)
{
    size_t n;
    const struct command *const *all = command_all(&n);
    for (size_t k = 0; k < n; k++) {
        const struct opt_spec *s = &all[k]->spec;
        void *o = calloc(1, all[k]->opts_size + 1);
        assert_int_equal(opt_defaults(s, o, &err), 0);
        free(o);
        assert_ptr_equal(command_find(all[k]->name), all[k]);
        assert_true(all[k]->summary && all[k]->about && all[k]->run);
        bool brief[256] = {0};
        for (size_t g = 0; g < s->n; g++)
            for (size_t i = 0; i < s->groups[g].n; i++) {
                const struct opt *r = &s->groups[g].rows[i];
                size_t base;
                assert_ptr_equal(opt_find(s, r->name, strlen(r->name), &base), r);
                assert_true(r->help && *r->help);
                assert_false(r->brief && brief[(unsigned char)r->brief]);
                brief[(unsigned char)r->brief] = true;
                assert_true(s->groups[g].base + r->offset < all[k]->opts_size);
                assert_true(r->kind != OPT_ENUM || r->choices);
            }
    }
}

/* Every text is made, and lines of help fit their width. */
static void test_help_texts(void **state)
{
    size_t n;
    const struct command *const *all = command_all(&n);
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t k = 0; k < n; k++) {
        buf_clear(&b);
        assert_int_equal(help_command(all[k], 80, &b, &err), 0);
        const char *end = strstr(b.data, "\nExamples:");
        for (const char *s = b.data; *s && s != end;) {
            size_t m = strcspn(s, "\n"), w = 0;
            for (size_t i = 0; i < m; i++)
                w += ((unsigned char)s[i] & 0xc0) != 0x80;
            assert_true(w <= 80);
            s += m + (s[m] == '\n');
            if (s == end + 1)
                break;
        }
        buf_clear(&b);
        assert_int_equal(help_man(all[k], &b, &err), 0);
        assert_non_null(strstr(b.data, ".SH NAME"));
    }
    buf_clear(&b);
    assert_int_equal(help_completion(&b, &err), 0);
    assert_non_null(strstr(b.data, "complete -o default -F _ponder ponder"));
    buf_release(&b);
    /* A full buffer is an error, not a cut text. */
    buf_init(&b, 100);
    assert_int_not_equal(help_overview(&b, &err), 0);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),           cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_arguments),       cmocka_unit_test(test_errors),
        cmocka_unit_test(test_environment),     cmocka_unit_test(test_list_is_bounded),
        cmocka_unit_test(test_assign_and_show), cmocka_unit_test(test_all_commands),
        cmocka_unit_test(test_help_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
