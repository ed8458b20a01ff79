/*
 * Reward models as rewards: a folder made from a model and a scalar head, the scores of completions
 * against the head's product with the model's own states, what is seen of a completion, and what is
 * refused.
 */
#include "convert/convert.h"
#include "engine/parts.h"
#include "support/golden.h"
#include "train/frozen.h"
#include "train/reward_model.h"
#include "train/score.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL GOLDEN_DIR "/models/llama_rope_llama3"

static char dir[64], made[128];
static float head[4096];
static const struct frozen_opts how = {.threads = 2, .pass_tokens = 64, .longest = 96};

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

/* DIR/model: the golden model with a head. */
static int setup(void **state)
{
    (void)state;
    struct err e = {0};
    struct source *src;
    struct convert_plan *plan;
    struct engine_parts parts;
    struct frozen *f;
    struct frozen_opts o = how;
    o.path = MODEL;
    snprintf(dir, sizeof dir, "/tmp/ponder-reward-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(made, sizeof made, "%s/model", dir);
    die(frozen_open(&f, &o, &e), &e);
    engine_parts(frozen_engine(f), &parts);
    size_t n = model_config(parts.model)->d_model;
    assert_in_range(n, 1, 4096);
    for (size_t i = 0; i < n; i++)
        head[i] = (float)sin((double)(3 * i + 1));
    die(source_open(&src, MODEL, &e), &e);
    struct convert_options co = {.format = CONVERT_HF, .mix = mix_find("f32"), .classifier = true};
    die(convert_plan_new(&plan, src, &co, &e), &e);
    die(convert_plan_add(plan, "score.weight", 1, n, head, &e), &e);
    die(convert_write(plan, made, parts.team, NULL, NULL, &e), &e);
    convert_plan_free(plan);
    source_free(src);
    frozen_free(f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json",           "generation_config.json",
                                        "model.safetensors",     "tokenizer.json",
                                        "tokenizer_config.json", ""};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", made, files[i]);
        (void)(*files[i] ? unlink(path) : rmdir(path));
    }
    return rmdir(dir);
}

/* The head's product with the state of the last token of these texts, each tokenized on its own. */
static double expected(const char *prompt, const char *completion)
{
    struct err e = {0};
    struct frozen *f;
    struct score *s;
    struct frozen_opts o = how;
    struct ids ids;
    o.path = made;
    ids_init(&ids, 1000);
    die(frozen_open(&f, &o, &e), &e);
    die(score_open(&s, frozen_engine(f), NULL, &e), &e);
    assert_true(s->found);
    assert_memory_equal(s->value, head, s->w.cols * sizeof(float));
    const struct tokenizer *t = engine_tokenizer(frozen_engine(f));
    if (tokenizer_adds_bos(t))
        die(ids_push(&ids, tokenizer_bos(t), &e), &e);
    die(tokenizer_encode(t, prompt, strlen(prompt), 0, NULL, &ids, &e), &e);
    die(tokenizer_encode(t, completion, strlen(completion), 0, NULL, &ids, &e), &e);
    if (tokenizer_eos(t) >= 0)
        die(ids_push(&ids, tokenizer_eos(t), &e), &e);
    struct data_seq seq = {.ids = ids.v, .n = ids.n};
    struct frozen_states states;
    die(frozen_look(f, &seq, 1, &states, &e), &e);
    double want = 0;
    for (size_t i = 0; i < s->w.cols; i++)
        want += (double)head[i] * (double)states.hidden.data[(ids.n - 1) * s->w.cols + i];
    score_free(s);
    frozen_free(f);
    ids_release(&ids);
    return want;
}

static void score(const char *part, bool thinking, const char *const *text, size_t n, float *out)
{
    struct err e = {0};
    struct reward_model *m;
    char spec[200], name[48];
    double weight;
    struct span span[8];
    json_t *record = json_pack("{s:s}", "prompt", "What is 2+2?");
    for (size_t i = 0; i < n; i++)
        span[i] = span_of(text[i]);
    snprintf(spec, sizeof spec, "%s:0.25:%s", made, part);
    die(reward_model_open(&m, spec, &how, name, &weight, &e), &e);
    assert_true(weight == 0.25);
    assert_string_equal(name, strrchr(dir, '/') + 1); /* that of the run */
    die(reward_model_group(m, record, thinking, span, n, out, &e), &e);
    reward_model_free(m);
    json_decref(record);
}

static void scores_are_the_head_s(void **state)
{
    (void)state;
    static const char *const text[] = {"four", "it is five, or so I think", "4", "four"};
    float out[4];
    score("whole", false, text, 4, out);
    for (size_t i = 0; i < 4; i++) {
        double want = expected("What is 2+2?", text[i]);
        if (fabs((double)out[i] - want) > 1e-4 * fmax(1, fabs(want)))
            fail_msg("\"%s\": %g, want %g", text[i], (double)out[i], want);
    }
    assert_true(out[0] == out[3]); /* whoever else is scored */
    assert_true(out[0] != out[1]);
}

static void the_thought_is_seen_by_whom_it_concerns(void **state)
{
    (void)state;
    static const char *const text[] = {"hm\n</think>\n\nfour", "well\n</think>\n\nfour",
                                       "it never ends", "neither does it"};
    float answer[4], whole[4];
    score("answer", true, text, 4, answer);
    score("whole", true, text, 4, whole);
    assert_true(answer[0] == answer[1] && answer[2] == answer[3] && answer[0] != answer[2]);
    assert_true(whole[0] != whole[1] && whole[2] != whole[3]);
}

/* What is too long loses its beginning; the end is what is scored. */
static void long_texts_and_bytes_are_fine(void **state)
{
    (void)state;
    char *tail = malloc(4001);
    assert_non_null(tail);
    memset(tail, 'a', 4000);
    tail[4000] = 0;
    const char *text[] = {tail, "\xff\xfe bytes", ""};
    float out[3];
    score("whole", false, text, 3, out);
    for (size_t i = 0; i < 3; i++)
        assert_true(isfinite(out[i]));
    free(tail);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *says;
    } cases[] = {{MODEL, "no score.weight"}, {"x:y", "no weight"}, {"/no/such/folder", "/no/such"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        struct reward_model *m;
        char name[48];
        double weight;
        assert_true(reward_model_open(&m, cases[i].spec, &how, name, &weight, &e) != 0);
        if (!strstr(e.text, cases[i].says))
            fail_msg("%s: \"%s\"", cases[i].spec, e.text);
        reward_model_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_head_s),
        cmocka_unit_test(the_thought_is_seen_by_whom_it_concerns),
        cmocka_unit_test(long_texts_and_bytes_are_fine),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests_name("train/reward_model", tests, setup, teardown);
}
