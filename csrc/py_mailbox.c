/* py_mailbox.c: the mailbox of an event loop, whichever kind of loop it is: how called waiters are taken off the mail,
 * how the loop is kicked, and what becomes of the waiters of a loop that has ended.  What differs between the kinds is
 * in the rows of the table, loop_kind.
 *
 * The wake fd of the main thread's loop is opened when another thread first has to wake that loop; any other loop has
 * one from its first wait on.  Until then, and on loops that cannot read one, loop_kind.call_soon wakes the loop; those
 * who cannot call it ring the doorbell.
 */
#include "py_mailbox.h"
#include "py_module.h"

/* NO_READER: a loop that reads none.  RETIRED - fd: it reads this one no more, which is still to be closed. */
enum { NO_FD = -1, NO_READER = -2, RETIRED = -3 };

/* ---- waking a task ---------------------------------------------------------------------------------- */

/* Wake the task of a waiter that was taken off the mail.  True: the waiter is received, and freed if it was abandoned
 * meanwhile.  False with an exception set: the waiter is as if it had not been taken. */
static bool sleeper_wake(Mailbox *m, nc_waiter *w)
{
    sleeper *sl = container_of(w, sleeper, waiter);
    PyObject *future; /* a second one only on a loop that runs the task on the spot, if the task then waits once more */
    while ((future = sleeper_swap_future(sl, NULL)) != NULL) {
        bool woken = m->kind->resolve(m->st, future) == 0;
        if (!woken) {
            PyObject *newer = sleeper_swap_future(sl, future);
            Py_XDECREF(newer != NULL ? sleeper_swap_future(sl, newer) : NULL);
            return false;
        }
        Py_DECREF(future);
    }
    if (!nc_post_receive(w))
        sleeper_free(sl);
    return true;
}

/* Receive a waiter from the mail of a dead loop: its future, a new reference or NULL.  `gone`: the waiter was abandoned
 * meanwhile, and has been freed. */
static PyObject *sleeper_receive(nc_waiter *w, bool *gone)
{
    sleeper *sl = container_of(w, sleeper, waiter);
    PyObject *future = sleeper_swap_future(sl, NULL);
    *gone = !nc_post_receive(w);
    if (*gone)
        sleeper_free(sl);
    return future;
}

/* ---- a loop's mailbox ------------------------------------------------------------------------------- */

static PyObject *mailbox_loop(Mailbox *m) { return core_weak_target(m->loop); }

static void mailbox_try_again(Mailbox *m, PyObject *loop, nc_box **kicks);

/* Wake everyone in the box, first come first.  On the loop's thread. */
static void mailbox_drain(Mailbox *m, nc_box **kicks)
{
    nc_box *box = &m->box->base.box;
    for (nc_waiter *w = nc_box_take(box), *next; w != NULL; w = next) {
        next = w->mail_next; /* read before w is received, as w may be posted again from then on */
        if (!sleeper_wake(m, w)) {
            w->mail_next = next;
            nc_box_return(box, w);
            PyObject *loop = mailbox_loop(m);
            mailbox_try_again(m, loop, kicks);
            Py_XDECREF(loop);
            return;
        }
        atomic_store_explicit(&m->failures, 0, memory_order_relaxed); /* a hint */
    }
}

/* The same when the loop calls us; then the chain is kicked, too. */
static void mailbox_come_by(Mailbox *m)
{
    nc_box *kicks = NULL;
    mailbox_drain(m, &kicks);
    wake_deliver(m->st, kicks);
}

/* The loop is closed or gone: no task will ever run there.  Each waiter in its mail gives its turn to the next. */
static void loop_box_bury(loop_box *box, nc_box **kicks)
{
    nc_waiter *w = nc_box_take(&box->base.box);
    while (w != NULL) {
        nc_waiter *next = w->mail_next;
        sleeper *sl = container_of(w, sleeper, waiter);
        if (sl->chan != NULL)
            nc_chan_leave_line(sl->chan->block, sl->side, w, true, core_generation(), kicks);
        bool gone;
        Py_XDECREF(sleeper_receive(w, &gone));
        w = next;
    }
}

/* Is the interpreter being taken down?  Then no other thread runs Python code any more. */
static bool interpreter_ends(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* The loop could not be woken: the waiters in its mail wait on, as if they had not been called, and whoever publishes
 * next calls them again.  Reports the current exception. */
static void loop_box_put_back(loop_box *box, PyObject *about)
{
    for (nc_waiter *w = nc_box_take(&box->base.box), *next; w != NULL; w = next) {
        next = w->mail_next;
        sleeper *sl = container_of(w, sleeper, waiter);
        if (sl->chan == NULL) { /* abandoned: in no line */
            sleeper_free(sl);
            continue;
        }
        Chan *c = (Chan *)Py_NewRef(sl->chan);
        if (!nc_chan_uncall(c->block, sl->side, w, core_generation()))
            sleeper_free(sl);
        Py_DECREF(c);
    }
    if (interpreter_ends())
        PyErr_Clear(); /* the loop runs no more, and asyncio may be half gone: a report would help nobody */
    else
        core_report_error(about);
}

/* Others ring for the loop from now on, where they cannot write to a wake fd.  The caller then sees to it that the mail
 * is taken. */
static void mailbox_give_bell(Mailbox *m)
{
    doorbell *bell = doorbell_start(m->st), *none = NULL;
    if (bell == NULL)
        return;
    doorbell_ref(bell);
    if (!atomic_compare_exchange_strong_explicit(&m->box->bell, &none, bell, memory_order_acq_rel, /* F1 */
                                                 memory_order_relaxed))
        doorbell_unref(bell); /* it has one */
}

/* What the loop calls when its wake fd was written to. */
static PyObject *mailbox_wake(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Mailbox *m = (Mailbox *)self;
    wake_fd_clear(m->box->read_fd);
    mailbox_come_by(m);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_wake_def = {"_wake", mailbox_wake, METH_NOARGS, NULL};

/* The loop has let go of what reads its wake fd: it was closed, most likely. */
static PyObject *mailbox_unread(PyObject *self, PyObject *Py_UNUSED(weakref))
{
    Mailbox *m = (Mailbox *)self;
    Py_CLEAR(m->reader); /* ends the circle of the two; the caller has a reference to m */
    if (m->box->base.born == core_generation())
        mailbox_read_no_more(m);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_unread_def = {"_unread", mailbox_unread, METH_O, NULL};

/* What the loop is to call, a new reference, and to know when it lets go of that: *known, likewise; NULL with an
 * exception set. */
static PyObject *mailbox_reader(Mailbox *m, PyObject **known)
{
    PyObject *reader = PyCFunction_New(&mailbox_wake_def, (PyObject *)m);
    PyObject *unread = reader != NULL ? PyCFunction_New(&mailbox_unread_def, (PyObject *)m) : NULL;
    *known = unread != NULL ? PyWeakref_NewRef(reader, unread) : NULL;
    Py_XDECREF(unread);
    if (*known == NULL)
        Py_CLEAR(reader);
    return reader;
}

/* Give the mailbox a wake fd that its loop reads.  On the loop's thread.  Without one, every burst of wake-ups
 * goes through call_soon. */
static void mailbox_open_fd(Mailbox *m, PyObject *loop)
{
    int fds[2];
    if (!WAKE_FDS)
        atomic_store_explicit(&m->box->wake_fd, NO_READER, memory_order_release); /* F1 */
    if (atomic_load_explicit(&m->box->wake_fd, memory_order_relaxed) != NO_FD || !wake_fd_open(fds))
        return; /* relaxed: only this thread writes it; out of descriptors: try again next time */
    PyObject *done = NULL, *known = NULL;
    PyObject *fd = PyLong_FromLong(fds[0]), *reader = fd != NULL ? mailbox_reader(m, &known) : NULL;
    interruptions kept = {0};
    if (reader != NULL)
        do
            done = m->kind->read(m, loop, fd, reader);
        while (done == NULL && core_try_again(&kept));
    Py_XDECREF(fd);
    core_postpone_all(&kept);
    if (done != NULL) {
        Py_DECREF(done);
        Py_XSETREF(m->reader, known);
        Py_DECREF(reader);
        m->box->read_fd = fds[0];
        wake_fd_know(fds[0], &m->box->file);
        atomic_store_explicit(&m->box->wake_fd, fds[1], memory_order_release); /* F1 */
        return;
    }
    bool never = PyErr_ExceptionMatches(PyExc_NotImplementedError) || PyErr_ExceptionMatches(PyExc_AttributeError);
    core_drop_error();
    Py_XDECREF(known); /* first, so that nobody is told of the other */
    Py_XDECREF(reader);
    wake_fd_close(fds[0]);
    if (fds[1] != fds[0])
        wake_fd_close(fds[1]);
    if (never)
        atomic_store_explicit(&m->box->wake_fd, NO_READER, memory_order_release); /* F1 */
}

/* See to it that native code can wake the loop: by its wake fd, or else by the doorbell.  On the loop's thread, which
 * reads its mail after this. */
static void mailbox_be_reached(Mailbox *m, PyObject *loop)
{
    mailbox_open_fd(m, loop);
    atomic_store_explicit(&m->box->shared, true, memory_order_relaxed); /* likewise mailbox_reach() */
    if (!wake_reached(&m->box->base.box))
        mailbox_give_bell(m);
}

void mailbox_read_no_more(Mailbox *m)
{
    loop_box *box = m->box;
    int fd = atomic_load_explicit(&box->wake_fd, memory_order_relaxed); /* the exchange orders it */
    if (fd >= 0) /* unless it is not ours any more: then its number may be another file's soon */
        atomic_exchange_explicit(&box->wake_fd, wake_fd_is(box->read_fd, &box->file) ? RETIRED - fd : NO_READER,
                                 memory_order_acq_rel); /* F1; and whether others may come: mailbox_share() */
    if (atomic_load_explicit(&box->shared, memory_order_relaxed) && /* as above */
        atomic_load_explicit(&box->base.box.refs, memory_order_relaxed) > 1) /* waiters know it: a hint */
        mailbox_give_bell(m);
    mailbox_come_by(m);
}

/* What call_soon is given by the loop's own thread, which gains nothing from a wake fd. */
static PyObject *mailbox_deliver(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    mailbox_come_by((Mailbox *)self);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_deliver_def = {"_deliver", mailbox_deliver, METH_NOARGS, NULL};

/* What it is given by another thread, as there is no wake fd (yet). */
static PyObject *mailbox_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Mailbox *m = (Mailbox *)self;
    PyObject *loop = mailbox_loop(m);
    if (loop != NULL) {
        mailbox_open_fd(m, loop);
        Py_DECREF(loop);
    }
    mailbox_come_by(m);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_arm_def = {"_arm", mailbox_arm, METH_NOARGS, NULL};

static int mailbox_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Mailbox *)self)->module);
    Py_VISIT(((Mailbox *)self)->loop);
    Py_VISIT(((Mailbox *)self)->get_loop);
    Py_VISIT(((Mailbox *)self)->reader);
    Py_VISIT(((Mailbox *)self)->summons);
    return 0;
}

static void mailbox_dealloc(PyObject *self)
{
    Mailbox *m = (Mailbox *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    nc_box *kicks = NULL;
    if (m->box != NULL) {
        loop_box_bury(m->box, &kicks);
        wake_box_unref(&m->box->base.box);
    }
    Py_XDECREF(m->loop);
    Py_XDECREF(m->get_loop);
    Py_XDECREF(m->key);
    Py_XDECREF(m->reader);
    Py_XDECREF(m->summons);
    if (kicks != NULL)
        wake_deliver(m->st, kicks);
    Py_XDECREF(m->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot mailbox_slots[] = {
    {Py_tp_dealloc, mailbox_dealloc},
    {Py_tp_traverse, mailbox_traverse},
    {0, NULL},
};

static PyType_Spec mailbox_spec = {
    .name = "nexus_channels._core.Mailbox",
    .basicsize = sizeof(Mailbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = mailbox_slots,
};

static void forget_mailbox(core_state *st, PyObject *key)
{
    Mailbox *recent = st->recent != NULL && ((Mailbox *)st->recent)->key == key ? (Mailbox *)st->recent : NULL;
    if (recent != NULL) {
        st->recent = NULL;
        Py_DECREF(recent);
    }
    if (PyDict_DelItem(st->mailboxes, key) < 0)
        PyErr_Clear(); /* another thread was quicker */
}

/* Called when a loop is freed: self is (module, key of its mailbox). */
static PyObject *forget_loop(PyObject *self, PyObject *Py_UNUSED(weakref))
{
    forget_mailbox(PyModule_GetState(PyTuple_GET_ITEM(self, 0)), PyTuple_GET_ITEM(self, 1));
    Py_RETURN_NONE;
}

static PyMethodDef forget_loop_def = {"_forget_loop", forget_loop, METH_O, NULL};

/* The mailbox of a closed loop keeps a descriptor open until the loop is freed: let go of it now.  Loops that have been
 * freed are left to forget_loop(): another loop may lie at the same address by now, and its mailbox be the one found by
 * that address. */
static void forget_closed_loops(core_state *st)
{
    PyObject *all = PyDict_Values(st->mailboxes);
    for (Py_ssize_t i = 0; all != NULL && i < PyList_GET_SIZE(all); i++) {
        Mailbox *m = (Mailbox *)PyList_GET_ITEM(all, i);
        PyObject *loop = mailbox_loop(m);
        if (loop != NULL && m->kind->closed(m, loop))
            forget_mailbox(st, m->key);
        Py_XDECREF(loop);
    }
    Py_XDECREF(all);
    PyErr_Clear();
}

static Mailbox *mailbox_new(const loop_kind *kind, core_state *st, PyObject *loop, PyObject *key)
{
    forget_closed_loops(st); /* now and then, as when a new loop comes */
    if (doorbell_prepare(st) < 0)
        return NULL;
    Mailbox *m = (Mailbox *)st->mailbox_type->tp_alloc(st->mailbox_type, 0);
    if (m == NULL)
        return NULL;
    m->module = Py_NewRef(st->module);
    m->st = st;
    m->kind = kind;
    PyObject *self = PyTuple_Pack(2, st->module, key), *forget = NULL;
    if (self != NULL)
        forget = PyCFunction_New(&forget_loop_def, self);
    Py_XDECREF(self);
    m->key = Py_NewRef(key);
    m->loop = forget != NULL ? PyWeakref_NewRef(loop, forget) : NULL;
    Py_XDECREF(forget);
    if (m->loop != NULL && (kind->begin == NULL || kind->begin(m, loop) == 0))
        m->box = PyMem_RawCalloc(1, sizeof *m->box);
    if (m->box == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_DECREF(m);
        return NULL;
    }
    nc_box_init(&m->box->base.box);
    m->box->base.box.guarded = !NC_FREE_THREADED;
    m->box->base.kind = &kind->box;
    m->box->base.born = core_generation();
    m->box->base.home = st->number;
    m->box->loop = loop;
    m->box->read_fd = -1;
    m->box->entry.box = &m->box->base;
    atomic_store_explicit(&m->box->wake_fd, NO_FD, memory_order_relaxed); /* nobody else knows it yet */
    if (PyDict_SetItem(st->mailboxes, key, (PyObject *)m) < 0) {
        Py_CLEAR(m);
        return NULL;
    }
    if (!core_handles_signals()) /* see mailbox_kick_later() */
        mailbox_open_fd(m, loop);
    return m;
}

#if NC_FREE_THREADED
static Mailbox *recent_mailbox(core_state *Py_UNUSED(st), PyObject *Py_UNUSED(loop)) { return NULL; }
static void remember_mailbox(core_state *Py_UNUSED(st), Mailbox *Py_UNUSED(m)) {}
#else
/* Most programs have one loop: its mailbox, a new reference, without a search.  A weak reference refers to nothing once
 * its loop is gone, so another loop at the same address is not taken for it. */
static inline Mailbox *recent_mailbox(core_state *st, PyObject *loop)
{
    Mailbox *m = (Mailbox *)st->recent;
    bool its = m != NULL && ((PyWeakReference *)m->loop)->wr_object == loop && m->box->base.born == core_generation();
    return its ? (Mailbox *)Py_NewRef(m) : NULL;
}

static void remember_mailbox(core_state *st, Mailbox *m) { Py_XSETREF(st->recent, Py_XNewRef(m)); }
#endif

static bool is_mailbox_of(Mailbox *m, PyObject *loop)
{
    PyObject *its = mailbox_loop(m);
    Py_XDECREF(its); /* not the last, if it is the one */
    return its == loop;
}

static Mailbox *mailbox_searched(const loop_kind *kind, core_state *st, PyObject *loop)
{
    PyObject *key = PyLong_FromVoidPtr(loop);
    if (key == NULL)
        return NULL;
    Mailbox *m = (Mailbox *)core_dict_find(st->mailboxes, key);
    if (m != NULL && (m->box->base.born != core_generation() || !is_mailbox_of(m, loop)))
        Py_CLEAR(m); /* the parent process's; or forget_loop() could not be called, as the stack had run out */
    if (m == NULL && kind != NULL)
        m = mailbox_new(kind, st, loop, key);
    Py_DECREF(key);
    if (m != NULL)
        remember_mailbox(st, m);
    return m;
}

Mailbox *mailbox_of(const loop_kind *kind, core_state *st, PyObject *loop)
{
    Mailbox *m = recent_mailbox(st, loop);
    return m != NULL ? m : mailbox_searched(kind, st, loop);
}

/* ---- kicking ---------------------------------------------------------------------------------------- */

enum { ELSEWHERE, ON_LOOP, DELIVERED };

/* Does this thread run the box's loop?  If it runs a task of that loop, or the loop has called what hears lanes,
 * deliver the mail at once: then the loop is not in its select. */
static int deliver_here(core_state *st, loop_box *box, nc_box **kicks)
{
    const loop_kind *kind = container_of(box->base.kind, const loop_kind, box);
    int where = ELSEWHERE;
    PyObject *loop = kind->running(st);
    Mailbox *m = loop != NULL && loop != Py_None ? mailbox_of(NULL, st, loop) : NULL;
    if (m == NULL)
        core_drop_error();
    else if (m->box == box) {
        where = m->called || kind->in_task(st, loop) ? DELIVERED : ON_LOOP;
        if (where == DELIVERED)
            mailbox_drain(m, kicks);
    }
    Py_XDECREF(m);
    Py_XDECREF(loop);
    return where;
}

/* A pending call: CPython runs it in the main thread between two bytecodes.  Takes over a reference. */
static int kick_again(void *arg)
{
    Mailbox *m = arg;
    nc_box *kicks = NULL;
    if (m->box->base.born == core_generation())
        mailbox_box_kick(m->st, &m->box->base, &kicks);
    wake_deliver(m->st, kicks);
    Py_DECREF(m);
    return 0;
}

enum { TRIES = 8, TRIES_FAST = 1000 }; /* in a row: turns of the loop; pending calls and answers, which come fast */

/* Arrange another kick by what needs neither memory nor a stack: a write to the wake fd; where there is none, a pending
 * call, if this thread runs them, or the doorbell. */
static bool mailbox_kick_later(Mailbox *m)
{
    int fd = atomic_load_explicit(&m->box->wake_fd, memory_order_acquire); /* F1 */
    unsigned failures = atomic_fetch_add_explicit(&m->failures, 1, memory_order_relaxed); /* a hint */
    if (failures >= (fd >= 0 ? TRIES : TRIES_FAST))
        return false;
    if (fd >= 0 && wake_fd_write(fd))
        return true;
    if (core_handles_signals()) {
        Py_INCREF(m);
        if (Py_AddPendingCall(kick_again, m) == 0)
            return true;
        Py_DECREF(m); /* not the last: the caller's */
    }
    doorbell *bell = doorbell_start(m->st);
    return bell != NULL && doorbell_ring(bell, &m->box->entry);
}

/* The waiters in the mail could not be woken.  If memory or the stack has run out, that will pass: the loop is kicked
 * later.  A closed loop is buried.  If the loop refuses, or was tried often enough, the waiters wait on in their old
 * places and the error is reported.  `loop` is NULL if it is gone.  An exception is set, and gets cleared. */
static void mailbox_try_again(Mailbox *m, PyObject *loop, nc_box **kicks)
{
    bool passes = PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(PyExc_RecursionError);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool dead = loop == NULL || m->kind->closed(m, loop); /* it may have been closed just now */
    bool later = !dead && passes && mailbox_kick_later(m);
    if (dead)
        loop_box_bury(m->box, kicks);
    if (!dead && !later) {
        atomic_store_explicit(&m->failures, 0, memory_order_relaxed); /* a hint */
        PyErr_Restore(type, value, traceback);
        loop_box_put_back(m->box, loop);
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* Have the loop read its mail, through its own queue of callbacks; once more if a signal handler interrupts that, as
 * a callback too many does no harm.  Takes over a reference to the callback; NULL: it could not be made, and an
 * exception is set. */
static void mailbox_call_soon(Mailbox *m, PyObject *loop, PyObject *callback, nc_box **kicks)
{
    PyObject *done = NULL;
    interruptions kept = {0};
    if (callback != NULL)
        do
            done = m->kind->call_soon(m->st, loop, callback);
        while (done == NULL && core_try_again(&kept));
    Py_XDECREF(callback);
    Py_XDECREF(done);
    if (done == NULL)
        mailbox_try_again(m, loop, kicks);
    core_postpone_all(&kept);
}

/* The same as mailbox_of_box(), for when there is no memory for a key, or no stack to compare it. */
static Mailbox *mailbox_among_all(core_state *st, loop_box *box)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    Mailbox *its = NULL;
    Py_BEGIN_CRITICAL_SECTION(st->mailboxes);
    while (its == NULL && PyDict_Next(st->mailboxes, &at, &key, &value))
        if (((Mailbox *)value)->box == box)
            its = (Mailbox *)Py_NewRef(value);
    Py_END_CRITICAL_SECTION();
    return its;
}

/* The mailbox that a box belongs to, a new reference, or NULL without an exception: its loop is gone. */
static Mailbox *mailbox_of_box(core_state *st, loop_box *box)
{
    PyObject *key = PyLong_FromVoidPtr(box->loop);
    Mailbox *m = key != NULL ? (Mailbox *)core_dict_find(st->mailboxes, key) : NULL;
    if (key == NULL)
        PyErr_Clear();
    Py_XDECREF(key);
    if (m != NULL && m->box != box)
        Py_CLEAR(m); /* that of another loop, at the same address */
    return m != NULL ? m : mailbox_among_all(st, box);
}

void mailbox_box_kick(core_state *st, wake_box *base, nc_box **kicks)
{
    loop_box *box = (loop_box *)base;
    int where = deliver_here(st, box, kicks);
    if (where == DELIVERED)
        return;
    int fd = atomic_load_explicit(&box->wake_fd, memory_order_acquire); /* F1 */
    Mailbox *m = mailbox_of_box(st, box);
    PyObject *loop = m != NULL ? mailbox_loop(m) : NULL;
    bool written = false, dead = loop == NULL || m->kind->closed(m, loop);
    if (!dead && fd >= 0 && !(written = wake_fd_write(fd)))
        atomic_store_explicit(&box->wake_fd, NO_READER, memory_order_relaxed); /* not ours any more: never again */
    if (dead)
        loop_box_bury(box, kicks);
    else if (!written)
        mailbox_call_soon(
            m, loop, PyCFunction_New(where == ON_LOOP ? &mailbox_deliver_def : &mailbox_arm_def, (PyObject *)m), kicks);
    Py_XDECREF(loop);
    Py_XDECREF(m);
}

/* ---- its box ---------------------------------------------------------------------------------------- */

/* If the loop has neither wake fd nor doorbell yet, somebody is seeing to it, and will read the mail after that: F1. */
void mailbox_box_kick_without_gil(wake_box *b)
{
    loop_box *box = (loop_box *)b;
    int fd = atomic_load_explicit(&box->wake_fd, memory_order_acquire); /* F1 */
    doorbell *bell = atomic_load_explicit(&box->bell, memory_order_acquire); /* F1 */
    if ((fd < 0 || !wake_fd_write(fd)) && bell != NULL)
        doorbell_ring(bell, &box->entry);
}

bool mailbox_box_reached(wake_box *b)
{
    loop_box *box = (loop_box *)b;
    if (atomic_load_explicit(&box->wake_fd, memory_order_acquire) >= 0) /* F1 */
        return true;
    doorbell *bell = atomic_load_explicit(&box->bell, memory_order_acquire); /* F1 */
    return bell != NULL && doorbell_answered(bell);
}

bool mailbox_box_dead(core_state *st, wake_box *b)
{
    Mailbox *m = mailbox_of_box(st, (loop_box *)b);
    PyObject *loop = m != NULL ? mailbox_loop(m) : NULL;
    bool dead = loop == NULL || m->kind->closed(m, loop);
    Py_XDECREF(loop);
    Py_XDECREF(m);
    return dead;
}

void mailbox_box_drop(wake_box *base)
{
    loop_box *b = (loop_box *)base;
    int wake = atomic_load_explicit(&b->wake_fd, memory_order_relaxed); /* nobody else knows the box any more */
    doorbell *bell = atomic_load_explicit(&b->bell, memory_order_relaxed); /* nor it */
    if (bell != NULL)
        doorbell_unref(bell);
    if (wake <= RETIRED)
        wake = RETIRED - wake;
    if (wake < 0)
        return; /* never opened; or closed by a stranger, and its number may be another file's by now */
    wake_fd_close(wake);
    if (b->read_fd != wake)
        wake_fd_close(b->read_fd);
}

/* ---- within reach of native code --------------------------------------------------------------------- */

/* Both this and mailbox_read_no_more() swap the fd, so one of the two comes second, and sees what the other did. */
bool mailbox_share(nc_box *box)
{
    loop_box *b = container_of(box, loop_box, base.box);
    atomic_store_explicit(&b->shared, true, memory_order_relaxed); /* the next line hands it on */
    atomic_fetch_add_explicit(&b->wake_fd, 0, memory_order_acq_rel); /* F1 */
    return wake_reached(box);
}

bool mailbox_reach(core_state *st, PyObject *loop, nc_box *box, const char *who)
{
    atomic_store_explicit(&container_of(box, loop_box, base.box)->shared, true,
                          memory_order_relaxed); /* the loop runs, so it does not let go of its fd meanwhile */
    if (wake_reached(box))
        return true;
    Mailbox *m = mailbox_of(NULL, st, loop);
    if (m != NULL && &m->box->base.box == box)
        mailbox_be_reached(m, loop);
    Py_XDECREF(m);
    if (wake_reached(box))
        return true;
    doorbell *bell = atomic_load_explicit(&st->bell, memory_order_acquire); /* D3 */
    if (!PyErr_Occurred())
        PyErr_Format(
            PyExc_RuntimeError,
            "%s() has to wait, and native code could not wake %R: its add_reader() does not work, and %s", who, loop,
            bell != NULL && doorbell_answered(bell) ? "no thread could be started to call its call_soon_threadsafe()"
                                                    : "the interpreter is exiting");
    return false;
}

/* Be reached, on the loop's thread; self is (mailbox, channel).  If that fails, the tasks that wait there are woken,
 * and raise. */
static PyObject *chan_reach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Mailbox *m = (Mailbox *)PyTuple_GET_ITEM(self, 0);
    Chan *c = (Chan *)PyTuple_GET_ITEM(self, 1);
    nc_box *kicks = NULL;
    PyObject *loop = mailbox_loop(m);
    if (loop != NULL)
        mailbox_be_reached(m, loop);
    Py_XDECREF(loop);
    mailbox_come_by(m);
    if (!wake_reached(&m->box->base.box) && nc_chan_shared(c->block))
        for (int side = 0; side < SIDES; side++)
            nc_chan_call_all_of(c->block, side, &m->box->base.box, core_generation(), &kicks);
    wake_deliver(c->st, kicks);
    Py_RETURN_NONE;
}

static PyMethodDef chan_reach_def = {"_reach", chan_reach, METH_NOARGS, NULL};

static PyObject *mailbox_swap_summons(Mailbox *m, PyObject *known)
{
    PyObject *was;
    Py_BEGIN_CRITICAL_SECTION(m);
    was = m->summons;
    m->summons = known;
    Py_END_CRITICAL_SECTION();
    return was;
}

/* The loop has let go of what it was to call to be reached.  If it was closed before it came to that, others hear of it
 * by the doorbell alone, whose thread then looks after what they have posted.  In any thread. */
static PyObject *mailbox_dismissed(PyObject *self, PyObject *Py_UNUSED(weakref))
{
    Mailbox *m = (Mailbox *)self;
    doorbell *bell = NULL;
    Py_XDECREF(mailbox_swap_summons(m, NULL)); /* ends the circle of the two; the caller has a reference to m */
    if (m->box->base.born == core_generation() && !wake_reached(&m->box->base.box)) {
        mailbox_give_bell(m);
        bell = atomic_load_explicit(&m->box->bell, memory_order_acquire); /* F1 */
    }
    if (bell != NULL)
        doorbell_ring(bell, &m->box->entry);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_dismissed_def = {"_dismissed", mailbox_dismissed, METH_O, NULL};

/* What the loop is to call, a new reference, and to know when it lets go of that; NULL with an exception set. */
static PyObject *mailbox_summons(Mailbox *m, Chan *c)
{
    PyObject *self = PyTuple_Pack(2, m, c), *known = NULL;
    PyObject *summons = self != NULL ? PyCFunction_New(&chan_reach_def, self) : NULL;
    PyObject *dismissed = summons != NULL ? PyCFunction_New(&mailbox_dismissed_def, (PyObject *)m) : NULL;
    if (dismissed != NULL)
        known = PyWeakref_NewRef(summons, dismissed);
    Py_XDECREF(dismissed);
    Py_XDECREF(self);
    if (known == NULL)
        Py_CLEAR(summons);
    else
        Py_XDECREF(mailbox_swap_summons(m, known)); /* whoever comes last is enough: the loop lets go of all */
    return summons;
}

/* No task of the loop will ever run.  Those that wait on this channel leave their line, called or not: others cannot
 * ask whether the loop is closed, and would call them in vain. */
static void loop_box_bury_in(Chan *c, loop_box *box, nc_box **kicks)
{
    loop_box_bury(box, kicks);
    for (int side = 0; side < SIDES; side++)
        nc_chan_leave_lines_of(c->block, side, &box->base.box, core_generation(), kicks);
}

bool mailbox_summon(Chan *c, nc_box *called, nc_box **kicks)
{
    loop_box *box = container_of(called, loop_box, base.box);
    core_state *st = c->st;
    Mailbox *m = mailbox_of_box(st, box);
    PyObject *loop = m != NULL ? mailbox_loop(m) : NULL, *summons = NULL;
    bool dead = loop == NULL || m->kind->closed(m, loop);
    if (dead)
        loop_box_bury_in(c, box, kicks);
    else if ((summons = mailbox_summons(m, c)) != NULL)
        mailbox_call_soon(m, loop, summons, kicks);
    bool ok = dead || summons != NULL;
    Py_XDECREF(loop);
    Py_XDECREF(m);
    return ok;
}

/* ---- its type ---------------------------------------------------------------------------------------- */

int mailbox_add_types(PyObject *module, core_state *st)
{
    st->mailbox_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mailbox_spec, NULL);
    return st->mailbox_type != NULL ? 0 : -1;
}
