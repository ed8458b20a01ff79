#include "train/config.h"

#include "base/file.h"
#include "format/jsonin.h"
#include "train/toml.h"

#include <stdbool.h>
#include <string.h>

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

static bool is_json(const char *path, const char *text)
{
    if (ends(path, ".json") || ends(path, ".toml"))
        return ends(path, ".json");
    return text[strspn(text, " \t\r\n")] == '{';
}

int config_read(json_t **out, const char *path, struct err *e)
{
    static const struct jsonin_limits limits = {TOML_DEPTH, 100000, 1000000};
    struct buf b;
    *out = NULL;
    buf_init(&b, CONFIG_FILE_MAX);
    int rc = file_read(&b, path, e);
    if (!rc) {
        rc = is_json(path, b.data) ? jsonin_object(out, b.data, b.len, &limits, true, e)
                                   : toml_parse(out, b.data, b.len, e);
        if (rc)
            err_ctx(e, "%s", path);
    }
    buf_release(&b);
    return rc;
}
