/* How much memory this process may still take: the machine's and the cgroup's limit. */
#ifndef PONDER_BASE_SYSMEM_H
#define PONDER_BASE_SYSMEM_H

#include <stddef.h>

/*
 * Bytes that can be had without swapping: MemAvailable of /proc/meminfo, capped by what is left
 * under the cgroup v2 limit (page cache counts as free). SIZE_MAX when the system does not say.
 */
size_t sysmem_available(void);

#endif
