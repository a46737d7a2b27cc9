/* os_lane.h: the ends of a lane between processes: attached, sent and received through, closed.  Touches os_block.h,
 * os_hello.h and nc_lane.h.
 *
 *     host: os_lane_host()       guest: os_lane_attach()            one of them writes, the other reads
 *
 *     os_tx_claim, os_tx_commit, os_tx_close                       os_rx_peek, os_rx_release, os_rx_close
 *
 * One thread at a time uses an end.  An end holds one descriptor, its socket.  What is told of the other side is told
 * when this side looks: a reader after it has received all that was committed.
 */
#ifndef OS_LANE_H
#define OS_LANE_H

#include "nc_lane.h"
#include "os_block.h"
#include "os_hello.h"

#if OS_HAS_LANES

/* An honest peer rings for nothing once for each flag that was lowered again; so often in a row it is not honest. */
enum { OS_VAIN_MOST = 1024 };

typedef struct os_lane {
    os_block map;
    int socket;
    bool eof;     /* the end of file was heard */
    uint32_t vain; /* how often in a row it rang for nothing */
} os_lane;

typedef struct os_tx {
    os_lane lane;
    nc_lane_writer writer;
} os_tx;

typedef struct os_rx {
    os_lane lane;
    nc_lane_reader reader;
} os_rx;

/* ---- attaching ---------------------------------------------------------------------------------------- */

/* Make the lane that the guest of `user` asks for, at most `most` bytes, and hand it over.  The guest is to be `role`.
 * OS_AGAIN: nothing was asked yet.  The socket is the lane's if this is OS_OK; else it is still the caller's, to close.
 */
static inline os_result os_lane_host(os_lane *lane, int socket, uid_t user, os_role role, uint64_t most)
{
    os_hello hello;
    int fd = -1;
    *lane = (os_lane){.socket = socket};
    os_result result = os_hello_hear(socket, user, role, &hello);
    if (result == OS_AGAIN || result == OS_CRASHED)
        return result;
    uint64_t capacity = os_block_round(hello.wish != 0 && hello.wish < most ? hello.wish : most);
    if (result == OS_OK && (capacity == 0 || hello.wish > most))
        result = OS_WRONG_SIZE;
    if (result == OS_OK)
        result = os_block_make(&lane->map, capacity, role == OS_READER, &fd);
    if (result != OS_OK) {
        int why = errno;
        os_hello_answer(socket, result, 0, -1);
        errno = why;
        return result;
    }
    NC_STEP("lane_host: made, not answered");
    result = os_hello_answer(socket, OS_OK, capacity, fd);
    NC_STEP("lane_host: answered");
    close(fd);
    if (result != OS_OK)
        os_block_unmap(&lane->map);
    return result;
}

/* The guest has said hello (os_hello_say) and now looks for the answer of a host of `user`, who may give it `most`
 * bytes. As os_lane_host(). */
static inline os_result os_lane_attach(os_lane *lane, int socket, uid_t user, os_role role, uint64_t most)
{
    os_answer answer;
    int fd;
    *lane = (os_lane){.socket = socket};
    os_result result = os_hello_heed(socket, user, &answer, &fd);
    if (result != OS_OK)
        return result;
    result = OS_WRONG_SIZE;
    if (answer.capacity <= most)
        result = os_block_open(&lane->map, fd, answer.capacity, role == OS_WRITER);
    NC_STEP("lane_attach: mapped");
    int why = errno;
    close(fd);
    errno = why;
    return result;
}

static inline void os_lane_leave(os_lane *lane)
{
    os_block_unmap(&lane->map);
    NC_STEP("lane_leave: unmapped, socket not closed");
    close(lane->socket);
}

/* Close the socket of a lane whose memory is still looked at; os_lane_unmap() then, once, in any thread.  It is shut
 * down first, so that the other side hears the end at once, even if a child of fork() has a copy.  So this is not for
 * that child, nor for who hands the end on: they close their copy, and no more. */
static inline void os_lane_hang_up(os_lane *lane)
{
    shutdown(lane->socket, SHUT_RDWR);
    NC_STEP("lane_hang_up: shut down, not closed");
    close(lane->socket);
    lane->socket = -1;
}

static inline void os_lane_unmap(os_lane *lane) { os_block_unmap(&lane->map); }

/* Become the writer, or the reader, of an attached lane.  If this is not OS_OK, the lane is left. */
static inline os_result os_tx_open(os_tx *tx, const os_lane *lane)
{
    tx->lane = *lane;
    nc_lane_fault fault = nc_lane_open_writer(&tx->writer, lane->map.block, lane->map.words, lane->map.capacity);
    if (fault != NC_LANE_SOUND)
        os_lane_leave(&tx->lane);
    return os_block_fault(fault);
}

static inline os_result os_rx_open(os_rx *rx, const os_lane *lane)
{
    rx->lane = *lane;
    nc_lane_fault fault = nc_lane_open_reader(&rx->reader, lane->map.block, lane->map.words, lane->map.capacity);
    if (fault != NC_LANE_SOUND)
        os_lane_leave(&rx->lane);
    return os_block_fault(fault);
}

/* ---- waiting ------------------------------------------------------------------------------------------ */

/* What came of sleeping or hearing.  OS_OK: look again; OS_GARBLED: it rings and rings, and there is never anything. */
static inline os_result os_lane_rung(os_lane *lane, os_result result)
{
    if (result == OS_AGAIN)
        return OS_AGAIN;
    if (result == OS_CRASHED)
        lane->eof = true;
    return ++lane->vain > OS_VAIN_MOST ? OS_GARBLED : OS_OK;
}

/* After nc_lane_..._may_sleep().  OS_AGAIN: the time is over, or a signal came. */
static inline os_result os_lane_sleep(os_lane *lane, int timeout)
{
    return os_lane_rung(lane, os_bell_sleep(lane->socket, timeout));
}

/* The same without sleeping, once somebody else has seen that the socket can be read: an event loop, or a poll(2) of
 * many lanes.  OS_AGAIN: nothing was rung. */
static inline os_result os_lane_hear(os_lane *lane) { return os_lane_rung(lane, os_bell_hear(lane->socket)); }

static inline os_result os_lane_told(nc_lane_fate fate)
{
    return fate == NC_LANE_OPEN ? OS_OK : fate == NC_LANE_CLOSED ? OS_CLOSED : OS_CRASHED;
}

/* ---- the writer --------------------------------------------------------------------------------------- */

/* Reserve n bytes, n in 1 .. capacity - 8.  Each sleep, until there is room, ends after `timeout` milliseconds with
 * OS_AGAIN; 0: do not sleep; less: without limit. */
static inline os_result os_tx_claim(os_tx *tx, uint64_t n, nc_record *record, int timeout)
{
    for (;;) {
        os_result peer = os_lane_told(nc_lane_peer(&tx->writer.block->reader, tx->lane.eof));
        if (peer != OS_OK)
            return peer;
        nc_result result = nc_lane_claim(&tx->writer, n, record);
        if (result != NC_FULL) {
            tx->lane.vain = 0;
            return result == NC_OK ? OS_OK : OS_GARBLED;
        }
        if (timeout == 0)
            return OS_AGAIN;
        if (nc_lane_writer_may_sleep(&tx->writer, n) && (peer = os_lane_sleep(&tx->lane, timeout)) != OS_OK) {
            nc_lane_lower(&tx->writer.block->writer);
            return peer;
        }
    }
}

/* Publish the first n bytes of the record, and wake the reader. */
static inline void os_tx_commit(os_tx *tx, const nc_record *record, uint64_t n)
{
    nc_lane_commit(&tx->writer, record, n, memory_order_seq_cst); /* P1 */
    if (nc_lane_wakes_reader(&tx->writer))
        os_bell_ring(tx->lane.socket);
}

static inline void os_tx_close(os_tx *tx)
{
    if (nc_lane_close(&tx->writer.block->writer, &tx->writer.block->reader))
        os_bell_ring(tx->lane.socket);
    os_lane_leave(&tx->lane);
}

/* ---- the reader --------------------------------------------------------------------------------------- */

/* Show the next record; `timeout` as in os_tx_claim().  OS_CLOSED and OS_CRASHED come when nothing is left. */
static inline os_result os_rx_peek(os_rx *rx, nc_record *record, int timeout)
{
    for (;;) {
        nc_lane_fate fate;
        nc_result result = nc_lane_next(&rx->reader, rx->lane.eof, record, &fate);
        if (result != NC_EMPTY) {
            rx->lane.vain = 0;
            return result == NC_OK ? OS_OK : OS_GARBLED;
        }
        os_result peer = os_lane_told(fate);
        if (peer != OS_OK)
            return peer;
        if (timeout == 0)
            return OS_AGAIN;
        if (nc_lane_reader_may_sleep(&rx->reader) && (peer = os_lane_sleep(&rx->lane, timeout)) != OS_OK) {
            nc_lane_lower(&rx->reader.block->reader);
            return peer;
        }
    }
}

/* Give back the record that was shown, and wake the writer. */
static inline void os_rx_release(os_rx *rx, const nc_record *record)
{
    nc_lane_release(&rx->reader, record, memory_order_seq_cst); /* P2 */
    if (nc_lane_wakes_writer(&rx->reader))
        os_bell_ring(rx->lane.socket);
}

static inline void os_rx_close(os_rx *rx)
{
    if (nc_lane_close(&rx->reader.block->reader, &rx->reader.block->writer))
        os_bell_ring(rx->lane.socket);
    os_lane_leave(&rx->lane);
}

#endif
#endif
