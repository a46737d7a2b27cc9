/* py_asyncio.c: the event loops of asyncio, and other loops with the same interface: the mailbox of each loop, how a
 * loop is kicked, and what a task that waits there needs.  Only this file, py_running.c and py_future.c know asyncio;
 * py_core.h and py_module.c have its names.
 *
 * The wake fd of the main thread's loop is opened when another thread first has to wake that loop; any other loop has
 * one from its first wait on.  Until then, and on loops without add_reader, call_soon_threadsafe wakes the loop; those
 * who cannot call it ring the doorbell.
 */
#include "py_doorbell.h"
#include "py_future.h"
#include "py_loop.h"
#include "py_module.h"
#include "py_running.h"
#include "py_wake_fd.h"

typedef struct loop_box {
    wake_box base;
    _Atomic int wake_fd; /* what wakers write to; NO_FD until it is opened */
    int read_fd; /* what the loop reads from; an eventfd is both */
    doorbell *_Atomic bell; /* what native code rings if there is no wake fd; NULL until it may have to */
    bell_entry entry;
    void *loop; /* the loop's address, by which its mailbox is found; never followed */
} loop_box;

enum { NO_FD = -1, NO_READER = -2 }; /* NO_READER: a loop without add_reader */

/* ---- waking a task ---------------------------------------------------------------------------------- */

/* Wake the task of a waiter that was taken off the mail.  True: the waiter is received, and freed if it was abandoned
 * meanwhile.  False with an exception set: the waiter is as if it had not been taken. */
static bool sleeper_wake(core_state *st, nc_waiter *w)
{
    sleeper *sl = container_of(w, sleeper, waiter);
    PyObject *future; /* a second one only on a loop that runs the task on the spot, if the task then waits once more */
    while ((future = sleeper_swap_future(sl, NULL)) != NULL) {
        bool woken = future_resolve(st, future) == 0;
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

typedef struct Mailbox {
    PyObject_HEAD
    PyObject *module; /* keeps `st` alive */
    core_state *st;
    loop_box *box;
    PyObject *loop; /* weak reference */
    PyObject *key;
    PyObject *get_loop; /* the method of that name, of our own futures */
    bool makes_futures; /* the loop's class has a create_future() of its own, which must be used */
    _Atomic unsigned failures; /* wake-ups that failed since the last that did not; relaxed, a hint */
} Mailbox;

static PyObject *mailbox_loop(Mailbox *m) { return core_weak_target(m->loop); }

static void mailbox_try_again(Mailbox *m, PyObject *loop, nc_box **kicks);
static const box_kind loop_kind;

/* Wake everyone in the box, first come first.  On the loop's thread. */
static void mailbox_drain(Mailbox *m, nc_box **kicks)
{
    nc_box *box = &m->box->base.box;
    for (nc_waiter *w = nc_box_take(box), *next; w != NULL; w = next) {
        next = w->mail_next; /* read before w is received, as w may be posted again from then on */
        if (!sleeper_wake(m->st, w)) {
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

/* What the loop calls when its wake fd was written to. */
static PyObject *mailbox_wake(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Mailbox *m = (Mailbox *)self;
    wake_fd_clear(m->box->read_fd);
    mailbox_come_by(m);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_wake_def = {"_wake", mailbox_wake, METH_NOARGS, NULL};

/* Give the mailbox a wake fd that its loop reads.  On the loop's thread.  Without one, every burst of wake-ups
 * goes through call_soon_threadsafe. */
static void mailbox_open_fd(Mailbox *m, PyObject *loop)
{
    int fds[2];
    if (!WAKE_FDS)
        atomic_store_explicit(&m->box->wake_fd, NO_READER, memory_order_release); /* F1 */
    if (atomic_load_explicit(&m->box->wake_fd, memory_order_relaxed) != NO_FD || !wake_fd_open(fds))
        return; /* relaxed: only this thread writes it; out of descriptors: try again next time */
    PyObject *fd = PyLong_FromLong(fds[0]), *reader = PyCFunction_New(&mailbox_wake_def, (PyObject *)m);
    PyObject *done = NULL;
    interruptions kept = {0};
    if (fd != NULL && reader != NULL)
        do
            done = PyObject_CallMethodObjArgs(loop, m->st->s_add_reader, fd, reader, NULL);
        while (done == NULL && core_try_again(&kept));
    Py_XDECREF(fd);
    Py_XDECREF(reader);
    core_postpone_all(&kept);
    if (done != NULL) {
        Py_DECREF(done);
        m->box->read_fd = fds[0];
        atomic_store_explicit(&m->box->wake_fd, fds[1], memory_order_release); /* F1 */
        return;
    }
    bool never = PyErr_ExceptionMatches(PyExc_NotImplementedError) || PyErr_ExceptionMatches(PyExc_AttributeError);
    core_drop_error();
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
    if (wake_reached(&m->box->base.box))
        return;
    doorbell *bell = doorbell_start(m->st);
    if (bell == NULL || atomic_load_explicit(&m->box->bell, memory_order_relaxed) != NULL)
        return; /* relaxed: only this thread writes it */
    doorbell_ref(bell);
    atomic_store_explicit(&m->box->bell, bell, memory_order_release); /* F1 */
}

/* What call_soon_threadsafe is given by the loop's own thread, which gains nothing from a wake fd. */
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

/* 1 if the loop says that it is closed, else 0, also where asking fails. */
static int loop_is_closed(core_state *st, PyObject *loop)
{
    interruptions kept = {0};
    int is;
    do {
        PyObject *closed = PyObject_CallMethodNoArgs(loop, st->s_is_closed);
        is = closed == NULL ? -1 : PyObject_IsTrue(closed);
        Py_XDECREF(closed);
    } while (is < 0 && core_try_again(&kept));
    PyErr_Clear();
    core_postpone_all(&kept);
    return is == 1;
}

/* The mailbox of a closed loop keeps a descriptor open until the loop is freed: let go of it now.  Loops that have been
 * freed are left to forget_loop(): another loop may lie at the same address by now, and its mailbox be the one found by
 * that address. */
static void forget_closed_loops(core_state *st)
{
    PyObject *all = PyDict_Values(st->mailboxes);
    for (Py_ssize_t i = 0; all != NULL && i < PyList_GET_SIZE(all); i++) {
        Mailbox *m = (Mailbox *)PyList_GET_ITEM(all, i);
        PyObject *loop = mailbox_loop(m);
        if (loop != NULL && loop_is_closed(st, loop))
            forget_mailbox(st, m->key);
        Py_XDECREF(loop);
    }
    Py_XDECREF(all);
    PyErr_Clear();
}

/* Has the loop a create_future() of its own, written in Python?  It may then make futures of another class; those of
 * asyncio and uvloop make nothing but asyncio.Future.  -1 with an exception set. */
static int makes_futures(core_state *st, PyObject *loop)
{
    PyObject *its = PyObject_GetAttr(loop, st->s_create_future);
    if (its == NULL)
        return -1;
    PyObject *own = PyObject_GetAttr(st->BaseEventLoop, st->s_create_future);
    PyObject *function = PyMethod_Check(its) ? PyMethod_GET_FUNCTION(its) : its;
    int differs = own == NULL ? -1 : function != own && !PyCFunction_Check(function);
    Py_DECREF(its);
    Py_XDECREF(own);
    return differs;
}

/* get_loop() of our futures: self is a weak reference to the loop. */
static PyObject *mailbox_get_loop(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *loop = core_weak_target(self);
    return loop != NULL ? loop : Py_NewRef(Py_None);
}

static PyMethodDef mailbox_get_loop_def = {"get_loop", mailbox_get_loop, METH_NOARGS, NULL};

static Mailbox *mailbox_new(core_state *st, PyObject *loop, PyObject *key)
{
    forget_closed_loops(st); /* now and then, as when a new loop comes */
    if (doorbell_prepare(st) < 0)
        return NULL;
    Mailbox *m = (Mailbox *)st->mailbox_type->tp_alloc(st->mailbox_type, 0);
    if (m == NULL)
        return NULL;
    m->module = Py_NewRef(st->module);
    m->st = st;
    PyObject *self = PyTuple_Pack(2, st->module, key), *forget = NULL;
    if (self != NULL)
        forget = PyCFunction_New(&forget_loop_def, self);
    Py_XDECREF(self);
    m->key = Py_NewRef(key);
    m->loop = forget != NULL ? PyWeakref_NewRef(loop, forget) : NULL;
    Py_XDECREF(forget);
    m->get_loop = m->loop != NULL ? PyCFunction_New(&mailbox_get_loop_def, m->loop) : NULL;
    int makes = m->get_loop != NULL ? makes_futures(st, loop) : -1;
    m->makes_futures = makes > 0;
    m->box = makes >= 0 ? PyMem_RawCalloc(1, sizeof *m->box) : NULL;
    if (m->box == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_DECREF(m);
        return NULL;
    }
    nc_box_init(&m->box->base.box);
    m->box->base.box.guarded = !NC_FREE_THREADED;
    m->box->base.kind = &loop_kind;
    m->box->base.born = core_generation();
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

/* The loop's mailbox, a new reference; made when `create`.  NULL without an exception if there is none. */
static Mailbox *mailbox_searched(core_state *st, PyObject *loop, bool create)
{
    PyObject *key = PyLong_FromVoidPtr(loop);
    if (key == NULL)
        return NULL;
    Mailbox *m = (Mailbox *)core_dict_find(st->mailboxes, key);
    if (m != NULL && (m->box->base.born != core_generation() || !is_mailbox_of(m, loop)))
        Py_CLEAR(m); /* the parent process's; or forget_loop() could not be called, as the stack had run out */
    if (m == NULL && create)
        m = mailbox_new(st, loop, key);
    Py_DECREF(key);
    if (m != NULL)
        remember_mailbox(st, m);
    return m;
}

static Mailbox *mailbox_of(core_state *st, PyObject *loop, bool create)
{
    Mailbox *m = recent_mailbox(st, loop);
    return m != NULL ? m : mailbox_searched(st, loop, create);
}

/* The loop that this thread runs, and its mailbox, new references; *loop is None if none runs.  False with an
 * exception set. */
static bool find_running(core_state *st, bool create, PyObject **loop, Mailbox **m)
{
    *m = NULL;
    *loop = running_loop(st);
    if (*loop == NULL || *loop == Py_None)
        return *loop != NULL;
    *m = mailbox_of(st, *loop, create);
    return *m != NULL || !PyErr_Occurred();
}

/* ---- kicking ---------------------------------------------------------------------------------------- */

enum { ELSEWHERE, ON_LOOP, DELIVERED };

/* Does this thread run the box's loop?  If it runs a task of that loop, deliver the mail at once. */
static int deliver_here(core_state *st, loop_box *box, nc_box **kicks)
{
    int where = ELSEWHERE;
    PyObject *loop;
    Mailbox *m;
    if (!find_running(st, false, &loop, &m))
        core_drop_error();
    else if (m != NULL && m->box == box) {
        where = running_task_of(st, loop) ? DELIVERED : ON_LOOP;
        if (where == DELIVERED)
            mailbox_drain(m, kicks);
    }
    Py_XDECREF(m);
    Py_XDECREF(loop);
    return where;
}

static void loop_kick(core_state *st, wake_box *base, nc_box **kicks);

/* A pending call: CPython runs it in the main thread between two bytecodes.  Takes over a reference. */
static int kick_again(void *arg)
{
    Mailbox *m = arg;
    nc_box *kicks = NULL;
    if (m->box->base.born == core_generation())
        loop_kick(m->st, &m->box->base, &kicks);
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
    bool dead = loop == NULL || loop_is_closed(m->st, loop); /* it may have been closed just now */
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
 * a callback too many does no harm. */
static void call_soon_threadsafe(core_state *st, Mailbox *m, PyObject *loop, PyMethodDef *what, PyObject *self,
                                 nc_box **kicks)
{
    PyObject *callback = PyCFunction_New(what, self), *done = NULL;
    interruptions kept = {0};
    if (callback != NULL)
        do
            done = PyObject_CallMethodOneArg(loop, st->s_call_soon_threadsafe, callback);
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

static void loop_kick(core_state *st, wake_box *base, nc_box **kicks)
{
    loop_box *box = (loop_box *)base;
    int where = deliver_here(st, box, kicks);
    if (where == DELIVERED)
        return;
    int fd = atomic_load_explicit(&box->wake_fd, memory_order_acquire); /* F1 */
    Mailbox *m = mailbox_of_box(st, box);
    PyObject *loop = m != NULL ? mailbox_loop(m) : NULL;
    bool written = false, dead = loop == NULL || loop_is_closed(st, loop);
    if (!dead && fd >= 0 && !(written = wake_fd_write(fd)))
        atomic_store_explicit(&box->wake_fd, NO_READER, memory_order_relaxed); /* not ours any more: never again */
    if (dead)
        loop_box_bury(box, kicks);
    else if (!written)
        call_soon_threadsafe(st, m, loop, where == ON_LOOP ? &mailbox_deliver_def : &mailbox_arm_def, (PyObject *)m,
                             kicks);
    Py_XDECREF(loop);
    Py_XDECREF(m);
}

/* ---- its box ---------------------------------------------------------------------------------------- */

/* If the loop has neither wake fd nor doorbell yet, somebody is seeing to it, and will read the mail after that: F1. */
static void loop_kick_without_gil(wake_box *b)
{
    loop_box *box = (loop_box *)b;
    int fd = atomic_load_explicit(&box->wake_fd, memory_order_acquire); /* F1 */
    doorbell *bell = atomic_load_explicit(&box->bell, memory_order_acquire); /* F1 */
    if ((fd < 0 || !wake_fd_write(fd)) && bell != NULL)
        doorbell_ring(bell, &box->entry);
}

static bool loop_reached(wake_box *b)
{
    loop_box *box = (loop_box *)b;
    if (atomic_load_explicit(&box->wake_fd, memory_order_acquire) >= 0) /* F1 */
        return true;
    doorbell *bell = atomic_load_explicit(&box->bell, memory_order_acquire); /* F1 */
    return bell != NULL && doorbell_answered(bell);
}

static bool loop_dead(core_state *st, wake_box *b)
{
    Mailbox *m = mailbox_of_box(st, (loop_box *)b);
    PyObject *loop = m != NULL ? mailbox_loop(m) : NULL;
    bool dead = loop == NULL || loop_is_closed(st, loop);
    Py_XDECREF(loop);
    Py_XDECREF(m);
    return dead;
}

static void loop_drop(wake_box *base)
{
    loop_box *b = (loop_box *)base;
    int wake = atomic_load_explicit(&b->wake_fd, memory_order_relaxed); /* nobody else knows the box any more */
    doorbell *bell = atomic_load_explicit(&b->bell, memory_order_relaxed); /* nor it */
    if (bell != NULL)
        doorbell_unref(bell);
    if (wake < 0)
        return; /* never opened; or closed by a stranger, and its number may be another file's by now */
    wake_fd_close(wake);
    if (b->read_fd != wake)
        wake_fd_close(b->read_fd);
}

static const box_kind loop_kind = {
    .of_tasks = true,
    .kick = loop_kick,
    .kick_without_gil = loop_kick_without_gil,
    .reached = loop_reached,
    .dead = loop_dead,
    .drop = loop_drop,
};

/* ---- within reach of native code --------------------------------------------------------------------- */

bool loop_reach(core_state *st, PyObject *loop, nc_box *box, const char *who)
{
    if (wake_reached(box))
        return true;
    Mailbox *m = mailbox_of(st, loop, false);
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

bool loop_summon(Chan *c, nc_box *called, nc_box **kicks)
{
    loop_box *box = container_of(called, loop_box, base.box);
    core_state *st = c->st;
    Mailbox *m = mailbox_of_box(st, box);
    PyObject *loop = m != NULL ? mailbox_loop(m) : NULL;
    PyObject *self = loop != NULL ? PyTuple_Pack(2, m, c) : NULL;
    if (self != NULL)
        call_soon_threadsafe(st, m, loop, &chan_reach_def, self, kicks);
    bool ok = self != NULL || loop == NULL;
    Py_XDECREF(self);
    Py_XDECREF(loop);
    Py_XDECREF(m);
    return ok;
}

/* ---- for a task that is about to wait ---------------------------------------------------------------- */

PyObject *loop_here(core_state *st, const char *who, PyObject **mailbox)
{
    PyObject *loop;
    Mailbox *m;
    if (find_running(st, true, &loop, &m) && m == NULL)
        PyErr_Format(
            PyExc_RuntimeError,
            "%s() has to wait, and no event loop that it can wait on is running here: one of asyncio, or one "
            "with the same interface, such as uvloop.  In a thread, call the blocking form, which all channels "
            "but local ones have; in any other event loop, use try_ calls and a notifier() of the endpoint",
            who);
    if (m == NULL) {
        Py_XDECREF(loop);
        return NULL;
    }
    *mailbox = (PyObject *)m;
    return loop;
}

nc_box *mailbox_box(PyObject *mailbox) { return &((Mailbox *)mailbox)->box->base.box; }

PyObject *loop_future(core_state *st, PyObject *loop, PyObject *mailbox)
{
    Mailbox *m = (Mailbox *)mailbox;
    if (!m->makes_futures)
        return future_new(st, loop, m->get_loop);
    PyObject *future = PyObject_CallMethodNoArgs(loop, st->s_create_future);
    if (future == NULL)
        return NULL;
    if (Py_IS_TYPE(future, (PyTypeObject *)st->Future)) { /* an ordinary one after all: ours costs less */
        Py_DECREF(future);
        return future_new(st, loop, m->get_loop);
    }
    /* as a future's own __await__() does: a task takes only futures that are so marked */
    if (PyObject_SetAttr(future, st->s_blocking, Py_True) < 0)
        Py_CLEAR(future);
    return future;
}

bool loop_wake(core_state *st, PyObject *future)
{
    if (future_resolve(st, future) == 0)
        return true;
    if (PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(PyExc_RecursionError))
        PyErr_Clear();
    else
        PyErr_WriteUnraisable(future);
    return false;
}

PyObject *loop_timer(core_state *st, PyObject *loop, double seconds, PyObject *what)
{
    PyObject *expire = PyObject_GetAttr(what, st->s_expire), *timer = NULL;
    PyObject *delay = expire != NULL ? PyFloat_FromDouble(seconds) : NULL;
    if (delay != NULL)
        timer = PyObject_CallMethodObjArgs(loop, st->s_call_later, delay, expire, NULL);
    Py_XDECREF(delay);
    Py_XDECREF(expire);
    return timer;
}

bool loop_wanted(core_state *st)
{
    PyObject *loop;
    Mailbox *m;
    bool wanted = true;
    if (find_running(st, false, &loop, &m) && PyType_IsSubtype(Py_TYPE(loop), (PyTypeObject *)st->BaseEventLoop)) {
        bool mail =
            m != NULL && atomic_load_explicit(&m->box->base.box.mail, memory_order_relaxed) != NULL; /* a hint */
        wanted = mail || running_has_work(st, loop);
    }
    core_drop_error();
    Py_XDECREF(m);
    Py_XDECREF(loop);
    return wanted;
}

int loop_add_types(PyObject *module, core_state *st)
{
    st->mailbox_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mailbox_spec, NULL);
    return st->mailbox_type != NULL ? 0 : -1;
}
