/* os_reach.h: how one side of a channel reaches other processes: the memory and the descriptors of its lanes.  Touches
 * os_listen.h, nc_lanes.h and system calls; knows nothing of Python.
 *
 *      senders, of a process                                 the receiver, in another one
 *      ---------------------                                 ----------------------------
 *      lane ------ memory, mapped twice -------------------> lane
 *      socket ---- rings, and the end of file -------------- socket --.
 *      door ------ new lanes, and doors, come through it --> lobby  --+--> epoll: one descriptor to wait on
 *      path ------ new doors are made there ---------------> socket --'    that listens, if it does
 *
 * Whoever waits here waits on one descriptor: of senders the socket, of the receiver the epoll.  A ring lies there
 * until somebody hears it (nc_lanes_owner.attend), who then looks, or calls those whose turn it is.
 *
 * The memory is libc's, also where Python is: native threads come here, and to allocate from Python may take the GIL,
 * as tracemalloc does, whose holder may be waiting for the lock.  How all this begins and ends is in os_reach_life.h.
 */
#ifndef OS_REACH_H
#define OS_REACH_H

#include "nc_lanes.h"
#include "os_listen.h"

#if OS_HAS_LANES

#include <stdlib.h>
#include <sys/epoll.h>

/* What threads and loops wait on, and who closes it: whoever has the last reference. */
typedef struct os_reach_fd {
    _Atomic uint32_t refs;
    int fd;
} os_reach_fd;

/* What the receiver's epoll hears: which of the three it is. */
typedef enum os_reach_kind { OS_REACH_LOBBY, OS_REACH_LANE, OS_REACH_LISTENING } os_reach_kind;

/* What new lanes come by.  Each sender, and each ticket of one, has a door of its own, which leads here. */
typedef struct os_reach_lobby {
    os_reach_kind kind;
    bool deaf;                  /* the system refused what came: not heard until that was told */
    bool packed;                /* a receiver that moved has put in it what it had: others' lanes, side by side */
    int fd;
    struct os_reach_lobby *next;
} os_reach_lobby;

typedef struct os_reach os_reach;

/* What new lobbies come by, with doors that are in other processes already: a socket that has a path. */
typedef struct os_reach_listening {
    os_reach_kind kind;
    os_listening os;
    bool deaf;                  /* as of a lobby */
} os_reach_listening;

/* A lane that is read here. */
typedef struct os_reach_lane {
    os_reach_kind kind;
    nc_lane_in in;
    os_lane os;                 /* .socket < 0: its end was heard, or it was closed */
    int memory;                 /* the descriptor, for moving the receiver */
    struct os_reach_lane *next; /* of all; or of those that were dropped */
} os_reach_lane;

/* All that are in a process. */
typedef struct os_reach_list {
    nc_lock lock; /* the locks of lanes are taken within it */
    os_reach *first;
} os_reach_list;

/* All but the list in the lock of `lanes`. */
struct os_reach {
    nc_lanes lanes;
    uint64_t capacity, name;    /* name: random, the same in all processes */
    os_reach_fd *fd;            /* NULL: the last end that was here has left */
    bool left, moved;           /* moved: to where the ticket is attached */
    bool forked;                /* the ends stayed in the parent process */
    unsigned spinners;          /* threads that look at a word of a lane */
    unsigned unheard;           /* messages that came without a look at what else there is to hear */
    /* senders */
    os_lane out;
    uint64_t id, after, after_pos; /* as of nc_lane_in: of the lane that is written here */
    int door;
    /* the receiver */
    os_reach_lobby *lobbies;
    bool more;                  /* a lobby is new, and may hold something already */
    os_reach_listening *listening; /* or NULL */
    bool one;                   /* there is one sender at a time, and each is read to its end before the next */
    os_reach_lane *all, *dropped; /* the newest first */
    int over;                   /* of an epoll that loops wait on and that nothing is heard by any more: readable */
    os_reach_list *list;        /* all of the process */
    struct os_reach *before, *following; /* in it; under its lock */
};

static inline void os_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline void os_reach_fd_ref(os_reach_fd *fd)
{
    atomic_fetch_add_explicit(&fd->refs, 1, memory_order_relaxed); /* it has one */
}

static inline void os_reach_fd_unref(os_reach_fd *fd)
{
    if (atomic_fetch_sub_explicit(&fd->refs, 1, memory_order_acq_rel) != 1) /* B1 -> B1 */
        return;
    if (fd->fd >= 0)
        close(fd->fd);
    free(fd);
}

/* Takes the descriptor over; NULL without memory, and then not. */
static inline os_reach_fd *os_reach_fd_new(int fd)
{
    os_reach_fd *f = malloc(sizeof *f);
    if (f == NULL)
        return NULL;
    atomic_store_explicit(&f->refs, 1, memory_order_relaxed); /* nobody else knows it yet */
    f->fd = fd;
    return f;
}

static inline os_reach *os_reach_of_lanes(nc_lanes *l) { return container_of(l, os_reach, lanes); }
static inline os_reach_lane *os_reach_lane_of(nc_lane_in *in) { return container_of(in, os_reach_lane, in); }

/* ---- lanes that are read here: within the lock ---------------------------------------------------------- */

static inline void os_reach_hang_up(os_reach *r, os_reach_lane *lane)
{
    if (lane->os.socket < 0)
        return;
    if (r->fd != NULL)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lane->os.socket, NULL);
    os_lane_hang_up(&lane->os);
}

static inline void os_reach_lane_free(os_reach_lane *lane)
{
    os_close(&lane->memory);
    os_lane_unmap(&lane->os);
    free(lane);
}

static inline void os_reach_free_dropped(os_reach *r)
{
    for (os_reach_lane *lane; r->spinners == 0 && (lane = r->dropped) != NULL;) {
        r->dropped = lane->next;
        os_reach_lane_free(lane);
    }
}

static inline void os_reach_drop(nc_lanes *l, nc_lane_in *in)
{
    os_reach *r = os_reach_of_lanes(l);
    os_reach_lane *lane = os_reach_lane_of(in), **link = &r->all;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    lane->next = r->dropped;
    r->dropped = lane;
    nc_lane_close(&in->reader.block->reader, &in->reader.block->writer); /* nobody is to be woken: it has ended */
    os_reach_hang_up(r, lane);
    os_reach_free_dropped(r);
}

/* What the lane comes after: if there is to be one sender at a time, after all that is there, until that is gone. */
static inline void os_reach_place(os_reach *r, nc_lane_in *in, const os_visit *visit)
{
    in->id = visit->id;
    in->after = visit->after;
    in->after_pos = visit->after_pos;
    if (r->one && r->all != NULL && in->after == 0) {
        in->after = r->all->in.id;
        in->after_pos = r->all->in.reader.head + INT64_MAX; /* no position that it can come to */
    }
}

/* The receiver has one lane more: it is new, or moved here with the receiver.  Takes the descriptors over, unless this
 * fails. */
static inline os_result os_reach_add_lane(os_reach *r, const os_visit *visit)
{
    os_reach_lane *lane = calloc(1, sizeof *lane);
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = lane};
    if (lane == NULL)
        return OS_SYSTEM; /* errno is ENOMEM */
    os_result result = os_lobby_take(&lane->os, visit, r->capacity);
    if (result == OS_OK) {
        result = os_block_fault(
            nc_lane_open_reader(&lane->in.reader, lane->os.map.block, lane->os.map.words, lane->os.map.capacity));
        if (result == OS_OK && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, lane->os.socket, &heard) != 0)
            result = OS_SYSTEM;
        if (result != OS_OK) { /* it stays on its way: whoever closes the lobby has not crashed */
            int why = errno;
            nc_lane_go_away(&lane->os.map.block->reader);
            os_lane_unmap(&lane->os);
            errno = why;
        }
    }
    if (result != OS_OK) {
        int why = errno;
        free(lane);
        errno = why;
        return result;
    }
    lane->kind = OS_REACH_LANE;
    lane->memory = visit->memory;
    os_reach_place(r, &lane->in, visit);
    lane->next = r->all;
    r->all = lane;
    nc_lanes_add(&r->lanes, &lane->in);
    return OS_OK;
}

/* ---- lobbies: within the lock --------------------------------------------------------------------------- */

/* A lobby on its way to the receiver looks like a lane without room.  It is a further one, or takes the place of the
 * one it came by: then a ticket has been attached, and whoever has copies of its door may keep them.  PACKED: a further
 * one that the receiver itself has filled before it moved; believed only of what came by such a one. */
enum { OS_LOBBY_FURTHER = 1, OS_LOBBY_INSTEAD = 2, OS_LOBBY_PACKED = 3 };

static inline os_result os_reach_send_lobby(int door, uint64_t how, int lobby)
{
    os_visit visit = {.capacity = 0, .id = how, .socket = lobby, .memory = lobby};
    return os_lobby_send(door, &visit);
}

/* Note whether new lanes can come. */
static inline void os_reach_note_shut(os_reach *r) { r->lanes.shut = r->lobbies == NULL && r->listening == NULL; }

/* One lobby more, which is taken over, unless this fails. */
static inline os_result os_reach_add_lobby(os_reach *r, int fd, bool packed)
{
    os_reach_lobby *lobby = malloc(sizeof *lobby);
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = lobby};
    if (lobby == NULL) {
        errno = ENOMEM;
        return OS_SYSTEM;
    }
    *lobby = (os_reach_lobby){.kind = OS_REACH_LOBBY, .packed = packed, .fd = fd, .next = r->lobbies};
    if (epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, fd, &heard) != 0) {
        int why = errno;
        free(lobby);
        errno = why;
        return OS_SYSTEM;
    }
    r->lobbies = lobby;
    r->more = true;
    r->lanes.shut = false;
    return OS_OK;
}

static inline void os_reach_lobby_free(os_reach *r, os_reach_lobby *lobby)
{
    os_reach_lobby **link = &r->lobbies;
    while (*link != lobby)
        link = &(*link)->next;
    *link = lobby->next;
    if (r->fd != NULL)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lobby->fd, NULL);
    os_close(&lobby->fd);
    free(lobby);
    os_reach_note_shut(r);
}

/* A lobby that somebody sent: a socket as os_lobby_open() makes it, by a process of this user. */
static inline bool os_reach_is_lobby(int fd)
{
    int listens = 1;
    socklen_t size = sizeof listens;
    return os_is_socket(fd, SOCK_SEQPACKET) && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 &&
           !listens && os_hello_check_user(fd, geteuid()) == OS_OK;
}

/* What came by a lobby: a lane, or a lobby.  The descriptors are taken over, or stay the caller's. */
static inline os_result os_reach_enter(os_reach *r, const os_reach_lobby *by, const os_visit *visit)
{
    if (visit->capacity != 0)
        return os_reach_add_lane(r, visit);
    bool packed = by->packed && visit->id == OS_LOBBY_PACKED;
    os_result result = os_reach_is_lobby(visit->socket) ? os_reach_add_lobby(r, visit->socket, packed) : OS_NO_HELLO;
    if (result == OS_OK)
        close(visit->memory);
    return result;
}

/* Is that what there may be more of later?  ENOSPC: of what one user's epolls may hear. */
static inline bool os_reach_is_short(int why)
{
    return why == EMFILE || why == ENFILE || why == ENOMEM || why == ENOBUFS || why == ENOSPC;
}

/* Something is short.  Until somebody is told, and looks again, the lobby is left alone, else it would wake those who
 * wait on the epoll all the time. */
static inline void os_reach_lobby_fail(os_reach *r, os_reach_lobby *lobby, int why)
{
    nc_lanes_blame(&r->lanes, NC_LANES_SYSTEM, why);
    lobby->deaf = true;
    epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lobby->fd, NULL);
}

/* What went wrong with a lobby was told: listen to it again. */
static inline void os_reach_listen_again(os_reach *r)
{
    for (os_reach_lobby *lobby = r->fd != NULL ? r->lobbies : NULL; lobby != NULL; lobby = lobby->next) {
        struct epoll_event heard = {.events = EPOLLIN, .data.ptr = lobby};
        if (lobby->deaf && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, lobby->fd, &heard) != 0)
            nc_lanes_blame(&r->lanes, NC_LANES_SYSTEM, errno);
        else
            lobby->deaf = false;
    }
    os_reach_listening *l = r->fd != NULL ? r->listening : NULL;
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = l};
    if (l != NULL && l->deaf && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, l->os.fd, &heard) != 0)
        nc_lanes_blame(&r->lanes, NC_LANES_SYSTEM, errno);
    else if (l != NULL)
        l->deaf = false;
}

/* Take in what was seen.  It is out of the lobby only then, so it is not lost if something is short. */
static inline os_result os_reach_arrive(os_reach *r, os_reach_lobby *lobby, os_visit *visit)
{
    os_result result = os_reach_enter(r, lobby, visit);
    int why = errno;
    if (result != OS_OK) {
        close(visit->socket);
        close(visit->memory);
    }
    if (result != OS_SYSTEM || !os_reach_is_short(why))
        os_lobby_drop(lobby->fd);
    errno = why;
    return result;
}

/* Hear what came by that lobby, which is freed at its end; false: there is no more. */
static inline bool os_reach_hear_lobby(os_reach *r, os_reach_lobby *lobby)
{
    os_visit visit;
    bool instead = false;
    os_result result = os_lobby_see(lobby->fd, &visit);
    if (result == OS_AGAIN)
        return false;
    if (result == OS_OK) {
        result = os_reach_arrive(r, lobby, &visit);
        instead = result == OS_OK && visit.capacity == 0 && visit.id == OS_LOBBY_INSTEAD;
        if (result == OS_SYSTEM && !os_reach_is_short(errno)) { /* that lane alone is lost */
            nc_lanes_blame(&r->lanes, NC_LANES_SYSTEM, errno);
            return true;
        }
    }
    if (result == OS_SYSTEM && os_reach_is_short(errno)) {
        os_reach_lobby_fail(r, lobby, errno);
        return false;
    }
    if (result == OS_OK && !instead)
        return true;
    /* Whoever has a door and is no sender would go on: it is told of once. */
    if (result != OS_OK && result != OS_CRASHED)
        nc_lanes_blame(&r->lanes, NC_LANES_REFUSED, errno);
    if (lobby->packed && result != OS_CRASHED) /* what lies beside it is others' */
        return true;
    os_reach_lobby_free(r, lobby);
    return false;
}

/* Take what a lane has rung, and hear whether it has ended.  OS_AGAIN: neither. */
static inline os_result os_reach_hear_lane(os_reach *r, os_reach_lane *lane)
{
    os_result result = lane->os.socket >= 0 ? os_bell_hear(lane->os.socket) : OS_AGAIN;
    if (result == OS_CRASHED) {
        lane->in.eof = true;
        os_reach_hang_up(r, lane);
    } else if (result == OS_OK && nc_lanes_rung(&lane->in.rings, &lane->in.reader.block->tail) > OS_VAIN_MOST) {
        nc_lanes_blame(&r->lanes, NC_LANES_GARBLED, 0);
        lane->in.eof = true;
        os_reach_hang_up(r, lane);
    }
    return result;
}

/* ---- who comes by a path: within the lock --------------------------------------------------------------- */

/* Is there a sender, or one that may still come with a lane?  Hears first who has left. */
static inline bool os_reach_has_sender(os_reach *r)
{
    for (os_reach_lobby *lobby = r->lobbies, *next; lobby != NULL; lobby = next) {
        next = lobby->next;
        while (os_reach_hear_lobby(r, lobby))
            ;
    }
    bool has = r->lobbies != NULL;
    for (os_reach_lane *lane = r->all; lane != NULL; lane = lane->next) {
        os_reach_hear_lane(r, lane);
        has |= nc_lane_peer(&lane->in.reader.block->writer, lane->in.eof) == NC_LANE_OPEN;
    }
    return has;
}

/* Greet the next one, and let him in or not.  False: there is nobody else, or the system refuses. */
static inline bool os_reach_let_in(os_reach *r)
{
    int lobby;
    os_result result = os_listen_accept(&r->listening->os, &lobby);
    if (result == OS_AGAIN)
        return false;
    os_verdict verdict = result == OS_STRANGER ? OS_FOREIGN : r->one && os_reach_has_sender(r) ? OS_TAKEN : OS_WELCOME;
    if (result == OS_OK && verdict == OS_WELCOME)
        result = os_reach_add_lobby(r, lobby, false);
    if (result == OS_SYSTEM) {
        nc_lanes_blame(&r->lanes, NC_LANES_SYSTEM, errno);
        os_close(&lobby);
        r->listening->deaf = true; /* until somebody is told, as of a lobby: else it would wake all the time */
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, r->listening->os.fd, NULL);
        return false;
    }
    os_listen_greet(lobby, verdict, !r->one, r->capacity, r->name);
    if (verdict != OS_WELCOME)
        close(lobby);
    return true;
}

static inline void os_reach_let_all_in(os_reach *r)
{
    while (os_reach_let_in(r))
        ;
}

/* ---- hearing all that was rung: within the lock --------------------------------------------------------- */

/* So much is heard at once, that it ends though others go on sending.  More visits than a lobby holds, of one sender;
 * whoever sleeps on the epoll is woken for the rest.  A lobby may come with a lobby in it, for each time that a sender
 * has moved. */
enum { OS_REACH_EVENTS = 16, OS_REACH_ROUNDS = 64, OS_REACH_VISITS = 512 };

/* True: somebody knocks.  He is let in later, as lobbies that the events are of may be freed then. */
static inline bool os_reach_attend_event(os_reach *r, void *of)
{
    switch (*(os_reach_kind *)of) {
    case OS_REACH_LANE:
        os_reach_hear_lane(r, of);
        break;
    case OS_REACH_LOBBY:
        for (int visit = 0; visit < OS_REACH_VISITS && os_reach_hear_lobby(r, of); visit++)
            ;
        break;
    case OS_REACH_LISTENING:
        return true;
    }
    return false;
}

static inline void os_reach_attend_receiver(os_reach *r)
{
    struct epoll_event events[OS_REACH_EVENTS];
    int n = OS_REACH_EVENTS;
    bool knocks = false;
    r->more = false;
    for (int round = 0; round < OS_REACH_ROUNDS && (n == OS_REACH_EVENTS || r->more); round++) {
        r->more = false;
        n = epoll_wait(r->fd->fd, events, OS_REACH_EVENTS, 0);
        for (int i = 0; i < n; i++)
            knocks |= os_reach_attend_event(r, events[i].data.ptr);
    }
    if (knocks && r->listening != NULL)
        os_reach_let_all_in(r);
}

static inline void os_reach_attend_senders(os_reach *r)
{
    nc_lanes *l = &r->lanes;
    os_result result = l->eof ? OS_AGAIN : os_bell_hear(r->fd->fd);
    if (result == OS_CRASHED || (result == OS_OK && nc_lanes_rung(&l->rings, &l->writer.block->head) > OS_VAIN_MOST))
        l->eof = true;
}

static inline void os_reach_attend(nc_lanes *l)
{
    os_reach *r = os_reach_of_lanes(l);
    if (r->left || r->forked)
        return;
    if (l->reads)
        os_reach_attend_receiver(r);
    else
        os_reach_attend_senders(r);
}

/* Whoever goes on by what has moved in a lane hears nothing else.  Is it time to?  Else a new sender would wait until
 * the others pause. */
static inline bool os_reach_hears_all(os_reach *r)
{
    bool due = ++r->unheard >= NC_LANES_TURN;
    if (due)
        r->unheard = 0;
    return due;
}

/* There is one lane, and it has rung, which is what wakes a receiver nearly always.  What else there is to hear keeps
 * the epoll readable. */
static inline bool os_reach_attend_lone_lane(os_reach *r)
{
    nc_lanes *l = &r->lanes;
    bool lone = l->reads && l->count == 1 && !r->left && !r->forked && !os_reach_hears_all(r);
    return lone && os_reach_hear_lane(r, os_reach_lane_of(l->turn)) == OS_OK;
}

/* As os_reach_attend(), for whoever was woken by the descriptor that is waited on. */
static inline void os_reach_answer(os_reach *r)
{
    if (!os_reach_attend_lone_lane(r))
        os_reach_attend(&r->lanes);
}

static inline void os_reach_ring(nc_lanes *l, nc_lane_in *in)
{
    os_reach *r = os_reach_of_lanes(l);
    int socket = in != NULL ? os_reach_lane_of(in)->os.socket : r->fd != NULL ? r->fd->fd : -1;
    if (socket >= 0 && !r->forked)
        os_bell_ring(socket);
}

/* ---- staying awake for a moment ------------------------------------------------------------------------------- */

/* The word that the other side moves when there is more, and what it was at the last look; NULL: there is no lane.  Of
 * several lanes the one whose turn it is: it is the one that something came by last. */
static inline _Atomic uint64_t *os_reach_spin_begin(os_reach *r, uint64_t *seen)
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

/* Without the lock: for that many pauses at most.  Relaxed: whoever goes on looks. */
static inline bool os_reach_spin(_Atomic uint64_t *word, uint64_t seen, unsigned most)
{
    unsigned spins = 0;
    bool moved;
    while (!(moved = atomic_load_explicit(word, memory_order_relaxed) != seen) && spins < most)
        nc_relax(&spins);
    return moved;
}

static inline void os_reach_spin_end(os_reach *r)
{
    nc_lanes_enter(&r->lanes);
    r->spinners -= r->spinners > 0; /* 0: in the child of a fork */
    os_reach_free_dropped(r);
    nc_lanes_exit(&r->lanes);
}

#endif
#endif
