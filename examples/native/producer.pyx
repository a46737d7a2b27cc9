# cython: language_level=3
"""The same in Cython: a function that a Python thread calls, and that runs without the GIL."""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t


cdef extern from "nexus_channels.h" nogil:
    ctypedef struct nexus_sender:
        pass
    int NEXUS_OK
    int64_t NEXUS_FOREVER
    int nexus_attach_sender(const void *address, nexus_sender **tx)
    void nexus_detach_sender(nexus_sender *tx)
    int nexus_send(nexus_sender *tx, const void *data, size_t n, int64_t timeout)

cdef extern from "tick.h" nogil:
    ctypedef struct tick:
        uint32_t source
        uint32_t unused
        uint64_t number
        int64_t sent_at
        double price

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)


def feed(uintptr_t address, uint32_t source, uint64_t count):
    """Send `count` ticks to the native end at `address`; a nexus_result."""
    cdef nexus_sender *tx = NULL
    cdef timespec now
    cdef tick one
    cdef int result
    cdef uint64_t i
    with nogil:
        result = nexus_attach_sender(<const void *>address, &tx)
        one.source = source
        one.unused = 0
        for i in range(count):
            if result != NEXUS_OK:
                break
            clock_gettime(CLOCK_MONOTONIC, &now)
            one.number = i
            one.sent_at = <int64_t>now.tv_sec * 1000000000 + now.tv_nsec
            one.price = 100 + <double>(i % 64) / 64
            result = nexus_send(tx, &one, sizeof(tick), NEXUS_FOREVER)
        nexus_detach_sender(tx)
    return result
