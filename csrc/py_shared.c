/* py_shared.c: channels between processes: opened, and their ends packed up to move.  Touches py_reach.h.
 *
 * A parcel holds descriptors.  Of a sender that is a door of its own: whoever unpacks it sends a lane through the door,
 * and a new door, as copies of the old one may be left in other processes.  Of the receiver it is the lobbies, and the
 * lanes that have been taken in already.  And in each there is a token, an eventfd that can be read once, by whichever
 * process is the first: under fork, each child has a copy of the parcel.
 *
 * A parcel that is dropped is an end that has left: its descriptors are closed, which is how the other side hears it.
 */
#include "py_shared.h"
#include "py_chan.h"
#include "py_reach.h"

#if REACHES

#include <sys/eventfd.h>
#include <sys/random.h>

typedef struct parcel_lane {
    uint64_t id, after, after_pos;
    int socket, memory; /* socket < 0: its end of file was heard */
} parcel_lane;

struct parcel {
    int side;             /* < 0: it is empty */
    chan_kind kind;
    bool crashed;         /* the receiver knew of a process that had crashed */
    uint64_t capacity, name;
    uint64_t after, after_pos; /* a sender's next lane */
    int token;
    Py_ssize_t ends, n;
    int *end;             /* [ends]: the door, or the lobbies */
    parcel_lane *lanes;   /* [n], of a receiver */
};

/* ---- parcels ------------------------------------------------------------------------------------------- */

parcel *parcel_new(void)
{
    parcel *p = PyMem_RawCalloc(1, sizeof *p);
    if (p == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    p->side = -1;
    p->token = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->token >= 0)
        return p;
    PyErr_SetFromErrno(PyExc_OSError);
    PyMem_RawFree(p);
    return NULL;
}

void parcel_free(parcel *p)
{
    if (p == NULL)
        return;
    for (Py_ssize_t i = 0; i < p->n; i++) {
        os_close(&p->lanes[i].socket);
        os_close(&p->lanes[i].memory);
    }
    for (Py_ssize_t i = 0; i < p->ends; i++)
        os_close(&p->end[i]);
    os_close(&p->token);
    PyMem_RawFree(p->end);
    PyMem_RawFree(p->lanes);
    PyMem_RawFree(p);
}

/* What lies in a lobby is alive as long as a copy of the lobby is. */
static void empty_lobby(int lobby)
{
    os_visit visit;
    os_result result;
    while ((result = os_lobby_hear(lobby, &visit)) == OS_OK || result == OS_NO_HELLO)
        if (result == OS_OK) {
            close(visit.socket);
            close(visit.memory);
        }
}

/* Read the token: true for one of all who try, in whichever process. */
static bool parcel_be_first(parcel *p)
{
    uint64_t one;
    return p->side >= 0 && read(p->token, &one, sizeof one) == (ssize_t)sizeof one;
}

/* A socket that is shut down is so for all who have a copy of it. */
void parcel_void(parcel *p)
{
    if (!parcel_be_first(p))
        return;
    for (Py_ssize_t i = 0; i < p->ends; i++) {
        shutdown(p->end[i], SHUT_RDWR);
        if (p->side == RX)
            empty_lobby(p->end[i]);
    }
    for (Py_ssize_t i = 0; i < p->n; i++)
        if (p->lanes[i].socket >= 0)
            shutdown(p->lanes[i].socket, SHUT_RDWR);
}

int parcel_side(const parcel *p) { return p->side; }
chan_kind parcel_kind(const parcel *p) { return p->kind; }

/* Be the one who unpacks it: false with ValueError set if somebody was first. */
static bool parcel_claim(parcel *p)
{
    if (parcel_be_first(p))
        return true;
    PyErr_SetString(PyExc_ValueError, "this ticket was attached before, in this process or in another one; each can be "
                                      "attached once");
    return false;
}

static void parcel_unclaim(parcel *p)
{
    static const uint64_t one = 1;
    ssize_t written = write(p->token, &one, sizeof one); /* it was read, so there is room */
    (void)written;
}

/* Why a lane could not be opened here. */
static void raise_unopened(os_result result)
{
    if (result == OS_AGAIN)
        PyErr_SetString(PyExc_BlockingIOError, "so many senders have come that the receiver has not looked at yet that "
                                               "no more can be told of; try again once it has received something");
    else if (result == OS_SYSTEM)
        PyErr_SetFromErrno(PyExc_OSError);
    else
        PyErr_Format(PyExc_ValueError, "what this ticket holds is no lane of its channel (reason %d)", (int)result);
}

/* ---- a sender that moves ------------------------------------------------------------------------------- */

static bool pack_sender(parcel *p, os_reach *r)
{
    nc_lane_writer *w = &r->lanes.writer;
    p->end = PyMem_RawMalloc(sizeof *p->end);
    if (p->end == NULL) {
        PyErr_NoMemory();
        return false;
    }
    os_result result = os_reach_further_door(r, p->end);
    if (result != OS_OK) {
        raise_unopened(result);
        return false;
    }
    p->ends = 1;
    nc_lanes_enter(&r->lanes); /* others may send by the lane meanwhile */
    /* by a lane that nothing was sent by, nothing can be waited for */
    p->after = w->tail > 0 ? r->id : r->after;
    p->after_pos = w->tail > 0 ? w->tail : r->after_pos;
    nc_lanes_exit(&r->lanes);
    return true;
}

static bool random_id(uint64_t *id)
{
    *id = 0;
    while (*id == 0)
        if (getrandom(id, sizeof *id, 0) != (ssize_t)sizeof *id)
            return false;
    return true;
}

static bool unpack_sender(Chan *c, parcel *p)
{
    uint64_t id;
    if (!random_id(&id)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    os_result result = os_reach_open_sender(reach_of(c->block), p->end[0], p->token >= 0, id, p->after, p->after_pos);
    if (result != OS_OK)
        raise_unopened(result);
    else
        p->ends = 0;
    return result == OS_OK;
}

/* ---- a receiver that moves ----------------------------------------------------------------------------- */

/* Holding the lock of the lanes. */
static bool pack_lanes(parcel *p, os_reach *r)
{
    if (r->lanes.count > 0) {
        p->lanes = PyMem_RawCalloc(r->lanes.count, sizeof *p->lanes);
        if (p->lanes == NULL)
            return false;
    }
    Py_ssize_t ends = 0;
    for (os_reach_lobby *lobby = r->lobbies; lobby != NULL; lobby = lobby->next)
        ends++;
    p->end = PyMem_RawMalloc(ends > 0 ? (size_t)ends * sizeof *p->end : 1);
    if (p->end == NULL)
        return false;
    nc_lane_in *in = r->lanes.turn;
    for (unsigned i = 0; i < r->lanes.count; i++, in = in->next) {
        os_reach_lane *lane = container_of(in, os_reach_lane, in);
        parcel_lane *to = &p->lanes[p->n++];
        to->id = in->id;
        to->after = in->after;
        to->after_pos = in->after_pos;
        to->memory = lane->memory;
        to->socket = os_reach_let_go(r, lane);
    }
    r->moved = true;
    for (os_reach_lobby *lobby = r->lobbies; lobby != NULL; lobby = lobby->next)
        p->end[p->ends++] = os_reach_let_lobby_go(r, lobby);
    p->crashed = r->lanes.crashed;
    return true;
}

static bool pack_receiver(parcel *p, os_reach *r)
{
    nc_lanes_enter(&r->lanes);
    bool packed = pack_lanes(p, r);
    nc_lanes_exit(&r->lanes);
    if (!packed)
        PyErr_NoMemory();
    return packed;
}

/* A lane comes along; its end of file, if it was heard, is to be heard once more. */
static os_result unpack_lane(os_reach *r, uint64_t capacity, parcel_lane *from)
{
    int pair[2];
    if (from->socket < 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
            return OS_SYSTEM;
        close(pair[1]);
        from->socket = pair[0];
    }
    os_visit visit = {.capacity = capacity,
                      .id = from->id,
                      .after = from->after,
                      .after_pos = from->after_pos,
                      .socket = from->socket,
                      .memory = from->memory};
    return os_reach_add_lane(r, &visit);
}

static bool unpack_receiver(Chan *c, parcel *p)
{
    os_reach *r = reach_of(c->block);
    os_result result = os_reach_open_receiver(r);
    Py_ssize_t lobbies = 0, taken = 0;
    nc_lanes_enter(&r->lanes);
    r->lanes.crashed = p->crashed;
    while (result == OS_OK && lobbies < p->ends && (result = os_reach_add_lobby(r, p->end[lobbies])) == OS_OK)
        lobbies++;
    while (result == OS_OK && taken < p->n && (result = unpack_lane(r, p->capacity, &p->lanes[taken])) == OS_OK)
        taken++;
    if (result != OS_OK) { /* they go back into the parcel */
        int why = errno;
        for (os_reach_lane *lane = r->all; lane != NULL; lane = lane->next)
            os_reach_let_go(r, lane);
        for (os_reach_lobby *lobby = r->lobbies; lobby != NULL; lobby = lobby->next)
            os_reach_let_lobby_go(r, lobby);
        r->moved = true;
        errno = why;
    }
    nc_lanes_exit(&r->lanes);
    if (result != OS_OK) {
        raise_unopened(result);
        return false;
    }
    for (Py_ssize_t i = 0; i < p->n; i++)
        p->lanes[i].socket = p->lanes[i].memory = -1;
    p->ends = 0;
    return true;
}

/* ---- endpoints ----------------------------------------------------------------------------------------- */

bool parcel_pack(parcel *p, Endpoint *ep, nc_box **kicks)
{
    os_reach *r = reach_of(ep->chan->block);
    if (r->forked) {
        core_raise(ep->chan->st, E_ENDPOINT_CLOSED, NULL, "this end stayed in the process that made it");
        return false;
    }
    if (r->listening != NULL) {
        core_raise(ep->chan->st, E_BUSY, NULL,
                   "senders come to this receiver by the path of a listener, which stays in this process: close() the "
                   "listener first; the senders that have come by it go along");
        return false;
    }
    if (!(ep->side == TX ? pack_sender : pack_receiver)(p, r))
        return false;
    p->kind = ep->chan->kind;
    p->side = ep->side;
    p->capacity = r->capacity;
    p->name = r->name;
    endpoint_close_held(ep, kicks);
    return true;
}

/* An endpoint of what the parcel holds; NULL with an exception set, and then it is still there. */
static PyObject *open_side(PyObject *module, parcel *p)
{
    Chan *c = chan_new_reach(module, p->kind, p->side, p->capacity);
    Endpoint *ep = c != NULL ? endpoint_new(c, p->side) : NULL;
    if (ep != NULL)
        reach_of(c->block)->name = p->name;
    if (ep != NULL && !(p->side == TX ? unpack_sender : unpack_receiver)(c, p))
        Py_CLEAR(ep);
    Py_XDECREF(c);
    return (PyObject *)ep;
}

PyObject *parcel_unpack(PyObject *module, parcel *p)
{
    if (!parcel_claim(p))
        return NULL;
    PyObject *ep = open_side(module, p);
    if (ep == NULL)
        parcel_unclaim(p);
    else if (p->side == RX)
        reach_hear(((Endpoint *)ep)->chan); /* from now on whoever has sent sees it if this process dies */
    return ep;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

PyObject *shared_open_sender(PyObject *module, chan_kind kind, uint64_t capacity, uint64_t name, int *door)
{
    parcel from = {.side = TX, .kind = kind, .capacity = capacity, .name = name, .token = -1, .ends = 1, .end = door};
    PyObject *tx = open_side(module, &from);
    *door = tx != NULL ? -1 : *door;
    return tx;
}

PyObject *shared_open_receiver(PyObject *module, chan_kind kind, uint64_t capacity)
{
    parcel from = {.side = RX, .kind = kind, .capacity = capacity, .token = -1};
    if (random_id(&from.name))
        return open_side(module, &from);
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *open_both(PyObject *module, chan_kind kind, uint64_t capacity)
{
    int lobby, door;
    uint64_t name;
    if (!random_id(&name) || os_lobby_open(&lobby, &door) != OS_OK)
        return PyErr_SetFromErrno(PyExc_OSError);
    parcel from = {.kind = kind, .capacity = capacity, .name = name, .token = -1, .ends = 1};
    PyObject *tx, *rx = NULL;
    from.side = TX;
    from.end = &door;
    if ((tx = open_side(module, &from)) != NULL) {
        door = -1; /* it is the sender's */
        from.side = RX;
        from.end = &lobby;
        from.ends = 1;
        rx = open_side(module, &from);
        lobby = rx != NULL ? -1 : lobby;
    }
    PyObject *pair = rx != NULL ? PyTuple_Pack(2, tx, rx) : NULL;
    os_close(&door);
    os_close(&lobby);
    Py_XDECREF(tx);
    Py_XDECREF(rx);
    return pair;
}

uint64_t shared_parse_capacity(PyObject *arg)
{
    uint64_t wish = chan_parse_capacity(arg), capacity = wish != 0 ? os_block_round(wish) : 0;
    if (wish != 0 && capacity == 0)
        PyErr_Format(PyExc_MemoryError, "no memory for lanes of %llu bytes", (unsigned long long)wish);
    return capacity;
}

PyObject *shared_open(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    long kind = n == 2 ? PyLong_AsLong(args[0]) : -1;
    if (kind != SPSC_BYTES && kind != MPSC_BYTES) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "open_shared(kind, capacity)");
        return NULL;
    }
    uint64_t capacity = shared_parse_capacity(args[1]);
    return capacity != 0 ? open_both(module, (chan_kind)kind, capacity) : NULL;
}

PyObject *shared_leave(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    reach_leave_all();
    Py_RETURN_NONE;
}

/* ---- as parts ------------------------------------------------------------------------------------------ */

/* Numbers of 8 bytes: these, then three a lane.  Descriptors: the token, the ends, and two a lane. */
enum {
    PARTS_VERSION = 1,
    AT_VERSION = 0,
    AT_SIDE,
    AT_KIND,
    AT_CRASHED,
    AT_CAPACITY,
    AT_NAME,
    AT_AFTER,
    AT_AFTER_POS,
    AT_ENDS,
    AT_LANES,
    AT_LANE,
    PARTS_MOST = 1 << 20
};

/* The descriptors in order: the place of the i-th; NULL behind the last. */
static int *parcel_fd(parcel *p, Py_ssize_t i)
{
    if (i == 0)
        return &p->token;
    if (i <= p->ends)
        return &p->end[i - 1];
    parcel_lane *lane = &p->lanes[(i - p->ends - 1) / 2];
    return (i - p->ends - 1) / 2 >= p->n ? NULL : (i - p->ends - 1) % 2 == 0 ? &lane->socket : &lane->memory;
}

static PyObject *parcel_numbers(const parcel *p)
{
    const uint64_t head[AT_LANE] = {PARTS_VERSION, (uint64_t)p->side, p->kind,      p->crashed,        p->capacity,
                                    p->name,       p->after,          p->after_pos, (uint64_t)p->ends, (uint64_t)p->n};
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (AT_LANE + 3 * p->n) * (Py_ssize_t)sizeof(uint64_t));
    if (bytes == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(bytes);
    memcpy(to, head, sizeof head);
    for (Py_ssize_t i = 0; i < p->n; i++) {
        uint64_t lane[3] = {p->lanes[i].id, p->lanes[i].after, p->lanes[i].after_pos};
        memcpy(to + sizeof head + (size_t)i * sizeof lane, lane, sizeof lane);
    }
    return bytes;
}

PyObject *parcel_parts(parcel *p)
{
    PyObject *numbers = parcel_numbers(p), *fds = numbers != NULL ? PyTuple_New(1 + p->ends + 2 * p->n) : NULL;
    bool made = fds != NULL;
    for (Py_ssize_t i = 0; made && i < PyTuple_GET_SIZE(fds); i++) {
        PyObject *fd = PyLong_FromLong(*parcel_fd(p, i));
        made = fd != NULL;
        PyTuple_SET_ITEM(fds, i, fd);
    }
    PyObject *parts = made ? PyTuple_Pack(2, numbers, fds) : NULL;
    Py_XDECREF(numbers);
    Py_XDECREF(fds);
    return parts;
}

/* Are these the numbers of a parcel, and so many descriptors?  Whatever they say is checked once more when it is
 * unpacked, against what the descriptors are. */
static bool check_parts(const uint64_t *head, Py_ssize_t size, Py_ssize_t fds)
{
    return size >= AT_LANE && head[AT_VERSION] == PARTS_VERSION && head[AT_SIDE] < SIDES &&
           (head[AT_KIND] == SPSC_BYTES || head[AT_KIND] == MPSC_BYTES) && head[AT_CAPACITY] != 0 &&
           head[AT_CAPACITY] == os_block_round(head[AT_CAPACITY]) && head[AT_LANES] < PARTS_MOST &&
           head[AT_ENDS] < PARTS_MOST && (head[AT_SIDE] == RX || (head[AT_ENDS] == 1 && head[AT_LANES] == 0)) &&
           size == AT_LANE + 3 * (Py_ssize_t)head[AT_LANES] &&
           fds == 1 + (Py_ssize_t)head[AT_ENDS] + 2 * (Py_ssize_t)head[AT_LANES];
}

/* An empty parcel of that shape; NULL with an exception set. */
static parcel *parcel_of_shape(const uint64_t *head)
{
    parcel *p = PyMem_RawCalloc(1, sizeof *p);
    if (p != NULL) {
        *p = (parcel){.side = (int)head[AT_SIDE],
                      .kind = (chan_kind)head[AT_KIND],
                      .crashed = head[AT_CRASHED] != 0,
                      .capacity = head[AT_CAPACITY],
                      .name = head[AT_NAME],
                      .after = head[AT_AFTER],
                      .after_pos = head[AT_AFTER_POS],
                      .token = -1,
                      .end = PyMem_RawCalloc(head[AT_ENDS] + 1, sizeof *p->end),
                      .lanes = PyMem_RawCalloc(head[AT_LANES] + 1, sizeof *p->lanes)};
        if (p->end != NULL && p->lanes != NULL) {
            p->ends = (Py_ssize_t)head[AT_ENDS];
            p->n = (Py_ssize_t)head[AT_LANES];
            return p;
        }
        parcel_free(p);
    }
    PyErr_NoMemory();
    return NULL;
}

/* Fill the parcel's descriptors in; false with an exception set, and then it has none. */
static bool parcel_take_fds(parcel *p, PyObject *fds)
{
    Py_ssize_t i = 0;
    while (i < PyTuple_GET_SIZE(fds)) {
        long fd = PyLong_AsLong(PyTuple_GET_ITEM(fds, i));
        if (fd == -1 && PyErr_Occurred())
            break;
        *parcel_fd(p, i++) = (int)fd;
    }
    bool all = i == PyTuple_GET_SIZE(fds);
    for (i = 0; !all && i < PyTuple_GET_SIZE(fds); i++)
        *parcel_fd(p, i) = -1;
    return all;
}

/* Is each descriptor of its kind?  Which of them it is, is found out as it is used. */
static bool check_fds(parcel *p)
{
    bool sound = os_is_counter(p->token);
    for (Py_ssize_t i = 0; i < p->ends; i++)
        sound = sound && os_is_socket(p->end[i], SOCK_SEQPACKET);
    for (Py_ssize_t i = 0; i < p->n; i++)
        sound = sound && (p->lanes[i].socket < 0 || os_is_socket(p->lanes[i].socket, SOCK_STREAM)) &&
                os_is_memory(p->lanes[i].memory);
    if (!sound) {
        PyErr_SetString(PyExc_ValueError, "the descriptors that came with this ticket are not those of one");
        for (Py_ssize_t i = 0; i < 1 + p->ends + 2 * p->n; i++)
            *parcel_fd(p, i) = -1;
    }
    return sound;
}

parcel *parcel_of_parts(PyObject *numbers, PyObject *fds)
{
    uint64_t head[AT_LANE];
    Py_ssize_t size = PyBytes_GET_SIZE(numbers) / (Py_ssize_t)sizeof(uint64_t);
    const char *from = PyBytes_AS_STRING(numbers);
    if (size >= AT_LANE)
        memcpy(head, from, sizeof head);
    if (!check_parts(head, size, PyTuple_GET_SIZE(fds))) {
        PyErr_SetString(PyExc_ValueError, "these are not the parts of a ticket of this version of nexus_channels");
        return NULL;
    }
    parcel *p = parcel_of_shape(head);
    if (p == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < p->n; i++) {
        uint64_t lane[3];
        memcpy(lane, from + sizeof head + (size_t)i * sizeof lane, sizeof lane);
        p->lanes[i].id = lane[0];
        p->lanes[i].after = lane[1];
        p->lanes[i].after_pos = lane[2];
    }
    if (parcel_take_fds(p, fds) && check_fds(p))
        return p;
    parcel_free(p);
    return NULL;
}

#else

parcel *parcel_new(void) { return NULL; }
bool parcel_pack(parcel *Py_UNUSED(p), Endpoint *Py_UNUSED(ep), nc_box **Py_UNUSED(kicks)) { return false; }
PyObject *parcel_unpack(PyObject *Py_UNUSED(module), parcel *Py_UNUSED(p)) { return NULL; }
void parcel_void(parcel *Py_UNUSED(p)) {}
void parcel_free(parcel *Py_UNUSED(p)) {}
PyObject *parcel_parts(parcel *Py_UNUSED(p)) { return NULL; }
int parcel_side(const parcel *Py_UNUSED(p)) { return TX; }
chan_kind parcel_kind(const parcel *Py_UNUSED(p)) { return SPSC_BYTES; }

static PyObject *raise_no_lanes(void)
{
    errno = ENOTSUP;
    PyObject *why =
        Py_BuildValue("is", ENOTSUP, "channels shared between processes need Linux, and a build that is not portable");
    PyErr_SetObject(PyExc_OSError, why);
    Py_XDECREF(why);
    return NULL;
}

PyObject *shared_leave(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) { Py_RETURN_NONE; }
parcel *parcel_of_parts(PyObject *Py_UNUSED(numbers), PyObject *Py_UNUSED(fds)) { return (parcel *)raise_no_lanes(); }

PyObject *shared_open(PyObject *Py_UNUSED(module), PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return raise_no_lanes();
}

#endif
