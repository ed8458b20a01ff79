/* See locate.h. */
#include "cli/locate.h"

#include "base/buf.h"
#include "base/file.h"
#include "cli/paths.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool locate_ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

/* The folder of models; false when there is no home either. */
static bool locate_folder(char out[LOCATE_MAX])
{
    const char *dir = getenv("PONDER_MODELS"), *home = getenv("HOME"), *cache;
    if (dir && *dir)
        return snprintf(out, LOCATE_MAX, "%s", dir) < LOCATE_MAX;
    cache = getenv("XDG_CACHE_HOME");
    if (cache && *cache)
        return snprintf(out, LOCATE_MAX, "%s/ponder/weights", cache) < LOCATE_MAX;
    return home && *home &&
           snprintf(out, LOCATE_MAX, "%s/.cache/ponder/weights", home) < LOCATE_MAX;
}

static bool locate_folder_is_model(const char *dir)
{
    static const char *const marks[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    char path[LOCATE_MAX];
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (file_join(path, sizeof path, dir, marks[i]) && file_kind(path) == FILE_REGULAR)
            return true;
    return false;
}

/* NAME or NAME.gguf in the folder of models. Names with a slash are paths, not names. */
static bool locate_stored(const char *name, char out[LOCATE_MAX])
{
    char dir[LOCATE_MAX], file[LOCATE_MAX];
    if (strchr(name, '/') || name[0] == '.' || !*name || !locate_folder(dir))
        return false;
    if (snprintf(file, sizeof file, "%s.gguf", name) < (int)sizeof file &&
        file_join(out, LOCATE_MAX, dir, file) && file_kind(out) == FILE_REGULAR)
        return true;
    return file_join(out, LOCATE_MAX, dir, name) &&
           (file_kind(out) == FILE_REGULAR ||
            (file_kind(out) == FILE_DIR && locate_folder_is_model(out)));
}

/* ---- the bundled model ----------------------------------------------------------------------- */

bool locate_bundled(char out[LOCATE_MAX])
{
    static const char *const beside[] = {".", "../share/ponder/models"};
    char exe[LOCATE_MAX], dir[LOCATE_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = n > 0 ? memrchr(exe, '/', (size_t)n) : NULL;
    size_t root = strlen(PONDER_BUILD_ROOT);
    if (slash) {
        *slash = 0;
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
            if (file_join(dir, sizeof dir, exe, beside[i]) &&
                file_join(out, LOCATE_MAX, dir, LOCATE_BUNDLED ".gguf") &&
                file_kind(out) == FILE_REGULAR)
                return true;
        /* A program that was not installed: the tree that it was built from. */
        if (!strncmp(exe, PONDER_BUILD_ROOT, root) && (exe[root] == '/' || !exe[root]) &&
            file_join(out, LOCATE_MAX, PONDER_SOURCE_ROOT "/models", LOCATE_BUNDLED ".gguf") &&
            file_kind(out) == FILE_REGULAR)
            return true;
    }
    return file_join(out, LOCATE_MAX, PONDER_DATA "/ponder/models", LOCATE_BUNDLED ".gguf") &&
           file_kind(out) == FILE_REGULAR;
}

static bool locate_means_bundled(const char *name)
{
    return !strcmp(name, "bundled") || !strcmp(name, LOCATE_BUNDLED);
}

bool locate_is_bundled(const char *path)
{
    char own[LOCATE_MAX];
    struct stat a, b;
    return locate_bundled(own) && !stat(own, &a) && !stat(path, &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

bool locate_is_model(const char *name)
{
    char path[LOCATE_MAX];
    if (!strcmp(name, "bundled"))
        return true;
    switch (file_kind(name)) {
    case FILE_REGULAR:
        return locate_ends(name, ".gguf") || locate_ends(name, ".safetensors") ||
               locate_ends(name, ".json");
    case FILE_DIR:
        return locate_folder_is_model(name);
    default:
        return locate_stored(name, path) || (locate_means_bundled(name) && locate_bundled(path));
    }
}

bool locate_is_words(const char *name)
{
    return strpbrk(name, " \t\n") && file_kind(name) == FILE_NONE && !locate_ends(name, ".gguf") &&
           !locate_ends(name, ".safetensors") && !locate_ends(name, ".json");
}

/* "a, b, c" of the models in the folder; *n counts them, `last` is the last one's name. */
static void locate_list(const char *dir, struct buf *out, size_t *n, char last[LOCATE_MAX])
{
    DIR *d = opendir(dir);
    struct dirent *x;
    char path[LOCATE_MAX];
    *n = 0;
    while (d && (x = readdir(d))) {
        if (x->d_name[0] == '.' || !file_join(path, sizeof path, dir, x->d_name))
            continue;
        bool gguf = locate_ends(x->d_name, ".gguf");
        if (!gguf && !(file_kind(path) == FILE_DIR && locate_folder_is_model(path)))
            continue;
        int m = (int)strlen(x->d_name) - (gguf ? 5 : 0);
        if (*n < 8 && buf_printf(out, NULL, "%s%.*s", *n ? ", " : "", m, x->d_name))
            break;
        snprintf(last, LOCATE_MAX, "%s", path);
        ++*n;
    }
    if (d)
        closedir(d);
}

int locate_model(const char *name, char out[LOCATE_MAX], struct err *e)
{
    char dir[LOCATE_MAX], last[LOCATE_MAX];
    if (!strcmp(name, "bundled"))
        return locate_bundled(out)
                   ? 0
                   : err_set(e, ERR_IO, "this ponder came without its bundled model (%s.gguf)",
                             LOCATE_BUNDLED);
    if (file_kind(name) != FILE_NONE) {
        if (snprintf(out, LOCATE_MAX, "%s", name) < LOCATE_MAX)
            return 0;
        return err_set(e, ERR_USAGE, "%.60s…: the path is too long", name);
    }
    if (locate_stored(name, out) || (locate_means_bundled(name) && locate_bundled(out)))
        return 0;
    if (strchr(name, '/') || locate_ends(name, ".gguf") || locate_ends(name, ".safetensors"))
        return err_set(e, ERR_IO, "%.200s: no such file or folder", name);
    struct buf have;
    size_t n = 0;
    buf_init(&have, 400);
    if (locate_folder(dir))
        locate_list(dir, &have, &n, last);
    else
        snprintf(dir, sizeof dir, "~/.cache/ponder/weights");
    if (n)
        err_set(e, ERR_IO, "no model \"%.100s\" here or in %.100s (which has %.200s%s)", name, dir,
                have.data, n > 8 ? ", …" : "");
    else
        err_set(e, ERR_IO,
                "no model \"%.100s\": give the path of a .gguf file or of a Hugging Face folder, "
                "or put it into %.150s to call it by its name",
                name, dir);
    buf_release(&have);
    return e ? e->code : ERR_IO;
}

bool locate_models(char out[LOCATE_MAX])
{
    return locate_folder(out) && file_kind(out) == FILE_DIR;
}

bool locate_has_models(void)
{
    char dir[LOCATE_MAX], last[LOCATE_MAX];
    struct buf have;
    size_t n = 0;
    buf_init(&have, 400);
    if (locate_folder(dir))
        locate_list(dir, &have, &n, last);
    buf_release(&have);
    return n > 0;
}

int locate_default(char out[LOCATE_MAX], struct err *e)
{
    const char *env = getenv("PONDER_MODEL");
    char dir[LOCATE_MAX];
    if (env && *env) {
        int rc = locate_model(env, out, e);
        return rc ? err_ctx(e, "PONDER_MODEL") : 0;
    }
    struct buf have;
    size_t n = 0;
    buf_init(&have, 400);
    if (locate_folder(dir))
        locate_list(dir, &have, &n, out);
    if (n > 1)
        err_set(e, ERR_USAGE, "which model? There are %.200s%s in %.120s", have.data,
                n > 8 ? ", …" : "", dir);
    else if (!n && !locate_bundled(out))
        err_set(e, ERR_USAGE,
                "no model given: ponder run MODEL, with the path of a .gguf file or of a Hugging "
                "Face folder");
    else
        n = 1;
    buf_release(&have);
    return n == 1 ? 0 : ERR_USAGE;
}

/* mkdir -p for all folders of a path. */
static int locate_make_folders(char *path, struct err *e)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        int rc = mkdir(path, 0700);
        if (rc && errno != EEXIST) {
            err_errno(e, "cannot make the folder %s", path);
            *p = '/';
            return e ? e->code : ERR_IO;
        }
        *p = '/';
    }
    return 0;
}

/* NAME in ponder's folder below $VARIABLE, or else below ~/FALLBACK. */
static int locate_below(const char *variable, const char *fallback, const char *name,
                        char out[LOCATE_MAX], struct err *e)
{
    const char *data = getenv(variable), *home = getenv("HOME");
    int n = -1;
    if (data && *data == '/')
        n = snprintf(out, LOCATE_MAX, "%s/ponder/%s", data, name);
    else if (home && *home == '/')
        n = snprintf(out, LOCATE_MAX, "%s/%s/ponder/%s", home, fallback, name);
    if (n < 0 || n >= LOCATE_MAX)
        return err_set(e, ERR_IO, "no home folder (HOME is not set)");
    return locate_make_folders(out, e);
}

int locate_cache(const char *name, char out[LOCATE_MAX], struct err *e)
{
    return locate_below("XDG_CACHE_HOME", ".cache", name, out, e);
}

int locate_data(const char *name, char out[LOCATE_MAX], struct err *e)
{
    return locate_below("XDG_DATA_HOME", ".local/share", name, out, e);
}
