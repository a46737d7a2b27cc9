/* py_reach.c: how a channel reaches other processes: the memory and the descriptors of its lanes.  Touches os_listen.h,
 * nc_lanes.h and nc_chan.h.
 *
 *      senders, of a process                                 the receiver, in another one
 *      ---------------------                                 ----------------------------
 *      lane ------ memory, mapped twice -------------------> lane
 *      socket ---- rings, and the end of file -------------- socket --.
 *      door ------ new lanes, and doors, come through it --> lobby  --+--> epoll: one descriptor to wait on
 *      path ------ new doors are made there ---------------> socket --'    that listens, if it does
 *
 * Whoever waits here, a thread or a loop, waits on one descriptor besides its own: of senders the socket, of the
 * receiver the epoll.  A ring lies there until somebody hears it (reach_hear), who then calls those whose turn it is;
 * so it does not matter who of them is the first to hear.
 *
 * A process that forks keeps its lanes; in the child they end.  Its copies of the descriptors are closed there, else
 * the others would take the parent for alive as long as the child is.
 */
#include "py_reach.h"
#include "py_line.h"

void reach_fd_ref(reach_fd *fd) { atomic_fetch_add_explicit(&fd->refs, 1, memory_order_relaxed); /* it has one */ }

#if REACHES

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

void reach_fd_unref(reach_fd *fd)
{
    if (atomic_fetch_sub_explicit(&fd->refs, 1, memory_order_acq_rel) != 1) /* B1 -> B1 */
        return;
    if (fd->fd >= 0)
        close(fd->fd);
    PyMem_RawFree(fd);
}

/* Takes the descriptor over; NULL without memory, and then not. */
static reach_fd *reach_fd_new(int fd)
{
    reach_fd *f = PyMem_RawMalloc(sizeof *f);
    if (f == NULL)
        return NULL;
    atomic_store_explicit(&f->refs, 1, memory_order_relaxed); /* nobody else knows it yet */
    f->fd = fd;
    return f;
}

static reach *reach_of_lanes(nc_lanes *l) { return container_of(l, reach, lanes); }
static reach_lane *lane_of(nc_lane_in *in) { return container_of(in, reach_lane, in); }

/* ---- lanes that are read here: within the lock --------------------------------------------------------- */

static void lane_hang_up(reach *r, reach_lane *lane)
{
    if (lane->os.socket < 0)
        return;
    if (r->fd != NULL)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lane->os.socket, NULL);
    os_lane_hang_up(&lane->os);
}

static void lane_free(reach_lane *lane)
{
    reach_close(&lane->memory);
    os_lane_unmap(&lane->os);
    PyMem_RawFree(lane);
}

static void free_dropped(reach *r)
{
    for (reach_lane *lane; r->spinners == 0 && (lane = r->dropped) != NULL;) {
        r->dropped = lane->next;
        lane_free(lane);
    }
}

static void reach_drop(nc_lanes *l, nc_lane_in *in)
{
    reach *r = reach_of_lanes(l);
    reach_lane *lane = lane_of(in), **link = &r->all;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    lane->next = r->dropped;
    r->dropped = lane;
    nc_lane_close(&in->reader.block->reader, &in->reader.block->writer); /* nobody is to be woken: it has ended */
    lane_hang_up(r, lane);
    free_dropped(r);
}

/* What the lane comes after: if there is to be one sender at a time, after all that is there, until that is gone. */
static void lane_place(reach *r, nc_lane_in *in, const os_visit *visit)
{
    in->id = visit->id;
    in->after = visit->after;
    in->after_pos = visit->after_pos;
    if (r->one && r->all != NULL && in->after == 0) {
        in->after = r->all->in.id;
        in->after_pos = r->all->in.reader.head + INT64_MAX; /* no position that it can come to */
    }
}

os_result reach_add_lane(reach *r, const os_visit *visit)
{
    reach_lane *lane = PyMem_RawCalloc(1, sizeof *lane);
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = lane};
    if (lane == NULL)
        return OS_SYSTEM; /* errno is ENOMEM */
    os_result result = os_lobby_take(&lane->os, visit, r->capacity);
    if (result == OS_OK) {
        result = os_block_fault(
            nc_lane_open_reader(&lane->in.reader, lane->os.map.block, lane->os.map.words, lane->os.map.capacity));
        if (result == OS_OK && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, lane->os.socket, &heard) != 0)
            result = OS_SYSTEM;
        if (result != OS_OK)
            os_lane_unmap(&lane->os);
    }
    if (result != OS_OK) {
        int why = errno;
        PyMem_RawFree(lane);
        errno = why;
        return result;
    }
    lane->kind = REACH_LANE;
    lane->memory = visit->memory;
    lane_place(r, &lane->in, visit);
    lane->next = r->all;
    r->all = lane;
    nc_lanes_add(&r->lanes, &lane->in);
    return OS_OK;
}

/* ---- hearing: within the lock --------------------------------------------------------------------------- */

/* A lobby on its way to the receiver looks like a lane without room.  It is a further one, or takes the place of the
 * one it came by: then a ticket has been attached, and whoever has copies of its door may keep them. */
enum { LOBBY_FURTHER = 1, LOBBY_INSTEAD = 2 };

static os_result send_lobby(int door, uint64_t how, int lobby)
{
    os_visit visit = {.capacity = 0, .id = how, .socket = lobby, .memory = lobby};
    return os_lobby_send(door, &visit);
}

void reach_note_shut(reach *r) { r->lanes.shut = r->lobbies == NULL && r->listening == NULL; }

static void lobby_free(reach *r, reach_lobby *lobby)
{
    reach_lobby **link = &r->lobbies;
    while (*link != lobby)
        link = &(*link)->next;
    *link = lobby->next;
    if (r->fd != NULL)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lobby->fd, NULL);
    reach_close(&lobby->fd);
    PyMem_RawFree(lobby);
    reach_note_shut(r);
}

/* A lobby that somebody sent: a socket as os_lobby_open() makes it, by a process of this user. */
static bool is_lobby(int fd)
{
    int listens = 1;
    socklen_t size = sizeof listens;
    return os_is_socket(fd, SOCK_SEQPACKET) && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 &&
           !listens && os_hello_check_user(fd, geteuid()) == OS_OK;
}

/* What came by a lobby: a lane, or a lobby.  The descriptors are taken over, or stay the caller's. */
static os_result visit_enter(reach *r, const os_visit *visit)
{
    if (visit->capacity != 0)
        return reach_add_lane(r, visit);
    os_result result = is_lobby(visit->socket) ? reach_add_lobby(r, visit->socket) : OS_NO_HELLO;
    if (result == OS_OK)
        close(visit->memory);
    return result;
}

/* Nothing could be heard, for that reason.  What is short may be there again later: until somebody is told, and looks
 * again, the lobby is left alone, else it would wake those who wait on the epoll all the time. */
static void lobby_fail(reach *r, reach_lobby *lobby, int why)
{
    bool is_short = why == EMFILE || why == ENFILE || why == ENOMEM || why == ENOBUFS;
    nc_lanes_blame(&r->lanes, is_short ? NC_LANES_SYSTEM : NC_LANES_REFUSED, why);
    if (!is_short) { /* it was no lobby */
        lobby_free(r, lobby);
        return;
    }
    lobby->deaf = true;
    epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lobby->fd, NULL);
}

/* Within the lock. */
void reach_listen_again(reach *r)
{
    for (reach_lobby *lobby = r->fd != NULL ? r->lobbies : NULL; lobby != NULL; lobby = lobby->next) {
        struct epoll_event heard = {.events = EPOLLIN, .data.ptr = lobby};
        if (lobby->deaf && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, lobby->fd, &heard) != 0)
            nc_lanes_blame(&r->lanes, NC_LANES_SYSTEM, errno);
        else
            lobby->deaf = false;
    }
    reach_listening *l = r->fd != NULL ? r->listening : NULL;
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = l};
    if (l != NULL && l->deaf && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, l->os.fd, &heard) == 0)
        l->deaf = false;
}

bool reach_hear_lobby(reach *r, reach_lobby *lobby)
{
    os_visit visit;
    os_result result = os_lobby_hear(lobby->fd, &visit);
    if (result == OS_AGAIN)
        return false;
    if (result == OS_CRASHED) {
        lobby_free(r, lobby);
        return false;
    }
    if (result == OS_SYSTEM) {
        lobby_fail(r, lobby, errno);
        return false;
    }
    if (result == OS_OK) {
        result = visit_enter(r, &visit);
        bool instead = result == OS_OK && visit.capacity == 0 && visit.id == LOBBY_INSTEAD;
        if (instead)
            lobby_free(r, lobby);
        if (result == OS_OK)
            return !instead;
        int why = errno;
        close(visit.socket);
        close(visit.memory);
        errno = why;
    }
    nc_lanes_blame(&r->lanes, result == OS_SYSTEM ? NC_LANES_SYSTEM : NC_LANES_REFUSED, errno);
    if (result == OS_SYSTEM)
        return true;
    lobby_free(r, lobby); /* whoever has that door is no sender, and would go on: it is told of once */
    return false;
}

void reach_hear_lane(reach *r, reach_lane *lane)
{
    os_result result = lane->os.socket >= 0 ? os_bell_hear(lane->os.socket) : OS_AGAIN;
    if (result == OS_CRASHED) {
        lane->in.eof = true;
        lane_hang_up(r, lane);
    } else if (result == OS_OK && nc_lanes_rung(&lane->in.rings, &lane->in.reader.block->tail) > OS_VAIN_MOST) {
        nc_lanes_blame(&r->lanes, NC_LANES_GARBLED, 0);
        lane->in.eof = true;
        lane_hang_up(r, lane);
    }
}

/* So much is heard at once, that it ends though others go on sending.  More visits than a lobby holds, of one sender;
 * whoever sleeps on the epoll is woken for the rest.  A lobby may come with a lobby in it, for each time that a sender
 * has moved. */
enum { EVENTS = 16, ROUNDS = 64, VISITS = 512 };

/* True: somebody knocks.  He is let in later, as lobbies that the events are of may be freed then. */
static bool attend_event(reach *r, void *of)
{
    switch (*(reach_kind *)of) {
    case REACH_LANE:
        reach_hear_lane(r, of);
        break;
    case REACH_LOBBY:
        for (int visit = 0; visit < VISITS && reach_hear_lobby(r, of); visit++)
            ;
        break;
    case REACH_LISTENING:
        return true;
    }
    return false;
}

static void attend_receiver(reach *r)
{
    struct epoll_event events[EVENTS];
    int n = EVENTS;
    bool knocks = false;
    r->more = false;
    for (int round = 0; round < ROUNDS && (n == EVENTS || r->more); round++) {
        r->more = false;
        n = epoll_wait(r->fd->fd, events, EVENTS, 0);
        for (int i = 0; i < n; i++)
            knocks |= attend_event(r, events[i].data.ptr);
    }
    if (knocks && r->listening != NULL)
        r->listening->hear(r);
}

static void attend_senders(reach *r)
{
    nc_lanes *l = &r->lanes;
    os_result result = l->eof ? OS_AGAIN : os_bell_hear(r->fd->fd);
    if (result == OS_CRASHED || (result == OS_OK && nc_lanes_rung(&l->rings, &l->writer.block->head) > OS_VAIN_MOST))
        l->eof = true;
}

static void reach_attend(nc_lanes *l)
{
    reach *r = reach_of_lanes(l);
    if (r->left || r->forked)
        return;
    if (l->reads)
        attend_receiver(r);
    else
        attend_senders(r);
}

static void reach_ring(nc_lanes *l, nc_lane_in *in)
{
    reach *r = reach_of_lanes(l);
    int socket = in != NULL ? lane_of(in)->os.socket : r->fd != NULL ? r->fd->fd : -1;
    if (socket >= 0 && !r->forked)
        os_bell_ring(socket);
}

/* ---- leaving: within the lock ----------------------------------------------------------------------------- */

void reach_stop_listening(reach *r)
{
    if (r->listening == NULL)
        return;
    if (r->fd != NULL && r->listening->os.fd >= 0)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, r->listening->os.fd, NULL);
    os_listen_close(&r->listening->os);
    PyMem_RawFree(r->listening);
    r->listening = NULL;
    reach_note_shut(r);
}

/* Loops that wait on the epoll learn that it is over by its being readable for good. */
static void tell_loops(reach *r)
{
    int over = atomic_load_explicit(&r->fd->refs, memory_order_acquire) > 1 ? eventfd(1, EFD_CLOEXEC) : -1;
    struct epoll_event heard = {.events = EPOLLIN};
    if (over >= 0 && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, over, &heard) == 0)
        r->over = over;
    else
        reach_close(&over);
}

/* Lanes that have come and were not looked at yet are taken in first, so that their senders see an orderly end. */
static void leave_receiver(reach *r)
{
    reach_stop_listening(r);
    if (!r->moved)
        attend_receiver(r);
    for (reach_lane *lane = r->moved ? NULL : r->all; lane != NULL; lane = lane->next) {
        nc_lane_side *writer = &lane->in.reader.block->writer;
        if (nc_lane_close(&lane->in.reader.block->reader, writer) && lane->os.socket >= 0)
            os_bell_ring(lane->os.socket);
        lane_hang_up(r, lane);
        reach_close(&lane->memory);
    }
    while (r->lobbies != NULL)
        lobby_free(r, r->lobbies);
    tell_loops(r);
}

static void leave_senders(reach *r)
{
    if (nc_lane_close(&r->out.map.block->writer, &r->out.map.block->reader))
        os_bell_ring(r->fd->fd);
    shutdown(r->fd->fd, SHUT_RDWR); /* so it is readable, whoever waits on it */
    reach_close(&r->door);
}

static void reach_leave(nc_lanes *l)
{
    reach *r = reach_of_lanes(l);
    if (r->left)
        return;
    r->left = true;
    if (r->fd == NULL)
        return;
    if (!r->forked && l->reads)
        leave_receiver(r);
    else if (!r->forked)
        leave_senders(r);
    reach_fd_unref(r->fd);
    r->fd = NULL;
}

static void reach_free(nc_lanes *l);

static const nc_lanes_owner owner = {
    .wake = reach_ring, .attend = reach_attend, .drop = reach_drop, .leave = reach_leave, .end = reach_free};

/* ---- a fork --------------------------------------------------------------------------------------------- */

static nc_lock list_lock = PTHREAD_MUTEX_INITIALIZER; /* the locks of lanes are taken within it */
static reach *first;

static void hold_all(void)
{
    nc_lock_enter(&list_lock);
    for (reach *r = first; r != NULL; r = r->following)
        nc_lanes_enter(&r->lanes);
}

static void let_all_go(void)
{
    for (reach *r = first; r != NULL; r = r->following)
        nc_lanes_exit(&r->lanes);
    nc_lock_exit(&list_lock);
}

/* In the child: memory of its own where the lane was, as views of claims may be left. */
static void detach_map(os_block *map)
{
    if (map->block != NULL)
        mmap(map->block, (size_t)map->length, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void detach_lanes(reach_lane *lane)
{
    for (; lane != NULL; lane = lane->next) {
        detach_map(&lane->os.map);
        reach_close(&lane->os.socket);
        reach_close(&lane->memory);
    }
}

static void detach(reach *r)
{
    r->forked = r->lanes.over = r->lanes.shut = true;
    r->lanes.turn = r->lanes.shown = r->lanes.freed = NULL;
    r->lanes.count = 0;
    r->spinners = 0;
    detach_map(&r->out.map);
    detach_lanes(r->all);
    detach_lanes(r->dropped);
    for (reach_lobby *lobby = r->lobbies; lobby != NULL; lobby = lobby->next)
        reach_close(&lobby->fd);
    if (r->listening != NULL)
        os_listen_forget(&r->listening->os); /* the file is the parent's */
    reach_close(&r->door);
    reach_close(&r->over);
    if (r->fd != NULL)
        reach_close(&r->fd->fd);
}

static void detach_all(void)
{
    for (reach *r = first; r != NULL; r = r->following)
        detach(r);
    let_all_go();
}

void reach_leave_all(void)
{
    nc_lock_enter(&list_lock);
    for (reach *r = first; r != NULL; r = r->following) {
        nc_lanes_enter(&r->lanes);
        reach_leave(&r->lanes);
        r->lanes.over = true; /* nothing that is sent from now on would arrive */
        nc_lanes_exit(&r->lanes);
    }
    nc_lock_exit(&list_lock);
}

/* A process that returns from main(), or calls exit(), ends in good order; one that is killed does not come here. */
static void watch_process(void)
{
    pthread_atfork(hold_all, let_all_go, detach_all);
    atexit(reach_leave_all);
}

static void enlist(reach *r)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_process);
    nc_lock_enter(&list_lock);
    r->before = NULL;
    r->following = first;
    if (first != NULL)
        first->before = r;
    first = r;
    nc_lock_exit(&list_lock);
}

static void strike_off(reach *r)
{
    nc_lock_enter(&list_lock);
    *(r->before != NULL ? &r->before->following : &first) = r->following;
    if (r->following != NULL)
        r->following->before = r->before;
    nc_lock_exit(&list_lock);
}

/* ---- making and freeing ----------------------------------------------------------------------------------- */

void reach_begin(reach *r, nc_chan *block, bool reads, uint64_t capacity)
{
    nc_lanes_init(&r->lanes, &owner, reads, block->gate[TX].guarded);
    r->capacity = capacity;
    r->door = r->over = r->out.socket = -1;
    enlist(r);
}

/* Through the door: the lane, or first of all a lobby, in which the lane is already.  So it is one step: whatever fails
 * before it, nobody has seen anything. */
static os_result send_lane(int *door, bool of_ticket, const os_visit *visit)
{
    int lobby, ours;
    if (!of_ticket)
        return os_lobby_send(*door, visit);
    os_result result = os_lobby_open(&lobby, &ours);
    if (result != OS_OK)
        return result;
    result = os_lobby_send(ours, visit);
    if (result == OS_OK)
        result = send_lobby(*door, LOBBY_INSTEAD, lobby);
    int why = errno;
    close(lobby);
    reach_close(result == OS_OK || result == OS_CRASHED ? door : &ours);
    if (ours >= 0)
        *door = ours;
    errno = why;
    return result;
}

os_result reach_open_sender(reach *r, int door, bool of_ticket, uint64_t id, uint64_t after, uint64_t after_pos)
{
    os_visit visit = {.id = id, .after = after, .after_pos = after_pos};
    os_result result = os_lobby_make(&r->out, r->capacity, &visit);
    if (result != OS_OK)
        return result;
    r->fd = reach_fd_new(r->out.socket);
    if (r->fd == NULL) {
        os_lane_hang_up(&r->out);
        result = OS_SYSTEM;
        errno = ENOMEM;
    } else {
        result = send_lane(&door, of_ticket, &visit);
    }
    int why = errno;
    close(visit.socket);
    close(visit.memory);
    errno = why;
    if (result != OS_OK && result != OS_CRASHED) { /* CRASHED: the receiver has gone, as the first call will find */
        if (r->fd != NULL)
            reach_fd_unref(r->fd);
        r->fd = NULL;
        os_lane_unmap(&r->out);
        r->out = (os_lane){.socket = -1};
        return result;
    }
    nc_lane_open_writer(&r->lanes.writer, r->out.map.block, r->out.map.words, r->out.map.capacity); /* it is ours */
    r->id = id;
    r->after = after;
    r->after_pos = after_pos;
    r->door = door;
    return OS_OK;
}

os_result reach_further_door(reach *r, int *door)
{
    int lobby;
    os_result result = os_lobby_open(&lobby, door);
    if (result != OS_OK)
        return result;
    result = send_lobby(r->door, LOBBY_FURTHER, lobby);
    int why = errno;
    close(lobby);
    if (result != OS_OK &&
        result != OS_CRASHED) /* CRASHED: nobody is there, and whoever attaches the ticket finds that */
        reach_close(door);
    errno = why;
    return result == OS_CRASHED ? OS_OK : result;
}

os_result reach_open_receiver(reach *r)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return OS_SYSTEM;
    r->fd = reach_fd_new(epoll);
    if (r->fd == NULL) {
        close(epoll);
        errno = ENOMEM;
        return OS_SYSTEM;
    }
    r->lanes.shut = true;
    return OS_OK;
}

os_result reach_add_lobby(reach *r, int fd)
{
    reach_lobby *lobby = PyMem_RawMalloc(sizeof *lobby);
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = lobby};
    if (lobby == NULL) {
        errno = ENOMEM;
        return OS_SYSTEM;
    }
    *lobby = (reach_lobby){.kind = REACH_LOBBY, .fd = fd, .next = r->lobbies};
    if (epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, fd, &heard) != 0) {
        int why = errno;
        PyMem_RawFree(lobby);
        errno = why;
        return OS_SYSTEM;
    }
    r->lobbies = lobby;
    r->more = true;
    r->lanes.shut = false;
    return OS_OK;
}

int reach_let_lobby_go(reach *r, reach_lobby *lobby)
{
    int fd = lobby->fd;
    epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, fd, NULL);
    lobby->fd = -1;
    return fd;
}

int reach_let_go(reach *r, reach_lane *lane)
{
    int socket = lane->os.socket;
    r->moved = true;
    if (socket >= 0)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, socket, NULL);
    nc_lane_lower(&lane->in.reader.block->reader);
    nc_lane_go_away(&lane->in.reader.block->reader);
    lane->os.socket = lane->memory = -1;
    return socket;
}

static void reach_free(nc_lanes *l)
{
    reach *r = reach_of_lanes(l);
    strike_off(r);
    nc_lanes_leave(&r->lanes); /* of a channel that was not opened to the end */
    for (reach_lane *lane; (lane = r->all) != NULL;) {
        r->all = lane->next;
        lane->next = r->dropped;
        r->dropped = lane;
    }
    free_dropped(r);
    while (r->lobbies != NULL)
        lobby_free(r, r->lobbies);
    reach_stop_listening(r);
    reach_close(&r->over);
    reach_close(&r->door);
    if (r->out.map.block != NULL)
        os_lane_unmap(&r->out);
    nc_lock_destroy(&r->lanes.lock);
}

/* ---- for those who wait: with the GIL, runs Python code ----------------------------------------------------- */

void reach_hear(Chan *c)
{
    nc_lanes *l = c->block->lanes;
    nc_box *kicks = NULL;
    if (l == NULL)
        return;
    nc_lanes_enter(l);
    reach_attend(l);
    nc_lanes_exit(l);
    nc_chan_call_waiting(c->block, l->reads ? RX : TX, core_generation(), &kicks);
    line_deliver(c, kicks);
}

bool reach_deserted(Chan *c)
{
    reach_hear(c);
    return nc_lanes_deserted(c->block->lanes);
}

reach_fd *reach_wait_on(Chan *c)
{
    reach *r = reach_of(c->block);
    nc_lanes_enter(&r->lanes);
    reach_fd *fd = r->fd;
    if (fd != NULL)
        reach_fd_ref(fd);
    nc_lanes_exit(&r->lanes);
    return fd;
}

/* The word that the other side moves when there is more, and what it was at the last look; NULL: there is no lane.  Of
 * several lanes the one whose turn it is: it is the one that something came by last. */
static _Atomic uint64_t *spin_begin(reach *r, uint64_t *seen)
{
    nc_lanes *l = &r->lanes;
    _Atomic uint64_t *word = NULL;
    nc_lanes_enter(l);
    if (!l->reads && !r->left && !l->over &&
        !l->claimed) { /* a claim of another thread keeps the room, whatever moves */
        word = &l->writer.block->head;
        *seen = l->writer.head;
    } else if (l->reads && l->turn != NULL) {
        word = &l->turn->reader.block->tail;
        *seen = l->turn->reader.tail;
    }
    r->spinners += word != NULL;
    nc_lanes_exit(l);
    return word;
}

static void spin_end(reach *r)
{
    nc_lanes_enter(&r->lanes);
    r->spinners -= r->spinners > 0; /* 0: in the child of a fork */
    free_dropped(r);
    nc_lanes_exit(&r->lanes);
}

bool reach_spin(Chan *c, unsigned most)
{
    reach *r = reach_of(c->block);
    uint64_t seen;
    _Atomic uint64_t *word = spin_begin(r, &seen);
    unsigned spins = 0;
    bool moved = false;
    if (word == NULL)
        return false;
    Py_BEGIN_ALLOW_THREADS;
    while (!(moved = atomic_load_explicit(word, memory_order_relaxed) != seen) &&
           spins < most) /* whoever goes on looks */
        nc_relax(&spins);
    Py_END_ALLOW_THREADS;
    spin_end(r);
    return moved;
}

void reach_unwatched(Chan *c)
{
    reach *r = reach_of(c->block);
    nc_lanes_enter(&r->lanes);
    if (r->left)
        reach_close(&r->over);
    nc_lanes_exit(&r->lanes);
}

bool reach_same(Chan *a, Chan *b)
{
    return a->block->lanes != NULL && b->block->lanes != NULL && reach_of(a->block)->name == reach_of(b->block)->name;
}

#else

void reach_fd_unref(reach_fd *fd) { (void)fd; }
void reach_hear(Chan *Py_UNUSED(c)) {}
bool reach_deserted(Chan *Py_UNUSED(c)) { return false; }
bool reach_spin(Chan *Py_UNUSED(c), unsigned Py_UNUSED(most)) { return false; }
reach_fd *reach_wait_on(Chan *Py_UNUSED(c)) { return NULL; }
bool reach_same(Chan *Py_UNUSED(a), Chan *Py_UNUSED(b)) { return false; }

#endif
