/* py_reach.h: how a channel reaches other processes: the memory and the descriptors of its lanes; see py_reach.c. */
#ifndef PY_REACH_H
#define PY_REACH_H

#include "py_types.h"

#include "os_listen.h"

/* Lanes are for systems that have them, and for builds that use all that a system has. */
#if OS_HAS_LANES && NC_LINUX
#define REACHES 1
#else
#define REACHES 0
#endif

/* What threads and loops wait on, and who closes it: whoever has the last reference. */
typedef struct reach_fd {
    _Atomic uint32_t refs;
    int fd;
} reach_fd;

#if REACHES

/* What the receiver's epoll hears: which of the three it is. */
typedef enum reach_kind { REACH_LOBBY, REACH_LANE, REACH_LISTENING } reach_kind;

/* What new lanes come by.  Each sender, and each ticket of one, has a door of its own, which leads here. */
typedef struct reach_lobby {
    reach_kind kind;
    bool deaf;                /* the system refused what came: not heard until that was told */
    int fd;
    struct reach_lobby *next;
} reach_lobby;

typedef struct reach reach;

/* What new lobbies come by, with doors that are in other processes already: a socket that has a path. */
typedef struct reach_listening {
    reach_kind kind;
    os_listening os;
    void (*hear)(reach *); /* let those in who have come; within the lock */
    bool deaf;             /* as of a lobby */
} reach_listening;

/* A lane that is read here. */
typedef struct reach_lane {
    reach_kind kind;
    nc_lane_in in;
    os_lane os;               /* .socket < 0: its end was heard, or it was closed */
    int memory;               /* the descriptor, for moving the receiver */
    struct reach_lane *next;  /* of all; or of those that were dropped */
} reach_lane;

/* In the block of the channel.  All but the list in the lock of `lanes`. */
struct reach {
    nc_lanes lanes;
    uint64_t capacity, name;  /* name: random, the same in all processes */
    reach_fd *fd;             /* NULL: the last end that was here has left */
    bool left, moved;         /* moved: to where the ticket is attached */
    bool forked;              /* the ends stayed in the parent process */
    unsigned spinners;        /* threads that look at a word of a lane */
    /* senders */
    os_lane out;
    uint64_t id, after, after_pos; /* as of nc_lane_in: of the lane that is written here */
    int door;
    /* the receiver */
    reach_lobby *lobbies;
    bool more;                /* a lobby is new, and may hold something already */
    reach_listening *listening; /* or NULL */
    bool one;                 /* there is one sender at a time, and each is read to its end before the next */
    reach_lane *all, *dropped; /* the newest first */
    int over;                 /* of an epoll that loops wait on and that nothing is heard by any more: readable */
    struct reach *before, *following; /* all of the process; under the lock of the list */
};

static inline void reach_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline reach *reach_of(nc_chan *block) { return container_of(block->lanes, reach, lanes); }

/* Begin with memory that is zeroed; no descriptor is there yet. */
void reach_begin(reach *r, nc_chan *block, bool reads, uint64_t capacity);
/* Open what is needed here; OS_OK, or what is wrong.  Of senders that is a lane, which is sent through a door.  A door
 * that a ticket had is left for a new one, of which no other process has a copy; else it is taken over. */
os_result reach_open_sender(reach *r, int door, bool of_ticket, uint64_t id, uint64_t after, uint64_t after_pos);
os_result reach_open_receiver(reach *r);
/* A further door, for a ticket; it leads to where that of these senders leads. */
os_result reach_further_door(reach *r, int *door);
/* The receiver has one lobby, or one lane, more: it is new, or moved here with the receiver.  Takes the descriptors
 * over, unless this fails.  In the lock. */
os_result reach_add_lobby(reach *r, int lobby);
os_result reach_add_lane(reach *r, const os_visit *visit);
/* For whoever listens.  Hear what came by that lobby, which is freed at its end; false: there is no more.  Hear whether
 * a lane has ended.  Note whether new lanes can come.  In the lock. */
bool reach_hear_lobby(reach *r, reach_lobby *lobby);
void reach_hear_lane(reach *r, reach_lane *lane);
void reach_note_shut(reach *r);
/* The path is free again; whoever has knocked there, and was not greeted, is told so by the end of file.  In the lock.
 */
void reach_stop_listening(reach *r);
/* The receiver moves away: hand the lane's socket over, and its memory's descriptor; -1: its end was heard.  Within the
 * lock. */
int reach_let_go(reach *r, reach_lane *lane);
/* Likewise a lobby's descriptor. */
int reach_let_lobby_go(reach *r, reach_lobby *lobby);

/* The process ends in good order: its ends leave their channels.  Calls that still wait on them, or come later, find
 * the other side gone.  From any thread, with or without the GIL. */
void reach_leave_all(void);
/* What went wrong with a lobby was told: listen to it again.  Within the lock. */
void reach_listen_again(reach *r);

#endif

/* Hear what was rung, and call those whose turn it is; nothing, if the channel has no lanes.  Runs Python code. */
void reach_hear(Chan *c);
/* Has everybody left at the other side?  Hears first; runs Python code. */
bool reach_deserted(Chan *c);
/* Spin until a lane moves, without the GIL, for that many pauses at most; true if one has. */
bool reach_spin(Chan *c, unsigned most);
void reach_fd_ref(reach_fd *fd);
void reach_fd_unref(reach_fd *fd);

/* The descriptor to wait on for a channel by lanes, a new reference; NULL if the side that is here has left. */
reach_fd *reach_wait_on(Chan *c);
/* Are these ends of one channel between processes? */
bool reach_same(Chan *a, Chan *b);
/* No loop waits for the channel, of which the last end that was here has left. */
void reach_unwatched(Chan *c);

#endif
