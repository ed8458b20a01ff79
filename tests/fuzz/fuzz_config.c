/*
 * Fuzzing Hugging Face folders: config.json, quantize_config.json, the index of shards, and tensors
 * that are composed as the configuration says.
 *
 * The input is a text in four sections, each ended by a line "%%": config.json,
 * quantize_config.json, model.safetensors.index.json, tensors. An empty section is a file that is
 * not there. A line of the last one describes a tensor of model.safetensors, or (with an index) of
 * a.safetensors, so that mutations of one number leave a file whose offsets are right:
 *
 *     NAME DTYPE 2,300 WHAT
 *
 * WHAT its data are: "=TEXT" that text (then the shape is its length), "#N" the 32-bit numbers i /
 * N, anything else bytes without a pattern. Data end after 64 KiB, whatever the shape says.
 */
#include "read_source.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 1 << 14, DATA_MAX = 1 << 16, SECTIONS = 4 };

/* ---- the folder ---------------------------------------------------------------------------------
 */

static const char *const file_names[] = {"config.json", "quantize_config.json",
                                         "model.safetensors.index.json", "model.safetensors",
                                         "a.safetensors"};

static const char *folder(void)
{
    static char dir[32];

    if (!dir[0]) {
        strcpy(dir, access("/dev/shm", W_OK) ? "/tmp/fuzz-XXXXXX" : "/dev/shm/fuzz-XXXXXX");
        if (!mkdtemp(dir))
            abort();
    }
    return dir;
}

/* Writes a file of the folder; removes it when there is nothing to write. */
static void put_file(int which, const void *p, size_t n)
{
    char path[128];
    int fd;

    snprintf(path, sizeof path, "%s/%s", folder(), file_names[which]);
    if (!p) {
        unlink(path);
        return;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

static void clean_up(void)
{
    for (int i = 0; i < 5; i++)
        put_file(i, NULL, 0);
    rmdir(folder());
}

/* ---- tensors ------------------------------------------------------------------------------------
 */

struct image {
    size_t header_n, data_n;
    char header[4 * TEXT_MAX];
    uint8_t data[DATA_MAX];
};

static size_t dtype_bits(const char *dtype)
{
    return dtype[0] == 'B'       ? 16
           : strstr(dtype, "64") ? 64
           : strstr(dtype, "32") ? 32
           : strstr(dtype, "16") ? 16
                                 : 8;
}

static void add_data(struct image *m, const char *what, size_t n)
{
    unsigned step = what && what[0] == '#' ? (unsigned)atol(what + 1) : 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t v =
            step ? (uint32_t)(i / 4 / step) >> (8 * (i % 4)) : (uint32_t)(i * 2654435761u >> 13);
        m->data[m->data_n++] = what && what[0] == '=' ? (uint8_t)what[1 + i] : (uint8_t)v;
    }
}

static void add_tensor(struct image *m, char *line)
{
    char *save, *name = strtok_r(line, " ", &save), *dtype = strtok_r(NULL, " ", &save);
    char *shape = strtok_r(NULL, " ", &save), *what = strtok_r(NULL, "", &save), text[32];
    size_t bytes, begin = m->data_n;

    if (!name || !dtype || !shape)
        return;
    bytes = dtype_bits(dtype);
    for (const char *p = shape; *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : "")
        if (__builtin_mul_overflow(bytes, strtoull(p, NULL, 10), &bytes))
            bytes = DATA_MAX;
    bytes /= 8;
    if (what && what[0] == '=') {
        bytes = strlen(what + 1);
        snprintf(text, sizeof text, "%zu", bytes);
        shape = text;
    }
    if (bytes > DATA_MAX - m->data_n)
        bytes = DATA_MAX - m->data_n;
    add_data(m, what, bytes);
    m->header_n += (size_t)snprintf(m->header + m->header_n, sizeof m->header - m->header_n,
                                    "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],"
                                    "\"data_offsets\":[%zu,%zu]}",
                                    m->header_n ? ',' : '{', name, dtype, shape, begin, m->data_n);
}

static void put_tensors(char *text, bool index)
{
    static struct image m;
    static uint8_t file[8 + sizeof m.header + sizeof m.data];
    char *save;
    uint64_t n;

    m.header_n = m.data_n = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (m.header_n + strlen(line) + 128 < sizeof m.header)
            add_tensor(&m, line);
    m.header_n += (size_t)snprintf(m.header + m.header_n, sizeof m.header - m.header_n, "%s}",
                                   m.header_n ? "" : "{");
    n = m.header_n;
    memcpy(file, &n, sizeof n);
    memcpy(file + 8, m.header, m.header_n);
    memcpy(file + 8 + m.header_n, m.data, m.data_n);
    put_file(index ? 4 : 3, file, 8 + m.header_n + m.data_n);
    put_file(index ? 3 : 4, NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[TEXT_MAX];
    static bool registered;
    char *section[SECTIONS] = {text, NULL, NULL, NULL};
    struct source *s;
    struct err e = {0};
    int rc;

    if (!registered)
        registered = atexit(clean_up) == 0;
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    for (int i = 0; i < SECTIONS && section[i]; i++) {
        char *end = strstr(section[i], "%%\n");
        if (end) {
            *end = '\0';
            if (i + 1 < SECTIONS)
                section[i + 1] = end + 3;
        }
    }
    for (int i = 0; i < 3; i++)
        put_file(i, section[i] && *section[i] ? section[i] : NULL,
                 section[i] ? strlen(section[i]) : 0);
    put_tensors(section[3] ? section[3] : text + size, section[2] && *section[2]);
    rc = source_open(&s, folder(), &e);
    if (!rc)
        (void)source_quant_check(s, &e);
    read_source(s, rc, &e);
    return 0;
}
