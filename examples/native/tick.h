/* tick.h: what the producers send, and ticks.py unpacks as "<IIQqd". */
#ifndef TICK_H
#define TICK_H

#include <stdint.h>

typedef struct tick {
    uint32_t source;  /* who sent it */
    uint32_t unused;
    uint64_t number;  /* 0, 1, 2 ... of this source */
    int64_t sent_at;  /* nanoseconds of CLOCK_MONOTONIC */
    double price;
} tick;

#endif
