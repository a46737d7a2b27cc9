/* stress_lane.c: two threads, as if they were two processes, at the ends of lanes in plain memory, where sanitizers see
 * all that both do.  They sleep on real sockets.  Records of all sizes must come out whole, in order, once. */
#include "stress.h"

#include "os_lane.h"

#if OS_HAS_LANES

enum { CAPACITY = 4096 };

typedef struct way { /* a lane, and both its ends */
    nc_lane_block block;
    _Alignas(NC_CACHE_LINE) _Atomic uint64_t words[2 * CAPACITY / 8];
    os_tx tx;
    os_rx rx;
} way;

static way there, back;
static bool in_batches;
static uint64_t leaves_after; /* how many records the side that leaves first sends or takes */
static bool reader_leaves;

static void open_way(way *l, uint64_t capacity)
{
    int pair[2];
    memset(l, 0, sizeof *l);
    nc_lane_init(&l->block, capacity, -(uint64_t)capacity);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    os_block map = {&l->block, l->words, capacity, 0}; /* no mapping of its own: nothing is unmapped */
    os_lane tx = {.map = map, .socket = pair[0]}, rx = {.map = map, .socket = pair[1]};
    CHECK_EQ(os_tx_open(&l->tx, &tx), OS_OK);
    CHECK_EQ(os_rx_open(&l->rx, &rx), OS_OK);
}

/* As if another process had this end from here on. */
static void change_hands(nc_lane_side *side)
{
    nc_lane_go_away(side);
    nc_lane_arrive(side);
}

/* Both sides draw the same sizes. */
static uint64_t size_for(uint64_t *seed, uint64_t capacity)
{
    uint64_t x = test_random(seed);
    return 1 + x / 8 % (x % 8 == 0 ? capacity - NC_LOG_HEADER : capacity / 16);
}

static unsigned char byte_of(uint64_t number, uint64_t i) { return (unsigned char)(number * 131 + i); }

static os_result claim(way *l, uint64_t n, nc_record *record)
{
    if (!in_batches)
        return os_tx_claim(&l->tx, n, record, -1);
    os_result result = os_tx_claim(&l->tx, n, record, 0);
    if (result != OS_AGAIN)
        return result;
    nc_lane_publish(&l->tx.writer);
    if (nc_lane_wakes_reader(&l->tx.writer))
        os_bell_ring(l->tx.lane.socket);
    return os_tx_claim(&l->tx, n, record, -1);
}

static os_result send_one(way *l, uint64_t number, uint64_t n)
{
    nc_record record = {0};
    os_result result;
    while ((result = claim(l, n, &record)) == OS_AGAIN)
        ;
    if (result != OS_OK)
        return result;
    for (uint64_t i = 0; i < n; i++)
        record.data[i] = byte_of(number, i);
    if (in_batches && number % 16 != 15)
        nc_lane_commit(&l->tx.writer, &record, n, memory_order_release);
    else
        os_tx_commit(&l->tx, &record, n);
    return OS_OK;
}

static os_result take_one(way *l, uint64_t number, uint64_t n)
{
    nc_record record = {0};
    os_result result;
    while ((result = os_rx_peek(&l->rx, &record, in_batches ? 0 : -1)) == OS_AGAIN && !in_batches)
        ;
    if (result == OS_AGAIN) {
        nc_lane_give_back(&l->rx.reader);
        if (nc_lane_wakes_writer(&l->rx.reader))
            os_bell_ring(l->rx.lane.socket);
        while ((result = os_rx_peek(&l->rx, &record, -1)) == OS_AGAIN)
            ;
    }
    if (result != OS_OK)
        return result;
    bool same = record.size == n;
    for (uint64_t i = 0; same && i < n; i++)
        same &= record.data[i] == byte_of(number, i);
    CHECK(same);
    if (in_batches && number % 16 != 15)
        nc_lane_release(&l->rx.reader, &record, memory_order_release);
    else
        os_rx_release(&l->rx, &record);
    stress_done(1);
    return OS_OK;
}

/* ---- scenarios ---------------------------------------------------------------------------------------- */

static void one_way(int id)
{
    uint64_t seed = stress_seed + 1, capacity = there.tx.lane.map.capacity;
    if (id == 0) {
        for (uint64_t i = 0; i < stress_items; i++) {
            if (i % 64 == 0)
                change_hands(&there.block.writer);
            CHECK_EQ(send_one(&there, i, size_for(&seed, capacity)), OS_OK);
        }
        os_tx_close(&there.tx);
        return;
    }
    for (uint64_t i = 0; i < stress_items; i++) {
        if (i % 64 == 1)
            change_hands(&there.block.reader);
        CHECK_EQ(take_one(&there, i, size_for(&seed, capacity)), OS_OK);
    }
    CHECK_EQ(take_one(&there, 0, 0), OS_CLOSED);
    os_rx_close(&there.rx);
}

static void round_trips(int id)
{
    for (uint64_t i = 0; i < stress_items / 10; i++) {
        if (id == 0)
            CHECK_EQ(send_one(&there, i, 48), OS_OK);
        else
            CHECK_EQ(take_one(&there, i, 48), OS_OK);
        if (id == 0)
            CHECK_EQ(take_one(&back, i, 48), OS_OK);
        else
            CHECK_EQ(send_one(&back, i, 48), OS_OK);
    }
    if (id == 0) {
        os_tx_close(&there.tx);
        os_rx_close(&back.rx);
    } else {
        os_rx_close(&there.rx);
        os_tx_close(&back.tx);
    }
}

static void one_leaves(int id)
{
    os_result result = OS_OK;
    uint64_t i = 0;
    if (id == 0) {
        while ((reader_leaves || i < leaves_after) && result == OS_OK)
            result = send_one(&there, i++, 24);
        CHECK_EQ(result, reader_leaves ? OS_CLOSED : OS_OK);
        os_tx_close(&there.tx);
    } else {
        while ((!reader_leaves || i < leaves_after) && (result = take_one(&there, i, 24)) == OS_OK)
            i++;
        CHECK_EQ(result, reader_leaves && leaves_after > 0 ? OS_OK : reader_leaves ? result : OS_CLOSED);
        CHECK(reader_leaves || i == leaves_after);
        os_rx_close(&there.rx);
    }
}

static void run(const char *name, void (*body)(int id), uint64_t capacity, bool batches)
{
    double began = stress_clock();
    stress_scenario = name;
    in_batches = batches;
    open_way(&there, capacity);
    open_way(&back, capacity);
    stress_run(2, body);
    if (body != round_trips) {
        close(back.tx.lane.socket);
        close(back.rx.lane.socket);
    }
    if (body != one_leaves)
        printf("%-34s capacity %4d, %6.2f s\n", name, (int)capacity, stress_clock() - began);
}

static void all(void)
{
    for (uint64_t capacity = 64; capacity <= CAPACITY; capacity *= 8) {
        run("one way", one_way, capacity, false);
        run("one way, in batches", one_way, capacity, true);
        run("round trips", round_trips, capacity, false);
    }
    uint64_t seed = stress_seed;
    for (uint64_t i = 0; i < stress_items / 50; i++) {
        leaves_after = test_random(&seed) % 40;
        reader_leaves = i % 2;
        run("one leaves", one_leaves, 64 << test_random(&seed) % 3, false);
    }
}

int main(void)
{
    stress_start(20000);
    RUN(all);
    return stress_report();
}

#else
#include "no_lanes.h"
#endif
