/*
 * Who may ask: keys and origins.
 *
 * Only SHA-256 hashes of keys are kept. A key that comes is hashed and compared with all of them,
 * each in constant time, so that neither time nor order tells anything.
 *
 * Origins are those Ollama allows: pages from this machine and local programs' web views. A page
 * from elsewhere gets 403, and no permission to read an answer.
 */
#include "server/http_private.h"

#include "base/file.h"
#include "base/num.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_FILE_MAX = 1 << 20, KEYS_MAX = 10000 };

static int key_add(struct http *h, const uint8_t hash[32], struct err *e)
{
    if (h->n_key == KEYS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d keys", KEYS_MAX);
    struct http_key *k = realloc(h->key, (h->n_key + 1) * sizeof *k);
    if (!k)
        return err_nomem(e, sizeof *k, "keys");
    h->key = k;
    memcpy(h->key[h->n_key++].hash, hash, 32);
    return 0;
}

static int key_file(struct http *h, const char *path, struct err *e)
{
    struct buf text;
    uint8_t hash[32];
    buf_init(&text, KEY_FILE_MAX);
    size_t line = 1, before = h->n_key;
    int rc = file_read(&text, path, e);
    for (const char *s = text.data, *end = text.data + text.len; !rc && s < end; line++) {
        const char *eol = memchr(s, '\n', (size_t)(end - s));
        size_t n = eol ? (size_t)(eol - s) : (size_t)(end - s);
        int k = http_key_line(s, n, hash);
        if (k < 0)
            rc = err_set(e, ERR_FORMAT,
                         "%.200s: line %zu is no key: it must begin with the 64 hex digits that "
                         "printf %%s KEY | sha256sum prints",
                         path, line);
        else if (k)
            rc = key_add(h, hash, e);
        s += n + 1;
    }
    if (!rc && h->n_key == before)
        rc = err_set(e, ERR_FORMAT, "%.200s: there is no key in it", path);
    OPENSSL_cleanse(text.data, text.len);
    buf_release(&text);
    return rc;
}

int http_rules_load(struct http *h, struct err *e)
{
    uint8_t hash[32];
    int rc = 0;
    for (size_t i = 0; !rc && i < h->o.n_api_key; i++) {
        const char *key = h->o.api_key[i];
        if (!*key)
            return err_set(e, ERR_USAGE, "an API key is empty");
        SHA256((const uint8_t *)key, strlen(key), hash);
        rc = key_add(h, hash, e);
    }
    if (!rc && h->o.key_file)
        rc = key_file(h, h->o.key_file, e);
    if (gethostname(h->machine, sizeof h->machine - 1))
        h->machine[0] = 0;
    return rc;
}

uint64_t http_rules_key(const struct http *h, const char *key)
{
    uint8_t hash[32];
    uint64_t owner = 0, found = 0;
    SHA256((const uint8_t *)key, strlen(key), hash);
    for (size_t i = 0; i < h->n_key; i++)
        found |= (uint64_t)!CRYPTO_memcmp(hash, h->key[i].hash, sizeof hash);
    memcpy(&owner, hash, sizeof owner);
    return found ? owner | 1 : 0;
}

bool http_rules_host(const struct http *h, const char *host)
{
    char name[HTTP_HOST_MAX];
    return !h->local || (http_host_parse(host, name) &&
                         http_host_is_local(name, h->machine[0] ? h->machine : NULL));
}

bool http_rules_any_origin(const struct http *h)
{
    for (size_t i = 0; i < h->o.n_origin; i++)
        if (!strcmp(h->o.origin[i], "*"))
            return true;
    return false;
}

bool http_rules_origin(const struct http *h, const char *origin, const char *host)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "0.0.0.0", "::1"};
    static const char *const patterns[] = {"app://*", "file://*", "tauri://*", "vscode-webview://*",
                                           "vscode-file://*"};
    char name[HTTP_HOST_MAX];
    for (size_t i = 0; i < h->o.n_origin; i++)
        if (http_match(h->o.origin[i], origin))
            return true;
    for (size_t i = 0; i < NUM_COUNT(patterns); i++)
        if (http_match(patterns[i], origin))
            return true;
    const char *at = strstr(origin, "://");
    if (!at || (strncmp(origin, "http:", 5) != 0 && strncmp(origin, "https:", 6) != 0))
        return false;
    at += 3;
    /* A page that came from here. */
    if (host && !strcmp(at, host))
        return true;
    if (!http_host_parse(at, name))
        return false;
    for (size_t i = 0; i < NUM_COUNT(hosts); i++)
        if (!strcmp(name, hosts[i]))
            return true;
    return false;
}
