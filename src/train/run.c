#include "train/run.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/folder.h"
#include "base/num.h"
#include "format/jsonin.h"
#include "train/checkpoint.h"
#include "train/run_db.h"
#include "train/steplog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { CONFIG_MAX = 16 << 20, SAMPLE_LINE_MAX = 16 << 20, LOG_LINE_MAX = 1 << 20 };

enum { FILE_LOG, FILE_TIMINGS, FILE_SAMPLES, FILE_N };

static const char *const file_names[FILE_N] = {"log.jsonl", "timings.jsonl", "samples.jsonl"};

struct run {
    char dir[RUN_PATH_MAX];
    int lock; /* -1: not held */
    bool resumed;
    int64_t last; /* step of the last line of the log */
    struct steplog file[FILE_N];
    struct run_db *db;
    json_t *config;
    struct buf line;
};

/* ---- the folder ------------------------------------------------------------------------------ */

static int inside(char out[RUN_PATH_MAX], const char *dir, const char *name, struct err *e)
{
    if (!file_join(out, RUN_PATH_MAX, dir, name))
        return err_set(e, ERR_LIMIT, "%.200s: the path is too long", dir);
    return 0;
}

/* The lock file names its holder, for the message that the next one prints. */
static int take_lock(struct run *r, struct err *e)
{
    char path[RUN_PATH_MAX], text[32] = "";
    int rc = inside(path, r->dir, ".lock", e);
    if (rc)
        return rc;
    r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (r->lock < 0)
        return err_errno(e, "%s", path);
    if (flock(r->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return err_errno(e, "%s: cannot be locked", path);
        ssize_t n = pread(r->lock, text, sizeof text - 1, 0);
        long pid = n > 0 ? strtol(text, NULL, 10) : 0;
        close(r->lock);
        r->lock = -1;
        if (pid > 0)
            return err_set(e, ERR_BUSY,
                           "%s: process %ld is writing this run: wait for it, stop it, or name "
                           "another folder",
                           r->dir, pid);
        return err_set(e, ERR_BUSY, "%s: another process is writing this run", r->dir);
    }
    int w = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(r->lock, 0) != 0 || pwrite(r->lock, text, (size_t)w, 0) != w)
        return err_errno(e, "%s", path);
    return 0;
}

static bool holds_run(const char *dir)
{
    static const char *const signs[] = {"config.json", "log.jsonl", "checkpoints"};
    char path[RUN_PATH_MAX];
    for (size_t i = 0; i < NUM_COUNT(signs); i++)
        if (file_join(path, sizeof path, dir, signs[i]) && file_kind(path) != FILE_NONE)
            return true;
    return false;
}

/* Removes what a run writes; what else lies in the folder stays. */
static int clear(const char *dir, struct err *e)
{
    static const char *const folders[] = {"model", "plots"};
    char path[RUN_PATH_MAX];
    int rc = checkpoint_remove_all(dir, e);
    for (size_t i = 0; i < FILE_N && !rc; i++)
        if (!(rc = inside(path, dir, file_names[i], e)) && unlink(path) != 0 && errno != ENOENT)
            rc = err_errno(e, "%s: cannot be removed", path);
    run_db_remove(dir);
    for (size_t i = 0; i < NUM_COUNT(folders) && !rc; i++)
        if (!(rc = inside(path, dir, folders[i], e)))
            rc = folder_remove(path, e);
    if (!rc && !(rc = inside(path, dir, "config.json", e)) && unlink(path) != 0 && errno != ENOENT)
        rc = err_errno(e, "%s: cannot be removed", path);
    return rc;
}

/* ---- config.json ----------------------------------------------------------------------------- */

static int write_config(const char *dir, const json_t *config, struct err *e)
{
    char path[RUN_PATH_MAX];
    int rc = inside(path, dir, "config.json", e);
    return rc ? rc : steplog_save(path, config, e);
}

int run_config(json_t **out, const char *dir, struct err *e)
{
    static const struct jsonin_limits limits = {32, 10000, 100000};
    char path[RUN_PATH_MAX];
    struct buf b;
    *out = NULL;
    buf_init(&b, CONFIG_MAX);
    int rc = inside(path, dir, "config.json", e);
    if (!rc)
        rc = file_read(&b, path, e);
    if (!rc && (rc = jsonin_object(out, b.data, b.len, &limits, false, e)))
        err_ctx(e, "%s", path);
    buf_release(&b);
    return rc;
}

static bool is_free(const char *const *names, const char *path)
{
    for (; names && *names; names++)
        if (!strcmp(*names, path))
            return true;
    return false;
}

/* Short texts of values, for the message. */
static int show_difference(const char *path, const json_t *was, const json_t *is, struct err *e)
{
    char *a = was ? json_dumps(was, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    char *b = is ? json_dumps(is, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    int rc = err_set(e, ERR_USAGE,
                     "%.100s: the run was begun with %.100s and cannot go on with %.100s: resume "
                     "with the same options, or begin another run",
                     path, a ? a : "no value", b ? b : "no value");
    free(a);
    free(b);
    return rc;
}

static int compare(const char *path, const json_t *was, const json_t *is, const char *const *free_,
                   struct err *e);

/* Members of `from` against those of `other`; `swap`: from is the newer one. */
static int compare_members(const char *path, const json_t *from, const json_t *other, bool swap,
                           const char *const *free_, struct err *e)
{
    const char *key;
    json_t *v;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)from, key, v)
    {
        char at[256];
        const json_t *o = json_object_get(other, key);
        snprintf(at, sizeof at, "%s%s%s", path, *path ? "." : "", key);
        if (!swap || !o) /* members that both have are compared once */
            rc = compare(at, swap ? o : v, swap ? v : o, free_, e);
        if (rc)
            break;
    }
    return rc;
}

static int compare(const char *path, const json_t *was, const json_t *is, const char *const *free_,
                   struct err *e)
{
    if (is_free(free_, path))
        return 0;
    if (json_is_object(was) && json_is_object(is)) {
        int rc = compare_members(path, was, is, false, free_, e);
        return rc ? rc : compare_members(path, is, was, true, free_, e);
    }
    if (was && is && json_is_number(was) && json_is_number(is))
        return json_number_value(was) == json_number_value(is) ? 0
                                                               : show_difference(path, was, is, e);
    return was && is && json_equal(was, is) ? 0 : show_difference(path, was, is, e);
}

int run_config_same(const json_t *was, const json_t *is, const char *const *free_, struct err *e)
{
    return compare("", was, is, free_, e);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int open_files(struct run *r, struct err *e)
{
    char path[RUN_PATH_MAX];
    int rc = 0;
    for (size_t i = 0; i < FILE_N && !rc; i++) {
        rc = inside(path, r->dir, file_names[i], e);
        if (!rc)
            rc = steplog_open(&r->file[i], path, e);
    }
    return rc;
}

static int begin(struct run *r, enum run_mode mode, const json_t *config, struct err *e)
{
    int rc = 0;
    r->resumed = holds_run(r->dir);
    if (r->resumed && mode == RUN_NEW)
        return err_set(e, ERR_USAGE,
                       "%s: holds a run already: go on with it (--resume), begin anew "
                       "(--overwrite), or name another folder",
                       r->dir);
    if (r->resumed && mode == RUN_OVERWRITE) {
        rc = clear(r->dir, e);
        r->resumed = false;
    }
    if (!rc && r->resumed)
        rc = run_config(&r->config, r->dir, e);
    else if (!rc && !(rc = write_config(r->dir, config, e)))
        r->config = json_incref((json_t *)(uintptr_t)config);
    if (!rc)
        rc = open_files(r, e);
    /* A resumed run opens its database when it knows from where it goes on. */
    if (!rc && !r->resumed)
        rc = run_db_open(&r->db, r->dir, true, r->config, e);
    return rc;
}

int run_open(struct run **out, const char *dir, enum run_mode mode, const json_t *config,
             struct err *e)
{
    *out = NULL;
    if (!json_is_object(config))
        return err_set(e, ERR_USAGE, "the configuration of a run has to be an object");
    struct run *r = calloc(1, sizeof *r);
    if (!r)
        return err_nomem(e, sizeof *r, "a run");
    r->lock = -1;
    for (size_t i = 0; i < FILE_N; i++)
        r->file[i].fd = -1;
    buf_init(&r->line, SAMPLE_LINE_MAX);
    int rc = folder_make(dir, e);
    if (!rc && strlen(dir) >= sizeof r->dir)
        rc = err_set(e, ERR_LIMIT, "%.200s: the path is too long", dir);
    if (!rc) {
        snprintf(r->dir, sizeof r->dir, "%s", dir);
        rc = take_lock(r, e);
    }
    if (!rc)
        rc = begin(r, mode, config, e);
    if (rc)
        run_free(r);
    else
        *out = r;
    return rc;
}

void run_free(struct run *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < FILE_N; i++)
        steplog_close(&r->file[i]);
    run_db_free(r->db);
    json_decref(r->config);
    buf_release(&r->line);
    if (r->lock >= 0) {
        /* Nobody's number is left there; that of a dead process would do no harm either. */
        int cut = ftruncate(r->lock, 0);
        (void)cut;
        close(r->lock);
    }
    free(r);
}

bool run_active(const char *dir)
{
    char path[RUN_PATH_MAX], text[32] = "";
    if (!file_join(path, sizeof path, dir, ".lock"))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;
    return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

bool run_resumed(const struct run *r)
{
    return r->resumed;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static int put_line(struct run *r, int which, int64_t step, const struct run_value *v, size_t n,
                    struct err *e)
{
    struct buf *b = &r->line;
    buf_clear(b);
    if (n > RUN_VALUES_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d values in a line", file_names[which],
                       RUN_VALUES_MAX);
    int rc = buf_printf(b, e, "{\"step\":%" PRId64, step);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = buf_putc(b, ',', e);
        if (!rc)
            rc = steplog_put_string(b, v[i].key, e);
        if (!rc)
            rc = buf_putc(b, ':', e);
        if (!rc)
            rc = steplog_put_number(b, v[i].value, e);
    }
    if (!rc)
        rc = buf_putc(b, '}', e);
    if (!rc)
        rc = steplog_append(&r->file[which], b, e);
    if (!rc)
        rc = run_db_put(r->db, step, v, n, e);
    return rc;
}

static int check_step(struct run *r, int64_t step, struct err *e)
{
    if (step < 0 || step < r->last)
        return err_set(e, ERR_USAGE, "%s: step %" PRId64 " after step %" PRId64, r->dir, step,
                       r->last);
    r->last = step;
    return 0;
}

int run_log(struct run *r, int64_t step, const struct run_value *v, size_t n, struct err *e)
{
    int rc = check_step(r, step, e);
    return rc ? rc : put_line(r, FILE_LOG, step, v, n, e);
}

int run_timing(struct run *r, int64_t step, const struct run_value *v, size_t n, struct err *e)
{
    int rc = check_step(r, step, e);
    return rc ? rc : put_line(r, FILE_TIMINGS, step, v, n, e);
}

int run_sample(struct run *r, int64_t step, const json_t *o, struct err *e)
{
    struct buf *b = &r->line;
    int rc = check_step(r, step, e);
    if (rc)
        return rc;
    char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (!text || !json_is_object(o)) {
        free(text);
        return text ? err_set(e, ERR_USAGE, "a sample has to be an object")
                    : err_nomem(e, 0, "a sample");
    }
    buf_clear(b);
    rc = buf_printf(b, e, "{\"step\":%" PRId64 "%s%s", step, text[1] == '}' ? "" : ",", text + 1);
    if (!rc)
        rc = steplog_append(&r->file[FILE_SAMPLES], b, e);
    free(text);
    return rc;
}

int run_sync(struct run *r, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < FILE_N && !rc; i++)
        rc = steplog_sync(&r->file[i], e);
    return rc;
}

/* ---- going back ------------------------------------------------------------------------------ */

/* The numbers of a line; keys point into `o`. */
static size_t line_values(json_t *o, struct run_value *v)
{
    const char *key;
    json_t *x;
    size_t n = 0;
    json_object_foreach(o, key, x)
    {
        if (strcmp(key, "step") != 0 && json_is_number(x) && n < RUN_VALUES_MAX)
            v[n++] = (struct run_value){key, json_number_value(x)};
    }
    return n;
}

/* Puts a log into the database. */
static int fill_db(struct run *r, const struct steplog *j, struct err *e)
{
    static const struct jsonin_limits limits = {4, 64, 2 * RUN_VALUES_MAX};
    struct run_value v[RUN_VALUES_MAX];
    struct steplog_in in;
    const char *s;
    size_t n;
    int rc = steplog_in_open(&in, j->path, NULL, e);
    while (!rc && !(rc = steplog_in_next(&in, &s, &n, e)) && s) {
        json_t *o;
        int64_t step;
        struct err ignored;
        if (!steplog_step(s, n, &step) || jsonin_object(&o, s, n, &limits, false, &ignored))
            continue;
        rc = run_db_put(r->db, step, v, line_values(o, v), e);
        json_decref(o);
    }
    steplog_in_close(&in);
    return rc;
}

int run_rewind(struct run *r, int64_t step, size_t *dropped, struct err *e)
{
    int rc = 0;
    if (dropped)
        *dropped = 0;
    for (size_t i = 0; i < FILE_N && !rc; i++)
        rc = steplog_rewind(&r->file[i], step, i == FILE_LOG ? dropped : NULL, e);
    if (rc)
        return rc;
    r->last = step > 0 ? step : 0;
    run_db_free(r->db);
    r->db = NULL;
    rc = run_db_open(&r->db, r->dir, true, r->config, e);
    if (!r->db)
        return rc;
    rc = run_db_begin(r->db, e);
    if (!rc)
        rc = fill_db(r, &r->file[FILE_LOG], e);
    if (!rc)
        rc = fill_db(r, &r->file[FILE_TIMINGS], e);
    struct err lost;
    int end = run_db_end(r->db, rc ? &lost : e);
    return rc ? rc : end;
}
