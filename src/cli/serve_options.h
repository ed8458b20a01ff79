/* The options of `ponder serve`, and what they and the environment become. */
#ifndef PONDER_CLI_SERVE_OPTIONS_H
#define PONDER_CLI_SERVE_OPTIONS_H

#include "cli/command.h"
#include "cli/locate.h"
#include "cli/options.h"
#include "server/server.h"

/* What is understood and passed over. */
struct serve_moot {
#define MOOT(id, name, alias) const char *id;
#define MOOT_FLAG(id, name, alias) int id;
#include "cli/serve_moot.def"
#undef MOOT
#undef MOOT_FLAG
};

struct serve_options {
    const char *host, *models_dir, *key_file, *cert, *key, *keep_alive, *disk;
    const char *ollama_think, *reasoning_field, *kv_dtype;
    int64_t port, connections, max_loaded, max_queue, max_seqs, kv_tokens, batched, owner_jobs,
        n_max;
    int64_t max_tokens, seed, think_budget;
    double memory, request_seconds, disk_gb;
    struct opt_list served, adapter, api_key, origin;
    int access_log, think_loops, prefix, no_disk, quiet, ascii;
    struct opt_list model; /* MODEL in vLLM's and SGLang's words */
    struct serve_moot moot;
    struct engine_options engine;
};

extern const struct opt_group serve_groups[];
enum { SERVE_GROUPS_N = 8, SERVE_HOST_MAX = 256 };

/* Everything that the server's options point to. */
struct serve_setup {
    struct server_opts o;
    struct engine_request engine;
    struct engine_options chosen; /* with Ollama's environment */
    char host[SERVE_HOST_MAX], dir[LOCATE_MAX], disk[LOCATE_MAX], path[OPT_LIST_MAX][LOCATE_MAX];
    const char *paths[OPT_LIST_MAX];
    struct hub_adapter adapter[OPT_LIST_MAX]; /* names are owned */
    size_t n_adapter;
    char *origins; /* of OLLAMA_ORIGINS, cut up; owned */
    const char *origin[2 * OPT_LIST_MAX];
    size_t n_path;
};

int serve_setup_init(struct serve_setup *s, const struct cli *c, const struct serve_options *o,
                     struct log *log, struct err *e);
void serve_setup_release(struct serve_setup *s);

/* For tests. */
int serve_host(const char *text, char host[SERVE_HOST_MAX], int *port, struct err *e);

#endif
