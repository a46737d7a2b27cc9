/* procs_attach.c: who is let in to a lane, and what a hostile process can do: each refusal by its own name, nothing
 * kept open; random words in the block, floods of rings, memory that is cut off.  STRESS_ITEMS is how often a hostile
 * process is looked at.
 */
#include "procs.h"

#if OS_HAS_LANES

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/un.h>

static int pair[2]; /* the host's, the guest's */
static int fds_before;

static void open_pair(void)
{
    alarm(120);
    fds_before = procs_descriptors();
    procs_pair(pair);
}

/* Both ends closed, and nothing else left open or mapped. */
static void close_pair(void)
{
    close(pair[0]);
    close(pair[1]);
    CHECK(procs_descriptors() == fds_before && procs_mapped() == 0);
}

/* ---- the host's side ---------------------------------------------------------------------------------- */

static os_result host(uid_t user, os_role role)
{
    os_lane lane = {0};
    os_result result = os_lane_host(&lane, pair[0], user, role, PROCS_MOST);
    if (result == OS_OK)
        os_block_unmap(&lane.map);
    return result;
}

static os_result guest(uid_t user)
{
    os_lane lane = {0};
    os_result result = os_lane_attach(&lane, pair[1], user, OS_WRITER, PROCS_MOST);
    if (result == OS_OK)
        os_block_unmap(&lane.map);
    return result;
}

/* A guest that says `hello` is refused for that reason, and told. */
static void refused(const os_hello *hello, uid_t user, os_result why)
{
    open_pair();
    CHECK(send(pair[1], hello, sizeof *hello, 0) == sizeof *hello);
    CHECK_EQ(host(user, OS_WRITER), why);
    CHECK_EQ(guest(getuid()), why);
    close_pair();
}

static void a_host_refuses_each_wrong_hello_by_its_own_name(void)
{
    const os_hello good = {.magic = OS_HELLO_MAGIC, .version = OS_HELLO_VERSION, .role = OS_WRITER, .wish = PROCS_MOST};
    os_hello hello = good;
    hello.version++;
    refused(&hello, getuid(), OS_WRONG_VERSION);
    hello = good;
    hello.magic++;
    refused(&hello, getuid(), OS_NO_HELLO);
    hello = good;
    hello.role = OS_READER;
    refused(&hello, getuid(), OS_WRONG_ROLE);
    hello.role = 77;
    refused(&hello, getuid(), OS_WRONG_ROLE);
    hello = good;
    hello.wish = PROCS_MOST + 1;
    refused(&hello, getuid(), OS_WRONG_SIZE);
    hello.wish = UINT64_MAX;
    refused(&hello, getuid(), OS_WRONG_SIZE);
    refused(&good, getuid() + 1, OS_STRANGER);
    refused(&good, getuid(), OS_OK);
}

static void a_guest_that_says_nothing_or_half_a_hello_holds_nobody_up(void)
{
    open_pair();
    CHECK_EQ(host(getuid(), OS_WRITER), OS_AGAIN);
    CHECK(send(pair[1], "hello", 5, 0) == 5);
    CHECK_EQ(host(getuid(), OS_WRITER), OS_NO_HELLO);
    close_pair();
    open_pair();
    shutdown(pair[1], SHUT_RDWR);
    CHECK_EQ(host(getuid(), OS_WRITER), OS_CRASHED);
    CHECK_EQ(guest(getuid()), OS_CRASHED);
    close_pair();
}

static void descriptors_that_nobody_asked_for_are_closed(void)
{
    const os_hello hello = {
        .magic = OS_HELLO_MAGIC, .version = OS_HELLO_VERSION, .role = OS_WRITER, .wish = PROCS_MOST};
    const os_answer answer = {.magic = OS_HELLO_MAGIC, .version = OS_HELLO_VERSION, .capacity = PROCS_MOST};
    for (int n = 1; n <= 4; n++) {
        CASE("%d descriptors", n);
        open_pair();
        CHECK(send_descriptors(pair[1], &hello, sizeof hello, n));
        CHECK_EQ(host(getuid(), OS_WRITER), OS_NO_HELLO);
        CHECK_EQ(guest(getuid()), OS_NO_HELLO);
        CHECK(send_descriptors(pair[0], &answer, sizeof answer, n));
        CHECK(guest(getuid()) == (n == 1 ? OS_NO_SEALS : OS_NO_HELLO));
        if (n > 1) { /* with a ring; after one, the answer was heeded, and see below */
            CHECK(send_descriptors(pair[0], "", 1, n));
            CHECK_EQ(os_bell_hear(pair[1]), OS_OK);
        }
        CHECK_EQ(procs_descriptors(), fds_before + 2);
        close_pair();
    }
}

/* ---- the guest's side --------------------------------------------------------------------------------- */

/* A guest that is given `fd` for a lane of `size` finds that it is wrong, and why. */
static void found(int fd, uint64_t size, os_result why)
{
    os_block b = {0};
    open_pair();
    CHECK_EQ(os_hello_answer(pair[0], OS_OK, size, fd), OS_OK);
    os_lane lane = {0};
    os_result result = os_lane_attach(&lane, pair[1], getuid(), OS_WRITER, PROCS_MOST);
    CHECK_EQ(result, why);
    if (result == OS_OK)
        os_block_unmap(&lane.map);
    result = os_block_open(&b, fd, size, false);
    CHECK_EQ(result, why);
    if (result == OS_OK)
        os_block_unmap(&b);
    close_pair();
    close(fd);
}

static void a_guest_refuses_each_wrong_block_by_its_own_name(void)
{
    uint64_t page = os_block_page(), whole = page + CAPACITY;
    found(lane_but(0, NC_LANE_MAGIC << 32 | NC_LANE_LAYOUT), CAPACITY, OS_OK);
    found(lane_but(0, NC_LANE_MAGIC << 32 | (NC_LANE_LAYOUT + 1)), CAPACITY, OS_WRONG_VERSION);
    found(lane_but(0, 0), CAPACITY, OS_NO_LANE);
    found(lane_but(offsetof(nc_lane_block, capacity), 2 * CAPACITY), CAPACITY, OS_WRONG_SIZE);
    found(memory(whole, 0), CAPACITY, OS_NO_SEALS);
    found(memory(whole, F_SEAL_GROW | F_SEAL_SEAL), CAPACITY, OS_NO_SEALS);
    found(memory(whole, F_SEAL_SHRINK | F_SEAL_GROW), CAPACITY, OS_NO_SEALS);
    found(fileno(tmpfile()), CAPACITY, OS_NO_SEALS);
    found(open("/dev/zero", O_RDWR | O_CLOEXEC), CAPACITY, OS_NO_SEALS);
    found(memory(whole, OS_SEALS), CAPACITY, OS_NO_LANE);
    found(memory(whole + page, OS_SEALS), CAPACITY, OS_WRONG_SIZE);
    found(memory(whole - 8, OS_SEALS), CAPACITY, OS_WRONG_SIZE);
    found(memory(page + 2 * CAPACITY, OS_SEALS), CAPACITY, OS_WRONG_SIZE);
    found(memory(whole, OS_SEALS), 2 * CAPACITY, OS_WRONG_SIZE);
    static const uint64_t no_capacity[] = {0, 1, CAPACITY - 1, 3 * CAPACITY, UINT64_C(1) << 60, UINT64_MAX};
    for (int i = 0; i < 6; i++)
        found(memory(whole, OS_SEALS), no_capacity[i], OS_WRONG_SIZE);
    found(memory(whole, OS_SEALS | F_SEAL_WRITE), CAPACITY, OS_SYSTEM);
}

static void a_guest_takes_no_more_memory_than_it_wants(void)
{
    open_pair();
    CHECK_EQ(os_hello_say(pair[1], OS_WRITER, 0), OS_OK);
    CHECK_EQ(host(getuid(), OS_WRITER), OS_OK);
    os_lane lane = {0};
    CHECK_EQ(os_lane_attach(&lane, pair[1], getuid(), OS_WRITER, PROCS_MOST - 1), OS_WRONG_SIZE);
    close_pair();
}

static void positions_that_cannot_be_are_refused(void)
{
    os_lane lane = {.socket = dup(0)};
    os_tx tx;
    int fds = procs_descriptors(), fd = lane_but(offsetof(nc_lane_block, head), 8);
    CHECK_EQ(os_block_open(&lane.map, fd, CAPACITY, true), OS_OK);
    CHECK_EQ(os_tx_open(&tx, &lane), OS_GARBLED);
    close(fd);
    CHECK(procs_descriptors() == fds - 1 && procs_mapped() == 0); /* the lane was left, socket and all */
}

static void a_guest_believes_no_verdict_that_is_none(void)
{
    static const os_result verdicts[] = {OS_AGAIN, OS_CLOSED, OS_CRASHED, OS_GARBLED, (os_result)99};
    for (int i = 0; i < 5; i++) {
        open_pair();
        CHECK_EQ(os_hello_answer(pair[0], verdicts[i], CAPACITY, -1), OS_OK);
        CHECK_EQ(guest(getuid()), OS_NO_HELLO);
        close_pair();
    }
    open_pair(); /* welcome, and no memory */
    CHECK_EQ(os_hello_answer(pair[0], OS_OK, CAPACITY, -1), OS_OK);
    CHECK_EQ(guest(getuid()), OS_NO_HELLO);
    CHECK_EQ(guest(getuid() + 1), OS_STRANGER);
    close_pair();
}

/* ---- another user ------------------------------------------------------------------------------------- */

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void connect_as_nobody(int arg)
{
    (void)arg;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK_EQ(os_hello_say(fd, OS_WRITER, CAPACITY), OS_OK);
    procs_readable(fd);
    os_lane lane = {0};
    CHECK_EQ(os_lane_attach(&lane, fd, getuid(), OS_WRITER, PROCS_MOST),
             OS_STRANGER); /* the host is one to the guest, too */
    CHECK_EQ(os_lane_attach(&lane, fd, 0, OS_WRITER, PROCS_MOST), OS_STRANGER);        /* and says so */
}

static void a_process_of_another_user_is_a_stranger(void)
{
    if (getuid() != 0) {
        printf("SKIPPED %s: it takes root to be somebody else\n", __func__);
        return;
    }
    char folder[] = "/tmp/procs-XXXXXX";
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(mkdtemp(folder) != NULL && chmod(folder, 0755) == 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    CHECK(chmod(address.sun_path, 0666) == 0);
    pid_t child = procs_fork(connect_as_nobody, 0);
    pair[0] = accept(listener, NULL, NULL);
    procs_readable(pair[0]);
    CHECK_EQ(host(0, OS_WRITER), OS_STRANGER);
    procs_join(child, false);
    close(pair[0]);
    close(listener);
    unlink(address.sun_path);
    rmdir(folder);
}

/* ---- too little of everything --------------------------------------------------------------------------- */

static void attach_without_descriptors(int host_has_none)
{
    struct rlimit few = {3, 3};
    getrlimit(RLIMIT_NOFILE, &few);
    procs_pair(pair);
    CHECK_EQ(os_hello_say(pair[1], OS_WRITER, CAPACITY), OS_OK);
    rlim_t most = few.rlim_cur;
    few.rlim_cur = (rlim_t)pair[1] + 1;
    if (host_has_none)
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    int fds = 0;
    CHECK_EQ(host(getuid(), OS_WRITER), host_has_none ? OS_SYSTEM : OS_OK);
    CHECK(!host_has_none || errno == EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHECK(guest(getuid()) == OS_SYSTEM && (host_has_none || errno == EMFILE));
    few.rlim_cur = most;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHECK(procs_mapped() == 0);
    fds = dup(0);
    CHECK(fds == pair[1] + 1); /* the next number: nothing was left open */
}

static void who_runs_out_of_descriptors_is_told_so_and_keeps_none(void)
{
    for (int host_has_none = 0; host_has_none < 2; host_has_none++)
        procs_join(procs_fork(attach_without_descriptors, host_has_none), false);
}

static void use_large_lane(int arg)
{
    (void)arg;
    os_block b = {0};
    int fd;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64m") != 0) {
        printf("SKIPPED a small /dev/shm: it cannot be mounted here\n");
        return;
    }
    CHECK_EQ(os_block_make(&b, UINT64_C(1) << 27, true, &fd), OS_OK);
    nc_lane_writer w;
    nc_lane_reader r;
    nc_record record = {0};
    uint64_t n = b.capacity - NC_LOG_HEADER;
    CHECK_EQ(nc_lane_open_writer(&w, b.block, b.words, b.capacity), NC_LANE_SOUND);
    CHECK_EQ(nc_lane_open_reader(&r, b.block, b.words, b.capacity), NC_LANE_SOUND);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(nc_lane_claim(&w, n, &record), NC_OK);
        memset(record.data, 7 + i, n);
        nc_lane_commit(&w, &record, n, memory_order_seq_cst);
        CHECK_EQ(nc_lane_peek(&r, &record), NC_OK);
        CHECK(record.size == n && record.data[0] == 7 + i && record.data[n - 1] == 7 + i);
        nc_lane_release(&r, &record, memory_order_seq_cst);
        CHECK_EQ(nc_lane_claim(&w, 1, &record), NC_OK); /* the next begins elsewhere, and goes round the end */
        nc_lane_commit(&w, &record, 1, memory_order_seq_cst);
        CHECK_EQ(nc_lane_peek(&r, &record), NC_OK);
        nc_lane_release(&r, &record, memory_order_seq_cst);
    }
    close(fd);
    os_block_unmap(&b);
}

static void a_small_dev_shm_changes_nothing(void) { procs_join(procs_fork(use_large_lane, 0), false); }

static void an_idle_lane_takes_its_ring_one_page_and_one_descriptor_a_side(void)
{
    os_block b = {0};
    struct stat status;
    int fd = -1, before = procs_descriptors();
    CHECK_EQ(os_block_make(&b, PROCS_MOST, true, &fd), OS_OK);
    CHECK(fstat(fd, &status) == 0);
    CHECK_EQ(status.st_blocks * 512, PROCS_MOST + os_block_page());
    close(fd);
    CHECK_EQ(procs_descriptors(), before); /* the socket is all */
    os_block_unmap(&b);
}

static void memory_cannot_be_cut_off_by_whoever_holds_it(void)
{
    os_block b = {0};
    int fd = -1;
    CHECK_EQ(os_block_make(&b, CAPACITY, true, &fd), OS_OK);
    CHECK(ftruncate(fd, 0) != 0 && errno == EPERM);
    CHECK(ftruncate(fd, 1 << 20) != 0 && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0 && errno == EPERM);
    nc_lane_reader r;
    nc_record record = {0};
    CHECK_EQ(nc_lane_open_reader(&r, b.block, b.words, b.capacity), NC_LANE_SOUND);
    atomic_store(&b.block->tail, 64);
    /* Its pages can be given back, and then are zeros. */
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)(os_block_page() + CAPACITY)) == 0);
    CHECK_EQ(nc_lane_peek(&r, &record), NC_EMPTY);
    atomic_store(&b.block->tail, 64);
    CHECK_EQ(nc_lane_peek(&r, &record), NC_BAD);
    close(fd);
    os_block_unmap(&b);
}

/* ---- a hostile process at the other end ------------------------------------------------------------------ */

static volatile unsigned char sink;
static os_role victim;

/* Whatever is next to the mapping is not to be touched. */
static void guard(const os_block *b)
{
    char *from = (char *)b->block, *to = from + b->length;
    size_t page = (size_t)os_block_page();
    mmap(from - page, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    mmap(to, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

/* Random words at random places, most of them near the truth, until it is killed. */
static void scribble(int arg)
{
    (void)arg;
    os_lane lane = {0};
    uint64_t seed = procs_seed;
    writer_hosts = victim == OS_WRITER;
    close(sockets[0]);
    CHECK_EQ(attach(&lane, victim == OS_WRITER ? OS_READER : OS_WRITER), OS_OK);
    os_block b = lane.map;
    if (victim == OS_WRITER) /* whoever has the file may map it for writing */
        mprotect((void *)b.words, (size_t)(2 * b.capacity), PROT_READ | PROT_WRITE);
    _Atomic uint64_t *const words[] = {&b.block->tail,          &b.block->head,     &b.block->reader.sleeps,
                                       &b.block->writer.sleeps, &b.block->capacity, &b.block->kind};
    _Atomic uint64_t *const closed[] = {&b.block->reader.closed, &b.block->writer.closed};
    atomic_store(&shared->go, 1);
    for (uint64_t n = 0;; n++) {
        uint64_t x = test_random(&seed), tail = atomic_load(&b.block->tail);
        uint64_t near = tail + x / 64 % 64 * 8 - (x & 1 ? 256 : 0), value = x & 6 ? near : test_random(&seed);
        if (x % 61 < 4)
            atomic_store(words[x / 4096 % (n % 512 == 0 ? 6 : 4)], value);
        else if (x % 61 == 4 && n % 128 == 0)
            atomic_store(closed[x / 4096 % 2], x & 8 ? value : x / 8192 % 4);
        else if (victim == OS_READER)
            atomic_store(&b.words[x / 4096 % (b.capacity / 8)], x & 8 ? value : x / 4096 % 128);
        if (x % 64 == 0)
            os_bell_ring(lane.socket);
    }
}

/* Each call ends, what it shows lies within the lane, and can be read or written. */
static bool one_look(os_tx *tx, os_rx *rx, uint64_t i)
{
    nc_record record = {0};
    bool reads = victim == OS_READER;
    os_result result = reads ? os_rx_peek(rx, &record, 0) : os_tx_claim(tx, 1 + i * 37 % 2000, &record, 0);
    if (result == OS_AGAIN) { /* as if it slept */
        if (reads)
            nc_lane_reader_may_sleep(&rx->reader);
        else
            nc_lane_writer_may_sleep(&tx->writer, 1 + i * 37 % 2000);
        os_lane_hear(reads ? &rx->lane : &tx->lane);
        return true;
    }
    CHECK(result == OS_OK || result == OS_GARBLED || result == OS_CLOSED);
    if (result != OS_OK)
        return false;
    CHECK(record.size >= 1 && record.size <= CAPACITY - NC_LOG_HEADER);
    if (reads) {
        for (uint64_t k = 0; k < record.size; k++)
            sink = record.data[k];
        os_rx_release(rx, &record);
    } else {
        memset(record.data, (int)i, record.size);
        os_tx_commit(tx, &record, record.size);
    }
    return true;
}

/* After a lane was garbled, the same is opened anew: with the block as it is then. */
static void look_often(const os_lane *lane, uint64_t *garbled, uint64_t *shown)
{
    os_tx tx = {.lane = *lane};
    os_rx rx = {.lane = *lane};
    for (uint64_t i = 0; i < procs_items;) {
        nc_lane_init(lane->map.block, CAPACITY, i * 8);
        atomic_store(&lane->map.block->reader.closed, 0);
        atomic_store(&lane->map.block->writer.closed, 0);
        bool open = victim == OS_READER
                        ? nc_lane_open_reader(&rx.reader, lane->map.block, lane->map.words, CAPACITY) == NC_LANE_SOUND
                        : nc_lane_open_writer(&tx.writer, lane->map.block, lane->map.words, CAPACITY) == NC_LANE_SOUND;
        for (i++; open && i < procs_items && one_look(&tx, &rx, i); i++)
            ++*shown;
        ++*garbled;
    }
}

static void scribbled_at(os_role who)
{
    os_lane lane = {0};
    uint64_t garbled = 0, shown = 0;
    victim = who;
    set_up("scribbled", victim == OS_WRITER, CAPACITY, 0);
    pid_t child = procs_fork(scribble, 0);
    close(sockets[1]);
    CHECK_EQ(attach(&lane, victim), OS_OK);
    guard(&lane.map);
    while (atomic_load(&shared->go) == 0)
        usleep(100);
    look_often(&lane, &garbled, &shown);
    CHECK(garbled > 0 && shown > 0);
    kill(child, SIGKILL);
    procs_join(child, true);
    os_lane_leave(&lane);
}

static void a_reader_survives_a_writer_that_scribbles(void) { scribbled_at(OS_READER); }
static void a_writer_survives_a_reader_that_scribbles(void) { scribbled_at(OS_WRITER); }

/* Opens a lane between the two ends of `pair`, in this process. */
static void open_both(os_tx *tx, os_rx *rx)
{
    os_lane lane = {0};
    open_pair();
    CHECK_EQ(os_hello_say(pair[1], OS_WRITER, CAPACITY), OS_OK);
    CHECK_EQ(os_lane_host(&lane, pair[0], getuid(), OS_WRITER, PROCS_MOST), OS_OK);
    CHECK_EQ(os_rx_open(rx, &lane), OS_OK);
    CHECK_EQ(os_lane_attach(&lane, pair[1], getuid(), OS_WRITER, PROCS_MOST), OS_OK);
    CHECK_EQ(os_tx_open(tx, &lane), OS_OK);
}

static void close_both(os_tx *tx, os_rx *rx)
{
    os_tx_close(tx);
    os_rx_close(rx);
    CHECK(procs_descriptors() == fds_before && procs_mapped() == 0);
}

static void once_there_is_a_lane_the_kernel_refuses_descriptors(void)
{
    enum { PASS_RIGHTS = 83 };
    os_tx tx;
    os_rx rx;
    int may = 0;
    socklen_t size = sizeof may;
    open_both(&tx, &rx);
    if (getsockopt(pair[0], SOL_SOCKET, PASS_RIGHTS, &may, &size) != 0) {
        printf("SKIPPED %s: the kernel is older than that\n", __func__);
    } else {
        CHECK(!send_descriptors(pair[0], "", 1, 1) && errno == EPERM);
        CHECK(!send_descriptors(pair[1], "", 1, 1) && errno == EPERM);
    }
    close_both(&tx, &rx);
}

static void a_ring_never_waits_for_a_peer_that_hears_none(void)
{
    os_tx tx;
    os_rx rx;
    open_both(&tx, &rx);
    for (int i = 0; i < 100000; i++)
        os_bell_ring(tx.lane.socket);
    CHECK_EQ(os_bell_hear(rx.lane.socket), OS_OK);
    close_both(&tx, &rx);
}

static void ring_for_nothing(int arg)
{
    (void)arg;
    close(pair[0]);
    while (send(pair[1], "", 1, MSG_NOSIGNAL) == 1)
        ;
}

static void a_peer_that_rings_and_rings_for_nothing_is_ended(void)
{
    os_tx tx;
    os_rx rx;
    nc_record record = {0};
    open_both(&tx, &rx);
    pid_t child = procs_fork(ring_for_nothing, 0);
    CHECK_EQ(os_rx_peek(&rx, &record, -1), OS_GARBLED);
    os_tx_close(&tx);
    os_rx_close(&rx); /* that ends the child, too */
    procs_join(child, false);
}

static void one_honest_ring_for_nothing_is_forgiven(void)
{
    os_tx tx;
    os_rx rx;
    nc_record record = {0};
    open_both(&tx, &rx);
    for (int i = 0; i < 3 * OS_VAIN_MOST; i++) { /* raised, found, lowered; and rung for meanwhile */
        CHECK(nc_lane_reader_may_sleep(&rx.reader));
        CHECK_EQ(os_tx_claim(&tx, 8, &record, 0), OS_OK);
        os_tx_commit(&tx, &record, 8);
        CHECK_EQ(os_rx_peek(&rx, &record, -1), OS_OK);
        os_rx_release(&rx, &record);
        CHECK_EQ(os_rx_peek(&rx, &record, 0), OS_AGAIN);
    }
    close_both(&tx, &rx);
}

static void ring_once_it_sleeps(int arg)
{
    (void)arg;
    close(pair[0]);
    while (atomic_load(&shared->go) == 0)
        usleep(100);
    usleep(2000);
    os_bell_ring(pair[1]);
    pause();
}

static void a_sleep_ends_by_a_ring_a_time_limit_or_the_end_of_file(void)
{
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        procs_clear();
        open_pair();
        if (nonblocking)
            CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0);
        pid_t child = procs_fork(ring_once_it_sleeps, 0);
        close(pair[1]);
        CHECK_EQ(os_bell_sleep(pair[0], 1), OS_AGAIN);
        atomic_store(&shared->go, 1);
        CHECK_EQ(os_bell_sleep(pair[0], nonblocking ? 60000 : -1), OS_OK);
        CHECK_EQ(os_bell_hear(pair[0]), OS_AGAIN);
        kill(child, SIGKILL);
        CHECK_EQ(os_bell_sleep(pair[0], -1), OS_CRASHED);
        procs_join(child, true);
        close(pair[0]);
    }
}

static void who_has_no_time_is_told_that_there_is_nothing_or_no_room(void)
{
    os_tx tx;
    os_rx rx;
    nc_record record = {0};
    open_both(&tx, &rx);
    CHECK(os_rx_peek(&rx, &record, 0) == OS_AGAIN && os_rx_peek(&rx, &record, 1) == OS_AGAIN);
    CHECK_EQ(os_tx_claim(&tx, CAPACITY - NC_LOG_HEADER, &record, 0), OS_OK);
    os_tx_commit(&tx, &record, record.size);
    CHECK(os_tx_claim(&tx, 1, &record, 0) == OS_AGAIN && os_tx_claim(&tx, 1, &record, 1) == OS_AGAIN);
    CHECK_EQ(os_rx_peek(&rx, &record, 0), OS_OK);
    os_rx_release(&rx, &record); /* and does not ring: who gave up has lowered its flag */
    CHECK_EQ(os_bell_hear(tx.lane.socket), OS_AGAIN);
    CHECK_EQ(os_tx_claim(&tx, 1, &record, 0), OS_OK);
    close_both(&tx, &rx);
}

static void records_are_mapped_for_reading_alone_by_a_reader(void)
{
    os_tx tx;
    os_rx rx;
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    open_both(&tx, &rx); /* the kernel is asked to write there */
    CHECK(read(zeros, (void *)rx.lane.map.words, 8) < 0 && errno == EFAULT);
    CHECK(read(zeros, (void *)(rx.lane.map.words + CAPACITY / 8), 8) < 0 && errno == EFAULT);
    CHECK(read(zeros, (void *)tx.lane.map.words, 8) == 8);
    close_both(&tx, &rx);
    close(zeros);
}

static void look_at_a_parents_lane(int arg)
{
    (void)arg;
    CHECK_EQ(procs_mapped(), 0);
}

static void a_forked_child_has_no_mapping_of_its_parents_lane(void)
{
    os_tx tx;
    os_rx rx;
    open_both(&tx, &rx);
    CHECK(procs_mapped() > 0);
    procs_join(procs_fork(look_at_a_parents_lane, 0), false);
    close_both(&tx, &rx);
}

int main(void)
{
    procs_start(20000);
    RUN(a_host_refuses_each_wrong_hello_by_its_own_name);
    RUN(a_guest_that_says_nothing_or_half_a_hello_holds_nobody_up);
    RUN(descriptors_that_nobody_asked_for_are_closed);
    RUN(a_guest_refuses_each_wrong_block_by_its_own_name);
    RUN(a_guest_takes_no_more_memory_than_it_wants);
    RUN(positions_that_cannot_be_are_refused);
    RUN(a_guest_believes_no_verdict_that_is_none);
    RUN(a_process_of_another_user_is_a_stranger);
    RUN(who_runs_out_of_descriptors_is_told_so_and_keeps_none);
    RUN(a_small_dev_shm_changes_nothing);
    RUN(an_idle_lane_takes_its_ring_one_page_and_one_descriptor_a_side);
    RUN(memory_cannot_be_cut_off_by_whoever_holds_it);
    RUN(a_reader_survives_a_writer_that_scribbles);
    RUN(a_writer_survives_a_reader_that_scribbles);
    RUN(once_there_is_a_lane_the_kernel_refuses_descriptors);
    RUN(a_ring_never_waits_for_a_peer_that_hears_none);
    RUN(a_peer_that_rings_and_rings_for_nothing_is_ended);
    RUN(one_honest_ring_for_nothing_is_forgiven);
    RUN(a_sleep_ends_by_a_ring_a_time_limit_or_the_end_of_file);
    RUN(who_has_no_time_is_told_that_there_is_nothing_or_no_room);
    RUN(records_are_mapped_for_reading_alone_by_a_reader);
    RUN(a_forked_child_has_no_mapping_of_its_parents_lane);
    return test_report();
}

#else
#include "no_lanes.h"
#endif
