/*
 * A world of ranks by Open MPI (or any MPI 3), when the program was started by its launcher. All
 * sums are comm.c's own, in their fixed order; MPI moves bytes.
 *
 * Messages are cut into pieces of 1 GB, because MPI counts in int. Errors come back as codes.
 */
#include "comm/comm_impl.h"

#include "base/num.h"

#include <limits.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MPI_PIECE = 1 << 30, MPI_TAG = 7 };

static int mpi_error(int rc, const char *what, struct err *e)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (rc == MPI_SUCCESS)
        return 0;
    MPI_Error_string(rc, text, &n);
    return err_set(e, ERR_IO, "%s: %.*s. Has another rank died?", what, n, text);
}

int world_open(int *rank, int *size, int *here, struct err *e)
{
    int there = 0, level = 0;
    MPI_Comm machine;
    MPI_Initialized(&there);
    if (!there) {
        int rc = mpi_error(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), "MPI", e);
        if (rc)
            return rc;
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    }
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, size);
    int rc = mpi_error(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, *rank, MPI_INFO_NULL, &machine),
        "MPI", e);
    if (!rc) {
        MPI_Comm_size(machine, here);
        MPI_Comm_free(&machine);
    }
    return rc;
}

int world_swap(int peer, const void *out, void *in, size_t n, struct err *e)
{
    int rc = 0;
    for (size_t at = 0; !rc && at < n; at += MPI_PIECE) {
        int m = (int)num_min(MPI_PIECE, n - at);
        rc = mpi_error(MPI_Sendrecv((const char *)out + at, m, MPI_BYTE, peer, MPI_TAG,
                                    (char *)in + at, m, MPI_BYTE, peer, MPI_TAG, MPI_COMM_WORLD,
                                    MPI_STATUS_IGNORE),
                       "sums of gradients", e);
    }
    return rc;
}

int world_tell(void *x, size_t n, struct err *e)
{
    int rc = 0;
    for (size_t at = 0; !rc && at < n; at += MPI_PIECE)
        rc = mpi_error(
            MPI_Bcast((char *)x + at, (int)num_min(MPI_PIECE, n - at), MPI_BYTE, 0, MPI_COMM_WORLD),
            "a message to all ranks", e);
    return rc;
}

int world_all(const void *mine, void *all, const size_t *n, int size, struct err *e)
{
    int count[COMM_MAX], at[COMM_MAX], rank;
    size_t sum = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int r = 0; r < size; r++) {
        at[r] = (int)sum;
        count[r] = (int)n[r];
        sum += n[r];
        if (sum > INT_MAX)
            return err_set(e, ERR_LIMIT, "ranks have more than 2 GB to tell each other at once");
    }
    return mpi_error(
        MPI_Allgatherv(mine, count[rank], MPI_BYTE, all, count, at, MPI_BYTE, MPI_COMM_WORLD),
        "what ranks tell each other", e);
}

void world_abort(int status)
{
    MPI_Abort(MPI_COMM_WORLD, status);
}

void world_end(void)
{
    int there = 0, gone = 0;
    MPI_Initialized(&there);
    MPI_Finalized(&gone);
    if (there && !gone)
        MPI_Finalize();
}
