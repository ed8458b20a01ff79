/*
 * The share of the machine that a container may use: Linux control groups, versions 1 and 2.
 */
#ifndef PONDER_BASE_QUOTA_H
#define PONDER_BASE_QUOTA_H

/*
 * CPUs' worth of time that the quotas of this process's control group and of all groups above it
 * allow; 0 when there is no quota. `root` goes before every path ("" for the real system).
 */
double quota_cpus(const char *root);

#endif
