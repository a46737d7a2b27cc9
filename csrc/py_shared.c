/* py_shared.c: channels between processes: opened, and their ends packed up to move.  Touches py_reach.h.
 *
 * A parcel holds two descriptors.  One is a door, of a sender; whoever unpacks it sends a lane through it, and a new
 * door.  Of the receiver it is a lobby, in which all lie that it had: its lobbies, and the lanes that it had taken in.
 * The other one is a token, an eventfd that can be read once, by whichever process is the first.
 *
 * Under fork each child has a copy of a parcel, and may keep it as long as it lives.  Nothing depends on these: through
 * an old door nobody is waited for, and an old lobby is empty.
 *
 * A parcel that is dropped is an end that has left: its descriptors are closed, which is how the other side hears it.
 */
#include "py_shared.h"
#include "py_chan.h"
#include "py_reach.h"

#if REACHES

#include <sys/eventfd.h>
#include <sys/random.h>

struct parcel {
    int side;             /* < 0: it is empty */
    chan_kind kind;
    bool crashed;         /* the receiver knew of a process that had crashed */
    uint64_t capacity, name;
    uint64_t after, after_pos; /* a sender's next lane */
    int token;
    int end;              /* the door, or the lobby */
};

/* ---- parcels ------------------------------------------------------------------------------------------- */

parcel *parcel_new(void)
{
    parcel *p = PyMem_RawCalloc(1, sizeof *p);
    if (p == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    p->side = p->end = -1;
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
    os_close(&p->end);
    os_close(&p->token);
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
    shutdown(p->end, SHUT_RDWR);
    if (p->side == RX)
        empty_lobby(p->end);
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
    os_result result = os_reach_further_door(r, &p->end);
    if (result != OS_OK) {
        raise_unopened(result);
        return false;
    }
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
    os_result result = os_reach_open_sender(reach_of(c->block), p->end, p->token >= 0, id, p->after, p->after_pos);
    if (result != OS_OK)
        raise_unopened(result);
    else
        p->end = -1;
    return result == OS_OK;
}

/* ---- a receiver that moves ----------------------------------------------------------------------------- */

static bool pack_receiver(parcel *p, os_reach *r)
{
    nc_lanes_enter(&r->lanes);
    os_result result = os_reach_pack(r, &p->end);
    p->crashed = r->lanes.crashed;
    nc_lanes_exit(&r->lanes);
    if (result != OS_OK) {
        p->end = -1;
        raise_unopened(result);
    }
    return result == OS_OK;
}

static bool unpack_receiver(Chan *c, parcel *p)
{
    os_reach *r = reach_of(c->block);
    os_result result = os_reach_open_receiver(r);
    nc_lanes_enter(&r->lanes);
    r->lanes.crashed = p->crashed;
    if (result == OS_OK && p->end >= 0)
        result = os_reach_add_lobby(r, p->end);
    nc_lanes_exit(&r->lanes);
    if (result != OS_OK)
        raise_unopened(result);
    else
        p->end = -1;
    return result == OS_OK;
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
    parcel from = {.side = TX, .kind = kind, .capacity = capacity, .name = name, .token = -1, .end = *door};
    PyObject *tx = open_side(module, &from);
    *door = from.end;
    return tx;
}

PyObject *shared_open_receiver(PyObject *module, chan_kind kind, uint64_t capacity)
{
    parcel from = {.side = RX, .kind = kind, .capacity = capacity, .token = -1, .end = -1};
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
    parcel from = {.side = RX, .kind = kind, .capacity = capacity, .name = name, .token = -1, .end = lobby};
    PyObject *tx = shared_open_sender(module, kind, capacity, name, &door);
    PyObject *rx = tx != NULL ? open_side(module, &from) : NULL;
    PyObject *pair = rx != NULL ? PyTuple_Pack(2, tx, rx) : NULL;
    os_close(&door);
    os_close(tx != NULL ? &from.end : &lobby);
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

/* Numbers of 8 bytes, and descriptors. */
enum {
    PARTS_VERSION = 2,
    AT_VERSION = 0,
    AT_SIDE,
    AT_KIND,
    AT_CRASHED,
    AT_CAPACITY,
    AT_NAME,
    AT_AFTER,
    AT_AFTER_POS,
    NUMBERS,
    AT_TOKEN = 0,
    AT_END,
    FDS
};

PyObject *parcel_parts(parcel *p)
{
    const uint64_t numbers[NUMBERS] = {PARTS_VERSION, (uint64_t)p->side, p->kind,  p->crashed,
                                       p->capacity,   p->name,           p->after, p->after_pos};
    return Py_BuildValue("y#(ii)", (const char *)numbers, (Py_ssize_t)sizeof numbers, p->token, p->end);
}

/* Are these the numbers of a parcel?  Whatever they say is checked once more when it is unpacked, against what the
 * descriptors are. */
static bool check_numbers(const uint64_t *numbers)
{
    return numbers[AT_VERSION] == PARTS_VERSION && numbers[AT_SIDE] < SIDES &&
           (numbers[AT_KIND] == SPSC_BYTES || numbers[AT_KIND] == MPSC_BYTES) && numbers[AT_CAPACITY] != 0 &&
           numbers[AT_CAPACITY] == os_block_round(numbers[AT_CAPACITY]);
}

static parcel *parcel_of_numbers(const uint64_t *numbers, int token, int end)
{
    parcel *p = PyMem_RawMalloc(sizeof *p);
    if (p == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *p = (parcel){.side = (int)numbers[AT_SIDE],
                  .kind = (chan_kind)numbers[AT_KIND],
                  .crashed = numbers[AT_CRASHED] != 0,
                  .capacity = numbers[AT_CAPACITY],
                  .name = numbers[AT_NAME],
                  .after = numbers[AT_AFTER],
                  .after_pos = numbers[AT_AFTER_POS],
                  .token = token,
                  .end = end};
    return p;
}

static int fd_of(PyObject *fds, Py_ssize_t i)
{
    long fd = PyLong_AsLong(PyTuple_GET_ITEM(fds, i));
    return fd >= 0 && fd <= INT_MAX ? (int)fd : -1;
}

parcel *parcel_of_parts(PyObject *numbers, PyObject *fds)
{
    uint64_t n[NUMBERS];
    bool whole = PyBytes_GET_SIZE(numbers) == (Py_ssize_t)sizeof n && PyTuple_GET_SIZE(fds) == FDS;
    if (whole)
        memcpy(n, PyBytes_AS_STRING(numbers), sizeof n);
    if (!whole || !check_numbers(n)) {
        PyErr_SetString(PyExc_ValueError, "these are not the parts of a ticket of this version of nexus_channels");
        return NULL;
    }
    int token = fd_of(fds, AT_TOKEN), end = fd_of(fds, AT_END);
    if (PyErr_Occurred())
        return NULL;
    /* which of its kind each is, is found out as it is used */
    if (os_is_counter(token) && os_is_socket(end, SOCK_SEQPACKET))
        return parcel_of_numbers(n, token, end);
    PyErr_SetString(PyExc_ValueError, "the descriptors that came with this ticket are not those of one");
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
