#include "format/safetensors.h"
#include "models.h"
#include "server/hub.h"

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
#include <math.h>
#include <pthread.h>

/* ---- waiting for what the hub does in its own time ------------------------------------------ */

struct got {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool there, has_use;
    struct hub_use use;
    struct err err;
};

static void got_init(struct got *g)
{
    memset(g, 0, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->cond, NULL);
}

static void ready(void *arg, const struct hub_use *u, const struct err *e)
{
    struct got *g = arg;
    pthread_mutex_lock(&g->lock);
    g->there = true;
    g->has_use = u != NULL;
    if (u)
        g->use = *u;
    else
        g->err = *e;
    pthread_cond_signal(&g->cond);
    pthread_mutex_unlock(&g->lock);
}

static void await(struct got *g)
{
    pthread_mutex_lock(&g->lock);
    while (!g->there)
        pthread_cond_wait(&g->cond, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static bool got_ready(struct got *g)
{
    pthread_mutex_lock(&g->lock);
    bool there = g->there;
    pthread_mutex_unlock(&g->lock);
    return there;
}

static void get(struct hub *h, const char *name, struct got *g)
{
    struct hub_model *m;
    struct err e;
    int think;
    got_init(g);
    assert_int_equal(hub_find(h, name, &m, &think, &e), 0);
    hub_get(h, m, 0, ready, g);
    await(g);
}

static void count(void *arg, const struct hub_info *i, const struct engine_info *ei,
                  const struct sched_stats *st, double expires, uint64_t bytes)
{
    (void)st;
    assert_non_null(i->name);
    assert_true(ei->ctx > 0 && bytes > 0 && expires > 0);
    char *names = arg;
    strcat(strcat(names, i->name), " ");
}

static void loaded(struct hub *h, char names[256])
{
    names[0] = 0;
    hub_loaded(h, count, names);
}

/* Unloading happens in its own time. */
static void await_loaded(struct hub *h, const char *what)
{
    char names[256];
    for (int i = 0; i < 2000; i++) {
        loaded(h, names);
        if (!strcmp(names, what))
            return;
        usleep(5000);
    }
    assert_string_equal(names, what);
}

/* ---- a hub of three models ------------------------------------------------------------------ */

static char *folder;

static int setup(void **state)
{
    (void)state;
    folder = models_folder();
    models_add(folder, "Alpha", "qwen2_tied", models_plain);
    models_add(folder, "beta", "qwen2_tied", models_always);
    models_add(folder, "gamma", "llama_rope_llama3", NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    models_drop(folder);
    return 0;
}

static struct hub *hub_of(size_t most)
{
    struct hub_opts o;
    struct hub *h;
    struct err e;
    hub_opts_init(&o);
    o.dir = folder;
    o.engine.threads = 1;
    o.engine.ctx = 512;
    o.loaded = most;
    if (hub_new(&h, &o, &e))
        fail_msg("%s", e.text);
    return h;
}

static void models_are_found_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {"Alpha", "alpha", "ALPHA:latest", "alpha:latest"};
    char path[700];
    struct hub *h;
    struct hub_model *m;
    struct err e;
    int think;
    snprintf(path, sizeof path, "%s/not-a-model.gguf", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("GGUF is not what this is", f);
    fclose(f);
    h = hub_of(0);
    assert_int_equal(hub_count(h), 3); /* what is no model is left out */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(hub_find(h, names[i], &m, &think, &e), 0);
        assert_string_equal(hub_info(m)->name, "Alpha");
        assert_int_equal(think, -1);
    }
    assert_int_equal(hub_find(h, "nobody", &m, &think, &e), ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "nobody"));
    assert_non_null(strstr(e.text, "Alpha, beta, gamma"));
    assert_int_equal(hub_find(h, "", &m, &think, &e), ERR_USAGE);
    assert_int_equal(hub_find(h, NULL, &m, &think, &e), ERR_USAGE);
    /* The one that thinks stands for DeepSeek's. */
    assert_int_equal(hub_find(h, "deepseek-reasoner", &m, &think, &e), 0);
    assert_string_equal(hub_info(m)->name, "beta");
    assert_int_equal(think, 1);
    assert_int_equal(hub_find(h, "deepseek-chat:latest", &m, &think, &e), 0);
    assert_string_equal(hub_info(m)->name, "beta");
    assert_int_equal(think, 0);
    hub_free(h);
    unlink(path);
}

static void heads_tell_what_models_are(void **state)
{
    (void)state;
    struct hub *h = hub_of(0);
    const struct hub_info *a = hub_info(hub_model(h, 0)), *b = hub_info(hub_model(h, 1));
    assert_string_equal(a->arch, "qwen2");
    assert_string_equal(a->file_type, "BF16");
    assert_int_equal(a->ctx_train, 1024);
    assert_int_equal(a->d_model, 64);
    assert_false(a->thinks);
    assert_true(b->thinks);
    assert_true(a->tools);
    assert_int_equal(strlen(a->digest), 64);
    assert_string_not_equal(a->digest, b->digest); /* the same weights, another template */
    assert_true(a->bytes > 100000 && a->params > 100000 && a->modified > 1e9);
    struct hub *again = hub_of(0);
    assert_string_equal(hub_info(hub_model(again, 0))->digest, a->digest);
    hub_free(again);
    hub_free(h);
}

static void served_names_replace_the_own(void **state)
{
    (void)state;
    char path[600];
    const char *paths[1] = {path};
    static const char *const served[] = {"r1", "deepseek-chat"};
    struct hub_opts o;
    struct hub *h;
    struct hub_model *m;
    struct err e;
    int think;
    hub_opts_init(&o);
    snprintf(path, sizeof path, "%s/Alpha", folder);
    o.path = paths;
    o.n_path = 1;
    o.served = served;
    o.n_served = 2;
    assert_int_equal(hub_new(&h, &o, &e), 0);
    assert_string_equal(hub_info(hub_model(h, 0))->name, "r1");
    assert_string_equal(hub_name(hub_model(h, 0), 1), "deepseek-chat");
    assert_null(hub_name(hub_model(h, 0), 2));
    assert_int_equal(hub_find(h, "R1:latest", &m, &think, &e), 0);
    assert_int_equal(hub_find(h, "deepseek-chat", &m, &think, &e), 0);
    assert_int_equal(think, -1); /* its own name, no alias */
    assert_int_equal(hub_find(h, "Alpha", &m, &think, &e), ERR_NOTFOUND);
    hub_free(h);
    /* A model that was named must be one. */
    snprintf(path, sizeof path, "%s/nowhere", folder);
    assert_int_not_equal(hub_new(&h, &o, &e), 0);
    assert_non_null(strstr(e.text, "nowhere"));
    assert_null(h);
}

static void keep_alive_decides_how_long(void **state)
{
    (void)state;
    struct hub *h = hub_of(0);
    struct got g, k;
    char names[256];
    loaded(h, names);
    assert_string_equal(names, "");
    get(h, "alpha", &g);
    assert_true(g.has_use);
    assert_non_null(g.use.engine);
    get(h, "beta", &k);
    loaded(h, names);
    assert_string_equal(names, "Alpha beta ");
    hub_put(&g.use, 0); /* nobody else uses it */
    await_loaded(h, "beta ");
    hub_put(&k.use, -1);
    assert_true(hub_unload(h, k.use.model));
    await_loaded(h, "");
    assert_false(hub_unload(h, k.use.model));
    get(h, "beta", &k);
    assert_true(k.has_use);
    hub_put(&k.use, 0.05);
    await_loaded(h, "");
    hub_free(h);
}

static void the_least_recently_used_makes_room(void **state)
{
    (void)state;
    struct hub *h = hub_of(2);
    struct got a, b, c;
    get(h, "alpha", &a);
    get(h, "beta", &b);
    hub_put(&b.use, NAN);
    hub_put(&a.use, NAN); /* alpha was used last */
    get(h, "gamma", &c);
    assert_true(c.has_use);
    await_loaded(h, "Alpha gamma ");
    hub_put(&c.use, NAN);
    hub_free(h);
}

static void a_busy_model_cannot_keep_another_out(void **state)
{
    (void)state;
    struct hub *h = hub_of(1);
    struct hub_model *m, *first;
    struct got a, b, again;
    struct err e;
    int think;
    get(h, "alpha", &a);
    got_init(&b);
    got_init(&again);
    assert_int_equal(hub_find(h, "beta", &m, &think, &e), 0);
    assert_int_equal(hub_find(h, "alpha", &first, &think, &e), 0);
    hub_get(h, m, 0, ready, &b);
    usleep(100000); /* now alpha was told to leave, and takes no new uses */
    hub_get(h, first, 0, ready, &again);
    assert_false(b.there);
    assert_false(again.there);
    hub_put(&a.use, NAN);
    await(&b);
    assert_true(b.has_use);
    hub_put(&b.use, NAN);
    await(&again);
    assert_true(again.has_use);
    await_loaded(h, "Alpha ");
    hub_put(&again.use, NAN);
    hub_free(h);
}

static void more_context_is_a_new_load(void **state)
{
    (void)state;
    struct hub_opts o;
    struct hub *h;
    struct err e;
    struct got g, k, l;
    hub_opts_init(&o);
    o.dir = folder;
    o.engine.threads = 1;
    o.engine.ctx_max = 256;
    assert_int_equal(hub_new(&h, &o, &e), 0);
    get(h, "alpha", &g);
    assert_int_equal(engine_info(g.use.engine)->ctx, 256);
    got_init(&k);
    hub_get(h, g.use.model, 700, ready, &k);
    usleep(50000);
    assert_false(k.there); /* it is in use */
    hub_put(&g.use, NAN);
    await(&k);
    assert_true(k.has_use);
    assert_int_equal(engine_info(k.use.engine)->ctx, 700);
    hub_put(&k.use, NAN);
    /* No more than it was trained for; and less is there already. */
    got_init(&l);
    hub_get(h, g.use.model, (size_t)1 << 31, ready, &l);
    await(&l);
    assert_true(l.has_use);
    assert_int_equal(engine_info(l.use.engine)->ctx, 1024);
    hub_put(&l.use, NAN);
    got_init(&l);
    hub_get(h, g.use.model, 300, ready, &l);
    await(&l);
    assert_int_equal(engine_info(l.use.engine)->ctx, 1024);
    hub_put(&l.use, NAN);
    hub_free(h);
}

/* A context that no memory suffices for is refused at once; who uses the model goes on. */
static void context_beyond_memory_is_refused(void **state)
{
    (void)state;
    struct hub_opts o;
    struct hub *h;
    struct err e;
    struct got g, k;
    hub_opts_init(&o);
    o.dir = folder;
    o.engine.threads = 1;
    o.engine.ctx_max = 256;
    assert_int_equal(hub_new(&h, &o, &e), 0);
    get(h, "alpha", &g);
    o.memory = engine_info(g.use.engine)->kv_token_bytes * 600;
    hub_put(&g.use, NAN);
    hub_free(h);
    assert_int_equal(hub_new(&h, &o, &e), 0);
    get(h, "alpha", &g);
    got_init(&k);
    hub_get(h, g.use.model, 700, ready, &k);
    await(&k);
    assert_false(k.has_use);
    assert_int_equal(k.err.code, ERR_LIMIT);
    assert_non_null(strstr(k.err.text, "700 tokens"));
    got_init(&k);
    hub_get(h, g.use.model, 500, ready, &k);
    hub_put(&g.use, NAN);
    await(&k);
    assert_true(k.has_use);
    assert_int_equal(engine_info(k.use.engine)->ctx, 500);
    hub_put(&k.use, NAN);
    hub_free(h);
}

/* Whoever comes while it is loaded gets what they asked for, too. */
static void all_who_wait_get_their_context(void **state)
{
    enum { N = 8 };
    (void)state;
    struct hub_opts o;
    struct hub *h;
    struct err e;
    struct got g[N];
    struct hub_model *m;
    int think;
    hub_opts_init(&o);
    o.dir = folder;
    o.engine.threads = 1;
    o.engine.ctx_max = 256;
    assert_int_equal(hub_new(&h, &o, &e), 0);
    assert_int_equal(hub_find(h, "alpha", &m, &think, &e), 0);
    for (size_t i = 0; i < N; i++) {
        got_init(&g[i]);
        hub_get(h, m, i % 2 ? 300 + 50 * i : 0, ready, &g[i]);
        usleep(2000);
    }
    /* Which of them a load serves depends on how soon it begins: whoever is served gives the model
       back at once, so that it can be loaded anew for who needs more. */
    bool back[N] = {false};
    for (size_t left = N; left; usleep(500))
        for (size_t i = 0; i < N; i++) {
            if (back[i] || !got_ready(&g[i]))
                continue;
            assert_true(g[i].has_use);
            assert_true(i % 2 == 0 || engine_info(g[i].use.engine)->ctx >= 300 + 50 * i);
            hub_put(&g[i].use, NAN);
            back[i] = true;
            left--;
        }
    hub_free(h);
}

/* folder/name becomes an adapter of PEFT's form for a projection of gamma's. */
static void adapter_add(const char *name, float value)
{
    char path[700];
    struct err e;
    struct safetensors_writer *w;
    float half[128];
    for (size_t i = 0; i < 128; i++)
        half[i] = value * (float)(i % 7);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/%s/adapter_config.json", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4}", f);
    fclose(f);
    snprintf(path, sizeof path, "%s/%s/adapter_model.safetensors", folder, name);
    assert_int_equal(safetensors_writer_new(&w, path, 0, &e), 0);
    static const char q[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
    for (int b = 0; b < 2; b++) {
        char tensor[128];
        snprintf(tensor, sizeof tensor, "%s%c.weight", q, b ? 'B' : 'A');
        const uint64_t shape[2] = {b ? 64 : 2, b ? 2 : 64};
        assert_int_equal(safetensors_add_tensor(w, tensor, "F32", 2, shape, &e), 0);
    }
    for (int b = 0; b < 2; b++)
        assert_int_equal(safetensors_write_data(w, half, sizeof half, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), 0);
    safetensors_writer_free(w);
}

/* Adapters are models of their own that need the one that they are for. */
static void adapters_share_the_weights_of_their_model(void **state)
{
    (void)state;
    char base[600], other[600], one[600], two[600];
    adapter_add("adapter-1", 0.1f);
    adapter_add("adapter-2", 0.2f);
    snprintf(base, sizeof base, "%s/gamma", folder);
    snprintf(other, sizeof other, "%s/beta", folder);
    snprintf(one, sizeof one, "%s/adapter-1", folder);
    snprintf(two, sizeof two, "%s/adapter-2", folder);
    const char *const paths[] = {base, other};
    struct hub_adapter adapters[] = {{"one", one}, {"Two", two}};
    struct hub_opts o;
    struct hub *h;
    struct hub_model *m;
    struct got g, k;
    struct err e;
    int think;
    hub_opts_init(&o);
    o.engine.threads = 1;
    o.engine.ctx = 512;
    o.path = paths;
    o.n_path = 2;
    o.adapter = adapters;
    o.n_adapter = 2;
    o.loaded = 1; /* adapters are no models of their own in this */
    assert_int_equal(hub_new(&h, &o, &e), 0);
    assert_int_equal(hub_count(h), 4);
    assert_int_equal(hub_find(h, "two:latest", &m, &think, &e), 0);
    assert_string_equal(hub_info(m)->name, "Two");
    assert_string_equal(hub_info(m)->parent, "gamma");
    assert_string_equal(hub_info(m)->adapter, two);
    assert_null(hub_info(hub_model(h, 0))->parent);
    assert_string_not_equal(hub_info(m)->digest, hub_info(hub_model(h, 0))->digest);
    assert_string_not_equal(hub_info(m)->digest, hub_info(hub_model(h, 2))->digest);
    get(h, "one", &g);
    assert_true(g.has_use);
    await_loaded(h, "gamma one ");
    get(h, "two", &k);
    assert_true(k.has_use);
    assert_ptr_not_equal(k.use.engine, g.use.engine);
    assert_true(engine_info(k.use.engine)->weight_bytes < 100000); /* what is its own */
    await_loaded(h, "gamma one Two ");
    hub_put(&k.use, 0);
    await_loaded(h, "gamma one ");
    /* The model goes when its adapters have gone. */
    assert_true(hub_unload(h, hub_model(h, 0)));
    hub_put(&g.use, NAN);
    await_loaded(h, "");
    get(h, "one", &g);
    hub_put(&g.use, NAN);
    await_loaded(h, "gamma one ");
    get(h, "beta", &k); /* makes room: the adapter, then the model */
    assert_true(k.has_use);
    await_loaded(h, "beta ");
    hub_put(&k.use, NAN);
    /* An adapter that cannot be read is said; its model stays. */
    char file[700], away[700];
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", one);
    snprintf(away, sizeof away, "%s/away", one);
    assert_int_equal(rename(file, away), 0);
    get(h, "one", &g);
    assert_false(g.has_use);
    assert_non_null(strstr(g.err.text, "adapter"));
    await_loaded(h, "gamma ");
    hub_free(h);
    adapters[1].name = "ONE";
    assert_int_equal(hub_new(&h, &o, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "ONE"));
    adapters[1] = (struct hub_adapter){"two", "/nowhere"};
    assert_int_equal(hub_new(&h, &o, &e), ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "/nowhere"));
}

/* An adapter is loaded onto what its model was loaded from, whatever is at that path by then. */
static void adapters_are_for_the_files_that_were_loaded(void **state)
{
    (void)state;
    char base[600], away[600], other[600], adapter[600], lost[600];
    adapter_add("adapter-3", 0.1f);
    snprintf(base, sizeof base, "%s/gamma", folder);
    snprintf(away, sizeof away, "%s/away", folder);
    snprintf(other, sizeof other, "%s/beta", folder);
    snprintf(adapter, sizeof adapter, "%s/adapter-3", folder);
    snprintf(lost, sizeof lost, "%s/lost", folder);
    const char *const paths[] = {base};
    const struct hub_adapter adapters[] = {{"three", adapter}};
    struct hub_opts o;
    struct hub *h;
    struct got g, k;
    struct err e;
    hub_opts_init(&o);
    o.engine.threads = 1;
    o.engine.ctx = 512;
    o.path = paths;
    o.n_path = 1;
    o.adapter = adapters;
    o.n_adapter = 1;
    assert_int_equal(hub_new(&h, &o, &e), 0);
    get(h, "gamma", &g);
    assert_int_equal(rename(base, away), 0);
    assert_int_equal(rename(other, base), 0);
    get(h, "three", &k);
    assert_true(k.has_use);
    assert_string_equal(engine_info(k.use.engine)->arch, "llama");
    hub_put(&k.use, 0);
    await_loaded(h, "gamma ");
    hub_put(&g.use, 0);
    await_loaded(h, "");
    get(h, "three", &k);
    assert_true(k.has_use);
    assert_string_equal(engine_info(k.use.engine)->arch, "qwen2");
    assert_string_equal(hub_info(hub_model(h, 1))->arch, "qwen2");
    hub_put(&k.use, 0);
    await_loaded(h, "gamma ");
    assert_true(hub_unload(h, hub_model(h, 0)));
    await_loaded(h, "");
    assert_int_equal(rename(base, other), 0);
    assert_int_equal(rename(away, base), 0);
    assert_int_equal(rename(adapter, lost), 0);
    get(h, "three", &k);
    assert_false(k.has_use);
    assert_int_equal(k.err.code, ERR_NOTFOUND);
    assert_non_null(strstr(k.err.text, "adapter-3 is no longer there"));
    assert_int_equal(rename(lost, adapter), 0);
    get(h, "three", &k);
    assert_true(k.has_use);
    assert_string_equal(engine_info(k.use.engine)->arch, "llama");
    hub_put(&k.use, NAN);
    hub_free(h);
}

static void a_model_that_fails_may_be_tried_again(void **state)
{
    (void)state;
    char from[700], to[700];
    struct hub *h = hub_of(0);
    struct got g;
    snprintf(from, sizeof from, "%s/Alpha/model.safetensors", folder);
    snprintf(to, sizeof to, "%s/Alpha/away", folder);
    assert_int_equal(rename(from, to), 0);
    get(h, "alpha", &g);
    assert_false(g.has_use);
    assert_non_null(strstr(g.err.text, "Alpha"));
    assert_int_equal(rename(to, from), 0);
    get(h, "alpha", &g);
    assert_true(g.has_use);
    hub_put(&g.use, NAN);
    hub_free(h);
}

/* Who waits for a model to be loaded has a place in a queue, and the queue an end. */
static void a_model_is_waited_for_by_so_many(void **state)
{
    (void)state;
    struct hub_opts o;
    struct hub *h;
    struct hub_model *m;
    struct got a, waits[2], late;
    struct err e;
    int think;
    hub_opts_init(&o);
    o.dir = folder;
    o.engine.threads = 1;
    o.engine.ctx = 512;
    o.loaded = 1;
    o.sched.queue = 2;
    assert_int_equal(hub_new(&h, &o, &e), 0);
    get(h, "alpha", &a);
    assert_int_equal(hub_find(h, "beta", &m, &think, &e), 0);
    for (size_t i = 0; i < 2; i++) {
        got_init(&waits[i]);
        hub_get(h, m, 0, ready, &waits[i]);
        assert_false(waits[i].there);
    }
    got_init(&late);
    hub_get(h, m, 0, ready, &late);
    assert_true(late.there);
    assert_false(late.has_use);
    assert_int_equal(late.err.code, ERR_BUSY);
    hub_put(&a.use, NAN);
    for (size_t i = 0; i < 2; i++) {
        await(&waits[i]);
        assert_true(waits[i].has_use);
        hub_put(&waits[i].use, NAN);
    }
    get(h, "beta", &late);
    assert_true(late.has_use);
    hub_put(&late.use, NAN);
    hub_free(h);
}

static void stopping_answers_whoever_waits(void **state)
{
    (void)state;
    struct hub *h = hub_of(1);
    struct hub_model *m;
    struct got a, b, c;
    struct err e;
    int think;
    get(h, "alpha", &a);
    got_init(&b);
    assert_int_equal(hub_find(h, "beta", &m, &think, &e), 0);
    hub_get(h, m, 0, ready, &b);
    hub_stop(h);
    await(&b);
    assert_false(b.has_use);
    assert_int_equal(b.err.code, ERR_CANCELLED);
    got_init(&c);
    hub_get(h, m, 0, ready, &c);
    await(&c);
    assert_false(c.has_use);
    struct request_params p;
    struct request *r;
    request_params_init(&p);
    assert_int_equal(hub_submit(&a.use, &p, &r, &e), ERR_CANCELLED);
    hub_put(&a.use, NAN);
    hub_free(h);
}

/* ---- requests ------------------------------------------------------------------------------- */

struct heard {
    struct got got;
    struct request *handle;
    int32_t ids[64];
    size_t n;
};

static void hear(void *arg, const struct request_event *ev)
{
    struct heard *x = arg;
    if (ev->kind == REQUEST_PIECE)
        for (size_t i = 0; i < ev->n_info && x->n < 64; i++)
            x->ids[x->n++] = ev->ids[i];
    if (ev->kind != REQUEST_DONE && ev->kind != REQUEST_FAILED)
        return;
    struct err none = {0};
    ready(&x->got, NULL, ev->error ? ev->error : &none);
}

static void ask(const struct hub_use *u, struct heard *x, size_t tokens)
{
    static const int32_t prompt[] = {1, 2, 3, 4, 5};
    struct request_params p;
    struct err e;
    memset(x, 0, sizeof *x);
    got_init(&x->got);
    request_params_init(&p);
    p.prompt = prompt;
    p.n_prompt = 5;
    p.sampling.temperature = 0;
    p.answer.max_tokens = tokens;
    p.answer.ignore_end = true;
    p.answer.raw = true;
    p.event = hear;
    p.arg = x;
    if (hub_submit(u, &p, &x->handle, &e))
        fail_msg("%s", e.text);
}

/* Two models answer at the same time, each as it does alone. */
static void models_compute_in_turn(void **state)
{
    (void)state;
    struct hub *h = hub_of(0);
    struct got a, c;
    struct heard alone, x[8];
    get(h, "alpha", &a);
    get(h, "gamma", &c);
    ask(&a.use, &alone, 20);
    await(&alone.got);
    request_free(alone.handle);
    assert_int_equal(alone.n, 20);
    for (int i = 0; i < 8; i++)
        ask(i % 2 ? &c.use : &a.use, &x[i], 20);
    for (int i = 0; i < 8; i++) {
        await(&x[i].got);
        assert_int_equal(x[i].got.err.code, 0);
        assert_int_equal(x[i].n, 20);
        assert_memory_equal(x[i].ids, i % 2 ? x[1].ids : alone.ids, sizeof(int32_t) * 20);
        request_free(x[i].handle);
    }
    assert_memory_not_equal(alone.ids, x[1].ids, sizeof(int32_t) * 20);
    hub_put(&a.use, NAN);
    hub_put(&c.use, NAN);
    hub_free(h);
}

/* More than it can have answered meanwhile. */
static void stopping_ends_what_runs(void **state)
{
    enum { N = 100 };
    (void)state;
    struct hub *h = hub_of(0);
    struct got a;
    struct heard *x = calloc(N, sizeof *x);
    size_t ended = 0;
    assert_non_null(x);
    get(h, "alpha", &a);
    for (int i = 0; i < N; i++)
        ask(&a.use, &x[i], 500);
    hub_stop(h);
    for (int i = 0; i < N; i++) {
        await(&x[i].got);
        ended += x[i].got.err.code == ERR_CANCELLED;
        request_free(x[i].handle);
    }
    assert_true(ended > 0);
    hub_put(&a.use, NAN);
    hub_free(h);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_found_by_name),
        cmocka_unit_test(heads_tell_what_models_are),
        cmocka_unit_test(served_names_replace_the_own),
        cmocka_unit_test(keep_alive_decides_how_long),
        cmocka_unit_test(the_least_recently_used_makes_room),
        cmocka_unit_test(a_busy_model_cannot_keep_another_out),
        cmocka_unit_test(more_context_is_a_new_load),
        cmocka_unit_test(context_beyond_memory_is_refused),
        cmocka_unit_test(all_who_wait_get_their_context),
        cmocka_unit_test(adapters_share_the_weights_of_their_model),
        cmocka_unit_test(adapters_are_for_the_files_that_were_loaded),
        cmocka_unit_test(a_model_that_fails_may_be_tried_again),
        cmocka_unit_test(a_model_is_waited_for_by_so_many),
        cmocka_unit_test(stopping_answers_whoever_waits),
        cmocka_unit_test(models_compute_in_turn),
        cmocka_unit_test(stopping_ends_what_runs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
