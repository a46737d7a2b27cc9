/* py_shared.c: channels between processes: opened, and their ends packed up to move.  Touches py_reach.h and
 * os_parcel.h.
 *
 * A parcel that is dropped is an end that has left: its descriptors are closed, which is how the other side hears it.
 * Under fork, each child has a copy of the parcel.
 */
#include "py_shared.h"
#include "py_chan.h"
#include "py_reach.h"

#include "os_parcel.h"

#if REACHES

#include <sys/eventfd.h>

_Static_assert(OS_PARCEL_SENDER == (int)TX && OS_PARCEL_RECEIVER == (int)RX, "the numbers are those of every build");
_Static_assert(OS_PARCEL_ONE == (int)SPSC_BYTES && OS_PARCEL_MANY == (int)MPSC_BYTES, "likewise");

/* ---- parcels ------------------------------------------------------------------------------------------- */

parcel *parcel_new(void)
{
    parcel *p = PyMem_RawCalloc(1, sizeof *p);
    if (p == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    p->side = OS_PARCEL_EMPTY;
    p->end = -1;
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
    os_parcel_clear(p);
    PyMem_RawFree(p);
}

void parcel_void(parcel *p) { os_parcel_void(p); }

int parcel_side(const parcel *p) { return p->side; }
chan_kind parcel_kind(const parcel *p) { return (chan_kind)p->kind; }

/* Be the one who unpacks it: false with ValueError set if somebody was first. */
static bool parcel_claim(parcel *p)
{
    if (os_parcel_be_first(p))
        return true;
    PyErr_SetString(PyExc_ValueError, "this ticket was attached before, in this process or in another one; each can be "
                                      "attached once");
    return false;
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

/* ---- packing ------------------------------------------------------------------------------------------- */

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
    p->kind = (int)ep->chan->kind;
    p->side = ep->side;
    p->capacity = r->capacity;
    p->name = r->name;
    endpoint_close_held(ep, kicks);
    return true;
}

/* An endpoint of what the parcel holds; NULL with an exception set, and then it is still there. */
static PyObject *open_side(PyObject *module, parcel *p)
{
    Chan *c = chan_new_reach(module, (chan_kind)p->kind, p->side, p->capacity);
    Endpoint *ep = c != NULL ? endpoint_new(c, p->side) : NULL;
    if (ep != NULL)
        reach_of(c->block)->name = p->name;
    os_result result = OS_OK;
    if (ep != NULL)
        result = (p->side == TX ? os_parcel_open_sender : os_parcel_open_receiver)(p, reach_of(c->block));
    if (result != OS_OK) {
        raise_unopened(result);
        Py_CLEAR(ep);
    }
    Py_XDECREF(c);
    return (PyObject *)ep;
}

PyObject *parcel_unpack(PyObject *module, parcel *p)
{
    if (!parcel_claim(p))
        return NULL;
    PyObject *ep = open_side(module, p);
    if (ep == NULL)
        os_parcel_give_back(p);
    else if (p->side == RX)
        reach_hear(((Endpoint *)ep)->chan); /* from now on whoever has sent sees it if this process dies */
    return ep;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

PyObject *shared_open_sender(PyObject *module, chan_kind kind, uint64_t capacity, uint64_t name, int *door)
{
    parcel from = {.side = TX, .kind = (int)kind, .capacity = capacity, .name = name, .token = -1, .end = *door};
    PyObject *tx = open_side(module, &from);
    *door = from.end;
    return tx;
}

PyObject *shared_open_receiver(PyObject *module, chan_kind kind, uint64_t capacity)
{
    parcel from = {.side = RX, .kind = (int)kind, .capacity = capacity, .token = -1, .end = -1};
    if (os_random_id(&from.name))
        return open_side(module, &from);
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *open_both(PyObject *module, chan_kind kind, uint64_t capacity)
{
    int lobby, door;
    uint64_t name;
    if (!os_random_id(&name) || os_lobby_open(&lobby, &door) != OS_OK)
        return PyErr_SetFromErrno(PyExc_OSError);
    parcel from = {.side = RX, .kind = (int)kind, .capacity = capacity, .name = name, .token = -1, .end = lobby};
    PyObject *tx = shared_open_sender(module, kind, capacity, name, &door);
    PyObject *rx = tx != NULL ? open_side(module, &from) : NULL;
    PyObject *pair = rx != NULL ? PyTuple_Pack(2, tx, rx) : NULL;
    os_close(&door);
    os_close(&from.end);
    Py_XDECREF(tx);
    Py_XDECREF(rx);
    return pair;
}

/* OSError with errno ENOMEM. */
static void raise_unfit(uint64_t capacity)
{
    PyObject *what =
        PyUnicode_FromFormat("a lane of %llu bytes does not fit into the memory of this machine, %llu bytes",
                             (unsigned long long)capacity, (unsigned long long)os_block_memory());
    PyObject *args = what != NULL ? Py_BuildValue("(iN)", ENOMEM, what) : NULL;
    if (args != NULL)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
}

uint64_t shared_parse_capacity(PyObject *arg)
{
    uint64_t wish = chan_parse_capacity(arg), capacity = wish != 0 ? os_block_round(wish) : 0;
    if (wish != 0 && capacity == 0) {
        PyErr_Format(PyExc_MemoryError, "no memory for lanes of %S bytes", arg);
    } else if (capacity != 0 && !os_block_fits(capacity)) { /* a listener makes none itself: those who come would */
        raise_unfit(capacity);
        return 0;
    }
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

PyObject *parcel_parts(parcel *p)
{
    uint64_t numbers[OS_PARCEL_NUMBERS];
    os_parcel_write(p, numbers);
    return Py_BuildValue("y#(ii)", (const char *)numbers, (Py_ssize_t)sizeof numbers, p->token, p->end);
}

static int fd_of(PyObject *fds, Py_ssize_t i)
{
    long fd = PyLong_AsLong(PyTuple_GET_ITEM(fds, i));
    return fd >= 0 && fd <= INT_MAX ? (int)fd : -1;
}

/* Fill it in; false with an exception set, and then the descriptors are still the caller's. */
static bool parcel_fill(parcel *p, PyObject *bytes, PyObject *fds)
{
    uint64_t numbers[OS_PARCEL_NUMBERS]; /* aligned, as the bytes need not be */
    bool whole = PyBytes_GET_SIZE(bytes) == (Py_ssize_t)sizeof numbers && PyTuple_GET_SIZE(fds) == OS_PARCEL_FDS;
    if (whole)
        memcpy(numbers, PyBytes_AS_STRING(bytes), sizeof numbers);
    if (!whole || !os_parcel_read(p, numbers)) {
        PyErr_SetString(PyExc_ValueError, "these are not the parts of a ticket of this version of nexus_channels");
        return false;
    }
    int token = fd_of(fds, 0), end = fd_of(fds, 1);
    if (PyErr_Occurred())
        return false;
    if (os_parcel_take(p, token, end))
        return true;
    PyErr_SetString(PyExc_ValueError, "the descriptors that came with this ticket are not those of one");
    return false;
}

parcel *parcel_of_parts(PyObject *bytes, PyObject *fds)
{
    parcel *p = PyMem_RawMalloc(sizeof *p);
    if (p == NULL)
        PyErr_NoMemory();
    else if (parcel_fill(p, bytes, fds))
        return p;
    PyMem_RawFree(p);
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
