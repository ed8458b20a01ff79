#include "base/folder.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int folder_make(const char *dir, struct err *e)
{
    if (!*dir)
        return err_set(e, ERR_USAGE, "the name of a folder is empty");
    char *path = strdup(dir);
    if (!path)
        return err_nomem(e, strlen(dir) + 1, "the name of a folder");
    int rc = 0;
    for (char *p = path + 1; !rc; p++) {
        char was = *p;
        if (was && was != '/')
            continue;
        *p = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            rc = err_errno(e, "%s: cannot be made", path);
        *p = was;
        if (!was)
            break;
    }
    free(path);
    if (!rc && file_kind(dir) != FILE_DIR)
        rc = err_set(e, ERR_IO, "%s: is not a folder", dir);
    return rc;
}

int folder_sync(const char *dir, struct err *e)
{
    int rc = 0, fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A folder may be writable but not readable: then there is nothing to sync through. */
    if (fd < 0)
        return 0;
    if (fsync(fd) != 0 && errno == EIO)
        rc = err_errno(e, "%s: cannot be synced", dir);
    close(fd);
    return rc;
}

int folder_remove(const char *dir, struct err *e)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, "%s", dir);
    int rc = 0;
    for (struct dirent *x; !rc && (x = readdir(d));)
        if (strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0 &&
            unlinkat(dirfd(d), x->d_name, 0) != 0 && errno != ENOENT)
            rc = err_errno(e, "%s/%s: cannot be removed", dir, x->d_name);
    closedir(d);
    if (!rc && rmdir(dir) != 0 && errno != ENOENT)
        rc = err_errno(e, "%s: cannot be removed", dir);
    return rc;
}

/* In two steps, where the file system cannot do it in one. */
static int folder_swap(const char *part, const char *final, struct err *e)
{
    size_t n = strlen(part) + sizeof ".old";
    char *old = malloc(n);
    if (!old)
        return err_nomem(e, n, "the name of a folder");
    snprintf(old, n, "%s.old", part);
    int rc = folder_remove(old, e);
    if (!rc && rename(final, old) != 0)
        rc = err_errno(e, "%s: cannot be replaced", final);
    if (!rc && rename(part, final) != 0)
        rc = err_errno(e, "%s: cannot be given its name", final);
    rc = rc ? rc : folder_remove(old, e);
    free(old);
    return rc;
}

int folder_replace(const char *part, const char *final, struct err *e)
{
    if (file_kind(final) == FILE_DIR) {
        if (renameat2(AT_FDCWD, part, AT_FDCWD, final, RENAME_EXCHANGE) == 0)
            return folder_remove(part, e);
        if (errno != EINVAL && errno != ENOSYS)
            return err_errno(e, "%s: cannot be replaced", final);
        return folder_swap(part, final, e);
    }
    return rename(part, final) == 0 ? 0 : err_errno(e, "%s: cannot be given its name", final);
}
