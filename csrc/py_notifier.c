/* py_notifier.c: an endpoint as a file descriptor, for event loops that this package does not know.  Touches nc_chan.h.
 *
 *                 arm: nothing yet                 the other side calls it            its kick writes
 *      OUTSIDE -----------------------> WAITING ---------------------------> CALLED -----------------> readable
 *       ^    \                             |                                   |                          |
 *       |     '--- arm: it can go ---------|---------------- writes -----------|------------------------->|
 *       '----------------------------------'-----------------------------------'--------------------------'  clear
 *
 * A notifier is an observer in its endpoint's line: nothing is kept for it, so a program that does not come holds
 * nobody up.  The kick is one write, from any thread, with or without a GIL.  What was posted is taken off by clear()
 * and arm(), so that there is one write for each time it was armed.
 *
 * Of a channel between processes, somebody has to hear what these ring.  So the descriptor is an epoll, of the one that
 * is written to and, while the notifier is armed, of the one that rings come by.  Whoever clears it, and looks, hears.
 */
#include "py_notifier.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_doc.h"
#include "py_endpoint.h"
#include "py_line.h"
#include "py_module.h"
#include "py_reach.h"
#include "py_wake_fd.h"

#include <errno.h>
#if REACHES
#include <sys/epoll.h>
#endif

/* ---- for lanes: the descriptor is an epoll -------------------------------------------------------------- */

#if REACHES

/* False with errno set. */
static bool notifier_open_lanes(notifier_box *b, Chan *c)
{
    struct epoll_event written = {.events = EPOLLIN};
    if (c->block->lanes == NULL)
        return true;
    b->lanes = reach_wait_on(c); /* or NULL: it was closed meanwhile, and arm() then writes */
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    return b->epoll >= 0 && epoll_ctl(b->epoll, EPOLL_CTL_ADD, b->fds[0], &written) == 0;
}

/* Be readable, or no more, when other processes have rung.  False with errno set.  Not by an event mask of 0, as a
 * socket that has ended is told of all the same. */
static bool notifier_hear_lanes(notifier_box *b, bool hears)
{
    struct epoll_event rung = {.events = EPOLLIN};
    if (b->lanes == NULL || b->epoll_lost || b->hears == hears)
        return true;
    if (epoll_ctl(b->epoll, hears ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, b->lanes->fd, &rung) == 0)
        b->hears = hears;
    else if (hears && (errno == ENOMEM || errno == ENOSPC))
        return false;
    else
        b->epoll_lost = true; /* it is not that epoll any more */
    return true;
}

static void notifier_drop_lanes(notifier_box *b)
{
    if (b->epoll >= 0 && !b->epoll_lost)
        wake_fd_close(b->epoll);
    if (b->lanes != NULL)
        os_reach_fd_unref(b->lanes);
}

#else

static bool notifier_open_lanes(notifier_box *Py_UNUSED(b), Chan *Py_UNUSED(c)) { return true; }
static bool notifier_hear_lanes(notifier_box *Py_UNUSED(b), bool Py_UNUSED(hears)) { return true; }
static void notifier_drop_lanes(notifier_box *Py_UNUSED(b)) {}

#endif

/* ---- its box: from any thread, with or without a GIL -------------------------------------------------- */

/* Of the descriptor that is written to. */
static bool notifier_lost(notifier_box *b) { return atomic_load_explicit(&b->lost, memory_order_relaxed); /* a hint */ }

/* Become readable. */
static void notifier_signal(wake_box *base)
{
    notifier_box *b = (notifier_box *)base;
    if (!notifier_lost(b) && !wake_fd_write(b->fds[1]))
        atomic_store_explicit(&b->lost, true, memory_order_relaxed); /* a hint */
}

static void notifier_kick(core_state *Py_UNUSED(st), wake_box *b, nc_box **Py_UNUSED(kicks)) { notifier_signal(b); }

static bool notifier_reached(wake_box *Py_UNUSED(b)) { return true; }

static bool notifier_dead(core_state *Py_UNUSED(st), wake_box *Py_UNUSED(b)) { return false; }

static void notifier_drop(wake_box *base)
{
    notifier_box *b = (notifier_box *)base;
    notifier_drop_lanes(b);
    if (notifier_lost(b)) /* its number may be another file's by now */
        return;
    wake_fd_close(b->fds[0]);
    if (b->fds[1] != b->fds[0])
        wake_fd_close(b->fds[1]);
}

static const box_kind notifier_kind = {
    .kick = notifier_kick,
    .kick_without_gil = notifier_signal,
    .reached = notifier_reached,
    .dead = notifier_dead,
    .drop = notifier_drop,
};

/* A box with open descriptors, or NULL with an exception set. */
static notifier_box *notifier_box_new(Endpoint *ep)
{
    notifier_box *b = PyMem_RawCalloc(1, sizeof *b);
    if (b == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (!wake_fd_open(b->fds)) {
        PyErr_SetFromErrno(PyExc_OSError);
        PyMem_RawFree(b);
        return NULL;
    }
    nc_box_init(&b->base.box);
    b->base.box.guarded = !NC_FREE_THREADED;
    b->base.kind = &notifier_kind;
    b->base.born = core_generation();
    b->waiter.box = &b->base.box;
    b->waiter.owner = ep; /* compared, never followed */
    b->epoll = -1;
    if (notifier_open_lanes(b, ep->chan))
        return b;
    PyErr_SetFromErrno(PyExc_OSError);
    wake_box_unref(&b->base.box);
    return NULL;
}

/* ---- holding the notifier: no Python code runs ----------------------------------------------------------- */

/* Empty the box, so that the next post writes again. */
static void notifier_receive(notifier_box *b)
{
    if (nc_box_take(&b->base.box) != NULL)
        nc_post_receive(&b->waiter);
}

/* Have a look and a place in line: how much there must be for the notifier to become readable. */
static nc_need notifier_need(Notifier *n, Endpoint *ep)
{
    uint64_t least = n->side == TX ? n->chan->payload->least : 1;
    return (nc_need){.least = ep->refused > least ? ep->refused : least, .share = 0};
}

/* Line up, and become readable if it can go at once; true if it waits.  Holding the endpoint, too, which is open.
 *
 * One that was called is readable already, or will be within moments, and one that waits keeps its place; but a sender
 * that has been refused meanwhile waits for as much as it needs now. */
static bool notifier_line_up(Notifier *n, Endpoint *ep, nc_box **kicks)
{
    notifier_box *b = n->box;
    nc_need need = notifier_need(n, ep);
    uint32_t state = nc_waiter_state_of(&b->waiter);
    if (state == NC_CALLED || (state == NC_WAITING && (ep->refused == 0 || need.least == b->waiter.least)))
        return state == NC_WAITING;
    notifier_receive(b);
    ep->refused = 0;
    if (nc_chan_line_up(n->chan->block, n->side, &b->waiter, need, true, true, core_generation(), kicks) != NC_TURN)
        return true;
    notifier_signal(&b->base);
    return false;
}

/* Leave the line, and be readable no more.  To leave comes first: from then on nobody posts, so only a kick that was
 * promised before may still be written. */
static void notifier_disarm(Notifier *n, nc_box **kicks)
{
    notifier_box *b = n->box;
    nc_chan_leave_line(n->chan->block, n->side, &b->waiter, false, core_generation(), kicks);
    notifier_hear_lanes(b, false);
    if (!wake_fd_clear(b->fds[0]))
        atomic_store_explicit(&b->lost, true, memory_order_relaxed); /* a hint */
    notifier_receive(b);
}

/* ---- calls: may run Python code --------------------------------------------------------------------- */

/* Is it open, and this thread's, and this process's?  False with an exception set.  Holding the notifier. */
static bool notifier_check(Notifier *n)
{
    if (chan_off_thread(n->chan))
        return false;
    if (n->box == NULL)
        PyErr_SetString(PyExc_ValueError, "this notifier is closed");
    else if (n->box->base.born != core_generation())
        PyErr_SetString(PyExc_RuntimeError, "this notifier was made before fork(), and its descriptor is the parent "
                                            "process's; make a new one here, with notifier() of the endpoint");
    else
        return true;
    return false;
}

/* Has somebody else closed its descriptor?  Then OSError is set. */
static bool notifier_raise_lost(Notifier *n)
{
    if (!notifier_lost(n->box) && !n->box->epoll_lost)
        return false;
    PyObject *args = Py_BuildValue("(is)", EBADF, "the descriptor of this notifier was closed by somebody else");
    if (args != NULL)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return true;
}

/* `ep` is NULL if the endpoint is gone.  *waits: nothing is there yet. */
static bool notifier_arm_held(Notifier *n, Endpoint *ep, bool *waits, nc_box **kicks)
{
    *waits = false;
    if (!notifier_check(n))
        return false;
    if (ep == NULL || ep->closed) {
        notifier_signal(&n->box->base);
    } else if (claim_lent(ep)) {
        claim_busy(ep, false);
        return false;
    } else if (!notifier_hear_lanes(n->box, true)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    } else {
        *waits = notifier_line_up(n, ep, kicks);
    }
    return !notifier_raise_lost(n);
}

static PyObject *notifier_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Notifier *n = (Notifier *)self;
    Endpoint *ep = (Endpoint *)core_weak_target(n->endpoint);
    nc_box *kicks = NULL;
    bool armed, waits;
    reach_hear(n->chan); /* what lies there already, and may be for others, is no reason to be readable */
    Py_BEGIN_CRITICAL_SECTION2(self, ep != NULL ? (PyObject *)ep : self);
    armed = notifier_arm_held(n, ep, &waits, &kicks);
    Py_END_CRITICAL_SECTION2();
    if (armed && waits) /* waiters that will never run may be ahead */
        line_reap(n->chan, n->side, &kicks);
    line_deliver(n->chan, kicks);
    Py_XDECREF(ep); /* may be the last reference, and so close it, which signals */
    return armed ? Py_NewRef(Py_None) : NULL;
}

static PyObject *notifier_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Notifier *n = (Notifier *)self;
    nc_box *kicks = NULL;
    bool cleared;
    Py_BEGIN_CRITICAL_SECTION(self);
    cleared = notifier_check(n);
    if (cleared) {
        notifier_disarm(n, &kicks);
        cleared = !notifier_raise_lost(n);
    }
    Py_END_CRITICAL_SECTION();
    line_deliver(n->chan, kicks);
    return cleared ? Py_NewRef(Py_None) : NULL;
}

static PyObject *notifier_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Notifier *n = (Notifier *)self;
    int fd = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (notifier_check(n) && !notifier_raise_lost(n))
        fd = n->box->epoll >= 0 ? n->box->epoll : n->box->fds[0];
    Py_END_CRITICAL_SECTION();
    return fd >= 0 ? PyLong_FromLong(fd) : NULL;
}

/* The descriptor is closed with the last reference to the box: whoever is about to write to it has one, too. */
static void notifier_close_now(Notifier *n)
{
    nc_box *kicks = NULL;
    notifier_box *b;
    Py_BEGIN_CRITICAL_SECTION(n);
    b = n->box;
    n->box = NULL;
    if (b != NULL)
        nc_chan_leave_line(n->chan->block, n->side, &b->waiter, false, core_generation(), &kicks);
    Py_END_CRITICAL_SECTION();
    if (b == NULL)
        return;
    wake_box_unref(&b->base.box);
    line_deliver(n->chan, kicks);
}

static PyObject *notifier_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (chan_off_thread(((Notifier *)self)->chan))
        return NULL;
    notifier_close_now((Notifier *)self);
    Py_RETURN_NONE;
}

static PyObject *notifier_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *notifier_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return notifier_close(self, NULL);
}

static PyObject *notifier_is_closed(PyObject *self, void *Py_UNUSED(ignored))
{
    bool closed;
    Py_BEGIN_CRITICAL_SECTION(self);
    closed = ((Notifier *)self)->box == NULL;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(closed);
}

static PyObject *notifier_repr(PyObject *self)
{
    Notifier *n = (Notifier *)self;
    static const char *const states[] = {[NC_OUTSIDE] = "not armed", [NC_WAITING] = "armed", [NC_CALLED] = "signalled"};
    const char *state = "closed";
    Py_BEGIN_CRITICAL_SECTION(self);
    if (n->box != NULL)
        state = n->box->base.born == core_generation() ? states[nc_waiter_state_of(&n->box->waiter)] : "not armed";
    Py_END_CRITICAL_SECTION();
    return PyUnicode_FromFormat("<%s of a %s, %s, at %p>", Py_TYPE(self)->tp_name,
                                n->side == TX ? "sender" : "receiver", state, self);
}

static PyObject *notifier_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%.200s': make another with notifier() of the endpoint",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

/* ---- made by its endpoint -------------------------------------------------------------------------------- */

/* Has this build descriptors that a loop could wait on?  Else OSError is set. */
static bool notifier_possible(void)
{
    if (WAKE_FDS)
        return true;
    PyObject *args = Py_BuildValue("(is)", ENOTSUP,
                                   "notifier() needs an eventfd or a pipe, which event loops can wait "
                                   "on, and on this platform, or in this build, there is neither");
    if (args != NULL)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return false;
}

PyObject *endpoint_notifier(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Endpoint *ep = (Endpoint *)self;
    step s;
    Py_BEGIN_CRITICAL_SECTION(self);
    s = endpoint_check(ep);
    Py_END_CRITICAL_SECTION();
    if (s != STEP_READY || !notifier_possible())
        return NULL;
    Notifier *n = (Notifier *)core_new(ep->chan->st->notifier_type);
    if (n == NULL)
        return NULL;
    n->chan = (Chan *)Py_NewRef(ep->chan);
    n->side = ep->side;
    n->endpoint = PyWeakref_NewRef(self, NULL);
    n->box = n->endpoint != NULL ? notifier_box_new(ep) : NULL;
    if (n->box == NULL)
        Py_CLEAR(n);
    return (PyObject *)n;
}

/* ---- its type ------------------------------------------------------------------------------------------ */

/* There is no tp_clear: a cycle goes through the channel, whose values are dropped when its endpoints are. */
static int notifier_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Notifier *)self)->chan);
    Py_VISIT(((Notifier *)self)->endpoint);
    return 0;
}

static void notifier_dealloc(PyObject *self)
{
    Notifier *n = (Notifier *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (n->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (n->box != NULL)
        notifier_close_now(n);
    Py_XDECREF(n->endpoint);
    Py_XDECREF(n->chan);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef notifier_methods[] = {
    {"fileno", notifier_fileno, METH_NOARGS, notifier_fileno_doc},
    {"arm", notifier_arm, METH_NOARGS, notifier_arm_doc},
    {"clear", notifier_clear, METH_NOARGS, notifier_clear_doc},
    {"close", notifier_close, METH_NOARGS, notifier_close_doc},
    {"__enter__", notifier_enter, METH_NOARGS, enter_doc},
    {"__exit__", FAST(notifier_exit), METH_FASTCALL, exit_doc},
    {"__reduce_ex__", notifier_reduce, METH_O, reduce_doc},
    END_OF_METHODS,
};

static PyGetSetDef notifier_getset[] = {
    {"is_closed", notifier_is_closed, NULL, DOC_NOTIFIER_IS_CLOSED, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef notifier_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Notifier, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot notifier_slots[] = {
    {Py_tp_dealloc, notifier_dealloc}, {Py_tp_traverse, notifier_traverse},
    {Py_tp_repr, notifier_repr},       {Py_tp_methods, notifier_methods},
    {Py_tp_getset, notifier_getset},   {Py_tp_members, notifier_members},
    {Py_tp_doc, (void *)notifier_doc}, {0, NULL},
};

static PyType_Spec notifier_spec = {
    .name = "nexus_channels.Notifier",
    .basicsize = sizeof(Notifier),
    .flags = CORE_TYPE_FLAGS,
    .slots = notifier_slots,
};

int notifier_add_types(PyObject *module, core_state *st)
{
    st->notifier_type = core_add_type(module, &notifier_spec, "Notifier");
    return st->notifier_type != NULL ? 0 : -1;
}
