/*
 * serve: models for other programs, over HTTP.
 *
 * The main thread only waits for a signal. The first one lets what runs end; the second ends it.
 */
#include "base/cpu.h"
#include "base/quota.h"
#include "base/topology.h"
#include "cli/command.h"
#include "cli/serve_options.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* As many connections as the system lets us have. */
static void serve_files(void)
{
    struct rlimit r;
    if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max < 65536 ? r.rlim_max : 65536;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static const char *serve_isa(enum cpu_isa isa)
{
    switch (isa) {
    case CPU_SCALAR:
        return "plain C";
    case CPU_AVX2:
        return "AVX2";
    case CPU_AVX512:
        return "AVX-512";
    default:
        return "AVX-512 VNNI";
    }
}

/* "http://127.0.0.1:11434", or where else it is. */
static void serve_address(const struct serve_setup *s, const struct server *v, char *out,
                          size_t cap)
{
    const char *host = s->o.http.host;
    if (s->o.http.fd < 0 && strchr(host, '/'))
        snprintf(out, cap, "unix:%s", host);
    else
        snprintf(out, cap, "%s://%s%s%s:%d", s->o.http.cert ? "https" : "http",
                 strchr(host, ':') ? "[" : "", host, strchr(host, ':') ? "]" : "",
                 http_port(v->http));
}

/* Threads that a model will have. */
static size_t serve_threads(const struct serve_setup *s)
{
    struct topology *t = NULL;
    size_t n = (size_t)s->o.hub.engine.threads;
    if (!n)
        n = topology_new(&t, NULL) ? 1 : topology_threads(t);
    topology_free(t);
    return n;
}

static void serve_hello(const struct serve_setup *s, const struct server *v, const struct log *log)
{
    char at[400], free_memory[40] = "", who[100];
    size_t n = hub_count(v->hub), room = quota_memory(""), keys = http_keys(v->http);
    struct buf names;
    buf_init(&names, 600);
    serve_address(s, v, at, sizeof at);
    if (room != SIZE_MAX)
        snprintf(free_memory, sizeof free_memory, ", %.0f GB free", (double)room / 1e9);
    if (keys)
        snprintf(who, sizeof who, "%zu API key%s", keys, keys > 1 ? "s" : "");
    else
        snprintf(who, sizeof who, "no API key: %s",
                 http_is_local(v->http) ? "local use only"
                                        : "whoever reaches this port may use it (--api-key)");
    size_t threads = serve_threads(s);
    log_bare(log, "ponder " PONDER_VERSION " · %s, %zu core%s%s · %s (Ollama and OpenAI APIs) · %s",
             serve_isa(s->o.hub.engine.isa), threads, threads > 1 ? "s" : "", free_memory, at, who);
    for (size_t i = 0; i < n && i < 8; i++)
        buf_printf(&names, NULL, "%s%.120s", i ? ", " : "", hub_info(hub_model(v->hub, i))->name);
    if (n)
        log_bare(log, "%zu model%s: %s%s", n, n > 1 ? "s" : "", names.data, n > 8 ? ", …" : "");
    else
        log_bare(log, "no models: give the path of one, or a folder with --models-dir");
    buf_release(&names);
}

enum { LOG_SECONDS = 2 }; /* for a log that is not read, at the end */

static bool serve_now(void *arg)
{
    return interrupt_count(arg) > 1;
}

static int serve_run(struct cli *c, const void *opts, struct err *e)
{
    const struct serve_options *o = opts;
    struct log log = {stderr, LOG_WARN};
    struct serve_setup *s = calloc(1, sizeof *s);
    struct server *v = NULL;
    if (!s)
        return err_nomem(e, sizeof *s, "options");
    signal(SIGPIPE, SIG_IGN);
    serve_files();
    int rc = log_writer_start(&log, e);
    if (!rc)
        rc = serve_setup_init(s, c, o, &log, e);
    if (!rc)
        rc = server_new(&v, &s->o, e);
    if (rc)
        goto out;
    interrupt_serve(c->interrupt);
    serve_hello(s, v, &log);
    while (!interrupt_count(c->interrupt)) {
        struct pollfd p = {.fd = interrupt_fd(c->interrupt), .events = POLLIN};
        poll(&p, 1, -1);
        interrupt_take(c->interrupt);
    }
    size_t n = http_active(v->http);
    if (n)
        log_bare(&log, "%sfinishing %zu request%s (Ctrl-C again to stop now)",
                 c->term.err_tty ? "\r^C " : "", n, n > 1 ? "s" : "");
    server_drain(v, serve_now, c->interrupt);
out:
    server_free(v);
    log_writer_stop(&log, LOG_SECONDS);
    serve_setup_release(s);
    free(s);
    return rc;
}

const struct command cmd_serve = {
    .name = "serve",
    .args = "[MODEL…]",
    .summary = "serve models over HTTP: Ollama's and OpenAI's APIs",
    .about = "Answers programs that speak to Ollama, OpenAI or DeepSeek: give them this machine's "
             "address. "
             "Many requests are computed together; models are loaded when they are asked for.\n\n"
             "MODEL is what `ponder run` takes. Without one: PONDER_MODEL, and all models in "
             "$PONDER_MODELS (default: ~/.cache/ponder/weights); where there are none, the bundled "
             "one, ponder-r1-mini.\n\n"
             "Ctrl-C or SIGTERM lets requests end; a second one stops at once. docs/serving.md has "
             "clients, security, metrics and systemd.",
    .examples = "# one model, for this machine\n"
                "ponder serve model.gguf\n"
                "# all in a folder, for everybody who has the key\n"
                "ponder serve --models-dir ~/models --host 0.0.0.0 --api-key sk-secret\n"
                "# ask it\n"
                "curl http://127.0.0.1:11434/v1/chat/completions -d "
                "'{\"model\":\"model\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}'\n",
    .spec = {serve_groups, SERVE_GROUPS_N},
    .opts_size = sizeof(struct serve_options),
    .max_args = -1,
    .run = serve_run,
};
