/* nexus_processes.c: channels between processes for programs in C; see nexus_processes.h.  Touches nexus_ends.h and
 * os_text.h.  Compiled with the program, and no part of the extension module.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "nexus_processes.h"

#include "nexus_ends.h"
#include "os_text.h"

#if OS_HAS_LANES

/* As process_enter(), for whoever opens the end; no fork comes between.  A process that is exiting opens none: nobody
 * would close it, or remove its socket. */
static int begin_opening(process_end *e)
{
    nc_lock_enter(&e->reach.lanes.lock);
    return e->reach.left ? process_leave(e, NEXUS_DISCONNECTED) : NEXUS_OK;
}

/* ---- connecting ----------------------------------------------------------------------------------------- */

static int told_unconnected(const char *path)
{
    struct stat file;
    int why = errno;
    switch (why) {
    case EAGAIN:
        return NEXUS_TIMEOUT;
    case ENOENT:
    case ECONNREFUSED:
        return NEXUS_NO_RECEIVER;
    case EPROTOTYPE:
        return NEXUS_BAD_PEER;
    case EACCES:
        if (stat(path, &file) == 0 && file.st_uid != geteuid())
            return NEXUS_FOREIGN;
        break;
    }
    errno = why;
    return NEXUS_SYSTEM;
}

/* Knock until there is room for one more. */
static int knock(process_end *e, const char *path, int64_t deadline)
{
    struct sockaddr_un to;
    os_result result = os_listen_address(&to, path);
    if (result != OS_OK)
        return NEXUS_SYSTEM;
    if (path[0] == '\0') /* as an address it would be no path */
        return NEXUS_NO_RECEIVER;
    if (!os_reach_open_door(&e->reach))
        return NEXUS_SYSTEM;
    do {
        int64_t left = deadline < 0 ? -1 : (deadline - process_now()) / 1000;
        result = os_listen_call(e->reach.door, &to, deadline >= 0 && left < 0 ? 0 : left);
    } while (result != OS_OK && errno == EINTR);
    return result == OS_OK ? NEXUS_OK : told_unconnected(path);
}

/* What was read is no greeting to go by. */
static int told_ungreeted(os_result result)
{
    return result == OS_CRASHED         ? NEXUS_NO_RECEIVER /* it has closed before it let us in */
           : result == OS_WRONG_VERSION ? NEXUS_BAD_VERSION
                                        : process_told(result);
}

/* Read who listens, and what. */
static int read_greeting(int door, int64_t deadline, os_greeting *greeting)
{
    uid_t user;
    os_bell_refuse_descriptors(door);
    if (os_listen_user(door, &user) != OS_OK)
        return NEXUS_SYSTEM;
    if (user != geteuid())
        return NEXUS_FOREIGN;
    int n = process_sleep(door, deadline);
    if (n <= 0)
        return n == 0 ? NEXUS_TIMEOUT : NEXUS_SYSTEM;
    os_result result = os_listen_heed(door, greeting);
    if (result != OS_OK)
        return told_ungreeted(result);
    return greeting->verdict == OS_FOREIGN ? NEXUS_FOREIGN : greeting->verdict == OS_TAKEN ? NEXUS_TAKEN : NEXUS_OK;
}

/* Send a lane through the door. */
static int open_sender(process_end *e, const os_greeting *greeting)
{
    uint64_t id;
    int entered = begin_opening(e);
    if (entered != NEXUS_OK)
        return entered;
    e->reach.capacity = greeting->capacity;
    e->reach.name = greeting->name;
    os_result result = OS_SYSTEM;
    if (os_random_id(&id))
        result = os_reach_open_sender(&e->reach, e->reach.door, false, id, 0, 0);
    return process_leave(e, process_told(result));
}

static int connect_end(process_end *e, const char *path, int64_t timeout)
{
    int64_t deadline = process_deadline(timeout);
    os_greeting greeting;
    int result = knock(e, path, deadline);
    if (result == NEXUS_OK)
        result = read_greeting(e->reach.door, deadline, &greeting);
    return result == NEXUS_OK ? open_sender(e, &greeting) : result;
}

int nexus_connect(const char *path, int64_t timeout, nexus_sender **tx)
{
    process_end *e = process_end_new(false);
    int result = e != NULL ? connect_end(e, path, timeout) : NEXUS_SYSTEM;
    *tx = (nexus_sender *)process_opened(e, result);
    return result;
}

/* ---- listening ------------------------------------------------------------------------------------------ */

/* Nobody else is between looking and binding in that folder: the caller's turn, outside of all other locks, as whoever
 * has it may keep it for long. */
static int lock_path(os_listening *os, const char *path)
{
    os_result result = os_listen_open(os, path);
    if (result != OS_OK)
        return NEXUS_SYSTEM;
    while ((result = os_listen_lock(os)) != OS_OK && errno == EINTR)
        ;
    if (result != OS_OK) {
        int why = errno;
        os_listen_forget(os);
        errno = why;
        return NEXUS_SYSTEM;
    }
    return NEXUS_OK;
}

/* A socket that listens there. */
static int listen_at_path(process_end *e, os_listening *os, bool many)
{
    if (os_listen_bind(os) != OS_OK)
        return errno == EADDRINUSE ? NEXUS_TAKEN : NEXUS_SYSTEM;
    bool fine = os_random_id(&e->reach.name) && os_reach_open_receiver(&e->reach) == OS_OK &&
                os_reach_listen(&e->reach, os, !many) == OS_OK;
    if (fine)
        return NEXUS_OK;
    int why = errno;
    os_listen_close(os);
    errno = why;
    return NEXUS_SYSTEM;
}

static int listen_end(process_end *e, const char *path, size_t capacity, bool many)
{
    uint64_t wish = capacity; /* of 64 bits on every system */
    e->reach.capacity = wish <= INT64_MAX ? os_block_round(wish) : 0;
    if (e->reach.capacity == 0)
        return NEXUS_TOO_LARGE;
    if (!os_block_fits(e->reach.capacity)) { /* none is made here: those who come would find that out */
        errno = ENOMEM;
        return NEXUS_SYSTEM;
    }
    os_listening os;
    int result = lock_path(&os, path);
    if (result != NEXUS_OK)
        return result;
    result = begin_opening(e);
    if (result != NEXUS_OK) {
        os_listen_forget(&os);
        return result;
    }
    return process_leave(e, listen_at_path(e, &os, many));
}

int nexus_listen(const char *path, size_t capacity, int many, nexus_receiver **rx)
{
    process_end *e = process_end_new(true);
    int result = e != NULL ? listen_end(e, path, capacity, many != 0) : NEXUS_SYSTEM;
    *rx = (nexus_receiver *)process_opened(e, result);
    return result;
}

int nexus_stop_listening(nexus_receiver *rx)
{
    process_end *e = process_end_of(&rx->end);
    int result = process_enter(e);
    if (result != NEXUS_OK)
        return result;
    os_reach_stop_listening(&e->reach);
    return process_leave(e, NEXUS_OK);
}

/* ---- inheriting -------------------------------------------------------------------------------------------- */

/* Whether a program that is started from here gets them, too. */
static void pass_on(os_parcel *p, bool passes)
{
    fcntl(p->token, F_SETFD, passes ? 0 : FD_CLOEXEC);
    fcntl(p->end, F_SETFD, passes ? 0 : FD_CLOEXEC);
}

/* Own the descriptors.  Not NEXUS_OK: nothing has changed. */
static int take_parcel(os_parcel *p, const os_text *t, int side)
{
    if (!os_parcel_read(p, t->numbers))
        return NEXUS_BAD_TICKET;
    if (p->side != side)
        return NEXUS_BAD_HANDLE;
    if (!os_text_was_passed(&t->token) || !os_text_was_passed(&t->end) || !os_parcel_take(p, t->token.fd, t->end.fd))
        return NEXUS_BAD_TICKET;
    pass_on(p, false); /* so the same text is not taken again */
    return NEXUS_OK;
}

/* Open what is in it, within the lock.  Whatever fails here may be tried again, unless somebody else was the first. */
static int unpack(os_parcel *p, process_end *e)
{
    if (!os_parcel_be_first(p)) {
        os_parcel_clear(p);
        return NEXUS_BAD_TICKET;
    }
    e->reach.capacity = p->capacity;
    e->reach.name = p->name;
    bool reads = e->reach.lanes.reads;
    int result = process_told((reads ? os_parcel_open_receiver : os_parcel_open_sender)(p, &e->reach));
    int why = errno;
    if (result != NEXUS_OK) {
        os_parcel_give_back(p);
        pass_on(p, true);
        p->token = p->end = -1;
    } else if (reads) { /* from now on whoever has sent sees it if this process dies */
        nc_lanes_attend(&e->reach.lanes);
    }
    os_parcel_clear(p);
    errno = why;
    return result;
}

/* Within the lock, so that no fork comes between. */
static int inherit_held(process_end *e, const os_text *t)
{
    static nc_lock taking = PTHREAD_MUTEX_INITIALIZER; /* between looking at descriptors and owning them */
    os_parcel parcel;
    nc_lock_enter(&taking);
    int result = take_parcel(&parcel, t, e->reach.lanes.reads ? OS_PARCEL_RECEIVER : OS_PARCEL_SENDER);
    nc_lock_exit(&taking);
    return result == NEXUS_OK ? unpack(&parcel, e) : result;
}

static int inherit_end(process_end *e, const char *text)
{
    os_text t;
    if (!os_text_parse(&t, text))
        return NEXUS_BAD_TICKET;
    int result = begin_opening(e);
    return result == NEXUS_OK ? process_leave(e, inherit_held(e, &t)) : result;
}

int nexus_inherit_sender(const char *text, nexus_sender **tx)
{
    process_end *e = process_end_new(false);
    int result = e != NULL ? inherit_end(e, text) : NEXUS_SYSTEM;
    *tx = (nexus_sender *)process_opened(e, result);
    return result;
}

int nexus_inherit_receiver(const char *text, nexus_receiver **rx)
{
    process_end *e = process_end_new(true);
    int result = e != NULL ? inherit_end(e, text) : NEXUS_SYSTEM;
    *rx = (nexus_receiver *)process_opened(e, result);
    return result;
}

/* ---- any end: within nexus_ends.h ------------------------------------------------------------------------ */

int nexus_sender_crashed(const nexus_sender *tx) { return process_crashed(&tx->end); }
int nexus_receiver_crashed(const nexus_receiver *rx) { return process_crashed(&rx->end); }
int nexus_sender_fd(const nexus_sender *tx) { return process_fd(&tx->end); }
int nexus_receiver_fd(const nexus_receiver *rx) { return process_fd(&rx->end); }
int nexus_watch_receiver(nexus_receiver *rx) { return process_arm(&rx->end, 1, NEXUS_EMPTY); }

int nexus_watch_sender(nexus_sender *tx, size_t n)
{
    int result = process_check_size(process_end_of(&tx->end), n);
    return result != NEXUS_OK ? result : process_arm(&tx->end, nc_log_extent(n), NEXUS_FULL);
}

#else

/* Another system: every end is refused, so there is none to call anything on. */
static int refuse(void)
{
    errno = ENOTSUP;
    return NEXUS_SYSTEM;
}

int nexus_connect(const char *path, int64_t timeout, nexus_sender **tx)
{
    (void)path;
    (void)timeout;
    *tx = NULL;
    return refuse();
}

int nexus_listen(const char *path, size_t capacity, int many, nexus_receiver **rx)
{
    (void)path;
    (void)capacity;
    (void)many;
    *rx = NULL;
    return refuse();
}

int nexus_inherit_sender(const char *text, nexus_sender **tx)
{
    (void)text;
    *tx = NULL;
    return refuse();
}

int nexus_inherit_receiver(const char *text, nexus_receiver **rx)
{
    (void)text;
    *rx = NULL;
    return refuse();
}

int nexus_stop_listening(nexus_receiver *rx) { return (void)rx, refuse(); }
int nexus_sender_crashed(const nexus_sender *tx) { return (void)tx, 0; }
int nexus_receiver_crashed(const nexus_receiver *rx) { return (void)rx, 0; }
int nexus_sender_fd(const nexus_sender *tx) { return (void)tx, -1; }
int nexus_receiver_fd(const nexus_receiver *rx) { return (void)rx, -1; }
int nexus_watch_receiver(nexus_receiver *rx) { return (void)rx, refuse(); }
int nexus_watch_sender(nexus_sender *tx, size_t n) { return (void)tx, (void)n, refuse(); }

#endif
