/* py_claim.c: WriteClaim and ReadClaim: a record of the ring as an object that exports its memory as a buffer.
 * Touches nc_log.h and nc_gate.h.
 *
 * While a buffer is exported the record cannot be committed, aborted or released.  So no view ever outlives what it
 * shows:
 *
 *             commit, abort, release                      getbuffer
 *     OPEN ---------------------------> DONE              exports + 1, then: DONE? exports - 1, refuse
 *      ^            exports > 0          |
 *      '---------------------------------'   BufferError, nothing changed
 *
 * An open claim has borrowed its endpoint: another claim or receive raises BusyError, and a call that waits in line
 * already is deferred until the claim ends.  A claim that is dropped is aborted, or released.  When an iteration over
 * claims is left, its last claim ends at once, or with its last view.
 *
 * A claim that has ended lets go of its endpoint, so keeping it does not hold the channel open.
 */
#include "py_claim.h"
#include "py_bytes.h"
#include "py_chan.h"
#include "py_doc.h"
#include "py_ends.h"
#include "py_line.h"
#include "py_tell.h"
#include "py_module.h"

struct Claim {
    PyObject_HEAD
    core_state *st;               /* borrowed, through the type: see claim_state() */
    Endpoint *ep;                 /* strong, NULL once it has ended: it keeps the channel and its memory */
    PyObject *view; /* the memoryview of a `with` block; this and `ep` in the claim's critical section */
    nc_record record;
    uint8_t side;
    _Atomic bool left; /* its iteration was left: it ends with its last view; E1 */
    _Atomic int state; /* CLAIM_OPEN or CLAIM_DONE; E1 */
    _Atomic Py_ssize_t exports; /* buffers given out and not yet returned; E1 */
};

enum { CLAIM_OPEN, CLAIM_DONE };

/* ---- the endpoint, lent ------------------------------------------------------------------------------- */

bool claim_lent(Endpoint *ep) { return ep->claim != NULL || (ep->lent != NULL && endpoint_leased(ep)); }

/* A new call on a lent endpoint is an error.  A call that has begun to wait also waits for the claim to end.  But
 * nobody waits for native code, which takes no turns with Python's calls on the endpoint that it has. */
step claim_busy(Endpoint *ep, bool patient)
{
    core_state *st = ep->chan->st;
    Claim *claim = ep->claim;
    bool sends = ep->side == TX;
    const char *name = sends ? "sender" : "receiver";
    if (patient && claim != NULL)
        return STEP_BUSY;
    if (claim == NULL) {
        core_raise(st, E_BUSY, NULL, "this %s is used by a native end that is still open; close() the native end",
                   name);
        return STEP_ERROR;
    }
    Py_ssize_t views = atomic_load_explicit(&claim->exports, memory_order_relaxed); /* for the message only */
    const char *kind = sends ? "WriteClaim" : "ReadClaim";
    unsigned long long n = claim->record.size;
    if (views > 0)
        core_raise(
            st, E_BUSY, NULL,
            "this %s is used by %s of a %s of %llu bytes (views of the claim: %zd); release the view%s, and then "
            "the claim",
            name, views == 1 ? "a view" : "views", kind, n, views, views == 1 ? "" : "s");
    else
        core_raise(st, E_BUSY, NULL,
                   "this %s is used by a %s of %llu bytes that is still open; %s the claim, or call "
                   "%s() of the %s",
                   name, kind, n, sends ? "commit() or abort()" : "release()", sends ? "abort" : "release", name);
    return STEP_ERROR;
}

bool endpoint_idle(Endpoint *ep)
{
    bool idle;
    Py_BEGIN_CRITICAL_SECTION(ep);
    idle = ep->closed || !claim_lent(ep) || claim_busy(ep, false) != STEP_ERROR;
    Py_END_CRITICAL_SECTION();
    return idle;
}

/* ---- sizes -------------------------------------------------------------------------------------------- */

bool claim_check_size(Chan *c, uint64_t n)
{
    if (n == 0)
        core_raise(c->st, E_ZERO_LENGTH, NULL, "a message has at least 1 byte, not 0");
    else if (n > nc_log_largest(c->log))
        core_raise(c->st, E_CLAIM_TOO_LARGE, NULL, "%llu bytes are more than max_message_size, %llu",
                   (unsigned long long)n, (unsigned long long)nc_log_largest(c->log));
    else
        return true;
    return false;
}

Py_ssize_t claim_parse_size(Chan *c, PyObject *arg)
{
    if (PyBool_Check(arg) || !PyIndex_Check(arg)) {
        PyErr_Format(PyExc_TypeError, "the size of a claim must be an int, not %.200s", Py_TYPE(arg)->tp_name);
        return 0;
    }
    Py_ssize_t n = PyNumber_AsSsize_t(arg, NULL); /* clipped: a huge number stays huge */
    if (n == -1 && PyErr_Occurred())
        return 0;
    if (n < 0)
        PyErr_Format(PyExc_ValueError, "the size of a claim must be at least 1, not %S", arg);
    else if (n == PY_SSIZE_T_MAX)
        core_raise(c->st, E_CLAIM_TOO_LARGE, NULL, "%S bytes are more than max_message_size, %llu", arg,
                   (unsigned long long)nc_log_largest(c->log));
    else if (claim_check_size(c, (uint64_t)n))
        return n;
    return 0;
}

/* ---- making one --------------------------------------------------------------------------------------- */

/* Memory for a claim; most are short-lived. */
static Claim *claim_alloc(core_state *st, PyTypeObject *type)
{
    Claim *claim = spare_take(st, SPARE_CLAIMS);
    if (claim == NULL)
        return (Claim *)core_new(type);
    PyObject_Init((PyObject *)claim, type);
    PyObject_GC_Track(claim);
    return claim;
}

void claim_free_spares(core_state *st)
{
    for (Claim *claim; (claim = spare_take(st, SPARE_CLAIMS)) != NULL;)
        PyObject_GC_Del(claim);
}

Claim *claim_make(Endpoint *ep)
{
    core_state *st = ep->chan->st;
    Claim *claim = claim_alloc(st, st->claim_type[ep->side]);
    if (claim == NULL)
        return NULL;
    claim->st = st;
    claim->ep = (Endpoint *)Py_NewRef(ep);
    claim->record = (nc_record){0};
    claim->side = ep->side;
    atomic_store_explicit(&claim->left, false, memory_order_relaxed); /* only the collector knows it yet; as below */
    atomic_store_explicit(&claim->state, CLAIM_DONE, memory_order_relaxed);
    atomic_store_explicit(&claim->exports, 0, memory_order_relaxed);
    return claim;
}

Claim *claim_spare(Endpoint *ep) { return ep->chan->st->spare[SPARE_CLAIMS].n > 0 ? claim_make(ep) : NULL; }

PyObject *claim_start(Claim *claim, const nc_record *record)
{
    claim->record = *record;
    atomic_store_explicit(&claim->state, CLAIM_OPEN, memory_order_seq_cst); /* E1 */
    claim->ep->claim = claim;
    return (PyObject *)claim;
}

/* ---- its state ------------------------------------------------------------------------------ */

bool claim_is_open(Claim *claim)
{
    return atomic_load_explicit(&claim->state, memory_order_seq_cst) == CLAIM_OPEN; /* E1 */
}

/* If there is a GIL, buffers are given out and returned, and claims are ended, with the GIL held.  The GIL orders them,
 * so no locked instructions are needed. */
#if NC_FREE_THREADED
static void claim_count_export(Claim *claim, Py_ssize_t by)
{
    atomic_fetch_add_explicit(&claim->exports, by, memory_order_seq_cst); /* E1: first the count, then the look */
}

/* OPEN becomes DONE; false if it was DONE. */
static bool claim_shut(Claim *claim)
{
    int open = CLAIM_OPEN;
    return atomic_compare_exchange_strong_explicit(&claim->state, &open, CLAIM_DONE, memory_order_seq_cst,
                                                   memory_order_seq_cst); /* E1 */
}
#else
static void claim_count_export(Claim *claim, Py_ssize_t by)
{
    Py_ssize_t exports = atomic_load_explicit(&claim->exports, memory_order_relaxed); /* under the GIL */
    atomic_store_explicit(&claim->exports, exports + by, memory_order_relaxed);
}

static bool claim_shut(Claim *claim)
{
    if (atomic_load_explicit(&claim->state, memory_order_relaxed) == CLAIM_DONE) /* under the GIL */
        return false;
    atomic_store_explicit(&claim->state, CLAIM_DONE, memory_order_relaxed);
    return true;
}
#endif

/* The endpoint, a new reference; NULL without an exception if the claim has ended, and so has let go of it. */
static Endpoint *claim_endpoint(Claim *claim)
{
    Endpoint *ep;
    Py_BEGIN_CRITICAL_SECTION(claim);
    ep = (Endpoint *)Py_XNewRef(claim->ep);
    Py_END_CRITICAL_SECTION();
    return ep;
}

void claim_let_go(Claim *claim)
{
    Endpoint *ep;
    Py_BEGIN_CRITICAL_SECTION(claim);
    ep = claim->ep;
    claim->ep = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(ep);
}

/* Borrow the endpoint for an attempt to end the claim, and return it after that: the claim lets go of its endpoint if
 * it has `ended`.  With a GIL no reference is taken.  Only the call that ends the claim lets go of the endpoint, and
 * any other call does not use the endpoint after Python code has run. */
#if NC_FREE_THREADED
static Endpoint *claim_borrow(Claim *claim) { return claim_endpoint(claim); }

static void claim_return(Claim *claim, Endpoint *ep, bool ended)
{
    if (ended)
        claim_let_go(claim);
    Py_DECREF(ep); /* may be the last reference, and so close it */
}
#else
static Endpoint *claim_borrow(Claim *claim) { return claim->ep; }

static void claim_return(Claim *claim, Endpoint *ep, bool ended)
{
    if (!ended)
        return;
    claim->ep = NULL;
    Py_DECREF(ep); /* may be the last reference, and so close it */
}
#endif

/* The module's state, or NULL.  A claim may outlive its endpoint; then only its type keeps the module.  The collector
 * clears the type's reference if it frees both together. */
static core_state *claim_state(Claim *claim)
{
    return ((PyHeapTypeObject *)Py_TYPE(claim))->ht_module != NULL ? claim->st : NULL;
}

/* ---- ending it ---------------------------------------------------------------------------- */

/* If no view is left, OPEN becomes DONE: returns 0.  Else nothing changes: returns the number of views, or -1 if the
 * claim was DONE.  Holding the endpoint. */
static Py_ssize_t claim_shut_unviewed(Claim *claim)
{
    if (!claim_shut(claim))
        return -1;
    Py_ssize_t exports = atomic_load_explicit(&claim->exports, memory_order_seq_cst); /* E1 */
    if (exports > 0)
        atomic_store_explicit(&claim->state, CLAIM_OPEN, memory_order_seq_cst); /* E1 */
    return exports;
}

/* Commit, abort or release the record, once the claim is DONE and nothing is exported. */
static inline void claim_finish_record(Endpoint *ep, Claim *claim, int how, uint64_t n, nc_box **kicks)
{
    nc_chan *b = ep->chan->block;
    if (ep->side == RX) {
        nc_chan_end_read(b, &claim->record, ep->closed, core_generation());
        bytes_given_back(b, kicks);
    } else if (how == FINISH_COMMIT) {
        bytes_commit(b, &claim->record, n);
        bytes_notify(b, RX, kicks);
    } else {
        bytes_notify(b, nc_chan_abort(b, &claim->record), kicks);
    }
}

static void claim_raise_gone(Chan *c)
{
    core_raise(c->st, E_CLAIM_DISCONNECTED, NULL, "the receiver is gone");
    tell_how(c);
}

/* All that has to be done when a claim ends, once it is DONE and nothing is exported: CLAIM_ENDED or CLAIM_LOST.
 * Holding the endpoint. */
__attribute__((always_inline)) static inline claim_fate claim_end_held(Endpoint *ep, Claim *claim, int how, uint64_t n,
                                                                       nc_box **kicks)
{
    Chan *c = ep->chan;
    bool gone = ep->side == TX && how == FINISH_COMMIT && nc_chan_over(c->block, TX);
    claim_finish_record(ep, claim, gone ? FINISH_ABORT : how, n, kicks);
    ep->claim = NULL;
    if (ep->deferred)
        ep->deferred = nc_chan_resume(c->block, ep->side, ep, core_generation(), kicks);
    if (gone)
        claim_raise_gone(c);
    if (ep->closed && ep->side == TX)
        endpoint_leave(ep, kicks); /* last, as it runs Python code */
    return gone ? CLAIM_LOST : CLAIM_ENDED;
}

static void raise_released(Claim *claim)
{
    core_state *st = claim_state(claim);
    const char *how = claim->side == TX ? "committed or aborted" : "released";
    if (st != NULL)
        core_raise(st, E_CLAIM_RELEASED, NULL, "this claim was already %s", how);
    else
        PyErr_Format(PyExc_BufferError, "this claim was already %s", how);
}

/* The claim was not ended: it has `views`, or it had ended before (-1).  Sets the exception. */
__attribute__((noinline)) static claim_fate claim_kept(Claim *claim, Py_ssize_t views)
{
    if (views < 0)
        raise_released(claim);
    else
        PyErr_Format(PyExc_BufferError,
                     "%zd view%s of this claim still exist%s; release %s first, or del the slices and arrays of it",
                     views, views == 1 ? "" : "s", views == 1 ? "s" : "", views == 1 ? "it" : "them");
    return CLAIM_KEPT;
}

__attribute__((noinline)) claim_fate claim_finish_held(Endpoint *ep, Claim *claim, int how, uint64_t n, nc_box **kicks)
{
    Py_ssize_t views = claim_shut_unviewed(claim);
    if (views == 0)
        return claim_end_held(ep, claim, how, n, kicks);
    return how == FINISH_QUIETLY ? CLAIM_KEPT : claim_kept(claim, views);
}

/* Abort or release the claim, unless it has ended or has views: has it ended by this call?  No exception. */
static bool claim_give_up(Endpoint *ep, Claim *claim)
{
    nc_box *kicks = NULL;
    bool ended;
    Py_BEGIN_CRITICAL_SECTION(ep);
    ended = claim_finish_held(ep, claim, FINISH_QUIETLY, 0, &kicks) == CLAIM_ENDED;
    Py_END_CRITICAL_SECTION();
    if (ended)
        line_deliver_any(ep->chan, kicks);
    return ended;
}

/* The iteration over this claim was left, and its last view may be gone now: then end it. */
__attribute__((noinline)) static void claim_end_left(Claim *claim)
{
    Endpoint *ep = claim_borrow(claim);
    if (ep != NULL)
        claim_return(claim, ep, claim_give_up(ep, claim));
}

void claim_leave_behind(Claim *claim)
{
    atomic_store_explicit(&claim->left, true, memory_order_seq_cst); /* E1: before the views are counted */
    claim_end_left(claim);
}

/* Take the view that the `with` block was given, or NULL; the reference is the caller's then. */
static inline PyObject *claim_take_view(Claim *claim)
{
    PyObject *view;
    Py_BEGIN_CRITICAL_SECTION(claim);
    view = claim->view;
    claim->view = NULL;
    Py_END_CRITICAL_SECTION();
    return view;
}

/* Release that view; false with BufferError set if the view itself is exported.  Then the `with` block keeps it if
 * `keep`; else it is freed with what it was exported to.  Steals the view; runs Python code. */
__attribute__((noinline)) static bool claim_drop_view(Claim *claim, PyObject *view, bool keep)
{
    core_state *st = claim_state(claim);
    PyObject *done =
        st != NULL ? PyObject_CallMethodNoArgs(view, st->s_release) : PyObject_CallMethod(view, "release", NULL);
    if (done == NULL && keep) {
        Py_BEGIN_CRITICAL_SECTION(claim);
        if (claim->view == NULL) {
            claim->view = view;
            view = NULL;
        }
        Py_END_CRITICAL_SECTION();
    }
    Py_XDECREF(view);
    Py_XDECREF(done);
    return done != NULL;
}

/* End the claim as claim_finish_held() does; false with an exception set. */
static bool claim_finish(Claim *claim, int how, uint64_t n, bool keep_view)
{
    nc_box *kicks = NULL;
    claim_fate fate;
    PyObject *view = claim_take_view(claim);
    bool viewed = view != NULL;
    if (viewed && !claim_drop_view(claim, view, keep_view))
        return false;
    Endpoint *ep = claim_borrow(claim);
    if (ep == NULL) {
        if (viewed &&
            atomic_load_explicit(&claim->left, memory_order_relaxed)) /* it has ended with that view, just now */
            return true;
        raise_released(claim);
        return false;
    }
    Py_BEGIN_CRITICAL_SECTION(ep);
    fate = claim_finish_held(ep, claim, how, n, &kicks);
    Py_END_CRITICAL_SECTION();
    if (fate != CLAIM_KEPT)
        line_deliver_any(ep->chan, kicks);
    claim_return(claim, ep, fate != CLAIM_KEPT);
    return fate == CLAIM_ENDED;
}

/* How many bytes of the claim are to be sent; 0 with an exception set. */
static Py_ssize_t claim_parse_part(Claim *claim, PyObject *arg)
{
    Endpoint *ep = claim_endpoint(claim);
    if (ep == NULL) {
        raise_released(claim);
        return 0;
    }
    Py_ssize_t n = claim_parse_size(ep->chan, arg);
    if (n == 0 || (uint64_t)n <= claim->record.size) {
        Py_DECREF(ep);
        return n;
    }
    core_raise(ep->chan->st, E_CLAIM_TOO_LARGE, NULL, "commit of %zd bytes in a claim of %llu", n,
               (unsigned long long)claim->record.size);
    Py_DECREF(ep);
    return 0;
}

/* commit(n=None) */
static PyObject *claim_commit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Claim *claim = (Claim *)self;
    Py_ssize_t n = (Py_ssize_t)claim->record.size;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "commit() takes at most one argument");
        return NULL;
    }
    if (nargs == 1 && args[0] != Py_None && (n = claim_parse_part(claim, args[0])) == 0)
        return NULL;
    return claim_finish(claim, FINISH_COMMIT, (uint64_t)n, true) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *claim_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return claim_finish((Claim *)self, FINISH_ABORT, 0, true) ? Py_NewRef(Py_None) : NULL;
}

/* ---- as a context ---------------------------------------------------------------------------- */

PyObject *claim_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Claim *claim = (Claim *)self;
    PyObject *view = PyMemoryView_FromObject(self);
    if (view == NULL)
        return NULL;
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(claim);
    old = claim->view;
    claim->view = Py_NewRef(view);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
    return view;
}

bool claim_leave(Claim *claim, bool failed)
{
    bool viewed;
    Py_BEGIN_CRITICAL_SECTION(claim);
    viewed = claim->view != NULL;
    Py_END_CRITICAL_SECTION();
    if (!claim_is_open(claim) && !viewed)
        return true;
    if (claim_finish(claim, failed ? FINISH_ABORT : FINISH_COMMIT, claim->record.size, false))
        return true;
    if (!failed)
        return false;
    PyErr_Clear(); /* the block's own exception is raised; the claim ends with its last view */
    return true;
}

static PyObject *claim_exit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return claim_leave((Claim *)self, n > 0 && args[0] != Py_None) ? Py_NewRef(Py_None) : NULL;
}

/* ---- by its endpoint ------------------------------------------------------------------------------------ */

/* Take a reference to the claim; false if it has none left, and is being freed.  Holding its endpoint. */
static bool claim_try_incref(Claim *claim)
{
#if NC_FREE_THREADED
    Py_ssize_t *refs = &((PyObject *)claim)->ob_ref_shared; /* core_new() has all references counted here */
    Py_ssize_t now = _Py_atomic_load_ssize_relaxed(refs); /* if it is stale, the exchange fails */
    do {
        if (now >> _Py_REF_SHARED_SHIFT == 0)
            return false;
    } while (!_Py_atomic_compare_exchange_ssize(refs, &now, now + ((Py_ssize_t)1 << _Py_REF_SHARED_SHIFT)));
#else
    Py_INCREF(claim); /* a claim is ended before it is freed, and no Python code runs in between */
#endif
    return true;
}

PyObject *endpoint_end_claim(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Endpoint *ep = (Endpoint *)self;
    Claim *claim;
    nc_box *kicks = NULL;
    bool open, kept = false;
    Py_BEGIN_CRITICAL_SECTION(self);
    claim = ep->claim;
    open = claim != NULL;
    if (open && !(kept = claim_try_incref(claim))) /* another thread is about to end it, and then to free it */
        claim_finish_held(ep, claim, FINISH_QUIETLY, 0, &kicks);
    Py_END_CRITICAL_SECTION();
    line_deliver_any(ep->chan, kicks);
    if (kept && !claim_finish(claim, FINISH_ABORT, 0, true)) {
        open = !PyErr_ExceptionMatches(ep->chan->st->errors[E_CLAIM_RELEASED]);
        if (!open) /* another thread was quicker */
            PyErr_Clear();
    }
    if (kept)
        Py_DECREF(claim);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(open);
}

/* ---- the buffer ------------------------------------------------------------------------------ */

static int claim_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    Claim *claim = (Claim *)self;
    bool readonly = claim->side == RX;
    claim_count_export(claim, 1);
    if (!claim_is_open(claim))
        raise_released(claim);
    else if (PyBuffer_FillInfo(view, self, claim->record.data, (Py_ssize_t)claim->record.size, readonly, flags) == 0)
        return 0;
    view->obj = NULL;
    claim_count_export(claim, -1);
    return -1;
}

static void claim_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
    claim_count_export((Claim *)self, -1);
    if (atomic_load_explicit(&((Claim *)self)->left, memory_order_seq_cst)) /* E1: after the count */
        claim_end_left((Claim *)self);
}

static Py_ssize_t claim_length(PyObject *self) { return (Py_ssize_t)((Claim *)self)->record.size; }

/* claim[i], without a view. */
static PyObject *claim_item(Claim *claim, PyObject *key)
{
    Py_ssize_t size = (Py_ssize_t)claim->record.size, i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    PyObject *item = NULL;
    if (i == -1 && PyErr_Occurred())
        return NULL;
    if (i < 0)
        i += size;
    claim_count_export(claim, 1); /* as a view would */
    if (!claim_is_open(claim))
        raise_released(claim);
    else if (i < 0 || i >= size)
        PyErr_Format(PyExc_IndexError, "index out of bounds of a claim of %zd bytes", size);
    else
        item = PyLong_FromLong(claim->record.data[i]);
    claim_count_export(claim, -1);
    return item;
}

/* claim[...] is memoryview(claim)[...] */
static PyObject *claim_subscript(PyObject *self, PyObject *key)
{
    if (PyIndex_Check(key))
        return claim_item((Claim *)self, key);
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *item = view != NULL ? PyObject_GetItem(view, key) : NULL;
    Py_XDECREF(view);
    return item;
}

static int claim_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    PyObject *view = PyMemoryView_FromObject(self);
    int result = view == NULL ? -1 : value != NULL ? PyObject_SetItem(view, key, value) : PyObject_DelItem(view, key);
    Py_XDECREF(view);
    return result;
}

static PyObject *claim_repr(PyObject *self)
{
    Claim *claim = (Claim *)self;
    return PyUnicode_FromFormat("<%s of %zd bytes, %s, at %p>", Py_TYPE(self)->tp_name, claim_length(self),
                                claim_is_open(claim) ? "open" : "done", self);
}

static PyObject *claim_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%.200s': copy its bytes, bytes(claim)",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

static int claim_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Claim *)self)->ep);
    Py_VISIT(((Claim *)self)->view);
    return 0;
}

static int claim_clear(PyObject *self)
{
    Py_CLEAR(((Claim *)self)->view);
    return 0;
}

/* A claim that is dropped has no exports, as each of them refers to it.  While the endpoint still knows the claim,
 * others may look at it there, or end it.  The endpoint does not know a claim that was never started.  Such a claim may
 * be dropped by a caller that holds the endpoint; to enter its critical section again would let others in. */
static void claim_dealloc(PyObject *self)
{
    Claim *claim = (Claim *)self;
    Endpoint *ep = claim->ep;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (ep != NULL && claim->record.data != NULL)
        claim_give_up(ep, claim);
    Py_CLEAR(claim->view); /* after that, as this may run Python code */
    core_state *st = claim_state(claim);
    if (st == NULL || !spare_keep(st, SPARE_CLAIMS, claim))
        PyObject_GC_Del(claim);
    Py_XDECREF(ep);
    Py_DECREF(type); /* after this or the line above the state may be gone */
}

/* ---- types ------------------------------------------------------------------------------------------ */

#define CLAIM_METHODS                                                                                            \
    {"__enter__", claim_enter, METH_NOARGS, enter_doc}, {"__exit__", FAST(claim_exit), METH_FASTCALL, exit_doc}, \
    {                                                                                                            \
        "__reduce_ex__", claim_reduce, METH_O, reduce_doc                                                        \
    }
#define CLAIM_SLOTS                                                                                 \
    {Py_tp_dealloc, claim_dealloc}, {Py_tp_traverse, claim_traverse}, {Py_tp_clear, claim_clear},   \
        {Py_tp_repr, claim_repr}, {Py_mp_length, claim_length}, {Py_mp_subscript, claim_subscript}, \
        {Py_bf_getbuffer, claim_getbuffer},                                                         \
    {                                                                                               \
        Py_bf_releasebuffer, claim_releasebuffer                                                    \
    }

static PyMethodDef write_claim_methods[] = {{"commit", FAST(claim_commit), METH_FASTCALL, claim_commit_doc},
                                            {"abort", claim_abort, METH_NOARGS, claim_abort_doc},
                                            CLAIM_METHODS,
                                            END_OF_METHODS};
static PyMethodDef read_claim_methods[] = {
    {"release", claim_abort, METH_NOARGS, claim_release_doc}, CLAIM_METHODS, END_OF_METHODS};

static PyType_Slot write_claim_slots[] = {{Py_tp_methods, write_claim_methods},
                                          {Py_tp_doc, (void *)write_claim_doc},
                                          {Py_mp_ass_subscript, claim_ass_subscript},
                                          CLAIM_SLOTS,
                                          {0, NULL}};
static PyType_Slot read_claim_slots[] = {
    {Py_tp_methods, read_claim_methods}, {Py_tp_doc, (void *)read_claim_doc}, CLAIM_SLOTS, {0, NULL}};

#define CLAIM_SPEC(cls, its_slots) \
    {.name = "nexus_channels._core." cls, .basicsize = sizeof(Claim), .flags = CORE_TYPE_FLAGS, .slots = its_slots}
static PyType_Spec specs[SIDES] = {CLAIM_SPEC("WriteClaim", write_claim_slots),
                                   CLAIM_SPEC("ReadClaim", read_claim_slots)};

int claim_add_types(PyObject *module, core_state *st)
{
    st->claim_type[TX] = core_add_type(module, &specs[TX], "WriteClaim");
    st->claim_type[RX] = core_add_type(module, &specs[RX], "ReadClaim");
    return st->claim_type[TX] != NULL && st->claim_type[RX] != NULL ? 0 : -1;
}
