/* See bench.h. */
#include "server/bench.h"

#include "server/http_fixture.h"
#include "server/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

static void begin(struct bench *b, const char *const *key, size_t n_key, size_t tokens,
                  void (*change)(struct bench *b))
{
    struct err e = {0};
    *b = (struct bench){.fds = count_fds()};
    b->folder = models_folder();
    models_add(b->folder, "always", "qwen2_tied", models_always);
    models_add(b->folder, "plain", "qwen2_tied", models_plain);
    models_add(b->folder, "strict", "qwen2_tied", models_strict);
    b->log = (struct log){open_memstream(&b->text, &b->text_n), LOG_WARN};
    server_opts_init(&b->o);
    b->o.http.port = 0;
    b->o.http.log = &b->log;
    b->o.http.api_key = key;
    b->o.http.n_api_key = n_key;
    b->o.hub.dir = b->folder;
    b->o.hub.engine.threads = 1;
    b->o.hub.engine.ctx = 1024;
    b->o.hub.engine.cache = tokens;
    if (change)
        change(b); /* may log elsewhere */
    if (server_new(&b->s, &b->o, &e))
        fail_msg("%s", e.text);
    b->port = http_port(b->s->http);
}

void bench_begin(struct bench *b, const char *const *key, size_t n_key)
{
    begin(b, key, n_key, 4096, NULL);
}

void bench_begin_kv(struct bench *b, size_t tokens)
{
    begin(b, NULL, 0, tokens, NULL);
}

void bench_begin_with(struct bench *b, void (*change)(struct bench *b))
{
    begin(b, NULL, 0, 4096, change);
}

void bench_end(struct bench *b)
{
    server_free(b->s);
    fclose(b->log.out);
    free(b->text);
    models_drop(b->folder);
    assert_int_equal(count_fds(), b->fds);
}

void bench_ask(struct bench *b, const char *method, const char *path, const char *more,
               const char *body, struct reply *r)
{
    char head[2048];
    size_t n = strlen(body);
    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n", method, path,
             more, n);
    int fd = client_open(b->port);
    if (client_puts(fd, head))
        client_send(fd, body, n);
    client_read(fd, r, false);
    close(fd);
}

int bench_status(struct bench *b, const char *method, const char *path, const char *body)
{
    struct reply r;
    bench_ask(b, method, path, "", body, &r);
    int s = r.complete ? r.status : -r.status;
    reply_free(&r);
    return s;
}
