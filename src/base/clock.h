/* Time for measuring: seconds on a clock that never goes back. */
#ifndef PONDER_BASE_CLOCK_H
#define PONDER_BASE_CLOCK_H

double clock_seconds(void);

#endif
