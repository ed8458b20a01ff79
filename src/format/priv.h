/*
 * What the readers of format/ share: the insides of a source, a table of names, and how names from
 * files are checked and shown. Nothing outside format/ includes this.
 */
#ifndef PONDER_FORMAT_PRIV_H
#define PONDER_FORMAT_PRIV_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "format/safetensors.h"
#include "format/source.h"

struct json_t;

/*
 * Bounds on what a file may make us hold. The largest real ones: 163 shards, 92,000 tensors in a
 * model with unstacked experts, 300,000 strings (tokens and merges) in a GGUF file.
 */
enum {
    SOURCE_MAX_KEYS = 1 << 16,
    SOURCE_MAX_TENSORS = 1 << 19,
    SOURCE_MAX_STRINGS = 1 << 22, /* array elements that have to be walked over, in all files */
    SOURCE_MAX_FILES = 4096,
    SOURCE_MAX_NAME = 65535, /* bytes of a key or tensor name */
    SOURCE_MAX_ARENA = 256 << 20,
    SOURCE_MAX_TEXT = 256 << 20,
    SOURCE_MAX_CONFIG = 8 << 20, /* config.json */
    SOURCE_MAX_INDEX = 64 << 20, /* model.safetensors.index.json */
};

/* ---- names --------------------------------------------------------------------------------------
 */

/* Open addressing over keys that somebody else keeps, with a random seed; linear probes. */
struct names {
    struct names_slot *slot;
    size_t mask, used; /* slots - 1 */
    uint64_t seed;
};

int names_init(struct names *t, size_t max, struct err *e); /* room for max names */
void names_release(struct names *t);
/* The number that was stored with the name, or SIZE_MAX. */
size_t names_find(const struct names *t, const char *s, size_t n);
/* Adds a name (kept by pointer); false when it is there already. No more than max in all. */
bool names_add(struct names *t, const char *s, size_t n, size_t value);

/* 1 to SOURCE_MAX_NAME bytes of UTF-8 without control characters; else what is wrong with it. */
const char *name_fault(const char *s, size_t n);

/* A printable form of any bytes for an error message, cut with "..." where it is long. */
enum { NAME_SHOWN = 96 };
struct shown {
    char text[NAME_SHOWN + 4];
};
struct shown name_show(const char *s, size_t n);

/* ---- the source ---------------------------------------------------------------------------------
 */

/* raw_type of values: a gguf_type, or this (raw is then a json_t). */
enum { RAW_JSON = 1000 };

struct source_file {
    struct file_map map;
    char *path;
    bool borrowed; /* memory of the caller: never unmapped or dropped */
};

struct source_entry {
    const char *key;
    struct source_value value;
    const uint8_t *coded; /* GGUF: type and value as they lie in the file, for copying */
    size_t coded_n;
};

struct source_text {
    struct source_text *next;
    char *name;
    struct buf text;
    bool found;
};

struct source {
    enum source_kind_id kind;
    char *path;
    char *dir;       /* where texts are looked for; NULL: there are none */
    char *tokenizer; /* the file that is "tokenizer.json" when the path names a .json file */
    struct arena arena;

    struct source_file *files;
    size_t n_files, cap_files;
    struct source_entry *entries;
    size_t n_entries, cap_entries;
    struct source_tensor *tensors;
    size_t n_tensors, cap_tensors;
    struct source_tensor *raw; /* what composed tensors are made of; NULL when there are none */
    struct names keys, names;

    uint64_t bytes;
    size_t strings;        /* counted against SOURCE_MAX_STRINGS */
    struct json_t *config; /* holds the arrays of an HF config */
    struct source_text *texts;
};

/* Maps a file as the next one of the source. */
int source_add_file(struct source *s, const char *path, struct err *e);

/* Room for `more` entries or tensors; the caller has checked `more` against the file's bytes. */
int source_reserve_entries(struct source *s, size_t more, struct err *e);
int source_reserve_tensors(struct source *s, size_t more, struct err *e);

/* A copy of a checked name in the arena. */
const char *source_name(struct source *s, const char *p, size_t n, struct err *e);

/* Builds both tables of names (a name given twice is an error) and composes tensors. */
int source_finish(struct source *s, struct err *e);

/* A whole regular file, within the maximum of `out`. */
int source_read_text(struct buf *out, const char *path, struct err *e);

/* The path of the file a tensor lies in, for errors. */
const char *source_where(const struct source *s, const struct source_tensor *t);

/* ---- readers ------------------------------------------------------------------------------------
 */

/* s->files[0] is a GGUF file: reads it and the other shards of its set. */
int gguf_read(struct source *s, struct err *e);

/* Adds the tensors of files[file]; with `metadata`, also its __metadata__ as values. */
int safetensors_read(struct source *s, size_t file, bool metadata, struct err *e);
enum { SAFETENSORS_MAX_HEADER = 32 << 20 };
bool safetensors_looks_like(const uint8_t *p, size_t n);

/* A folder: finds out what is in it. `index` is the path of an index to use, or NULL. */
int folder_open(struct source *s, const char *dir, const char *index, struct err *e);

/* Reads s->path, a config.json, as metadata. */
int config_open(struct source *s, struct err *e);

/* Element of an array of an HF config, and what a JSON value is as a source value. */
int hf_array_get(const struct source_value *a, uint64_t i, struct source_value *out, struct err *e);

bool path_ends(const char *path, const char *suffix);

#endif
