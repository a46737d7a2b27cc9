/* procs_lobby.c: lanes that senders bring to a lobby: within a process and across processes, badly made, too many of
 * them, with no number left for a descriptor; and who is told what when one of the two is killed at any step, leaves,
 * hands its end on, or never comes.  STRESS_ITEMS is how many records are sent in all; a thousandth of that is how many
 * processes are killed at a step, some hundreds at least.
 */
#include "procs.h"

#if OS_HAS_LANES

#include "os_lobby.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>

enum { SENDERS = 4, FEW = 10 };

static int lobby, door;
static int fds_before;

static void open_lobby(const char *name)
{
    procs_scenario = name;
    alarm(120);
    procs_clear();
    fds_before = procs_descriptors();
    CHECK_EQ(os_lobby_open(&lobby, &door), OS_OK);
}

static void close_once(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Both ends, if they are not closed yet; nothing else was left open or mapped. */
static void close_lobby(void)
{
    close_once(&lobby);
    close_once(&door);
    CHECK_EQ(procs_descriptors(), fds_before);
    CHECK_EQ(procs_mapped(), 0);
}

static void close_visit(const os_visit *visit)
{
    close(visit->socket);
    close(visit->memory);
}

/* Take the next visit out of the lobby. */
static os_result hear(os_visit *visit)
{
    os_result result = os_lobby_see(lobby, visit);
    if (result == OS_OK)
        os_lobby_drop(lobby);
    return result;
}

/* ---- both sides, as a program writes them --------------------------------------------------------------- */

/* Make a lane and send it. */
static os_result come(os_tx *tx, uint64_t id)
{
    os_lane lane;
    os_visit visit = {.id = id};
    CHECK_EQ(os_lobby_make(&lane, CAPACITY, &visit), OS_OK);
    os_result result = os_lobby_send(door, &visit);
    close_visit(&visit);
    CHECK_EQ(os_tx_open(tx, &lane), OS_OK);
    return result;
}

/* Arrive at the lane that comes next; the caller has its memory to close. */
static os_result meet(os_rx *rx, os_visit *visit)
{
    os_lane lane;
    os_result result = hear(visit);
    if (result != OS_OK)
        return result;
    CHECK_EQ(result = os_lobby_take(&lane, visit, CAPACITY), OS_OK);
    return result == OS_OK ? os_rx_open(rx, &lane) : result;
}

static void send_some(os_tx *tx, uint64_t from, uint64_t n)
{
    for (uint64_t i = from; i < from + n; i++)
        CHECK_EQ(send_record(tx, i), OS_OK);
}

static void read_some(os_rx *rx, uint64_t from, uint64_t n)
{
    nc_record record = {0};
    for (uint64_t i = from; i < from + n; i++) {
        CHECK_EQ(os_rx_peek(rx, &record, -1), OS_OK);
        CHECK(check_record(&record, i, CAPACITY));
        os_rx_release(rx, &record);
    }
}

/* Nothing is left in the lane, and this is why. */
static void ends_by(os_rx *rx, os_result why)
{
    nc_record record = {0};
    CHECK_EQ(os_rx_peek(rx, &record, -1), why);
}

/* What is told of a side that is gone, by what it has last said of itself. */
static os_result truth(nc_lane_side *side)
{
    return atomic_load(&side->closed) == NC_LANE_HERE ? OS_CRASHED : OS_CLOSED;
}

/* ---- who comes is met --------------------------------------------------------------------------------------- */

static void a_lane_comes_as_it_was_sent(void)
{
    os_lane lane;
    os_tx tx;
    os_rx rx;
    os_visit sent = {.id = UINT64_C(0x123456789abcdef0), .after = 77, .after_pos = UINT64_MAX - 7}, came;
    open_lobby(__func__);
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(hear(&came), OS_AGAIN);
    CHECK_EQ(os_lobby_make(&lane, CAPACITY, &sent), OS_OK);
    CHECK_EQ(os_tx_open(&tx, &lane), OS_OK);
    send_some(&tx, 0, FEW); /* before anybody knows */
    CHECK_EQ(os_lobby_send(door, &sent), OS_OK);
    close_visit(&sent);
    CHECK_EQ(meet(&rx, &came), OS_OK);
    CHECK(came.capacity == CAPACITY && came.id == sent.id && came.after == 77 && came.after_pos == UINT64_MAX - 7);
    const int all[] = {lobby, door, tx.lane.socket, came.socket, came.memory};
    for (int i = 0; i < 5; i++)
        CHECK_EQ(fcntl(all[i], F_GETFD), FD_CLOEXEC);
    close(came.memory);
    read_some(&rx, 0, FEW);
    for (uint64_t i = 0; i < 2; i++) /* the kernel is asked to write to the reader's records */
        CHECK(read(zeros, (void *)(rx.lane.map.words + i * CAPACITY / 8), 8) < 0 && errno == EFAULT);
    close(zeros);
    send_some(&tx, FEW, FEW);
    os_tx_close(&tx);
    read_some(&rx, FEW, FEW);
    ends_by(&rx, OS_CLOSED);
    os_rx_close(&rx);
    CHECK_EQ(hear(&came), OS_AGAIN);
    close_lobby();
}

static void a_lane_of_no_capacity_is_not_made(void)
{
    static const uint64_t none[] = {0, 1, CAPACITY - 1, 3 * CAPACITY, UINT64_C(1) << 63, UINT64_MAX};
    open_lobby(__func__);
    for (int i = 0; i < 6; i++) {
        os_lane lane;
        os_visit visit;
        CHECK_EQ(os_lobby_make(&lane, none[i], &visit), OS_WRONG_SIZE);
        CHECK(visit.socket == -1 && visit.memory == -1);
    }
    close_lobby();
}

static void once_all_doors_are_closed_that_is_told_behind_the_last_visit(void)
{
    os_tx tx;
    os_visit visit;
    open_lobby(__func__);
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_EQ(come(&tx, i), OS_OK);
        os_tx_close(&tx);
    }
    int copy = dup(door);
    close_once(&door);
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_EQ(hear(&visit), OS_OK);
        CHECK_EQ(visit.id, i);
        close_visit(&visit);
        if (i == 2)
            close(copy);
    }
    for (int i = 0; i < 2; i++)
        CHECK_EQ(hear(&visit), OS_CRASHED);
    close_lobby();
}

static void come_as_one_of_many(int i)
{
    os_tx tx;
    close(lobby);
    CHECK_EQ(come(&tx, (uint64_t)i), OS_OK);
    close(door);
    for (uint64_t k = 0; k < count; k++)
        CHECK_EQ(send_record(&tx, k), OS_OK);
    os_tx_close(&tx);
}

typedef struct crowd {
    os_rx rx[SENDERS];
    uint64_t id[SENDERS], taken[SENDERS];
    os_result how[SENDERS]; /* by sender, as the last two are by who came */
    bool ended[SENDERS];
    int n;
    bool nobody_comes; /* any more */
} crowd;

/* True if somebody came. */
static bool meet_all(crowd *c)
{
    os_visit visit;
    int before = c->n;
    while (!c->nobody_comes) {
        os_result result = c->n == SENDERS ? hear(&visit) : meet(&c->rx[c->n], &visit);
        if (result == OS_AGAIN)
            break;
        c->nobody_comes = result == OS_CRASHED;
        CHECK(c->nobody_comes || (result == OS_OK && c->n < SENDERS && visit.id < SENDERS));
        if (result == OS_OK) {
            c->id[c->n++] = visit.id;
            close(visit.memory);
        }
    }
    return c->n > before;
}

/* Take what is there of one lane, at most some; true if there was any, or its end. */
static bool take_some(crowd *c, int i)
{
    nc_record from = {0};
    for (int k = 0; k < 64 && !c->ended[i]; k++) {
        os_result result = os_rx_peek(&c->rx[i], &from, 0);
        if (result == OS_AGAIN)
            return k > 0;
        c->ended[i] = result != OS_OK;
        c->how[c->id[i]] = result;
        if (result == OS_OK) {
            CHECK(check_record(&from, c->taken[c->id[i]]++, CAPACITY));
            os_rx_release(&c->rx[i], &from);
        }
    }
    return true;
}

/* Sleep until somebody comes, or one of those who came rings or ends. */
static void sleep_on_lobby_and_lanes(crowd *c)
{
    struct pollfd ready[SENDERS + 1] = {{.fd = c->nobody_comes ? -1 : lobby, .events = POLLIN}};
    bool may = true;
    for (int i = 0; i < c->n; i++) {
        ready[i + 1] = (struct pollfd){.fd = c->ended[i] ? -1 : c->rx[i].lane.socket, .events = POLLIN};
        may &= c->ended[i] || nc_lane_reader_may_sleep(&c->rx[i].reader);
    }
    if (may)
        poll(ready, (nfds_t)c->n + 1, -1);
    for (int i = 0; i < c->n; i++)
        if (!c->ended[i]) {
            nc_lane_lower(&c->rx[i].reader.block->reader);
            os_lane_hear(&c->rx[i].lane);
        }
}

static void receive_all(crowd *c)
{
    for (bool open = true; open;) {
        bool any = meet_all(c);
        open = !c->nobody_comes;
        for (int i = 0; i < c->n; i++) {
            any |= !c->ended[i] && take_some(c, i);
            open |= !c->ended[i];
        }
        if (open && !any)
            sleep_on_lobby_and_lanes(c);
    }
}

static void many_come_to_one(const char *name, uint64_t n, bool some_die)
{
    static crowd c;
    pid_t children[SENDERS];
    uint64_t seed = procs_seed + n;
    c = (crowd){.n = 0};
    open_lobby(name);
    count = n;
    for (int i = 0; i < SENDERS; i++) {
        die_at = some_die && i % 2 == 0 ? "lane_commit: written, not published" : NULL;
        die_after = test_random(&seed) % n;
        children[i] = procs_fork(come_as_one_of_many, i);
    }
    die_at = NULL;
    close_once(&door);
    receive_all(&c);
    CHECK_EQ(c.n, SENDERS);
    for (int i = 0; i < SENDERS; i++) {
        bool killed = some_die && i % 2 == 0;
        procs_join(children[i], killed);
        CHECK_EQ(c.how[i], killed ? OS_CRASHED : OS_CLOSED);
        CHECK(killed ? c.taken[i] < n : c.taken[i] == n);
        os_rx_close(&c.rx[i]);
    }
    close_lobby();
}

static void four_processes_come_to_one(void) { many_come_to_one(__func__, procs_items / SENDERS, false); }

static void those_who_live_lose_nothing_by_those_who_are_killed(void)
{
    for (int i = 0; i < 5; i++)
        many_come_to_one(__func__, procs_items / SENDERS / 5, true);
}

/* ---- who is told what ----------------------------------------------------------------------------------- */

enum { LEAVES, IS_KILLED, IS_KILLED_AWAY };

static void come_and_end(int how)
{
    os_tx tx;
    CHECK_EQ(come(&tx, 1), OS_OK);
    send_some(&tx, 0, FEW);
    if (how == IS_KILLED_AWAY)
        nc_lane_go_away(&tx.writer.block->writer);
    if (how != LEAVES)
        procs_die();
    os_tx_close(&tx);
}

static void what_was_sent_comes_before_the_end_though_nobody_looked_until_then(void)
{
    for (int how = LEAVES; how <= IS_KILLED_AWAY; how++) {
        os_rx rx;
        os_visit visit;
        CASE("%d", how);
        open_lobby(__func__);
        pid_t child = procs_fork(come_and_end, how);
        procs_join(child, how != LEAVES);
        close_once(&door);
        CHECK_EQ(meet(&rx, &visit), OS_OK);
        close(visit.memory);
        read_some(&rx, 0, FEW);
        ends_by(&rx, how == IS_KILLED ? OS_CRASHED : OS_CLOSED);
        os_rx_close(&rx);
        CHECK_EQ(hear(&visit), OS_CRASHED);
        close_lobby();
    }
}

enum { NEVER_HEARS, HEARS, TAKES, READS, READS_AND_GOES_AWAY, READS_AND_LEAVES };

static void meet_and_end(int how)
{
    os_rx rx;
    os_visit visit;
    close(door);
    procs_readable(lobby);
    if (how == NEVER_HEARS)
        procs_die();
    if (how == HEARS) {
        CHECK_EQ(hear(&visit), OS_OK);
        procs_die();
    }
    CHECK_EQ(meet(&rx, &visit), OS_OK);
    if (how == TAKES)
        procs_die();
    read_some(&rx, 0, FEW);
    if (how == READS_AND_GOES_AWAY)
        nc_lane_go_away(&rx.reader.block->reader);
    if (how != READS_AND_LEAVES)
        procs_die();
    os_rx_close(&rx);
}

static void a_sender_is_told_whether_its_receiver_crashed_left_or_never_came(void)
{
    for (int how = NEVER_HEARS; how <= READS_AND_LEAVES; how++) {
        os_tx tx;
        uint64_t n = 0;
        os_result result;
        CASE("%d", how);
        open_lobby(__func__);
        pid_t child = procs_fork(meet_and_end, how);
        close_once(&lobby);
        CHECK_EQ(come(&tx, 1), OS_OK);
        while ((result = send_record(&tx, n)) == OS_OK) /* until it is full, and then it sleeps */
            n++;
        CHECK_EQ(result, how == TAKES || how == READS ? OS_CRASHED : OS_CLOSED);
        CHECK_EQ(result, truth(&tx.writer.block->reader));
        os_tx_close(&tx);
        procs_join(child, how != READS_AND_LEAVES);
        for (int i = 0; i < 2; i++) {
            CHECK_EQ(come(&tx, 2), OS_CRASHED); /* and so is whoever comes later */
            os_tx_close(&tx);
        }
        close_lobby();
    }
}

/* ---- an end that is handed on --------------------------------------------------------------------------- */

static void go_on_reading(int first)
{
    os_rx rx;
    os_visit visit;
    procs_readable(lobby);
    CHECK_EQ(meet(&rx, &visit), OS_OK);
    close(visit.memory);
    read_some(&rx, (uint64_t)first, 3 * FEW - (uint64_t)first);
    ends_by(&rx, OS_CLOSED);
    os_rx_close(&rx);
}

static void a_reader_hands_its_end_on_and_the_next_one_goes_on(void)
{
    os_tx tx;
    os_rx rx;
    os_visit visit;
    open_lobby(__func__);
    CHECK_EQ(come(&tx, 1), OS_OK);
    send_some(&tx, 0, FEW);
    CHECK_EQ(meet(&rx, &visit), OS_OK);
    read_some(&rx, 0, FEW / 2);
    send_some(&tx, FEW, FEW);
    nc_lane_go_away(&rx.reader.block->reader);
    CHECK_EQ(os_lobby_send(door, &visit), OS_OK);
    os_lane_leave(&rx.lane);
    close(visit.memory);
    CHECK_EQ(nc_lane_peer(&tx.writer.block->reader, tx.lane.eof), NC_LANE_OPEN);
    pid_t child = procs_fork(go_on_reading, FEW / 2);
    send_some(&tx, 2 * FEW, FEW);
    os_tx_close(&tx);
    procs_join(child, false);
    close_lobby();
}

/* ---- hanging up ------------------------------------------------------------------------------------------- */

static void hold_copies(int arg)
{
    (void)arg;
    pause();
}

static void who_hangs_up_is_heard_at_once_and_may_still_look_at_the_memory(void)
{
    os_tx tx;
    os_rx rx;
    os_visit visit;
    nc_record record = {0};
    open_lobby(__func__);
    CHECK_EQ(come(&tx, 1), OS_OK);
    CHECK_EQ(meet(&rx, &visit), OS_OK);
    close(visit.memory);
    send_some(&tx, 0, 1);
    pid_t child = procs_fork(hold_copies, 0); /* of all sockets */
    CHECK_EQ(os_rx_peek(&rx, &record, -1), OS_OK);
    os_lane_hang_up(&rx.lane);
    CHECK_EQ(rx.lane.socket, -1);
    CHECK_EQ(os_bell_hear(tx.lane.socket), OS_CRASHED);
    CHECK(check_record(&record, 0, CAPACITY));
    os_lane_unmap(&rx.lane);
    os_tx_close(&tx);
    kill(child, SIGKILL);
    procs_join(child, true);
    close_lobby();
}

/* ---- bad visits --------------------------------------------------------------------------------------------- */

static const os_visit_message good = {.magic = OS_VISIT_MAGIC, .version = OS_VISIT_VERSION, .capacity = CAPACITY};

/* Something that is no visit was sent: it is refused, nothing of it is kept, and the next visit comes. */
static void is_no_visit(const char *what, const void *data, size_t size, int descriptors)
{
    os_tx tx;
    os_visit visit;
    CASE("%s, %d bytes, %d descriptors", what, (int)size, descriptors);
    CHECK(send_descriptors(door, data, size, descriptors));
    CHECK_EQ(come(&tx, 5), OS_OK);
    int before = procs_descriptors();
    CHECK_EQ(hear(&visit), OS_NO_HELLO);
    CHECK_EQ(procs_descriptors(), before);
    CHECK_EQ(hear(&visit), OS_OK);
    CHECK_EQ(visit.id, 5);
    close_visit(&visit);
    os_tx_close(&tx);
}

static void what_is_no_visit_is_refused_and_leaves_nothing_open(void)
{
    char large[4096] = "";
    os_visit_message other = good;
    open_lobby(__func__);
    for (int n = 0; n <= 16; n++)
        if (n != 2)
            is_no_visit("a good message", &good, sizeof good, n);
    for (size_t size = 0; size < sizeof good; size += size < 8 ? 1 : 8)
        is_no_visit("a short message", &good, size, size % 2 ? 2 : 0);
    memcpy(large, &good, sizeof good);
    is_no_visit("a long message", large, sizeof good + 1, 2);
    is_no_visit("a long message", large, sizeof large, 2);
    other.magic++;
    is_no_visit("another magic", &other, sizeof other, 2);
    other = good;
    other.version++;
    is_no_visit("another version", &other, sizeof other, 2);
    uint64_t seed = procs_seed;
    for (int i = 0; i < 100; i++) {
        for (size_t k = 0; k < sizeof large; k++)
            large[k] = (char)test_random(&seed);
        is_no_visit("garbage", large, i % 2 ? sizeof good : test_random(&seed) % sizeof large, (int)(seed >> 32) % 17);
    }
    CHECK(send(door, "", 0, 0) == 0); /* nothing at all, once nobody can come any more, is not the end */
    close_once(&door);
    os_visit visit;
    CHECK_EQ(hear(&visit), OS_NO_HELLO);
    CHECK_EQ(hear(&visit), OS_CRASHED);
    close_lobby();
}

static void descriptors_for_which_there_happens_to_be_room_are_closed(void)
{
    int no = 0;
    open_lobby(__func__);
    CHECK(setsockopt(lobby, SOL_SOCKET, SO_PASSCRED, &no, sizeof no) == 0); /* room for more of them */
    for (int n = 3; n <= 16; n++)
        is_no_visit("a good message", &good, sizeof good, n);
    close_lobby();
}

/* One end of a lane's socket; the other is closed. */
static int one_end(int type)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
    close(ends[1]);
    return ends[0];
}

static int of_a_pipe(void)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    close(ends[1]);
    return ends[0];
}

/* A visit is heard, but what it brings is not a lane of CAPACITY.  The two are closed here. */
static void is_no_lane(int socket, int memory_of_it, uint64_t said, os_result why)
{
    os_lane lane;
    os_visit visit = {.capacity = said, .socket = socket, .memory = memory_of_it};
    CASE("%d", (int)why);
    CHECK_EQ(os_lobby_send(door, &visit), OS_OK);
    close_visit(&visit);
    CHECK_EQ(hear(&visit), OS_OK);
    os_result result = os_lobby_take(&lane, &visit, CAPACITY);
    CHECK_EQ(result, why);
    if (result == OS_OK)
        os_block_unmap(&lane.map);
    close_visit(&visit);
    CHECK_EQ(procs_descriptors(), fds_before + 2);
    CHECK_EQ(procs_mapped(), 0);
}

static int good_memory(void) { return lane_but(0, NC_LANE_MAGIC << 32 | NC_LANE_LAYOUT); }

static void memory_that_is_no_lane_is_refused_by_its_own_name(void)
{
    uint64_t page = os_block_page(), whole = page + CAPACITY;
    open_lobby(__func__);
    is_no_lane(one_end(SOCK_STREAM), good_memory(), CAPACITY, OS_OK);
    is_no_lane(one_end(SOCK_STREAM), good_memory(), 2 * CAPACITY, OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), good_memory(), 0, OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), good_memory(), UINT64_MAX, OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), lane_but(0, NC_LANE_MAGIC << 32 | (NC_LANE_LAYOUT + 1)), CAPACITY,
               OS_WRONG_VERSION);
    is_no_lane(one_end(SOCK_STREAM), lane_but(0, 0), CAPACITY, OS_NO_LANE);
    is_no_lane(one_end(SOCK_STREAM), lane_but(offsetof(nc_lane_block, capacity), 2 * CAPACITY), CAPACITY,
               OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), memory(whole, 0), CAPACITY, OS_NO_SEALS);
    is_no_lane(one_end(SOCK_STREAM), memory(whole, F_SEAL_SHRINK | F_SEAL_GROW), CAPACITY, OS_NO_SEALS);
    is_no_lane(one_end(SOCK_STREAM), memory(whole, F_SEAL_GROW | F_SEAL_SEAL), CAPACITY, OS_NO_SEALS);
    is_no_lane(one_end(SOCK_STREAM), memory(whole + page, OS_SEALS), CAPACITY, OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), memory(whole - 8, OS_SEALS), CAPACITY, OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), memory(page + 2 * CAPACITY, OS_SEALS), CAPACITY, OS_WRONG_SIZE);
    is_no_lane(one_end(SOCK_STREAM), memory(whole, OS_SEALS), CAPACITY, OS_NO_LANE);
    is_no_lane(one_end(SOCK_STREAM), of_a_pipe(), CAPACITY, OS_NO_SEALS);
    is_no_lane(one_end(SOCK_STREAM), one_end(SOCK_STREAM), CAPACITY, OS_NO_SEALS);
    is_no_lane(one_end(SOCK_STREAM), open("/dev/zero", O_RDWR | O_CLOEXEC), CAPACITY, OS_NO_SEALS);
    close_lobby();
}

static void a_socket_that_no_sender_makes_is_refused(void)
{
    open_lobby(__func__);
    is_no_lane(good_memory(), one_end(SOCK_STREAM), CAPACITY, OS_NO_HELLO); /* the wrong way round */
    is_no_lane(of_a_pipe(), good_memory(), CAPACITY, OS_NO_HELLO);
    is_no_lane(one_end(SOCK_DGRAM), good_memory(), CAPACITY, OS_NO_HELLO);
    is_no_lane(one_end(SOCK_SEQPACKET), good_memory(), CAPACITY, OS_NO_HELLO);
    is_no_lane(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), good_memory(), CAPACITY, OS_NO_HELLO);
    is_no_lane(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), good_memory(), CAPACITY, OS_STRANGER); /* nobody's */
    close_lobby();
}

static void come_as_nobody(int arg)
{
    os_tx tx;
    (void)arg;
    CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    CHECK_EQ(come(&tx, 1), OS_OK);
    os_tx_close(&tx);
}

static void a_process_of_another_user_is_a_stranger(void)
{
    if (getuid() != 0) {
        printf("SKIPPED %s: it takes root to be somebody else\n", __func__);
        return;
    }
    os_lane lane;
    os_visit visit;
    open_lobby(__func__);
    procs_join(procs_fork(come_as_nobody, 0), false);
    CHECK_EQ(hear(&visit), OS_OK);
    CHECK_EQ(os_lobby_take(&lane, &visit, CAPACITY), OS_STRANGER);
    close_visit(&visit);
    close_lobby();
}

/* The kernel does not let these descriptors through, for want of room for what else it tells of a message. */
static void a_visit_that_never_comes_through_holds_up_no_other(void)
{
    os_tx tx;
    os_visit visit;
    int yes = 1, no = 0;
    open_lobby(__func__);
    CHECK(setsockopt(lobby, SOL_SOCKET, SO_TIMESTAMP, &yes, sizeof yes) == 0);
    for (uint64_t i = 1; i <= 2; i++) {
        CHECK_EQ(come(&tx, i), OS_OK);
        os_tx_close(&tx);
    }
    int before = procs_descriptors();
    CHECK_EQ(hear(&visit), OS_NO_HELLO);
    CHECK_EQ(procs_descriptors(), before);
    CHECK(setsockopt(lobby, SOL_SOCKET, SO_TIMESTAMP, &no, sizeof no) == 0);
    CHECK_EQ(hear(&visit), OS_OK);
    CHECK_EQ(visit.id, 2);
    close_visit(&visit);
    close_lobby();
}

/* ---- too little of everything, too much of it ------------------------------------------------------------------ */

enum { NUMBERS = 64 };

/* There are so many numbers for descriptors, and all are taken but `n`. */
static void leave_numbers(rlim_t n)
{
    struct rlimit few = {NUMBERS, NUMBERS};
    int last = -1, next;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while ((next = dup(0)) >= 0)
        last = next;
    for (rlim_t i = 0; i < n; i++)
        close(last - (int)i);
}

static int numbers_left(void)
{
    int n = 0, taken[NUMBERS];
    while ((taken[n] = dup(0)) >= 0)
        n++;
    for (int i = 0; i < n; i++)
        close(taken[i]);
    return n;
}

static void hear_with_few_numbers(int n)
{
    os_tx tx;
    os_visit visit;
    CHECK_EQ(come(&tx, 1), OS_OK);
    CHECK(send_descriptors(door, &good, sizeof good, 3));
    CHECK_EQ(come(&tx, 2), OS_OK);
    leave_numbers((rlim_t)n);
    for (int i = 0; i < 100; i++) {
        errno = 0;
        CHECK_EQ(hear(&visit), OS_SYSTEM);
        CHECK_EQ(errno, EMFILE);
    }
    CHECK_EQ(numbers_left(), n);
    for (int i = n; i < 2; i++)
        close(NUMBERS / 2 + i); /* of those that were taken */
    for (uint64_t id = 1; id <= 2; id++) {
        os_visit other;
        CHECK_EQ(hear(&visit), OS_OK);
        CHECK_EQ(visit.id, id);
        CHECK_EQ(hear(&other), id == 1 ? OS_SYSTEM : OS_AGAIN);
        close_visit(&visit);
        if (id == 1)
            CHECK_EQ(hear(&other), OS_NO_HELLO);
    }
    CHECK_EQ(numbers_left(), 2);
}

static void make_with_few_numbers(int n)
{
    os_lane lane;
    os_visit visit;
    int ends[2];
    leave_numbers((rlim_t)n);
    CHECK_EQ(os_lobby_make(&lane, CAPACITY, &visit), n == 3 ? OS_OK : OS_SYSTEM);
    CHECK(n == 3 || errno == EMFILE);
    if (n == 3) {
        close_visit(&visit);
        os_lane_leave(&lane);
    } else {
        CHECK(visit.socket == -1 && visit.memory == -1);
    }
    CHECK_EQ(procs_mapped(), 0);
    CHECK_EQ(numbers_left(), n);
    CHECK_EQ(os_lobby_open(&ends[0], &ends[1]), n < 2 ? OS_SYSTEM : OS_OK);
    CHECK_EQ(numbers_left(), n < 2 ? n : n - 2);
}

static void who_has_no_numbers_left_makes_no_lane_and_leaves_nothing_open(void)
{
    for (int n = 0; n <= 3; n++)
        procs_join(procs_fork(make_with_few_numbers, n), false);
}

static void who_has_no_numbers_left_finds_the_visit_again(void)
{
    open_lobby(__func__);
    for (int n = 0; n < 2; n++)
        procs_join(procs_fork(hear_with_few_numbers, n), false);
    close_lobby();
}

static _Atomic bool hogs;
static _Atomic int hogged;

static void *take_a_number_and_give_it_back(void *arg)
{
    (void)arg;
    while (atomic_load(&hogs)) {
        int fd = dup(0);
        if (fd >= 0)
            close(fd);
        atomic_fetch_add(&hogged, 1);
    }
    return NULL;
}

static void hear_while_numbers_are_taken(int rounds)
{
    os_tx tx;
    os_visit sent, came;
    pthread_t hog[2];
    CHECK_EQ(come(&tx, 0), OS_OK);
    CHECK_EQ(hear(&sent), OS_OK); /* to be sent again and again */
    leave_numbers(3);
    atomic_store(&hogs, true);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&hog[i], NULL, take_a_number_and_give_it_back, NULL) == 0);
    for (int i = 1; i <= rounds || atomic_load(&hogged) < rounds; i++) {
        os_result result;
        sent.id = (uint64_t)i;
        CHECK_EQ(os_lobby_send(door, &sent), OS_OK);
        while ((result = hear(&came)) == OS_SYSTEM && errno == EMFILE)
            ;
        CHECK_EQ(result, OS_OK);
        if (result != OS_OK)
            break;
        CHECK_EQ(came.id, i);
        close_visit(&came);
    }
    atomic_store(&hogs, false);
    for (int i = 0; i < 2; i++)
        pthread_join(hog[i], NULL);
}

static void no_visit_is_lost_to_threads_that_take_numbers_meanwhile(void)
{
    open_lobby(__func__);
    procs_join(procs_fork(hear_while_numbers_are_taken, procs_items < 100000 ? (int)procs_items : 100000), false);
    close_lobby();
}

static bool can_be_written_to(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    return poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT;
}

static void a_full_lobby_turns_senders_away_and_loses_nobody(void)
{
    os_lane lane;
    os_visit sent = {.id = 0}, came;
    os_result result;
    open_lobby(__func__);
    CHECK_EQ(os_lobby_make(&lane, CAPACITY, &sent), OS_OK);
    for (int round = 0; round < 3; round++) {
        uint64_t n = 0, heard = 0;
        for (; (result = os_lobby_send(door, &sent)) == OS_OK; n++)
            sent.id++;
        CHECK_EQ(result, OS_AGAIN);
        CHECK(n > 16);
        CHECK_EQ(os_lobby_send(door, &sent), OS_AGAIN);
        CHECK(!can_be_written_to(door));
        for (; (result = hear(&came)) == OS_OK; heard++) {
            CHECK_EQ(came.id, sent.id - n + heard);
            close_visit(&came);
        }
        CHECK_EQ(result, OS_AGAIN);
        CHECK_EQ(heard, n);
        CHECK(can_be_written_to(door));
    }
    close_visit(&sent);
    os_lane_leave(&lane);
    close_lobby();
}

/* ---- killed at any step ------------------------------------------------------------------------------------------ */

static os_role victim;

static void change_hands(nc_lane_side *side)
{
    nc_lane_go_away(side);
    nc_lane_arrive(side);
}

static os_result come_and_write(void)
{
    os_tx tx;
    os_result result = come(&tx, 1);
    for (uint64_t i = 0; i < count && result == OS_OK; i++) {
        if (i == 20)
            change_hands(&tx.writer.block->writer);
        if ((result = send_record(&tx, i)) == OS_OK)
            atomic_fetch_add(&shared->sent, 1);
    }
    if (tx.lane.eof)
        CHECK_EQ(result, truth(&tx.writer.block->reader));
    if (nc_lane_close(&tx.writer.block->writer, &tx.writer.block->reader))
        os_bell_ring(tx.lane.socket);
    os_lane_hang_up(&tx.lane);
    os_lane_unmap(&tx.lane);
    return result;
}

static os_result read_on(os_rx *rx)
{
    nc_record from = {0};
    os_result result = OS_OK;
    for (uint64_t taken = 0; taken < receives_most && (result = os_rx_peek(rx, &from, -1)) == OS_OK;) {
        if (taken == 20)
            change_hands(&rx->reader.block->reader);
        if (!check_record(&from, taken++, CAPACITY))
            atomic_fetch_add(&shared->wrong, 1);
        os_rx_release(rx, &from);
        atomic_fetch_add(&shared->received, 1);
    }
    return result;
}

static os_result meet_and_read(void)
{
    os_rx rx;
    os_visit visit;
    os_result result;
    while ((result = meet(&rx, &visit)) == OS_AGAIN)
        procs_readable(lobby);
    if (result != OS_OK)
        return result;
    close(visit.memory);
    result = read_on(&rx);
    if (result != OS_OK) {
        CHECK_EQ(result, truth(&rx.reader.block->writer));
        CHECK_EQ(atomic_load(&rx.reader.block->tail), rx.reader.head);
    }
    if (nc_lane_close(&rx.reader.block->reader, &rx.reader.block->writer))
        os_bell_ring(rx.lane.socket);
    os_lane_hang_up(&rx.lane);
    os_lane_unmap(&rx.lane);
    return result;
}

static void as_victim(int arg)
{
    (void)arg;
    close(victim == OS_WRITER ? lobby : door);
    os_result result = victim == OS_WRITER ? come_and_write() : meet_and_read();
    CHECK_EQ(result, OS_OK);
}

/* This process is the other side, and told of the end. */
static os_result survive(void)
{
    close_once(victim == OS_WRITER ? &door : &lobby);
    return victim == OS_WRITER ? meet_and_read() : come_and_write();
}

/* Who sends, or takes, in vain, is the one who lives. */
static pid_t open_for_victim(const char *name)
{
    open_lobby(name);
    count = victim == OS_WRITER ? 60 : UINT64_MAX;
    receives_most = victim == OS_READER ? 40 : UINT64_MAX;
    return procs_fork(as_victim, 0);
}

static void nobody_dies(void)
{
    noting = true;
    pid_t child = open_for_victim("noting steps");
    noting = false;
    CHECK_EQ(survive(), OS_CLOSED);
    procs_join(child, false);
    close_lobby();
}

static bool one_dies(const char *step, uint64_t after)
{
    os_visit visit;
    CASE("%s: %s, %d", victim == OS_WRITER ? "sender" : "receiver", step, (int)after);
    die_at = step;
    die_after = after;
    pid_t child = open_for_victim("killed at a step");
    die_at = NULL;
    os_result result = survive();
    procs_reap(child);
    bool died = atomic_load(&shared->died) != 0;
    uint64_t sent = atomic_load(&shared->sent), received = atomic_load(&shared->received);
    CHECK(result == OS_CLOSED || (result == OS_CRASHED && died));
    CHECK(victim == OS_READER ? received <= sent : received == sent || (received == sent + 1 && died));
    CHECK_EQ(atomic_load(&shared->wrong), 0);
    if (victim == OS_WRITER)
        CHECK_EQ(hear(&visit), OS_CRASHED); /* its door went with it */
    close_lobby();
    return died;
}

static void whoever_is_killed_at_any_step_the_other_is_told(void)
{
    uint64_t seed = procs_seed;
    for (int kind = 0; kind < 2; kind++) {
        victim = kind ? OS_WRITER : OS_READER;
        kill_at_each_step(kind ? "sender" : "receiver", nobody_dies, one_dies, procs_items / 1000 / 4, &seed);
    }
}

int main(void)
{
    procs_start(20000);
    RUN(a_lane_comes_as_it_was_sent);
    RUN(a_lane_of_no_capacity_is_not_made);
    RUN(once_all_doors_are_closed_that_is_told_behind_the_last_visit);
    RUN(four_processes_come_to_one);
    RUN(those_who_live_lose_nothing_by_those_who_are_killed);
    RUN(what_was_sent_comes_before_the_end_though_nobody_looked_until_then);
    RUN(a_sender_is_told_whether_its_receiver_crashed_left_or_never_came);
    RUN(a_reader_hands_its_end_on_and_the_next_one_goes_on);
    RUN(who_hangs_up_is_heard_at_once_and_may_still_look_at_the_memory);
    RUN(what_is_no_visit_is_refused_and_leaves_nothing_open);
    RUN(descriptors_for_which_there_happens_to_be_room_are_closed);
    RUN(memory_that_is_no_lane_is_refused_by_its_own_name);
    RUN(a_socket_that_no_sender_makes_is_refused);
    RUN(a_process_of_another_user_is_a_stranger);
    RUN(a_visit_that_never_comes_through_holds_up_no_other);
    RUN(who_has_no_numbers_left_makes_no_lane_and_leaves_nothing_open);
    RUN(who_has_no_numbers_left_finds_the_visit_again);
    RUN(no_visit_is_lost_to_threads_that_take_numbers_meanwhile);
    RUN(a_full_lobby_turns_senders_away_and_loses_nobody);
    RUN(whoever_is_killed_at_any_step_the_other_is_told);
    return test_report();
}

#else
#include "no_lanes.h"
#endif
