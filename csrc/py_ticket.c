/* py_ticket.c: Ticket, by which an end of a channel of bytes moves to another interpreter of the process: share() of
 * the endpoint, attach() where the ticket has come to.  Touches nc_ticket.h and nc_chan.h.
 *
 * The table of tickets belongs to the process.  It is C memory under one lock, and knows no object: interpreters with a
 * GIL of their own use it at once.  A Ticket is no more than the token, and a vote for keeping what the token stands
 * for (PROTOCOL.md, section 9).
 */
#include "py_ticket.h"
#include "py_bytes.h"
#include "py_chan.h"
#include "py_claim.h"
#include "py_doc.h"
#include "py_endpoint.h"
#include "py_ends.h"
#include "py_line.h"
#include "py_module.h"
#include "py_shared.h"

#include "nc_ticket.h"

/* ---- the process's: from any thread, with or without the GIL ------------------------------------------- */

#ifdef _WIN32
static nc_ticket_table table = {.lock = SRWLOCK_INIT};
static void watch_table(void) {}
#else
static nc_ticket_table table = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* A child begins with a table that is whole, and with a lock that nobody holds. */
static void hold_table(void) { nc_lock_enter(&table.lock); }
static void release_table(void) { nc_lock_exit(&table.lock); }
static void watch_table_once(void) { pthread_atfork(hold_table, release_table, release_table); }

static void watch_table(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_table_once);
}
#endif

static void writers_free(nc_ticket_writer *w)
{
    for (nc_ticket_writer *next; w != NULL; w = next) {
        next = w->next;
        PyMem_RawFree(w);
    }
}

/* It is in the table no more, if it ever was. */
static void ticket_free(nc_ticket *t)
{
    writers_free(t->writers);
    PyMem_RawFree(t);
}

/* The ticket was taken out of the table: its end leaves the channel.  NULL: there is none. */
static void ticket_leave(nc_ticket *t)
{
    nc_box *kicks = NULL;
    if (t == NULL)
        return;
    nc_chan_leave(t->chan, t->side, core_generation(), &kicks);
    if (nc_chan_orphaned(t->chan))
        nc_chan_discard_bytes(t->chan, core_generation());
    wake_boxes(kicks);
    block_settle(t->chan, -1);
    block_unref(t->chan);
    ticket_free(t);
}

/* ---- as bytes ------------------------------------------------------------------------------------------ */

/*   0           4         5      6     8                      24
 *   | "NxCh"    | version | kind | 0 0 | token                |
 */
enum { TICKET_VERSION = 1, TICKET_OF_PROCESS = 1, TOKEN_AT = 8, TICKET_BYTES = TOKEN_AT + NC_TOKEN };

static const unsigned char head[TOKEN_AT] = {'N', 'x', 'C', 'h', TICKET_VERSION, TICKET_OF_PROCESS};

static PyObject *token_as_bytes(const unsigned char *token)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, TICKET_BYTES);
    if (bytes != NULL) {
        memcpy(PyBytes_AS_STRING(bytes), head, TOKEN_AT);
        memcpy(PyBytes_AS_STRING(bytes) + TOKEN_AT, token, NC_TOKEN);
    }
    return bytes;
}

/* The token of a ticket's bytes; false with ValueError set. */
static bool parse_bytes(PyObject *bytes, unsigned char *token)
{
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(bytes);
    Py_ssize_t n = PyBytes_GET_SIZE(bytes);
    if (n < TOKEN_AT || memcmp(text, head, 4) != 0)
        PyErr_Format(PyExc_ValueError, "these %zd bytes are no ticket: they do not begin as a ticket does", n);
    else if (text[4] != TICKET_VERSION || text[5] != TICKET_OF_PROCESS)
        PyErr_Format(PyExc_ValueError,
                     "this ticket is of version %d and kind %d, and attach() knows version %d and kind %d", text[4],
                     text[5], TICKET_VERSION, TICKET_OF_PROCESS);
    else if (n != TICKET_BYTES || memcmp(text, head, TOKEN_AT) != 0)
        PyErr_Format(PyExc_ValueError, "this ticket has %zd bytes, or its head is garbled; a whole one has %d bytes", n,
                     TICKET_BYTES);
    else {
        memcpy(token, text + TOKEN_AT, NC_TOKEN);
        return true;
    }
    return false;
}

/* ---- the object ----------------------------------------------------------------------------------------- */

typedef struct Ticket {
    PyObject_HEAD
    uint64_t home;                /* the number of the state that made it */
    unsigned char token[NC_TOKEN];
    parcel *parcel;               /* of a channel between processes, which has no token; in the ticket's section */
    bool by_parcel;               /* it is of such a channel; written before others know it */
    _Atomic bool holds; /* it is counted in the table; swapped by whoever lets go, relaxed: the lock orders */
} Ticket;

/* With or without a ticket to hold. */
static Ticket *ticket_new(core_state *st)
{
    Ticket *ticket = (Ticket *)core_new(st->ticket_type);
    if (ticket == NULL)
        return NULL;
    ticket->home = st->number;
    atomic_store_explicit(&ticket->holds, false, memory_order_relaxed); /* nobody else knows it yet */
    return ticket;
}

static void ticket_let_go(Ticket *ticket)
{
    if (atomic_exchange_explicit(&ticket->holds, false, memory_order_relaxed)) /* once; the lock orders the rest */
        ticket_leave(nc_ticket_let_go(&table, ticket->token));
}

/* ---- of a channel between processes --------------------------------------------------------------------- */

static PyObject *raise_no_copy(const char *what)
{
    PyErr_Format(PyExc_TypeError,
                 "a ticket of a channel between processes holds descriptors, which %s cannot carry: pass it by "
                 "multiprocessing, as an argument of a process or through its Queue or Pipe",
                 what);
    return NULL;
}

/* ticket_parts(ticket) -> (bytes, descriptors), or None if the ticket is one of this process. */
PyObject *ticket_parts(PyObject *module, PyObject *arg)
{
    core_state *st = PyModule_GetState(module);
    PyObject *parts = NULL;
    if (!Py_IS_TYPE(arg, st->ticket_type)) {
        PyErr_Format(PyExc_TypeError, "a Ticket is wanted, not %.200s", Py_TYPE(arg)->tp_name);
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(arg);
    parcel *p = ((Ticket *)arg)->parcel;
    parts = p != NULL ? parcel_parts(p) : Py_NewRef(Py_None);
    Py_END_CRITICAL_SECTION();
    return parts;
}

/* ticket_of_parts(bytes, descriptors) -> Ticket; takes the descriptors over. */
PyObject *ticket_of_parts(PyObject *module, PyObject *args)
{
    PyObject *numbers, *fds;
    if (!PyArg_ParseTuple(args, "SO!", &numbers, &PyTuple_Type, &fds))
        return NULL;
    Ticket *ticket = ticket_new(PyModule_GetState(module));
    if (ticket == NULL)
        return NULL;
    ticket->by_parcel = true;
    ticket->parcel = parcel_of_parts(numbers, fds); /* last: if this fails, the descriptors are still the caller's */
    if (ticket->parcel == NULL)
        Py_CLEAR(ticket);
    return (PyObject *)ticket;
}

static PyObject *attach_text(PyObject *text)
{
    PyObject *take = core_import("nexus_channels._subprocess", "attach_text");
    PyObject *ep = take != NULL ? PyObject_CallOneArg(take, text) : NULL;
    Py_XDECREF(take);
    return ep;
}

static parcel *ticket_take_parcel(Ticket *ticket)
{
    parcel *p;
    Py_BEGIN_CRITICAL_SECTION(ticket);
    p = ticket->parcel;
    ticket->parcel = NULL;
    Py_END_CRITICAL_SECTION();
    return p;
}

static void ticket_put_parcel(Ticket *ticket, parcel *p)
{
    Py_BEGIN_CRITICAL_SECTION(ticket);
    ticket->parcel = p;
    Py_END_CRITICAL_SECTION();
}

/* The parcel moves to another Ticket, which only the result knows. */
static PyObject *ticket_for_subprocess(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *ticket = (Ticket *)self, *twin = ticket_new(core_state_of(Py_TYPE(self)));
    PyObject *pack = twin != NULL ? core_import("nexus_channels._subprocess", "for_subprocess") : NULL, *packed = NULL;
    if (pack != NULL && (twin->parcel = ticket_take_parcel(ticket)) != NULL) {
        twin->by_parcel = true;
        packed = PyObject_CallOneArg(pack, (PyObject *)twin);
        if (packed == NULL)
            ticket_put_parcel(ticket, ticket_take_parcel(twin));
    } else if (pack != NULL && ticket->by_parcel) {
        PyErr_SetString(PyExc_ValueError, "this ticket is not good any more: it was attached, given away or closed");
    } else if (pack != NULL) {
        PyErr_SetString(PyExc_TypeError, "this ticket is of a channel within this process: only the ends of a channel "
                                         "that was opened with shared=True go to another one");
    }
    Py_XDECREF(pack);
    Py_XDECREF(twin);
    return packed;
}

/* The parcel is taken out meanwhile, so nobody else can free it. */
static PyObject *attach_parcel(PyObject *module, Ticket *ticket, parcel *p)
{
    PyObject *registered = core_import("nexus_channels._processes", "register_tickets");
    if (registered != NULL)
        Py_SETREF(registered, PyObject_CallNoArgs(registered));
    PyObject *ep = registered != NULL ? parcel_unpack(module, p) : NULL;
    Py_XDECREF(registered);
    if (ep == NULL && !PyErr_ExceptionMatches(PyExc_ValueError)) { /* it may be tried again */
        ticket_put_parcel(ticket, p);
    } else {
        parcel_free(p);
    }
    return ep;
}

static PyObject *ticket_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Ticket *ticket = (Ticket *)self;
    if (ticket->by_parcel) {
        parcel *p = ticket_take_parcel(ticket);
        if (p != NULL)
            parcel_void(p);
        parcel_free(p);
        Py_RETURN_NONE;
    }
    atomic_store_explicit(&ticket->holds, false, memory_order_relaxed); /* nothing is left to let go of */
    ticket_leave(nc_ticket_revoke(&table, ticket->token));
    Py_RETURN_NONE;
}

static PyObject *ticket_bytes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (((Ticket *)self)->by_parcel)
        return raise_no_copy("bytes");
    return token_as_bytes(((Ticket *)self)->token);
}

static PyObject *ticket_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *ticket_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return ticket_close(self, NULL);
}

/* The pickle holds the ticket until it is read.  It says which interpreter wrote it, as each has a count of its own:
 * when one of them ends, only what it wrote is void. */
static PyObject *ticket_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    Ticket *ticket = (Ticket *)self;
    if (ticket->by_parcel)
        return raise_no_copy("pickle and copy");
    nc_ticket_writer *writer = PyMem_RawCalloc(1, sizeof *writer);
    if (writer == NULL)
        return PyErr_NoMemory();
    writer->home = ticket->home;
    PyObject *read = core_import("nexus_channels._core", "_ticket");
    PyObject *bytes = read != NULL ? token_as_bytes(ticket->token) : NULL;
    PyObject *reduced = bytes != NULL ? Py_BuildValue("(O(OK))", read, bytes, (unsigned long long)ticket->home) : NULL;
    Py_XDECREF(bytes);
    Py_XDECREF(read);
    PyMem_RawFree(reduced != NULL ? nc_ticket_write(&table, ticket->token, writer) : writer);
    return reduced;
}

/* _ticket(bytes, number of the state that wrote it) */
PyObject *ticket_read(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    if (n != 2 || !PyBytes_Check(args[0]) || !PyLong_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "a pickled ticket has bytes and an int");
        return NULL;
    }
    uint64_t home = PyLong_AsUnsignedLongLong(args[1]);
    Ticket *ticket = PyErr_Occurred() ? NULL : ticket_new(PyModule_GetState(module));
    if (ticket != NULL && !parse_bytes(args[0], ticket->token))
        Py_CLEAR(ticket);
    if (ticket != NULL)
        atomic_store_explicit(&ticket->holds, nc_ticket_read(&table, ticket->token, home),
                              memory_order_relaxed); /* as above */
    return (PyObject *)ticket;
}

static const char *module_of(int kind) { return kind == SPSC_BYTES ? "spsc_bytes" : "mpsc_bytes"; }

static PyObject *ticket_repr(PyObject *self)
{
    Ticket *ticket = (Ticket *)self;
    nc_ticket_seen seen = {.issued = false};
    if (!ticket->by_parcel)
        seen = nc_ticket_look(&table, ticket->token, false, core_generation());
    Py_BEGIN_CRITICAL_SECTION(self);
    if (ticket->parcel != NULL)
        seen = (nc_ticket_seen){
            .issued = true, .ours = true, .side = parcel_side(ticket->parcel), .kind = parcel_kind(ticket->parcel)};
    Py_END_CRITICAL_SECTION();
    if (!seen.issued)
        return PyUnicode_FromFormat("<%s, spent, at %p>", Py_TYPE(self)->tp_name, self);
    return PyUnicode_FromFormat("<%s for the %s of a channel of %s%s, at %p>", Py_TYPE(self)->tp_name,
                                seen.side == TX ? "sender" : "receiver", module_of(seen.kind),
                                seen.ours ? "" : ", of the parent process", self);
}

static int ticket_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void ticket_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    parcel_free(((Ticket *)self)->parcel);
    ticket_let_go((Ticket *)self);
    type->tp_free(self);
    Py_DECREF(type);
}

void ticket_forget(core_state *st)
{
    nc_ticket_writer *writers = NULL;
    for (nc_ticket *t; (t = nc_ticket_sweep(&table, st->number, &writers)) != NULL;)
        ticket_leave(t);
    writers_free(writers);
}

/* ---- share() -------------------------------------------------------------------------------------------- */

/* Fill in a new token; false with an exception set.  Runs Python code. */
static bool draw_token(unsigned char *token)
{
    PyObject *urandom = core_import("os", "urandom");
    PyObject *bytes = urandom != NULL ? PyObject_CallFunction(urandom, "i", (int)NC_TOKEN) : NULL;
    bool drawn = bytes != NULL && PyBytes_CheckExact(bytes) && PyBytes_GET_SIZE(bytes) == NC_TOKEN;
    if (drawn)
        memcpy(token, PyBytes_AS_STRING(bytes), NC_TOKEN);
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_OSError, "os.urandom() did not give as many bytes as asked for");
    Py_XDECREF(bytes);
    Py_XDECREF(urandom);
    return drawn;
}

/* Can the endpoint move?  False with an exception set. */
static bool movable(Endpoint *ep)
{
    if (!nc_chan_of_bytes(ep->chan->block))
        PyErr_Format(PyExc_TypeError,
                     "only endpoints of spsc_bytes and mpsc_bytes can be shared: an object belongs to one interpreter, "
                     "so send bytes to another, not objects through a %.200s",
                     Py_TYPE(ep)->tp_name);
    else if (endpoint_check(ep) == STEP_READY)
        return !claim_lent(ep) || claim_busy(ep, false) != STEP_ERROR;
    return false;
}

/* Move the endpoint into the ticket, which is not issued yet: count it there, then close it here.  Holding the
 * endpoint; false with an exception set. */
static bool move_held(Endpoint *ep, nc_ticket *t, nc_box **kicks)
{
    if (!movable(ep)) /* again: Python code has run since */
        return false;
    block_settle(t->chan, 1);
    nc_chan_join(t->chan, t->side);
    endpoint_close_held(ep, kicks);
    return true;
}

static bool movable_now(Endpoint *ep)
{
    bool can;
    Py_BEGIN_CRITICAL_SECTION(ep);
    can = movable(ep);
    Py_END_CRITICAL_SECTION();
    return can;
}

enum { DRAWS = 8 }; /* of a token; where os.urandom() is what it should be, the first is never another ticket's */

/* Draw a token that no other ticket has, and reserve it; false with an exception set.  Runs Python code. */
static bool reserve_token(nc_ticket *t)
{
    for (int draw = 0; draw < DRAWS; draw++) {
        if (!draw_token(t->token))
            return false;
        if (nc_ticket_reserve(&table, t))
            return true;
    }
    PyErr_SetString(PyExc_OSError, "os.urandom() gives the same bytes again and again, and another ticket has them");
    return false;
}

/* A ticket for an end of that channel, with a reference to it, neither counted nor issued yet, but with a token of its
 * own; NULL with an exception set.  Runs Python code. */
static nc_ticket *ticket_prepare(Chan *c, int side)
{
    nc_ticket *t = PyMem_RawCalloc(1, sizeof *t);
    if (t == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (!reserve_token(t)) {
        ticket_free(t);
        return NULL;
    }
    t->chan = c->block;
    t->side = side;
    t->kind = c->kind;
    t->born = core_generation();
    nc_chan_ref(t->chan);
    return t;
}

/* The same of a channel between processes. */
static PyObject *share_by_parcel(Endpoint *ep)
{
    Chan *c = ep->chan;
    nc_box *kicks = NULL;
    bool moved = false;
    Ticket *ticket = ticket_new(c->st);
    if (ticket == NULL || (ticket->parcel = parcel_new()) == NULL) {
        Py_XDECREF(ticket);
        return NULL;
    }
    ticket->by_parcel = true;
    Py_BEGIN_CRITICAL_SECTION(ep);
    moved = movable(ep) && parcel_pack(ticket->parcel, ep, &kicks);
    Py_END_CRITICAL_SECTION();
    if (!moved)
        Py_CLEAR(ticket);
    line_deliver(c, kicks);
    return (PyObject *)ticket;
}

/* It is not issued after all. */
static void ticket_cancel(nc_ticket *t)
{
    nc_ticket_cancel(&table, t);
    block_unref(t->chan); /* not the last: the Chan has one */
    ticket_free(t);
}

PyObject *endpoint_share(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Endpoint *ep = (Endpoint *)self;
    Chan *c = ep->chan;
    nc_box *kicks = NULL;
    bool moved = false;
    if (c->block->lanes != NULL)
        return share_by_parcel(ep);
    Ticket *ticket = movable_now(ep) ? ticket_new(c->st) : NULL;
    nc_ticket *t = ticket != NULL ? ticket_prepare(c, ep->side) : NULL;
    if (t != NULL && chan_list(c) == 0 &&
        line_reach_all(c)) { /* after the reference: whoever lines up from now on can be reached */
        Py_BEGIN_CRITICAL_SECTION(self);
        moved = move_held(ep, t, &kicks);
        Py_END_CRITICAL_SECTION();
    }
    if (moved) {
        memcpy(ticket->token, t->token, NC_TOKEN);
        nc_ticket_issue(&table, t);
        atomic_store_explicit(&ticket->holds, true, memory_order_relaxed); /* nobody else knows it yet */
    } else {
        if (t != NULL)
            ticket_cancel(t);
        Py_CLEAR(ticket);
    }
    line_deliver(c, kicks);
    return (PyObject *)ticket;
}

/* ---- attach() ------------------------------------------------------------------------------------------- */

/* Is there such a ticket, for us?  Then with a reference to its channel; else false with ValueError set. */
static bool ticket_is_good(const unsigned char *token, nc_ticket_seen *seen)
{
    *seen = nc_ticket_look(&table, token, true, core_generation());
    if (seen->ours)
        return true;
    PyErr_SetString(PyExc_ValueError,
                    seen->issued ? "this ticket is the parent process's: a ticket is good in the process that issued "
                                   "it; for another process, open the channel with shared=True"
                                 : "this ticket is not good any more, or never was: each one can be attached once, in "
                                   "the process that issued it, while it is held by a Ticket object, or by a pickle "
                                   "that was not loaded yet; for another process, open the channel with shared=True");
    return false;
}

/* Make an endpoint of what the token stands for; NULL with an exception set.  All memory is there before the ticket is
 * taken, so that a ticket is not lost for want of memory. */
static PyObject *attach_token(PyObject *module, const unsigned char *token)
{
    nc_ticket_seen seen;
    while (ticket_is_good(token, &seen)) { /* again only if another thread was quicker */
        Chan *c = chan_here(module, (chan_kind)seen.kind, seen.chan);
        Endpoint *ep = c != NULL ? endpoint_prepare(c, seen.side) : NULL;
        nc_ticket *t = ep != NULL ? nc_ticket_take(&table, token, seen, core_generation()) : NULL;
        if (t != NULL) {
            endpoint_begin(ep, c); /* with the ticket's place in the count of its side */
            block_settle(t->chan, -1);
            block_unref(t->chan); /* not the last: the Chan has one */
            ticket_free(t);
        } else if (ep != NULL)
            endpoint_discard(ep, c);
        Py_XDECREF(c);
        if (t != NULL || ep == NULL)
            return (PyObject *)ep;
    }
    return NULL;
}

PyObject *ticket_attach(PyObject *module, PyObject *arg)
{
    core_state *st = PyModule_GetState(module);
    unsigned char token[NC_TOKEN];
    parcel *p = Py_IS_TYPE(arg, st->ticket_type) ? ticket_take_parcel((Ticket *)arg) : NULL;
    if (p != NULL)
        return attach_parcel(module, (Ticket *)arg, p);
    if (Py_IS_TYPE(arg, st->ticket_type) && ((Ticket *)arg)->by_parcel) {
        PyErr_SetString(PyExc_ValueError, "this ticket is not good any more: each one can be attached once");
        return NULL;
    }
    if (Py_IS_TYPE(arg, st->ticket_type))
        memcpy(token, ((Ticket *)arg)->token, NC_TOKEN);
    else if (PyUnicode_Check(arg))
        return attach_text(arg);
    else if (!PyBytes_Check(arg)) {
        PyErr_Format(PyExc_TypeError,
                     "attach() takes a Ticket, or the bytes of one, or a text of for_subprocess(), not %.200s",
                     Py_TYPE(arg)->tp_name);
        return NULL;
    } else if (!parse_bytes(arg, token))
        return NULL;
    return attach_token(module, token);
}

/* ---- its type ------------------------------------------------------------------------------------------ */

static PyMethodDef ticket_methods[] = {
    {"close", ticket_close, METH_NOARGS, ticket_close_doc},
    {"__bytes__", ticket_bytes, METH_NOARGS, ticket_bytes_doc},
    {"for_subprocess", ticket_for_subprocess, METH_NOARGS, ticket_for_subprocess_doc},
    {"__enter__", ticket_enter, METH_NOARGS, enter_doc},
    {"__exit__", FAST(ticket_exit), METH_FASTCALL, exit_doc},
    {"__reduce_ex__", ticket_reduce, METH_O, ticket_reduce_doc},
    ENDPOINT_GENERIC,
    END_OF_METHODS,
};

static PyType_Slot ticket_slots[] = {
    {Py_tp_dealloc, ticket_dealloc}, {Py_tp_traverse, ticket_traverse}, {Py_tp_repr, ticket_repr},
    {Py_tp_methods, ticket_methods}, {Py_tp_doc, (void *)ticket_doc},   {0, NULL},
};

static PyType_Spec ticket_spec = {
    .name = "nexus_channels.Ticket",
    .basicsize = sizeof(Ticket),
    .flags = CORE_TYPE_FLAGS,
    .slots = ticket_slots,
};

int ticket_add_types(PyObject *module, core_state *st)
{
    watch_table();
    st->ticket_type = core_add_type(module, &ticket_spec, "Ticket");
    return st->ticket_type != NULL ? 0 : -1;
}
