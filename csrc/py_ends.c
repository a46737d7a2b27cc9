/* py_ends.c: for finding out why a channel is still open: the repr() of its endpoints, and in debug mode where each
 * open end was made.
 */
#include "py_ends.h"
#include "py_endpoint.h"
#include "py_line.h"
#include "py_reach.h"

/* ---- where an end was made -------------------------------------------------------------------------- */

/* One end that was made in debug mode, until it is freed.  Of objects it refers to strings only. */
struct birth {
    birth *next, **link;          /* in the channel's list; this and `where` in the channel's critical section */
    PyObject *where;              /* a tuple of str, the line that made it first and its callers after; strong */
    lease *native;                /* what Python lent out, borrowed; NULL for an endpoint */
    uint8_t side;
    _Atomic bool left;            /* it no longer counts as open; relaxed, as the counts are */
};

enum { FRAMES = 5 }; /* are remembered at most */

/* Is this a frame of the package itself?  -1 with an exception set. */
static int frame_is_ours(PyFrameObject *frame)
{
    PyObject *globals = PyFrame_GetGlobals(frame);
    PyObject *name = globals != NULL ? PyObject_CallMethod(globals, "get", "s", "__name__") : NULL;
    int ours = name == NULL ? -1 : 0;
    if (name != NULL && PyUnicode_Check(name)) {
        Py_ssize_t length = PyUnicode_GET_LENGTH(name), package = (Py_ssize_t)strlen("nexus_channels");
        PyObject *head = PyUnicode_Substring(name, 0, package);
        ours = head == NULL ? -1
                            : PyUnicode_CompareWithASCIIString(head, "nexus_channels") == 0 &&
                                  (length == package || PyUnicode_READ_CHAR(name, package) == '.');
        Py_XDECREF(head);
    }
    Py_XDECREF(name);
    Py_XDECREF(globals);
    return ours;
}

/* "file:line in function", a new reference. */
static PyObject *frame_place(PyFrameObject *frame)
{
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    PyObject *file = PyObject_GetAttrString(code, "co_filename");
    PyObject *name = file != NULL ? PyObject_GetAttrString(code, "co_qualname") : NULL;
    PyObject *place =
        name != NULL ? PyUnicode_FromFormat("%S:%d in %S", file, PyFrame_GetLineNumber(frame), name) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(file);
    Py_DECREF(code);
    return place;
}

/* Add the place of a frame that is not of the package; false with an exception set. */
static bool add_place(PyObject *places, PyFrameObject *frame)
{
    int ours = frame_is_ours(frame);
    PyObject *place = ours == 0 ? frame_place(frame) : NULL;
    bool added = ours > 0 || (place != NULL && PyList_Append(places, place) == 0);
    Py_XDECREF(place);
    return added;
}

/* Where the running call comes from, as a new tuple; NULL with an exception set. */
static PyObject *places_here(void)
{
    PyFrameObject *frame = (PyFrameObject *)Py_XNewRef(PyEval_GetFrame());
    PyObject *places = PyList_New(0), *result = NULL;
    bool ok = places != NULL;
    while (frame != NULL && ok && PyList_GET_SIZE(places) < FRAMES) {
        ok = add_place(places, frame);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    if (ok)
        result = PyList_AsTuple(places);
    Py_XDECREF(places);
    return result;
}

birth *birth_note(Chan *c, int side, lease *native)
{
    PyObject *where = places_here();
    birth *b = where != NULL ? PyMem_RawCalloc(1, sizeof *b) : NULL;
    if (b == NULL) {
        if (where != NULL)
            PyErr_NoMemory();
        Py_XDECREF(where);
        return NULL;
    }
    b->where = where;
    b->native = native;
    b->side = (uint8_t)side;
    Py_BEGIN_CRITICAL_SECTION(c);
    b->link = &c->births; /* the newest first */
    b->next = c->births;
    if (b->next != NULL)
        b->next->link = &b->next;
    c->births = b;
    Py_END_CRITICAL_SECTION();
    return b;
}

/* The end counts no longer as open. */
static void birth_left(birth *b)
{
    atomic_store_explicit(&b->left, true, memory_order_relaxed); /* as the counts are */
}

void birth_forget(Chan *c, birth *b)
{
    (void)c; /* unused with a GIL, which takes the place of the critical section */
    Py_BEGIN_CRITICAL_SECTION(c);
    *b->link = b->next;
    if (b->next != NULL)
        b->next->link = b->link;
    Py_END_CRITICAL_SECTION();
    Py_DECREF(b->where);
    PyMem_RawFree(b);
}

void endpoint_leave(Endpoint *ep, nc_box **kicks)
{
    if (ep->birth != NULL)
        birth_left(ep->birth);
    nc_chan_leave(ep->chan->block, ep->side, core_generation(), kicks);
    line_reap(ep->chan, 1 - ep->side, kicks);
}

static bool birth_is_open(birth *b)
{
    return b->native != NULL ? !nc_end_has_left(&b->native->life)
                             : !atomic_load_explicit(&b->left, memory_order_relaxed); /* a snapshot */
}

PyObject *ends_set_debug(PyObject *module, PyObject *on)
{
    core_state *st = PyModule_GetState(module);
    int is = PyObject_IsTrue(on);
    if (is < 0)
        return NULL;
    atomic_store_explicit(&st->debug_ends, is > 0, memory_order_relaxed); /* a switch: it publishes nothing else */
    Py_RETURN_NONE;
}

void ends_read_environment(core_state *st)
{
    const char *value = getenv("NEXUS_CHANNELS_DEBUG_ENDS");
    bool on = value != NULL && *value != '\0' && strcmp(value, "0") != 0;
    atomic_store_explicit(&st->debug_ends, on, memory_order_relaxed); /* nobody else has the module yet */
}

/* ---- all that are open ------------------------------------------------------------------------------ */

typedef struct Seen {
    PyObject *where;              /* strong */
    bool native;
    uint8_t side;
} Seen;

/* Copies of all births that are open, *n of them; NULL with an exception set.  While the list is read nothing is
 * allocated from Python: that might begin a collection, which might change the list. */
static Seen *ends_seen(Chan *c, Py_ssize_t *n)
{
    Seen *seen;
    *n = 0;
    Py_BEGIN_CRITICAL_SECTION(c);
    size_t all = 1;
    for (birth *b = c->births; b != NULL; b = b->next)
        all++;
    seen = PyMem_RawCalloc(all, sizeof *seen);
    for (birth *b = c->births; seen != NULL && b != NULL; b = b->next)
        if (birth_is_open(b))
            seen[(*n)++] = (Seen){Py_NewRef(b->where), b->native != NULL, b->side};
    Py_END_CRITICAL_SECTION();
    if (seen == NULL)
        PyErr_NoMemory();
    return seen;
}

static bool add_end(Chan *c, PyObject *list, int side, bool native, PyObject *where)
{
    const char *kind = native ? (side == TX ? "native sender" : "native receiver") : side == TX ? "sender" : "receiver";
    PyObject *end = PyObject_CallFunction(c->st->OpenEnd, "sO", kind, where);
    bool added = end != NULL && PyList_Append(list, end) == 0;
    Py_XDECREF(end);
    return added;
}

PyObject *endpoint_open_ends(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Chan *c = ((Endpoint *)self)->chan;
    Py_ssize_t n;
    reach_hear(c);
    Seen *seen = ends_seen(c, &n);
    PyObject *list = seen != NULL ? PyList_New(0) : NULL, *nowhere = PyTuple_New(0);
    bool ok = list != NULL && nowhere != NULL;
    for (int side = TX; side < SIDES && ok; side++) {
        uint32_t open = nc_chan_open(c->block, side);
        for (Py_ssize_t i = n - 1; i >= 0 && ok; i--) /* the oldest first */
            if (seen[i].side == side) {
                ok = add_end(c, list, side, seen[i].native, seen[i].where);
                open -= open > 0;
            }
        for (; open > 0 && ok; open--)
            ok = add_end(c, list, side, false, nowhere);
    }
    for (Py_ssize_t i = 0; i < n; i++)
        Py_DECREF(seen[i].where);
    PyMem_RawFree(seen);
    Py_XDECREF(nowhere);
    if (!ok)
        Py_CLEAR(list);
    return list;
}

/* ---- repr ------------------------------------------------------------------------------------------- */

static uint32_t waiting_on(Chan *c, int side) { return nc_gate_crowd(&c->gate[side]) / NC_WAITER; }

static PyObject *senders_text(Chan *c)
{
    uint32_t open = nc_chan_open(c->block, TX);
    uint32_t waiting = waiting_on(c, TX);
    const char *s = open == 1 ? "" : "s";
    if (open == 0)
        return PyUnicode_FromString("no senders");
    if (waiting == 0)
        return PyUnicode_FromFormat("%u sender%s", open, s);
    return PyUnicode_FromFormat("%u sender%s (%u call%s waiting)", open, s, waiting, waiting == 1 ? "" : "s");
}

static PyObject *receiver_text(Chan *c)
{
    uint32_t open = nc_chan_open(c->block, RX);
    uint32_t waiting = waiting_on(c, RX);
    if (open == 0)
        return PyUnicode_FromString("receiver gone");
    if (waiting < 2)
        return PyUnicode_FromString(waiting == 0 ? "receiver open" : "receiver waiting");
    return PyUnicode_FromFormat("receiver waiting (%u calls)", waiting);
}

/* ", made at file:line in function", where that is known. */
static PyObject *birth_text(birth *b)
{
    if (b == NULL || PyTuple_GET_SIZE(b->where) == 0)
        return PyUnicode_FromString("");
    return PyUnicode_FromFormat(", made at %U", PyTuple_GET_ITEM(b->where, 0));
}

PyObject *endpoint_repr(PyObject *self)
{
    Endpoint *ep = (Endpoint *)self;
    Chan *c = ep->chan;
    bool closed, claimed;
    reach_hear(c);
    Py_BEGIN_CRITICAL_SECTION(self);
    closed = ep->closed;
    claimed = ep->claim != NULL;
    Py_END_CRITICAL_SECTION();
    const char *state = closed ? "closed, " : nc_gate_over_seen(&c->gate[ep->side]) ? "disconnected, " : "";
    PyObject *senders = senders_text(c), *receiver = receiver_text(c), *made = birth_text(ep->birth), *repr = NULL;
    if (senders != NULL && receiver != NULL && made != NULL)
        repr = PyUnicode_FromFormat("<%s %s%s%zd/%llu %sbuffered, %U, %U%U, at %p>", Py_TYPE(self)->tp_name, state,
                                    claimed ? "a claim open, " : "", (Py_ssize_t)nc_chan_used(c->block),
                                    (unsigned long long)nc_chan_capacity(c->block),
                                    nc_chan_of_bytes(c->block) ? "bytes " : "", senders, receiver, made, self);
    Py_XDECREF(senders);
    Py_XDECREF(receiver);
    Py_XDECREF(made);
    return repr;
}
