/*
 * The share of the machine that this process may use: free memory, and the limits of Linux control
 * groups, versions 1 and 2.
 */
#ifndef PONDER_BASE_QUOTA_H
#define PONDER_BASE_QUOTA_H

#include <stddef.h>

/*
 * CPUs' worth of time that the quotas of this process's control group and of all groups above it
 * allow; 0 when there is no quota. `root` goes before every path ("" for the real system).
 */
double quota_cpus(const char *root);

/*
 * Bytes that can be had without swapping: MemAvailable of /proc/meminfo, or what the control groups
 * leave when that is less (page cache counts as free). SIZE_MAX when nothing says.
 */
size_t quota_memory(const char *root);

#endif
