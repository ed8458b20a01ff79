/*
 * Fuzzing the output parser: the same events come out of a text whole, byte by byte, and in pieces;
 * a call is a JSON object. Bit 0 of the first byte says that the thought is open.
 */
#include "text/parse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

struct log {
    struct buf text;
    int last;
};

static int log_event(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct log *l = arg;
    struct err e;
    must(n > 0);
    if (ev == PARSE_TOOL_CALL) {
        json_t *call = json_loadb(s, n, 0, NULL);
        /* numbers too large for a double are right in JSON, but not for this library */
        must(json_is_object(call) || memchr(s, 'e', n) || memchr(s, 'E', n) || n > 60);
        json_decref(call);
    }
    if (l->last != (int)ev || ev == PARSE_TOOL_CALL)
        must(!buf_putc(&l->text, (char)ev, &e));
    l->last = (int)ev;
    return buf_append(&l->text, s, n, &e);
}

static void run(struct log *l, const char *s, size_t n, bool open, size_t piece)
{
    struct parser *p;
    struct err e;
    l->last = -1;
    buf_init(&l->text, 1 << 24);
    must(!parser_new(&p, open, &e));
    for (size_t at = 0; at < n; at += piece)
        must(!parser_feed(p, s + at, n - at < piece ? n - at : piece, log_event, l, &e));
    must(!parser_finish(p, log_event, l, &e));
    parser_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct log whole, cut;
    if (!size)
        return 0;
    const char *s = (const char *)data + 1;
    size_t n = size - 1, pieces[] = {1, 7};
    run(&whole, s, n, data[0] & 1, n ? n : 1);
    for (int i = 0; i < 2; i++) {
        run(&cut, s, n, data[0] & 1, pieces[i]);
        must(cut.text.len == whole.text.len &&
             !memcmp(cut.text.data, whole.text.data, cut.text.len));
        buf_release(&cut.text);
    }
    buf_release(&whole.text);
    return 0;
}
