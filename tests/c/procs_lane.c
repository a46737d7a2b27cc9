/* procs_lane.c: lanes between real processes: what goes through them, what becomes of the others when one is killed at
 * any step, stopped, or hostile, and what is left behind.  STRESS_ITEMS is how many records each scenario sends; a
 * thousandth of that is how many processes are killed at a step, some hundreds at least.
 */
#include "procs.h"

#if OS_HAS_LANES

enum { SENDERS = 4, LATE = 50000 /* microseconds */ };

/* ---- all that is sent is received ----------------------------------------------------------------------- */

static void two_processes_exchange_all_that_was_sent(void)
{
    for (int host = 0; host < 2; host++) {
        int before = procs_descriptors();
        set_up(__func__, host, 4096 << 4 * host, procs_items);
        pid_t child = procs_fork(as_child, OS_WRITER);
        be_one_of_two(OS_READER);
        procs_join(child, false);
        CHECK_EQ(atomic_load(&shared->received), procs_items);
        CHECK_EQ(atomic_load(&shared->wrong), 0);
        CHECK(procs_descriptors() == before && procs_mapped() == 0);
    }
}

static int there[2], back[2]; /* of two lanes */

/* Send one, wait for one, as the first or as the second of two. */
static void exchange(bool first)
{
    os_lane lane;
    os_tx tx;
    os_rx rx;
    nc_record from = {0};
    uint64_t trips = procs_items / 4;
    for (int i = 0; i < 2; i++) {
        int *const pair = (i == 0) == first ? there : back; /* the reader hosts */
        bool writes = i == 0;
        sockets[writes ? 1 : 0] = pair[writes ? 1 : 0];
        close(pair[writes ? 0 : 1]);
    }
    if (first) {
        CHECK(attach(&lane, OS_WRITER) == OS_OK && os_tx_open(&tx, &lane) == OS_OK);
        CHECK(attach(&lane, OS_READER) == OS_OK && os_rx_open(&rx, &lane) == OS_OK);
    } else {
        CHECK(attach(&lane, OS_READER) == OS_OK && os_rx_open(&rx, &lane) == OS_OK);
        CHECK(attach(&lane, OS_WRITER) == OS_OK && os_tx_open(&tx, &lane) == OS_OK);
    }
    for (uint64_t i = 0; i < 2 * trips; i++) {
        if ((i % 2 == 0) == first) {
            CHECK_EQ(send_record(&tx, i), OS_OK);
            continue;
        }
        CHECK_EQ(os_rx_peek(&rx, &from, -1), OS_OK);
        CHECK(check_record(&from, i, lane.map.capacity));
        os_rx_release(&rx, &from);
    }
    os_tx_close(&tx);
    os_rx_close(&rx);
}

static void exchange_as_second(int arg)
{
    (void)arg;
    exchange(false);
}

static void two_that_sleep_in_turn_wake_each_other(void)
{
    set_up(__func__, false, 4096, 0);
    close(sockets[0]);
    close(sockets[1]);
    procs_pair(there);
    procs_pair(back);
    int before = procs_descriptors() - 4;
    pid_t child = procs_fork(exchange_as_second, 0);
    exchange(true);
    procs_join(child, false);
    CHECK(procs_descriptors() == before && procs_mapped() == 0);
}

static int crowd[SENDERS][2];
static bool killed[SENDERS];

static void be_one_of_many(int i)
{
    for (int k = 0; k < SENDERS; k++) {
        close(crowd[k][0]);
        if (k != i)
            close(crowd[k][1]);
    }
    sockets[1] = crowd[i][1];
    CHECK_EQ(write_all(), OS_OK);
}

/* Sleep until one of the lanes rings or ends. */
static void sleep_on_all(os_rx *rx, const bool *ended)
{
    struct pollfd ready[SENDERS];
    int may = 0, open = 0;
    for (int i = 0; i < SENDERS; i++) {
        ready[i] = (struct pollfd){.fd = ended[i] ? -1 : rx[i].lane.socket, .events = POLLIN};
        open += !ended[i];
        may += !ended[i] && nc_lane_reader_may_sleep(&rx[i].reader);
    }
    if (may == open && may > 0)
        poll(ready, SENDERS, -1);
    for (int i = 0; i < SENDERS; i++)
        if (!ended[i]) {
            nc_lane_lower(&rx[i].reader.block->reader);
            os_lane_hear(&rx[i].lane);
        }
}

/* Take what there is, of each in turn; when there is nothing, sleep. */
static void receive_from_all(os_rx *rx, uint64_t *taken, os_result *how)
{
    bool ended[SENDERS] = {false};
    nc_record from = {0};
    for (int left = SENDERS; left > 0;) {
        bool any = false;
        for (int i = 0; i < SENDERS; i++)
            for (int k = 0; k < 64 && !ended[i]; k++) {
                how[i] = os_rx_peek(&rx[i], &from, 0);
                if (how[i] == OS_AGAIN)
                    break;
                any = true;
                if (how[i] == OS_OK) {
                    CHECK(check_record(&from, taken[i]++, rx[i].lane.map.capacity));
                    os_rx_release(&rx[i], &from);
                } else {
                    ended[i] = true;
                    left--;
                }
            }
        if (!any)
            sleep_on_all(rx, ended);
    }
}

static void five_processes(const char *name, uint64_t n, bool some_die)
{
    os_rx rx[SENDERS];
    pid_t children[SENDERS];
    uint64_t taken[SENDERS] = {0}, seed = procs_seed + n;
    os_result how[SENDERS];
    set_up(name, false, 4096, n);
    close(sockets[0]);
    close(sockets[1]);
    for (int i = 0; i < SENDERS; i++)
        procs_pair(crowd[i]);
    for (int i = 0; i < SENDERS; i++) {
        killed[i] = some_die && i % 2 == 0;
        die_at = killed[i] ? "lane_commit: written, not published" : NULL;
        die_after = test_random(&seed) % n;
        children[i] = procs_fork(be_one_of_many, i);
    }
    die_at = NULL;
    for (int i = 0; i < SENDERS; i++) {
        os_lane lane;
        close(crowd[i][1]);
        sockets[0] = crowd[i][0];
        CHECK_EQ(attach(&lane, OS_READER), OS_OK);
        CHECK_EQ(os_rx_open(&rx[i], &lane), OS_OK);
    }
    receive_from_all(rx, taken, how);
    for (int i = 0; i < SENDERS; i++) {
        procs_join(children[i], killed[i]);
        CHECK_EQ(how[i], killed[i] ? OS_CRASHED : OS_CLOSED);
        CHECK(killed[i] ? taken[i] < n : taken[i] == n);
        os_rx_close(&rx[i]);
    }
}

static void four_processes_send_to_one(void) { five_processes(__func__, procs_items / SENDERS, false); }

static void those_who_live_lose_nothing_by_those_who_are_killed(void)
{
    for (int i = 0; i < 5; i++)
        five_processes(__func__, procs_items / SENDERS / 5, true);
}

/* ---- killed at any step --------------------------------------------------------------------------------- */

static uint64_t times[1 << 20], n_times;

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static os_role victim;
static bool host_writes;

/* Who sends, or takes, in vain, is the one who lives. */
static void set_up_for_victim(const char *name)
{
    set_up(name, host_writes, 4096, victim == OS_WRITER ? 60 : UINT64_MAX);
    receives_most = victim == OS_READER ? 40 : UINT64_MAX;
}

static os_result survive(void)
{
    close(sockets[is_host(victim) ? 0 : 1]);
    return victim == OS_READER ? write_all() : read_all();
}

/* A child dies at `step`, at its visit number `after`, if it comes to that; this process is the other side. True if it
 * died. */
static bool one_dies(const char *step, uint64_t after)
{
    int before = procs_descriptors();
    set_up_for_victim("killed at a step");
    CASE("%s, writer hosts %d: %s, %d", victim == OS_WRITER ? "writer" : "reader", host_writes, step, (int)after);
    die_at = step;
    die_after = after;
    pid_t child = procs_fork(as_child, (int)victim);
    die_at = NULL;
    os_result result = survive();
    uint64_t now = procs_clock();
    procs_reap(child);
    uint64_t died = atomic_load(&shared->died), sent = atomic_load(&shared->sent),
             received = atomic_load(&shared->received);
    if (died != 0 && n_times < sizeof times / sizeof times[0])
        times[n_times++] = now > died ? now - died : 0;
    CHECK(result == OS_CLOSED || (result == OS_CRASHED && died != 0));
    CHECK(victim == OS_READER ? received <= sent : received == sent || (received == sent + 1 && died != 0));
    CHECK_EQ(atomic_load(&shared->wrong), 0);
    CHECK(procs_descriptors() == before && procs_mapped() == 0);
    return died != 0;
}

static void nobody_dies(void)
{
    set_up_for_victim("noting steps");
    noting = true;
    pid_t child = procs_fork(as_child, (int)victim);
    noting = false;
    CHECK_EQ(survive(), OS_CLOSED);
    procs_join(child, false);
}

static void whoever_is_killed_at_any_step_the_other_is_told(void)
{
    uint64_t seed = procs_seed;
    n_times = 0;
    for (int kind = 0; kind < 4; kind++) {
        victim = kind % 2 ? OS_WRITER : OS_READER;
        host_writes = kind / 2;
        kill_at_each_step(kind % 2 ? "writer" : "reader", nobody_dies, one_dies, procs_items / 1000 / 4, &seed);
    }
    qsort(times, n_times, sizeof times[0], by_size);
    printf("%d killed; told after %d us (median), %d us (99 %%), %d us (the last)\n", (int)n_times,
           (int)times[n_times / 2], (int)times[n_times * 99 / 100], (int)times[n_times - 1]);
    CHECK(times[n_times * 99 / 100] < LATE);
}

/* ---- stopped, and killed both ---------------------------------------------------------------------------- */

static void wait_for_traffic(uint64_t more)
{
    for (uint64_t from = atomic_load(&shared->received); atomic_load(&shared->received) < from + more;)
        usleep(100);
}

/* Stop the children in turn, for `ms`, in the middle of their traffic; what they find is all there. */
static void who_is_stopped_loses_nothing_and_nothing_is_taken(void)
{
    uint64_t ms = procs_items > 1000000 ? 10000 : 200;
    set_up(__func__, false, 4096, procs_items * 4);
    pid_t children[2] = {procs_fork(as_child, OS_WRITER), procs_fork(as_child, OS_READER)};
    close(sockets[0]);
    close(sockets[1]);
    for (int i = 0; i < 2; i++) {
        wait_for_traffic(procs_items / 10);
        kill(children[i], SIGSTOP);
        usleep((useconds_t)ms * 1000);
        kill(children[i], SIGCONT);
    }
    for (int i = 0; i < 2; i++)
        procs_join(children[i], false);
    CHECK(atomic_load(&shared->received) == procs_items * 4 && atomic_load(&shared->wrong) == 0);
}

static void nothing_is_left_of_two_that_were_killed(void)
{
    int shm = procs_count_dir("/dev/shm"), fds = procs_descriptors();
    for (int i = 0; i < 20; i++) {
        set_up(__func__, i % 2, 4096, UINT64_MAX);
        pid_t children[2] = {procs_fork(as_child, OS_WRITER), procs_fork(as_child, OS_READER)};
        close(sockets[0]);
        close(sockets[1]);
        wait_for_traffic(i < 10 ? 1 : 200);
        for (int k = 0; k < 2; k++) { /* so that neither sees the other's death */
            kill(children[k], SIGSTOP);
            CHECK(waitpid(children[k], NULL, WUNTRACED) == children[k]);
        }
        for (int k = 0; k < 2; k++)
            kill(children[k], SIGKILL);
        for (int k = 0; k < 2; k++)
            procs_join(children[k], true);
    }
    CHECK_EQ(procs_lanes_anywhere(), 0);
    CHECK(procs_count_dir("/dev/shm") == shm && procs_descriptors() == fds);
}

int main(void)
{
    procs_start(20000);
    RUN(two_processes_exchange_all_that_was_sent);
    RUN(two_that_sleep_in_turn_wake_each_other);
    RUN(four_processes_send_to_one);
    RUN(those_who_live_lose_nothing_by_those_who_are_killed);
    RUN(whoever_is_killed_at_any_step_the_other_is_told);
    RUN(who_is_stopped_loses_nothing_and_nothing_is_taken);
    RUN(nothing_is_left_of_two_that_were_killed);
    return test_report();
}

#else
#include "no_lanes.h"
#endif
