/* os_parcel.h: an end of a channel on its way to another process: its descriptors, and numbers about them.  Touches
 * os_reach_life.h and system calls; knows nothing of Python.
 *
 *     numbers       version side kind crashed  capacity name  after after_pos
 *     descriptors   token end                                                    end: a sender's door, or a lobby
 *
 * Whoever unpacks a sender sends a lane through the door, and a new door.  In the lobby of a receiver lies all that it
 * had: its lobbies, and the lanes that it had taken in.  The token is an eventfd that can be read once, by whichever
 * process is the first.
 *
 * Under fork each child has a copy of a parcel, and may keep it as long as it lives.  Nothing depends on these: through
 * an old door nobody is waited for, and an old lobby is empty.
 *
 * Whatever the numbers say is checked once more when it is unpacked, against what the descriptors are.
 */
#ifndef OS_PARCEL_H
#define OS_PARCEL_H

#include "os_reach_life.h"

#if OS_HAS_LANES

#include <sys/random.h>

enum { OS_PARCEL_EMPTY = -1, OS_PARCEL_SENDER = 0, OS_PARCEL_RECEIVER = 1 };
enum { OS_PARCEL_ONE = 3, OS_PARCEL_MANY = 4 }; /* senders that the channel is for */

typedef struct os_parcel {
    int side;
    int kind;
    bool crashed; /* the receiver knew of a process that had crashed */
    uint64_t capacity, name;
    uint64_t after, after_pos; /* a sender's next lane */
    int token;
    int end; /* the door, or the lobby */
} os_parcel;

/* ---- what is in it -------------------------------------------------------------------------------------- */

enum { OS_PARCEL_FDS = 2 };

/* Close what is in it.  Copies stay as they are. */
static inline void os_parcel_clear(os_parcel *p)
{
    os_close(&p->token);
    os_close(&p->end);
    p->side = OS_PARCEL_EMPTY;
}

/* Read the token: true for one of all who try, in whichever process. */
static inline bool os_parcel_be_first(os_parcel *p)
{
    uint64_t one;
    return p->side >= 0 && read(p->token, &one, sizeof one) == (ssize_t)sizeof one;
}

/* Whoever was the first could not unpack it: somebody else may be. */
static inline void os_parcel_give_back(os_parcel *p)
{
    static const uint64_t one = 1;
    ssize_t written = write(p->token, &one, sizeof one); /* it was read, so there is room */
    (void)written;
}

/* What lies in a lobby is alive as long as a copy of the lobby is.  This process may have no number left for any of it.
 */
static inline void os_parcel_empty_lobby(int lobby)
{
    while (os_lobby_drop(lobby))
        ;
}

/* Give up what is in it, unless it was unpacked from a copy; so no copy can be unpacked any more.  A socket that is
 * shut down is so for all who have a copy of it. */
static inline void os_parcel_void(os_parcel *p)
{
    if (!os_parcel_be_first(p))
        return;
    shutdown(p->end, SHUT_RDWR);
    if (p->side == OS_PARCEL_RECEIVER)
        os_parcel_empty_lobby(p->end);
}

/* ---- as numbers ----------------------------------------------------------------------------------------- */

enum {
    OS_PARCEL_VERSION = 2,
    OS_AT_VERSION = 0,
    OS_AT_SIDE,
    OS_AT_KIND,
    OS_AT_CRASHED,
    OS_AT_CAPACITY,
    OS_AT_NAME,
    OS_AT_AFTER,
    OS_AT_AFTER_POS,
    OS_PARCEL_NUMBERS
};

static inline void os_parcel_write(const os_parcel *p, uint64_t to[OS_PARCEL_NUMBERS])
{
    const uint64_t numbers[OS_PARCEL_NUMBERS] = {OS_PARCEL_VERSION, (uint64_t)p->side, (uint64_t)p->kind, p->crashed,
                                                 p->capacity,       p->name,           p->after,          p->after_pos};
    memcpy(to, numbers, sizeof numbers);
}

/* A parcel of these numbers, without its descriptors yet; false if they are those of none. */
static inline bool os_parcel_read(os_parcel *p, const uint64_t from[OS_PARCEL_NUMBERS])
{
    *p = (os_parcel){.side = OS_PARCEL_EMPTY, .token = -1, .end = -1};
    if (from[OS_AT_VERSION] != OS_PARCEL_VERSION || from[OS_AT_SIDE] > OS_PARCEL_RECEIVER ||
        (from[OS_AT_KIND] != OS_PARCEL_ONE && from[OS_AT_KIND] != OS_PARCEL_MANY) || from[OS_AT_CAPACITY] == 0 ||
        from[OS_AT_CAPACITY] != os_block_round(from[OS_AT_CAPACITY]))
        return false;
    p->side = (int)from[OS_AT_SIDE];
    p->kind = (int)from[OS_AT_KIND];
    p->crashed = from[OS_AT_CRASHED] != 0;
    p->capacity = from[OS_AT_CAPACITY];
    p->name = from[OS_AT_NAME];
    p->after = from[OS_AT_AFTER];
    p->after_pos = from[OS_AT_AFTER_POS];
    return true;
}

/* Take the descriptors over, if each is of its kind; which one it is, is found out as it is used. */
static inline bool os_parcel_take(os_parcel *p, int token, int end)
{
    if (!os_is_counter(token) || !os_is_socket(end, SOCK_SEQPACKET))
        return false;
    p->token = token;
    p->end = end;
    return true;
}

/* ---- unpacking: its descriptors are the channel's if this is OS_OK, and else still in it ------------------ */

static inline bool os_random_id(uint64_t *id)
{
    *id = 0;
    while (*id == 0)
        if (getrandom(id, sizeof *id, 0) != (ssize_t)sizeof *id)
            return false;
    return true;
}

static inline os_result os_parcel_open_sender(os_parcel *p, os_reach *r)
{
    uint64_t id;
    if (!os_random_id(&id))
        return OS_SYSTEM;
    os_result result = os_reach_open_sender(r, p->end, p->token >= 0, id, p->after, p->after_pos);
    if (result == OS_OK)
        p->end = -1;
    return result;
}

/* A receiver to which nobody can come yet has no lobby. */
static inline os_result os_parcel_open_receiver(os_parcel *p, os_reach *r)
{
    os_result result = os_reach_open_receiver(r);
    nc_lanes_enter(&r->lanes);
    r->lanes.crashed = p->crashed;
    r->one = p->kind == OS_PARCEL_ONE; /* as it may have been where the receiver listened */
    if (result == OS_OK && p->end >= 0)
        result = os_reach_add_lobby(r, p->end, true);
    nc_lanes_exit(&r->lanes);
    if (result == OS_OK)
        p->end = -1;
    return result;
}

#endif
#endif
