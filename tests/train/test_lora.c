/*
 * Training of adapters, from options to the folder: it is what PEFT writes, an engine that opens it
 * computes what was trained, and its bits depend neither on threads, nor on how batches are cut,
 * nor on interruptions. Adapters of PEFT give PEFT's logits.
 *
 * PONDER_TRAIN_GOLDEN: another folder of references.
 */
#include "engine/engine.h"
#include "format/adapter.h"
#include "support/golden.h"
#include "train/lora.h"
#include "train/reward_model.h"
#include "train/stage.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64], data_path[96];

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

/* ---- a run ----------------------------------------------------------------------------------- */

static bool stop_early(void *arg, const struct train_report *r)
{
    const int64_t *at = arg;
    return r->step < *at;
}

/* Options as of a command line; "model" and the data are given. */
static int train(const char *stage, const char *out, const char *const *args, int64_t stop,
                 struct err *e)
{
    const struct train_stage *s = train_stage_find(stage);
    struct train_options o = {0};
    struct comm *comm = NULL;
    char run[160];
    snprintf(run, sizeof run, "%s/%s", folder, out);
    die(opt_defaults(&s->spec, &o, e), e);
    const char *const always[] = {"model",
                                  GOLDEN_DIR "/models/llama_rope_llama3",
                                  "dataset",
                                  data_path,
                                  "output-dir",
                                  run,
                                  "use-peft",
                                  "1",
                                  "logging-steps",
                                  "1",
                                  "learning-rate",
                                  "1e-2",
                                  "lora-r",
                                  "4",
                                  "max-steps",
                                  "6",
                                  "save-steps",
                                  "2",
                                  NULL};
    for (int own = 0; own < 2; own++)
        for (const char *const *list = own ? args : always; *list; list += 2)
            die(opt_assign(&s->spec, &o, list[0], list[1], e), e);
    die(train_stage_fill(s, &o, e), e);
    die(comm_open(&comm, e), e);
    struct train_env env = {.comm = comm, .report = stop ? stop_early : NULL, .arg = &stop};
    int rc = s->run(&env, &o, e);
    comm_close(comm, 0);
    return rc;
}

static void read_file(const char *run, const char *name, char **out, size_t *n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", folder, run, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    *out = calloc(1, 4 << 20);
    assert_non_null(*out);
    *n = fread(*out, 1, (4 << 20) - 1, f);
    fclose(f);
}

static void same_file(const char *a, const char *b, const char *name)
{
    char *x, *y;
    size_t n, m;
    read_file(a, name, &x, &n);
    read_file(b, name, &y, &m);
    if (n != m || memcmp(x, y, n) != 0)
        fail_msg("%s of %s and %s differ", name, a, b);
    free(x);
    free(y);
}

static const char *const none[] = {NULL};

/* ---- tests ----------------------------------------------------------------------------------- */

static void bits_depend_on_nothing(void **state)
{
    (void)state;
    struct err e = {0};
    die(train("sft", "one", (const char *const[]){"threads", "1", NULL}, 0, &e), &e);
    die(train("sft", "three",
              (const char *const[]){"threads", "3", "pass-tokens", "64", "gradient-checkpointing",
                                    "1", NULL},
              0, &e),
        &e);
    same_file("one", "three", "log.jsonl");
    same_file("one", "three", "model/adapter_model.safetensors");
    /* Dropout takes part: without it the result is another one. */
    die(train("sft", "dry", (const char *const[]){"lora-dropout", "0", NULL}, 0, &e), &e);
    char *x, *y;
    size_t n, m;
    read_file("one", "log.jsonl", &x, &n);
    read_file("dry", "log.jsonl", &y, &m);
    assert_true(n != m || memcmp(x, y, n) != 0);
    free(x);
    free(y);
}

static void goes_on_where_it_was(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(train("sft", "cut", none, 3, &e), ERR_CANCELLED);
    die(train("sft", "cut", none, 0, &e), &e);
    same_file("one", "cut", "log.jsonl");
    same_file("one", "cut", "model/adapter_model.safetensors");
}

/* Mean loss of `text` by an engine. */
static double loss_of(const char *adapter, const char *text)
{
    struct err e = {0};
    struct engine *g;
    struct session *s;
    struct engine_opts o;
    int32_t ids[256];
    engine_opts_init(&o);
    o.adapter = adapter;
    o.act = ENGINE_ACT_F32;
    o.kv_type = QUANT_F32;
    o.ctx = 256;
    die(engine_open(&g, GOLDEN_DIR "/models/llama_rope_llama3", &o, &e), &e);
    struct ids list;
    ids_init(&list, 256);
    die(tokenizer_encode(engine_tokenizer(g), text, strlen(text), 0, NULL, &list, &e), &e);
    size_t n = list.n, vocab = engine_info(g)->vocab;
    memcpy(ids, list.v, n * sizeof *ids);
    float *logits = calloc(n * vocab, sizeof *logits);
    assert_non_null(logits);
    die(session_new(&s, g, &e), &e);
    die(session_append_all(s, ids, n, logits, &e), &e);
    double sum = 0;
    for (size_t t = 0; t + 1 < n; t++) {
        double top = -INFINITY, z = 0;
        const float *row = logits + t * vocab;
        for (size_t i = 0; i < vocab; i++)
            top = fmax(top, (double)row[i]);
        for (size_t i = 0; i < vocab; i++)
            z += exp((double)row[i] - top);
        sum += log(z) + top - (double)row[ids[t + 1]];
    }
    free(logits);
    ids_release(&list);
    session_free(s);
    engine_free(g);
    return sum / (double)(n - 1);
}

/* An adapter that has seen one text thirty times knows it; without the adapter nothing changed. */
static void learns(void **state)
{
    (void)state;
    struct err e = {0};
    char path[160];
    static const char text[] = "the quick brown fox jumps over the lazy dog again and again";
    snprintf(path, sizeof path, "%s/fox.jsonl", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        fprintf(f, "{\"text\": \"%s\"}\n", text);
    fclose(f);
    char was[96];
    memcpy(was, data_path, sizeof was);
    snprintf(data_path, sizeof data_path, "%s/fox.jsonl", folder);
    die(train("sft", "fox",
              (const char *const[]){"max-steps", "30", "lora-r", "8", "use-rslora", "1",
                                    "lora-target-modules", "q_proj,v_proj,up_proj,down_proj", NULL},
              0, &e),
        &e);
    memcpy(data_path, was, sizeof was);
    snprintf(path, sizeof path, "%s/fox/model", folder);
    double before = loss_of(NULL, text), after = loss_of(path, text);
    if (!(after < 0.5 * before))
        fail_msg("loss %.4f with the adapter, %.4f without", after, before);
    struct adapter *a;
    die(adapter_open(&a, path, &e), &e);
    assert_int_equal(adapter_count(a) % 4, 0);
    assert_float_equal(adapter_at(a, 0)->scale, 32 / sqrt(8), 1e-12);
    for (size_t i = 0; i < adapter_count(a); i++) {
        const char *name = adapter_at(a, i)->name;
        assert_int_equal(strncmp(name, "model.layers.", 13), 0);
        assert_null(strstr(name, "k_proj"));
        assert_int_equal(adapter_at(a, i)->a->shape[0], 8);
        assert_int_equal(adapter_at(a, i)->b->shape[1], 8);
    }
    adapter_free(a);
}

/* The configuration has what PEFT's LoraConfig reads, with its names and kinds. */
static void configuration_is_pefts(void **state)
{
    (void)state;
    char *text, path[512];
    size_t n;
    json_error_t je;
    read_file("one", "model/adapter_config.json", &text, &n);
    json_t *ours = json_loads(text, 0, &je), *theirs, *v;
    snprintf(path, sizeof path, "%s/train/llama/adapter/adapter_config.json", GOLDEN_DIR);
    theirs = json_load_file(path, 0, &je);
    assert_non_null(ours);
    assert_non_null(theirs);
    const char *key;
    json_object_foreach(ours, key, v)
    {
        const json_t *peft = json_object_get(theirs, key);
        if (!peft)
            fail_msg("PEFT has no \"%s\"", key);
        if (strcmp(key, "target_modules") != 0 && json_typeof(v) != json_typeof(peft) &&
            !json_is_boolean(v))
            fail_msg("\"%s\" is of another kind than PEFT's", key);
    }
    assert_string_equal(json_string_value(json_object_get(ours, "peft_type")), "LORA");
    assert_int_equal(json_integer_value(json_object_get(ours, "r")), 4);
    assert_int_equal(json_integer_value(json_object_get(ours, "lora_alpha")), 32);
    json_t *targets = json_object_get(ours, "target_modules");
    assert_int_equal(json_array_size(targets), 7); /* all-linear of llama */
    json_decref(ours);
    json_decref(theirs);
    free(text);
}

static void refuses_what_is_asked_in_vain(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(train("sft", "no",
                           (const char *const[]){"lora-target-modules", "q_proj,nope", NULL}, 0,
                           &e),
                     ERR_USAGE);
    assert_non_null(strstr(e.text, "'nope'"));
    assert_int_equal(train("sft", "no", (const char *const[]){"mtp-weight", "0.3", NULL}, 0, &e),
                     ERR_USAGE);
    assert_int_equal(train("grpo", "no", (const char *const[]){"lora-dropout", "0.1", NULL}, 0, &e),
                     ERR_USAGE);
    assert_non_null(strstr(e.text, "dropout"));
}

/* Without learning it stays what it was, to the byte; what is said beside it has to agree. */
static void an_adapter_can_be_gone_on_with(void **state)
{
    (void)state;
    struct err e = {0};
    char from[96], text[128];
    snprintf(from, sizeof from, "%s/one/model", folder);
    die(train("sft", "still",
              (const char *const[]){"lora", from, "learning-rate", "0", "max-steps", "2", NULL}, 0,
              &e),
        &e);
    same_file("one", "still", "model/adapter_model.safetensors");
    same_file("one", "still", "model/adapter_config.json");
    /* A run of it goes on where it was. */
    die(train("sft", "whole", (const char *const[]){"lora", from, NULL}, 0, &e), &e);
    assert_int_equal(train("sft", "parts", (const char *const[]){"lora", from, NULL}, 3, &e),
                     ERR_CANCELLED);
    die(train("sft", "parts", (const char *const[]){"lora", from, NULL}, 0, &e), &e);
    same_file("whole", "parts", "log.jsonl");
    same_file("whole", "parts", "model/adapter_model.safetensors");
    static const struct {
        const char *name, *value, *says;
    } cases[] = {{"lora-r", "8", "the rank of"},
                 {"lora-alpha", "8", "that of"},
                 {"use-rslora", "1", "alpha / r"},
                 {"lora-target-modules", "q_proj", "layers of its own"},
                 {"lora", "/no/such/adapter", "/no/such/adapter"},
                 {"lora", GOLDEN_DIR "/train/dsv3/adapter", "module '"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const args[] = {"lora",       from,       cases[i].name, cases[i].value,
                                    "output-dir", "/no/such", NULL};
        assert_true(train("sft", "no", args, 0, &e) != 0);
        snprintf(text, sizeof text, "%s", cases[i].says);
        if (!strstr(e.text, text))
            fail_msg("--%s %s: \"%s\"", cases[i].name, cases[i].value, e.text);
    }
}

/* The head of a reward model is part of the adapter, and both are found again. */
static void reward_models_are_adapters_too(void **state)
{
    (void)state;
    struct err e = {0};
    char pairs[128], was[96], path[160], name[48];
    struct reward_model *m;
    struct adapter *a;
    double weight;
    float score[2];
    snprintf(pairs, sizeof pairs, "%s/pairs.jsonl", folder);
    FILE *f = fopen(pairs, "w");
    assert_non_null(f);
    for (int i = 0; i < 16; i++)
        fprintf(f, "{\"prompt\": \"%d?\", \"chosen\": \"yes\", \"rejected\": \"zzz\"}\n", i);
    fclose(f);
    memcpy(was, data_path, sizeof was);
    snprintf(data_path, sizeof data_path, "%s/pairs.jsonl", folder);
    int rc = train("reward", "judge", (const char *const[]){"max-steps", "20", NULL}, 0, &e);
    snprintf(path, sizeof path, "%s/judge/model", folder);
    rc = rc ? rc
            : train(
                  "reward", "again",
                  (const char *const[]){"lora", path, "learning-rate", "0", "max-steps", "1", NULL},
                  0, &e);
    memcpy(data_path, was, sizeof was);
    die(rc, &e);
    same_file("judge", "again", "model/adapter_model.safetensors");
    die(adapter_open(&a, path, &e), &e);
    assert_non_null(adapter_score(a));
    assert_int_equal(adapter_score(a)->shape[0], 1);
    json_t *saved = json_object_get(adapter_config(a), "modules_to_save");
    assert_string_equal(json_string_value(json_array_get(saved, 0)), "score");
    assert_string_equal(json_string_value(json_object_get(adapter_config(a), "task_type")),
                        "SEQ_CLS");
    adapter_free(a);
    static const struct frozen_opts how = {.threads = 1, .pass_tokens = 64, .longest = 96};
    struct span text[2] = {span_of("yes"), span_of("zzz")};
    json_t *record = json_pack("{s:s}", "prompt", "99?");
    die(reward_model_open(&m, path, &how, name, &weight, &e), &e);
    assert_string_equal(name, "judge");
    die(reward_model_group(m, record, false, text, 2, score, &e), &e);
    if (!(score[0] > score[1] + 1))
        fail_msg("scores %g and %g", (double)score[0], (double)score[1]);
    reward_model_free(m);
    json_decref(record);
}

static float *logits_of(struct engine *g, const int32_t *ids, size_t n)
{
    struct err e = {0};
    struct session *s;
    float *logits = calloc(n * engine_info(g)->vocab, sizeof *logits);
    assert_non_null(logits);
    die(session_new(&s, g, &e), &e);
    die(session_append_all(s, ids, n, logits, &e), &e);
    session_free(s);
    return logits;
}

/* PEFT's adapter over the reference model: PEFT's logits. With the weights of another engine: the
   same bits, and that one's own logits stay what they were. */
static void logits_are_pefts(void **state)
{
    const char *model = *state, *env = getenv("PONDER_TRAIN_GOLDEN");
    struct err e = {0};
    char base[512], path[600];
    struct engine *g, *plain, *shares;
    struct engine_opts o;
    snprintf(base, sizeof base, "%s/%s", env && *env ? env : GOLDEN_DIR "/train", model);
    snprintf(path, sizeof path, "%s/lora_logits.safetensors", base);
    struct golden *want = golden_load(path);
    struct golden_tensor y = golden_get(want, "logits");
    snprintf(path, sizeof path, "%s/batches.safetensors", base);
    struct golden *batches = golden_load(path);
    struct golden_tensor ids = golden_get(batches, "b0.input_ids"),
                         mask = golden_get(batches, "b0.attention_mask");
    size_t n = 0, vocab = y.dim[1];
    while (n < ids.dim[1] && mask.i32[n])
        n++;
    snprintf(path, sizeof path, "%s/adapter", base);
    engine_opts_init(&o);
    o.adapter = path;
    o.act = ENGINE_ACT_F32;
    o.kv_type = QUANT_F32;
    o.ctx = 64;
    die(engine_open(&g, base, &o, &e), &e);
    float *logits = logits_of(g, ids.i32, n);
    for (size_t i = 0; i < n * vocab; i++)
        if (!(fabsf(logits[i] - y.f32[i]) <= 1e-4f + 1e-3f * fabsf(y.f32[i])))
            fail_msg("%s: logit %zu is %.8g, PEFT's %.8g", model, i, (double)logits[i],
                     (double)y.f32[i]);
    o.adapter = NULL;
    die(engine_open(&plain, base, &o, &e), &e);
    float *before = logits_of(plain, ids.i32, n);
    o.adapter = path;
    o.base = plain;
    die(engine_open(&shares, base, &o, &e), &e);
    float *same = logits_of(shares, ids.i32, n), *after = logits_of(plain, ids.i32, n);
    assert_memory_equal(same, logits, n * vocab * sizeof *same);
    assert_memory_equal(after, before, n * vocab * sizeof *after);
    free(same);
    engine_free(plain); /* its weights stay */
    same = logits_of(shares, ids.i32, n);
    assert_memory_equal(same, logits, n * vocab * sizeof *same);
    engine_free(shares);
    free(before);
    free(after);
    free(same);
    free(logits);
    engine_free(g);
    golden_free(want);
    golden_free(batches);
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ponder-lora-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(data_path, sizeof data_path, "%s/data.jsonl", folder);
    FILE *f = fopen(data_path, "w");
    assert_non_null(f);
    for (int i = 0; i < 40; i++)
        fprintf(f, "{\"prompt\": \"What is %d plus %d?\", \"completion\": \"It is %d.\"}\n", i,
                i * i % 17, i + i * i % 17);
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

#define LOGITS(name)                                                                      \
    {                                                                                     \
        "logits_are_pefts " name, logits_are_pefts, NULL, NULL, (void *)(uintptr_t)(name) \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_depend_on_nothing),
        cmocka_unit_test(goes_on_where_it_was),
        cmocka_unit_test(configuration_is_pefts),
        cmocka_unit_test(learns),
        cmocka_unit_test(refuses_what_is_asked_in_vain),
        cmocka_unit_test(an_adapter_can_be_gone_on_with),
        cmocka_unit_test(reward_models_are_adapters_too),
        LOGITS("llama"),
        LOGITS("qwen2"),
        LOGITS("dsv3"),
    };
    return cmocka_run_group_tests_name("train/lora", tests, setup, teardown);
}
