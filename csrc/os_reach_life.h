/* os_reach_life.h: how the lanes of one side of a channel begin and end: opened, moved on, left, forked, freed. Touches
 * os_reach.h and system calls.
 *
 * A process that forks keeps its lanes; in the child they end.  Its copies of the descriptors are closed there, else
 * the others would take the parent for alive as long as the child is.
 *
 * The list of all that are in the process is its owner's, and so are the few lines that have the system call what is
 * here before and after a fork and at the end of the process.
 */
#ifndef OS_REACH_LIFE_H
#define OS_REACH_LIFE_H

#include "os_reach.h"

#if OS_HAS_LANES

#include <sys/eventfd.h>

/* ---- leaving: within the lock --------------------------------------------------------------------------- */

/* The path is free again; whoever has knocked there, and was not greeted, is told so by the end of file. */
static inline void os_reach_stop_listening(os_reach *r)
{
    if (r->listening == NULL)
        return;
    if (r->fd != NULL && r->listening->os.fd >= 0)
        epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, r->listening->os.fd, NULL);
    os_listen_close(&r->listening->os);
    free(r->listening);
    r->listening = NULL;
    os_reach_note_shut(r);
}

/* Loops that wait on the epoll learn that it is over by its being readable for good. */
static inline void os_reach_tell_loops(os_reach *r)
{
    int over = atomic_load_explicit(&r->fd->refs, memory_order_acquire) > 1 ? eventfd(1, EFD_CLOEXEC) : -1;
    struct epoll_event heard = {.events = EPOLLIN};
    if (over >= 0 && epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, over, &heard) == 0)
        r->over = over;
    else
        os_close(&over);
}

/* Lanes that have come and were not looked at yet are taken in first, so that their senders see an orderly end. */
static inline void os_reach_leave_receiver(os_reach *r)
{
    os_reach_stop_listening(r);
    if (!r->moved)
        os_reach_attend_receiver(r);
    for (os_reach_lane *lane = r->moved ? NULL : r->all; lane != NULL; lane = lane->next) {
        nc_lane_side *writer = &lane->in.reader.block->writer;
        if (nc_lane_close(&lane->in.reader.block->reader, writer) && lane->os.socket >= 0)
            os_bell_ring(lane->os.socket);
        os_reach_hang_up(r, lane);
        os_close(&lane->memory);
    }
    while (r->lobbies != NULL)
        os_reach_lobby_free(r, r->lobbies);
    os_reach_tell_loops(r);
}

static inline void os_reach_leave_senders(os_reach *r)
{
    if (nc_lane_close(&r->out.map.block->writer, &r->out.map.block->reader))
        os_bell_ring(r->fd->fd);
    shutdown(r->fd->fd, SHUT_RDWR); /* so it is readable, whoever waits on it */
    os_close(&r->door);
}

static inline void os_reach_leave(nc_lanes *l)
{
    os_reach *r = os_reach_of_lanes(l);
    if (r->left)
        return;
    r->left = true;
    if (r->fd == NULL)
        return;
    if (!r->forked && l->reads)
        os_reach_leave_receiver(r);
    else if (!r->forked)
        os_reach_leave_senders(r);
    os_reach_fd_unref(r->fd);
    r->fd = NULL;
}

/* ---- all of a process ----------------------------------------------------------------------------------- */

/* The lock itself, also where lanes are guarded by another one: whoever relies on that does not take it, and who has a
 * lock around each call of its own takes this one. */
static inline void os_reach_hold_all(os_reach_list *list)
{
    nc_lock_enter(&list->lock);
    for (os_reach *r = list->first; r != NULL; r = r->following)
        nc_lock_enter(&r->lanes.lock);
}

static inline void os_reach_let_all_go(os_reach_list *list)
{
    for (os_reach *r = list->first; r != NULL; r = r->following)
        nc_lock_exit(&r->lanes.lock);
    nc_lock_exit(&list->lock);
}

/* In the child: memory of its own where the lane was, as views of claims may be left. */
static inline void os_reach_detach_map(os_block *map)
{
    if (map->block != NULL)
        mmap(map->block, (size_t)map->length, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static inline void os_reach_detach_lanes(os_reach_lane *lane)
{
    for (; lane != NULL; lane = lane->next) {
        os_reach_detach_map(&lane->os.map);
        os_close(&lane->os.socket);
        os_close(&lane->memory);
    }
}

static inline void os_reach_detach(os_reach *r)
{
    r->forked = r->lanes.over = r->lanes.shut = true;
    r->lanes.turn = r->lanes.shown = r->lanes.freed = NULL;
    r->lanes.count = 0;
    r->spinners = 0;
    os_reach_detach_map(&r->out.map);
    os_reach_detach_lanes(r->all);
    os_reach_detach_lanes(r->dropped);
    for (os_reach_lobby *lobby = r->lobbies; lobby != NULL; lobby = lobby->next)
        os_close(&lobby->fd);
    if (r->listening != NULL)
        os_listen_forget(&r->listening->os); /* the file is the parent's */
    os_close(&r->door);
    os_close(&r->over);
    if (r->fd != NULL)
        os_close(&r->fd->fd);
}

static inline void os_reach_detach_all(os_reach_list *list)
{
    for (os_reach *r = list->first; r != NULL; r = r->following)
        os_reach_detach(r);
    os_reach_let_all_go(list);
}

static inline void os_reach_leave_all(os_reach_list *list)
{
    nc_lock_enter(&list->lock);
    for (os_reach *r = list->first; r != NULL; r = r->following) {
        nc_lock_enter(&r->lanes.lock);
        os_reach_leave(&r->lanes);
        r->lanes.over = true; /* nothing that is sent from now on would arrive */
        nc_lock_exit(&r->lanes.lock);
    }
    nc_lock_exit(&list->lock);
}

static inline void os_reach_enlist(os_reach *r, os_reach_list *list)
{
    nc_lock_enter(&list->lock);
    r->list = list;
    r->before = NULL;
    r->following = list->first;
    if (list->first != NULL)
        list->first->before = r;
    list->first = r;
    nc_lock_exit(&list->lock);
}

static inline void os_reach_strike_off(os_reach *r)
{
    nc_lock_enter(&r->list->lock);
    *(r->before != NULL ? &r->before->following : &r->list->first) = r->following;
    if (r->following != NULL)
        r->following->before = r->before;
    nc_lock_exit(&r->list->lock);
}

/* ---- making and freeing --------------------------------------------------------------------------------- */

/* Struck off the list last, and closed within the lock: a child that is forked meanwhile closes its copies of whatever
 * is still open. */
static inline void os_reach_free(nc_lanes *l)
{
    os_reach *r = os_reach_of_lanes(l);
    nc_lanes_leave(&r->lanes); /* of a channel that was not opened to the end */
    nc_lock_enter(&r->lanes.lock);
    for (os_reach_lane *lane; (lane = r->all) != NULL;) {
        r->all = lane->next;
        lane->next = r->dropped;
        r->dropped = lane;
    }
    os_reach_free_dropped(r);
    while (r->lobbies != NULL)
        os_reach_lobby_free(r, r->lobbies);
    os_reach_stop_listening(r);
    os_close(&r->over);
    os_close(&r->door);
    if (r->out.map.block != NULL)
        os_lane_unmap(&r->out);
    nc_lock_exit(&r->lanes.lock);
    os_reach_strike_off(r);
    nc_lock_destroy(&r->lanes.lock);
}

/* Begin with memory that is zeroed; no descriptor is there yet. */
static inline void os_reach_begin(os_reach *r, os_reach_list *list, bool reads, bool guarded, uint64_t capacity)
{
    static const nc_lanes_owner owner = {.wake = os_reach_ring,
                                         .attend = os_reach_attend,
                                         .drop = os_reach_drop,
                                         .leave = os_reach_leave,
                                         .end = os_reach_free};
    nc_lanes_init(&r->lanes, &owner, reads, guarded);
    r->capacity = capacity;
    r->door = r->over = r->out.socket = -1;
    os_reach_enlist(r, list);
}

/* For whoever connects: the socket that becomes the door.  The end knows it from its first moment, so that the child of
 * a fork closes its copy.  False with errno set. */
static inline bool os_reach_open_door(os_reach *r)
{
    nc_lock_enter(&r->lanes.lock);
    r->door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int why = errno;
    nc_lock_exit(&r->lanes.lock);
    errno = why;
    return r->door >= 0;
}

/* Through the door: the lane, or first of all a lobby, in which the lane is already.  So it is one step: whatever fails
 * before it, nobody has seen anything. */
static inline os_result os_reach_send_lane(int *door, bool of_ticket, const os_visit *visit)
{
    int lobby, ours;
    if (!of_ticket)
        return os_lobby_send(*door, visit);
    os_result result = os_lobby_open(&lobby, &ours);
    if (result != OS_OK)
        return result;
    result = os_lobby_send(ours, visit);
    if (result == OS_OK)
        result = os_reach_send_lobby(*door, OS_LOBBY_INSTEAD, lobby);
    int why = errno;
    close(lobby);
    os_close(result == OS_OK || result == OS_CRASHED ? door : &ours);
    if (ours >= 0)
        *door = ours;
    errno = why;
    return result;
}

/* Open what is needed here; OS_OK, or what is wrong.  Of senders that is a lane, which is sent through a door.  A door
 * that a ticket had is left for a new one, of which no other process has a copy; else it is taken over. */
static inline os_result os_reach_open_sender(os_reach *r, int door, bool of_ticket, uint64_t id, uint64_t after,
                                             uint64_t after_pos)
{
    os_visit visit = {.id = id, .after = after, .after_pos = after_pos};
    os_result result = os_lobby_make(&r->out, r->capacity, &visit);
    if (result != OS_OK)
        return result;
    r->fd = os_reach_fd_new(r->out.socket);
    if (r->fd == NULL) {
        os_lane_hang_up(&r->out);
        result = OS_SYSTEM;
        errno = ENOMEM;
    } else {
        result = os_reach_send_lane(&door, of_ticket, &visit);
    }
    int why = errno;
    close(visit.socket);
    close(visit.memory);
    errno = why;
    if (result != OS_OK && result != OS_CRASHED) { /* CRASHED: the receiver has gone, as the first call will find */
        if (r->fd != NULL)
            os_reach_fd_unref(r->fd);
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

/* A further door, for a ticket; it leads to where that of these senders leads. */
static inline os_result os_reach_further_door(os_reach *r, int *door)
{
    int lobby;
    os_result result = os_lobby_open(&lobby, door);
    if (result != OS_OK)
        return result;
    result = os_reach_send_lobby(r->door, OS_LOBBY_FURTHER, lobby);
    int why = errno;
    close(lobby);
    if (result != OS_OK &&
        result != OS_CRASHED) /* CRASHED: nobody is there, and whoever attaches the ticket finds that */
        os_close(door);
    errno = why;
    return result == OS_CRASHED ? OS_OK : result;
}

static inline os_result os_reach_open_receiver(os_reach *r)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return OS_SYSTEM;
    r->fd = os_reach_fd_new(epoll);
    if (r->fd == NULL) {
        close(epoll);
        errno = ENOMEM;
        return OS_SYSTEM;
    }
    r->lanes.shut = true;
    return OS_OK;
}

/* Be found by that socket as well; for one sender at a time, or for many.  Not OS_OK: it is still the caller's. */
static inline os_result os_reach_listen(os_reach *r, const os_listening *os, bool one)
{
    os_reach_listening *listening = malloc(sizeof *listening);
    struct epoll_event heard = {.events = EPOLLIN, .data.ptr = listening};
    if (listening == NULL) {
        errno = ENOMEM;
        return OS_SYSTEM;
    }
    *listening = (os_reach_listening){.kind = OS_REACH_LISTENING, .os = *os};
    nc_lanes_enter(&r->lanes);
    bool added = epoll_ctl(r->fd->fd, EPOLL_CTL_ADD, os->fd, &heard) == 0;
    if (added) {
        r->listening = listening;
        r->one = one;
        os_reach_note_shut(r);
    }
    nc_lanes_exit(&r->lanes);
    if (added)
        return OS_OK;
    int why = errno;
    free(listening);
    errno = why;
    return OS_SYSTEM;
}

/* ---- a receiver that moves: within the lock ------------------------------------------------------------ */

/* So many lie in a lobby, which holds more of them on every system; what is left, in one that comes last. */
enum { OS_PACKED_MOST = 64 };

typedef struct os_packing {
    int lobby, door; /* the first lobby; the door of the last one */
    int room;
} os_packing;

/* Go on in a lobby within this one. */
static inline os_result os_reach_pack_further(os_packing *p)
{
    int lobby, door;
    os_result result = os_lobby_open(&lobby, &door);
    if (result != OS_OK)
        return result;
    result = os_reach_send_lobby(p->door, OS_LOBBY_PACKED, lobby);
    int why = errno;
    close(lobby);
    if (result == OS_OK) {
        close(p->door);
        p->door = door;
        p->room = OS_PACKED_MOST;
    } else {
        close(door);
    }
    errno = why;
    return result;
}

static inline os_result os_reach_pack_visit(os_packing *p, const os_visit *visit)
{
    os_result result = p->room > 0 ? OS_OK : os_reach_pack_further(p);
    p->room--;
    return result == OS_OK ? os_lobby_send(p->door, visit) : result;
}

/* If its end was heard, whoever takes it over hears it once more: by a socket whose other end is closed. */
static inline os_result os_reach_pack_lane(os_packing *p, os_reach *r, const os_reach_lane *lane)
{
    int pair[2] = {lane->os.socket, -1};
    if (lane->os.socket < 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return OS_SYSTEM;
    os_visit visit = {.capacity = r->capacity,
                      .id = lane->in.id,
                      .after = lane->in.after,
                      .after_pos = lane->in.after_pos,
                      .socket = pair[0],
                      .memory = lane->memory};
    os_result result = os_reach_pack_visit(p, &visit);
    int why = errno;
    if (lane->os.socket < 0) {
        close(pair[0]);
        close(pair[1]);
    }
    errno = why;
    return result;
}

/* The oldest first, as a newer lane may have to wait for an older one, which is to be there by then. */
static inline void os_reach_reverse(os_reach *r)
{
    os_reach_lane *rest = r->all;
    r->all = NULL;
    for (os_reach_lane *lane; (lane = rest) != NULL; r->all = lane) {
        rest = lane->next;
        lane->next = r->all;
    }
}

static inline os_result os_reach_pack_all(os_packing *p, os_reach *r)
{
    os_result result = OS_OK;
    os_reach_reverse(r);
    for (os_reach_lane *lane = r->all; lane != NULL && result == OS_OK; lane = lane->next)
        result = os_reach_pack_lane(p, r, lane);
    os_reach_reverse(r);
    for (os_reach_lobby *lobby = r->lobbies; lobby != NULL && result == OS_OK; lobby = lobby->next) {
        os_visit visit = {.id = OS_LOBBY_FURTHER, .socket = lobby->fd, .memory = lobby->fd};
        result = os_reach_pack_visit(p, &visit);
    }
    return result;
}

/* What was packed is on its way: here only copies are left. */
static inline void os_reach_go_away(os_reach *r)
{
    r->moved = true;
    for (os_reach_lane *lane = r->all; lane != NULL; lane = lane->next) {
        if (lane->os.socket >= 0)
            epoll_ctl(r->fd->fd, EPOLL_CTL_DEL, lane->os.socket, NULL);
        nc_lane_lower(&lane->in.reader.block->reader);
        nc_lane_go_away(&lane->in.reader.block->reader);
        os_close(&lane->os.socket);
        os_close(&lane->memory);
    }
    while (r->lobbies != NULL)
        os_reach_lobby_free(r, r->lobbies);
}

/* All that the receiver has, in the lobby that comes of it, for whoever takes it over.  If this is not OS_OK, nothing
 * has changed. */
static inline os_result os_reach_pack(os_reach *r, int *lobby)
{
    os_packing p = {.room = OS_PACKED_MOST};
    os_result result = os_lobby_open(&p.lobby, &p.door);
    if (result != OS_OK)
        return result;
    result = os_reach_pack_all(&p, r);
    int why = errno;
    close(p.door);
    if (result == OS_OK)
        os_reach_go_away(r);
    else
        close(p.lobby);
    *lobby = p.lobby;
    errno = why;
    return result;
}

#endif
#endif
