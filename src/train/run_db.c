/*
 * See run_db.h. The journal is a write-ahead log, so that others can read while a run writes.
 * Nothing is synced: after a power cut the database is made anew from the logs.
 */
#include "train/run_db.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef PONDER_SQLITE
#include <sqlite3.h>
#endif

static const char db_name[] = "metrics.sqlite";

void run_db_remove(const char *dir)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char path[RUN_PATH_MAX], name[64];
        snprintf(name, sizeof name, "%s%s", db_name, endings[i]);
        if (file_join(path, sizeof path, dir, name))
            unlink(path);
    }
}

#ifdef PONDER_SQLITE

struct run_db {
    sqlite3 *db;
    sqlite3_stmt *put;
    char path[RUN_PATH_MAX];
    bool open; /* a transaction that the caller began */
};

bool run_has_sqlite(void)
{
    return true;
}

static int fault(const struct run_db *d, struct err *e)
{
    int rc = d->db ? sqlite3_errcode(d->db) : SQLITE_NOMEM;
    int why = d->db ? sqlite3_system_errno(d->db) : 0;
    if (rc == SQLITE_FULL || rc == SQLITE_IOERR)
        return err_set(e, ERR_IO, "%s: cannot be written (%s): free some space and resume", d->path,
                       why ? strerror(why) : sqlite3_errmsg(d->db));
    return err_set(e, rc == SQLITE_NOMEM ? ERR_NOMEM : ERR_IO, "%s: %s", d->path,
                   d->db ? sqlite3_errmsg(d->db) : "no memory");
}

static int run_sql(struct run_db *d, const char *sql, struct err *e)
{
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fault(d, e);
}

static int describe(struct run_db *d, const char *dir, const json_t *config, struct err *e)
{
    char started[32] = "";
    time_t now = time(NULL);
    struct tm tm;
    sqlite3_stmt *s = NULL;
    char *text = config ? json_dumps(config, JSON_COMPACT) : NULL;
    if (gmtime_r(&now, &tm))
        strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &tm);
    bool ok = sqlite3_prepare_v2(d->db, "INSERT OR IGNORE INTO runs VALUES(1, ?, ?, ?, ?)", -1, &s,
                                 NULL) == SQLITE_OK &&
              sqlite3_bind_text(s, 1, dir, -1, SQLITE_STATIC) == SQLITE_OK &&
              sqlite3_bind_text(s, 2, PONDER_VERSION, -1, SQLITE_STATIC) == SQLITE_OK &&
              sqlite3_bind_text(s, 3, started, -1, SQLITE_STATIC) == SQLITE_OK &&
              sqlite3_bind_text(s, 4, text ? text : "{}", -1, SQLITE_STATIC) == SQLITE_OK &&
              sqlite3_step(s) == SQLITE_DONE;
    int rc = ok ? 0 : fault(d, e);
    sqlite3_finalize(s);
    free(text);
    return rc;
}

int run_db_open(struct run_db **out, const char *dir, bool fresh, const json_t *config,
                struct err *e)
{
    struct run_db *d = calloc(1, sizeof *d);
    int rc = 0;
    *out = NULL;
    if (!d)
        return err_nomem(e, sizeof *d, "the table of metrics");
    if (!file_join(d->path, sizeof d->path, dir, db_name))
        rc = err_set(e, ERR_LIMIT, "%s: the path is too long", dir);
    if (!rc && fresh)
        run_db_remove(dir);
    if (!rc && sqlite3_open_v2(d->path, &d->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                               NULL) != SQLITE_OK)
        rc = fault(d, e);
    if (!rc) {
        sqlite3_busy_timeout(d->db, 10000);
        rc = run_sql(d,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
                     "CREATE TABLE IF NOT EXISTS runs(run INTEGER PRIMARY KEY, name TEXT,"
                     " version TEXT, started TEXT, config TEXT);"
                     "CREATE TABLE IF NOT EXISTS metrics(run INTEGER, step INTEGER, name TEXT,"
                     " value REAL, PRIMARY KEY(run, name, step)) WITHOUT ROWID;",
                     e);
    }
    if (!rc)
        rc = describe(d, dir, config, e);
    if (!rc && sqlite3_prepare_v2(d->db, "INSERT OR REPLACE INTO metrics VALUES(1, ?, ?, ?)", -1,
                                  &d->put, NULL) != SQLITE_OK)
        rc = fault(d, e);
    if (rc)
        run_db_free(d);
    else
        *out = d;
    return rc;
}

void run_db_free(struct run_db *d)
{
    if (!d)
        return;
    sqlite3_finalize(d->put);
    sqlite3_close(d->db);
    free(d);
}

static int put_values(struct run_db *d, int64_t step, const struct run_value *v, size_t n,
                      struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        bool ok = sqlite3_bind_int64(d->put, 1, step) == SQLITE_OK &&
                  sqlite3_bind_text(d->put, 2, v[i].key, -1, SQLITE_STATIC) == SQLITE_OK &&
                  sqlite3_bind_double(d->put, 3, v[i].value) == SQLITE_OK &&
                  sqlite3_step(d->put) == SQLITE_DONE;
        rc = ok ? 0 : fault(d, e);
        sqlite3_reset(d->put);
    }
    return rc;
}

int run_db_put(struct run_db *d, int64_t step, const struct run_value *v, size_t n, struct err *e)
{
    bool mine = d && !d->open;
    int rc = mine ? run_sql(d, "BEGIN", e) : 0;
    if (!d || rc)
        return rc;
    rc = put_values(d, step, v, n, e);
    if (mine && !rc)
        rc = run_sql(d, "COMMIT", e);
    if (mine && rc)
        sqlite3_exec(d->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

int run_db_begin(struct run_db *d, struct err *e)
{
    int rc = d ? run_sql(d, "BEGIN", e) : 0;
    if (d && !rc)
        d->open = true;
    return rc;
}

int run_db_end(struct run_db *d, struct err *e)
{
    if (!d || !d->open)
        return 0;
    d->open = false;
    int rc = run_sql(d, "COMMIT", e);
    if (rc)
        sqlite3_exec(d->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

#else

bool run_has_sqlite(void)
{
    return false;
}

int run_db_open(struct run_db **out, const char *dir, bool fresh, const json_t *config,
                struct err *e)
{
    *out = NULL;
    return 0;
}

void run_db_free(struct run_db *d)
{
}

int run_db_put(struct run_db *d, int64_t step, const struct run_value *v, size_t n, struct err *e)
{
    return 0;
}

int run_db_begin(struct run_db *d, struct err *e)
{
    return 0;
}

int run_db_end(struct run_db *d, struct err *e)
{
    return 0;
}

#endif
