/*
 * Fuzzing folders of training runs: config.json, log.jsonl, and the manifest and state of a
 * checkpoint, in sections that end with a line "%%". Whatever they hold, curves are drawn and the
 * checkpoint is opened or refused.
 */
#include "train/checkpoint.h"
#include "train/plot.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 1 << 16, FILES = 4 };

static const char *const names[FILES] = {"config.json", "log.jsonl",
                                         "checkpoints/step-3/manifest.json",
                                         "checkpoints/step-3/state.json"};

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void path_of(char out[128], const char *name)
{
    static char dir[32];
    if (!dir[0]) {
        strcpy(dir, access("/dev/shm", W_OK) ? "/tmp/fuzz-XXXXXX" : "/dev/shm/fuzz-XXXXXX");
        must(mkdtemp(dir) != NULL);
    }
    snprintf(out, 128, "%s/%s", dir, name);
}

static void put_file(const char *name, const char *s, size_t n)
{
    char path[128];
    path_of(path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, s, n) == (ssize_t)n);
    close(fd);
}

static void clean_up(void)
{
    static const char *const folders[] = {"checkpoints/step-3", "checkpoints", ""};
    char path[128];
    for (int i = 0; i < FILES; i++) {
        path_of(path, names[i]);
        unlink(path);
    }
    for (int i = 0; i < 3; i++) {
        path_of(path, folders[i]);
        rmdir(path);
    }
}

static void prepare(void)
{
    static bool done;
    char path[128];
    if (done)
        return;
    done = true;
    path_of(path, "checkpoints");
    must(mkdir(path, 0700) == 0);
    path_of(path, "checkpoints/step-3");
    must(mkdir(path, 0700) == 0);
    atexit(clean_up);
}

static void draw(const char *dir)
{
    static const int widths[] = {20, 79, 400};
    struct plot *p;
    struct plot_options o;
    struct err e = {0};
    struct buf text;
    bool changed;
    plot_options_init(&o);
    must(!plot_new(&p, &e));
    must(!plot_add(p, dir, &e) && !plot_add(p, dir, &e));
    must(!plot_update(p, &changed, &e));
    for (int i = 0; i < 3; i++) {
        struct plot_screen s = {.columns = widths[i], .rows = i ? 0 : 20, .colour = i == 2};
        buf_init(&text, 1 << 22);
        must(!plot_text(p, &o, &s, &text, &e));
        must(!plot_line(p, 0, &text, &e));
        buf_release(&text);
    }
    plot_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint_in *c;
    struct err e = {0};
    char dir[128];
    const char *at = (const char *)data, *end = at + size;
    if (size > TEXT_MAX)
        return 0;
    prepare();
    for (int i = 0; i < FILES; i++) {
        const char *stop = at < end ? memmem(at, (size_t)(end - at), "%%\n", 3) : NULL;
        put_file(names[i], at, (size_t)((stop ? stop : end) - at));
        at = stop ? stop + 3 : end;
    }
    path_of(dir, "");
    draw(dir);
    int rc = checkpoint_open(&c, dir, -1, NULL, &e);
    must(rc ? !c && e.text[0] : checkpoint_step(c) == 3 && json_is_object(checkpoint_state(c)));
    checkpoint_free(c);
    return 0;
}
