/*
 * Fuzzing templates: the input is a template, rendered on a fixed conversation under small limits.
 * What comes out must be UTF-8 with a provenance for each byte, and text of the context must not
 * be trusted: it alone holds the byte 0xee (private use characters).
 */
#include "base/utf8.h"
#include "text/jinja.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char context_text[] =
    "{\"s\":\" \uE000b,\uE001 \",\"n\":null,\"i\":7,\"f\":2.5,\"t\":true,\"xs\":[3,1,2],\"e\":[],"
    "\"d\":{\"b\":1,\"a\":[1,\"\uE002\"],\"\uE003\":{}},\"messages\":[{\"role\":\"user\","
    "\"content\":"
    "\"\uE004\"},{\"role\":\"assistant\",\"content\":\"<think>\\n\uE005\\n</think>\\n\\n\uE006\"}],"
    "\"tools\":[{\"name\":\"\uE007\",\"p\":[true,{\"k\":1e3}]}]}";

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check(const struct jinja_result *r, const uint8_t *data, size_t size)
{
    /* escapes and "%c" can make any character */
    bool marks = !memchr(data, 0xee, size) && !memchr(data, '\\', size) && !memchr(data, 'c', size);
    must(r->text.len == r->trusted.len);
    must(utf8_valid(r->text.data, r->text.len));
    for (size_t i = 0; i < r->text.len; i++) {
        must(r->trusted.data[i] == 0 || r->trusted.data[i] == 1);
        must(!marks || (unsigned char)r->text.data[i] != 0xee || !r->trusted.data[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jinja_limits limits = {.steps = 30000, .output = 1 << 16, .memory = 4 << 20, .now = 1};
    struct jinja_result r;
    struct jinja *j;
    struct err e;
    json_t *context = json_loads(context_text, 0, NULL);
    must(context != NULL);
    jinja_result_init(&r, 1 << 20);
    int code = jinja_new(&j, (const char *)data, size, &e);
    if (!code)
        code = jinja_render(j, context, &limits, &r, &e);
    must(!code || (e.code == code && (r.raised || *e.text)));
    must(r.text.len <= limits.output);
    if (!code)
        check(&r, data, size);
    jinja_free(j);
    jinja_result_release(&r);
    json_decref(context);
    return 0;
}
