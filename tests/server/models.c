/* See models.h. */
#include "models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <ftw.h>
#include <jansson.h>

#define BODY                                                                                     \
    "{%- if tools %}<|im_start|>system\nTools:\n{%- for t in tools %}\n{{ t | tojson }}\n"       \
    "{%- endfor %}<|im_end|>\n{% endif %}"                                                       \
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"                                         \
    "{{ m.content if m.content is string else '' }}"                                             \
    "{%- for c in m.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", "      \
    "\"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{%- endfor %}<|im_end|>\n" \
    "{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n"

const char models_plain[] = BODY "{% endif %}";
const char models_always[] = BODY "<think>\n{% endif %}";
const char models_switch[] =
    BODY "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
         "{% endif %}{% endif %}";

const char models_strict[] =
    "{% for m in messages %}{% if loop.index0 % 2 != (0 if m.role == 'user' else 1) %}"
    "{{ raise_exception('roles must take turns') }}{% endif %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ 'call ' + c.function.arguments }}{% endfor %}"
    "{% endfor %}[assistant]";

char *models_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/ponder-server-XXXXXX", tmp ? tmp : "/tmp");
    char *made = mkdtemp(path);
    assert_non_null(made);
    return strdup(made);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

void models_drop(char *folder)
{
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(folder);
}

void models_add(const char *folder, const char *name, const char *golden, const char *chat_template)
{
    static const char *const files[] = {"config.json", "generation_config.json",
                                        "model.safetensors", "tokenizer.json"};
    char to[600], from[600], path[700];
    snprintf(to, sizeof to, "%s/%s", folder, name);
    assert_int_equal(mkdir(to, 0700), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(from, sizeof from, "%s/models/%s/%s", GOLDEN_DIR, golden, files[i]);
        snprintf(path, sizeof path, "%s/%s", to, files[i]);
        assert_int_equal(symlink(from, path), 0);
    }
    snprintf(from, sizeof from, "%s/models/%s/tokenizer_config.json", GOLDEN_DIR, golden);
    json_t *config = json_load_file(from, 0, NULL);
    assert_non_null(config);
    if (chat_template)
        json_object_set_new(config, "chat_template", json_string(chat_template));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", to);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
}

void models_rename_tokens(const char *folder, const char *name, const char *const *from,
                          const char *const *to, size_t n)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s/tokenizer.json", folder, name);
    json_t *o = json_load_file(path, 0, NULL), *v;
    size_t k, done = 0;
    json_array_foreach(json_object_get(o, "added_tokens"), k, v)
    {
        for (size_t i = 0; i < n; i++)
            if (!strcmp(json_string_value(json_object_get(v, "content")), from[i])) {
                json_object_set_new(v, "content", json_string(to[i]));
                done++;
                break;
            }
    }
    assert_int_equal(done, n);
    assert_int_equal(unlink(path), 0); /* a link to the golden one */
    assert_int_equal(json_dump_file(o, path, 0), 0);
    json_decref(o);
}
