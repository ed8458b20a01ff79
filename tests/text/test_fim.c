/* Prompts with a hole, for vocabularies of all forms: made of the small vocabulary with the tokens
   of one form, or of several, added. */
#include "text/fim.h"

#include "base/num.h"
#include "support/golden.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The small vocabulary and these control tokens. */
static struct tokenizer *with_tokens(const char *const *text, size_t n)
{
    struct tokenizer *t;
    struct err e = {0};
    json_t *o = json_load_file(GOLDEN_DIR "/models/qwen2_tied/tokenizer.json", 0, NULL);
    json_t *added = json_object_get(o, "added_tokens");
    assert_non_null(added);
    json_int_t id = 600;
    for (size_t i = 0; i < n; i++)
        json_array_append_new(added, json_pack("{s:I,s:s,s:b,s:b,s:b,s:b,s:b}", "id", id++,
                                               "content", text[i], "special", 1, "single_word", 0,
                                               "lstrip", 0, "rstrip", 0, "normalized", 0));
    char *json = json_dumps(o, 0);
    if (tokenizer_new_json(&t, json, strlen(json), &e))
        fail_msg("%s", e.text);
    free(json);
    json_decref(o);
    return t;
}

static void append(const struct tokenizer *t, struct ids *ids, const char *text, int flags)
{
    struct err e = {0};
    assert_int_equal(tokenizer_encode(t, text, strlen(text), flags, NULL, ids, &e), 0);
}

/* begin, PREFIX, hole, SUFFIX, end; and no control token comes of what stands around the hole. */
static void prompts_have_the_form(void **state)
{
    static const char *const texts[][2] = {
        {"def f(a):\n    return ", "\n\nprint(f(1))\n"},
        {"", "x"},
        {"x", ""},
        {"", ""},
        {"a<|fim_prefix|><｜fim▁hole｜><fim_middle>", "<|fim_middle|><|im_end|><fim-suffix>é\xff"},
    };
    (void)state;
    for (size_t f = 0; f < FIM_FORMS; f++) {
        const char *const own[] = {fim_forms[f].begin, fim_forms[f].hole, fim_forms[f].end};
        struct tokenizer *t = with_tokens(own, 3);
        assert_ptr_equal(fim_find(t), &fim_forms[f]);
        for (size_t i = 0; i < NUM_COUNT(texts); i++) {
            struct ids got, want;
            struct err e = {0};
            ids_init(&got, 1000);
            ids_init(&want, 1000);
            append(t, &want, own[0], TOKENIZER_SPECIAL);
            append(t, &want, texts[i][0], 0);
            append(t, &want, own[1], TOKENIZER_SPECIAL);
            append(t, &want, texts[i][1], 0);
            append(t, &want, own[2], TOKENIZER_SPECIAL);
            assert_int_equal(fim_encode(t, texts[i][0], strlen(texts[i][0]), texts[i][1],
                                        strlen(texts[i][1]), &got, &e),
                             0);
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.v, want.v, got.n * sizeof *got.v);
            size_t controls = 0;
            for (size_t k = 0; k < got.n; k++)
                controls += tokenizer_is_special(t, got.v[k]);
            assert_int_equal(controls, 3);
            ids_release(&got);
            ids_release(&want);
        }
        tokenizer_free(t);
    }
}

static void forms_need_all_their_tokens(void **state)
{
    static const char *const two[] = {"<|fim_prefix|>", "<|fim_suffix|>", "<fim_middle>"};
    static const char *const both[] = {"<fim_prefix>",   "<fim_suffix>",   "<fim_middle>",
                                       "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"};
    struct ids ids;
    struct err e = {0};
    (void)state;
    ids_init(&ids, 100);
    struct tokenizer *t = with_tokens(two, 3);
    assert_null(fim_find(t));
    assert_int_equal(fim_encode(t, "a", 1, "b", 1, &ids, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "cannot fill in the middle"));
    assert_int_equal(ids.n, 0);
    tokenizer_free(t);
    t = with_tokens(both, 6);
    assert_string_equal(fim_find(t)->begin, "<|fim_prefix|>"); /* the first of the table */
    tokenizer_free(t);
    ids_release(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_have_the_form),
        cmocka_unit_test(forms_need_all_their_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
