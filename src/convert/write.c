/* Writing a plan: room on the disk first, then the files of its format. */
#include "convert/write.h"

#include "base/file.h"
#include "base/progress.h"

#include <string.h>
#include <sys/statvfs.h>

/* Says it before hours of work when the disk is too small. */
static int check_room(const struct convert_plan *p, const char *path, struct err *e)
{
    char dir[4096] = ".", need[32], have[32];
    struct statvfs v;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') /* of the folder itself */
        n--;
    while (n && path[n - 1] != '/')
        n--;
    if (n && n < sizeof dir) {
        memcpy(dir, path, n);
        dir[n] = 0;
    }
    if (statvfs(dir, &v) != 0)
        return err_errno(e, "%.300s", dir);
    double room = (double)v.f_bavail * (double)v.f_frsize;
    if ((double)p->bytes <= room)
        return 0;
    return err_set(e, ERR_IO, "%.300s: needs %s, but only %s are free there", path,
                   progress_bytes(need, sizeof need, (double)p->bytes),
                   progress_bytes(have, sizeof have, room));
}

int convert_write(struct convert_plan *p, const char *path, struct team *team,
                  convert_progress *progress, void *arg, struct err *e)
{
    int rc = check_room(p, path, e);
    for (size_t i = 0; !rc && i < p->n; i++)
        if (!plan_copies(p, &p->tensors[i]) && !p->tensors[i].type->encode)
            rc = err_set(e, ERR_UNSUPPORTED,
                         "tensor \"%s\": the type %s cannot be written, only read",
                         p->tensors[i].name, p->tensors[i].type->name);
    if (rc)
        return rc;
    return (p->o.format == CONVERT_HF ? convert_write_hf : convert_write_gguf)(p, path, team,
                                                                               progress, arg, e);
}
