#include "train/jsonl.h"

#include "base/file.h"
#include "base/num.h"
#include "format/jsonin.h"

#include <stdlib.h>
#include <string.h>

struct jsonl {
    struct file_map map;
    char *path;
    uint64_t *begin; /* (n) offsets */
    uint64_t n, room;
};

static const char *text_of(const struct jsonl *j)
{
    return (const char *)j->map.data;
}

/* Where the line that begins at `at` ends: at its newline or the end of the file. */
static uint64_t line_end(const struct jsonl *j, uint64_t at)
{
    const char *end = memchr(text_of(j) + at, '\n', j->map.size - at);
    return end ? (uint64_t)(end - text_of(j)) : j->map.size;
}

static bool blank(const char *s, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return false;
    return true;
}

static int add_line(struct jsonl *j, uint64_t at, struct err *e)
{
    if (j->n == UINT32_MAX)
        return err_set(e, ERR_LIMIT, "more than %u lines", UINT32_MAX);
    if (j->n == j->room) {
        size_t room = j->room ? (size_t)j->room * 2 : 1024;
        uint64_t *more = realloc(j->begin, room * sizeof *more);
        if (!more)
            return err_nomem(e, room * sizeof *more, "the index of lines");
        j->begin = more;
        j->room = room;
    }
    j->begin[j->n++] = at;
    return 0;
}

static int index_lines(struct jsonl *j, struct err *e)
{
    const char *s = text_of(j);
    uint64_t at = j->map.size >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    int rc = 0;
    for (uint64_t end; !rc && at < j->map.size; at = end + 1) {
        end = line_end(j, at);
        if (blank(s + at, end - at))
            continue;
        rc = add_line(j, at, e);
        if (!rc && end - at > JSONL_LINE) {
            rc = err_set(e, ERR_LIMIT, "has %llu bytes: a line may have %d",
                         (unsigned long long)(end - at), JSONL_LINE);
            return jsonl_at(j, j->n - 1, e);
        }
    }
    if (rc)
        return err_ctx(e, "%.300s", j->path);
    if (!j->n)
        return err_set(e, ERR_FORMAT, "%.300s: is empty: a data set has one JSON object a line",
                       j->path);
    size_t n;
    const char *first = jsonl_line(j, 0, &n);
    while (n && (*first == ' ' || *first == '\t'))
        first++, n--;
    if (n && *first == '[')
        return err_set(e, ERR_FORMAT,
                       "%.300s: is one JSON array, but a data set has one object a line: "
                       "jq -c '.[]' makes one of the other",
                       j->path);
    return 0;
}

int jsonl_open(struct jsonl **out, const char *path, struct err *e)
{
    struct jsonl *j = calloc(1, sizeof *j);
    *out = NULL;
    if (!j || !(j->path = strdup(path))) {
        free(j);
        return err_nomem(e, sizeof *j, "a data set");
    }
    int rc = file_map(&j->map, path, e);
    if (rc) {
        free(j->path);
        free(j);
        return rc;
    }
    if ((rc = index_lines(j, e))) {
        jsonl_free(j);
        return rc;
    }
    *out = j;
    return 0;
}

void jsonl_free(struct jsonl *j)
{
    if (!j)
        return;
    file_map_release(&j->map);
    free(j->begin);
    free(j->path);
    free(j);
}

const char *jsonl_path(const struct jsonl *j)
{
    return j->path;
}

uint64_t jsonl_count(const struct jsonl *j)
{
    return j->n;
}

const char *jsonl_line(const struct jsonl *j, uint64_t i, size_t *n)
{
    const char *s = text_of(j) + j->begin[i];
    *n = (size_t)(line_end(j, j->begin[i]) - j->begin[i]);
    while (*n && s[*n - 1] == '\r')
        (*n)--;
    return s;
}

int jsonl_object(const struct jsonl *j, uint64_t i, json_t **out, struct err *e)
{
    static const struct jsonin_limits limits = {
        .depth = 64, .containers = 1 << 20, .values = 4 << 20};
    size_t n;
    const char *s = jsonl_line(j, i, &n);
    return jsonin_object(out, s, n, &limits, false, e);
}

uint64_t jsonl_number(const struct jsonl *j, uint64_t i)
{
    uint64_t lines = 1;
    const char *s = text_of(j), *end = s + j->begin[i];
    while ((s = memchr(s, '\n', (size_t)(end - s)))) {
        lines++;
        s++;
    }
    return lines;
}

int jsonl_at(const struct jsonl *j, uint64_t i, struct err *e)
{
    return err_ctx(e, "%.300s: line %llu", j->path, (unsigned long long)jsonl_number(j, i));
}
