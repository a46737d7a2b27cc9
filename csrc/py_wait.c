/* py_wait.c: how a call waits and is woken.  Touches nc_gate.h; knows calls by their `look` alone.
 *
 * Three parts: the boxes in which a waiter is reached (a loop's mailbox, a blocked thread's parker), the
 * awaitable that async calls return, and the loop that blocking calls run.
 *
 * A wake-up says "look again" and nothing else.  What a waiter was called for stays in the ring until its
 * own `look` takes it, so cancelling it at any moment loses nothing: it leaves the line, and the gate calls
 * the next.
 *
 * References.  An awaitable in line is referred to twice by it: once for the line itself, once for a post
 * that may be in the mail.  Whoever takes it off the mail after it left the line drops the second.
 */
#include "py_core.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* ---- boxes ----------------------------------------------------------------------------------------- */

typedef struct wake_box {
    nc_box box;
    bool is_loop;                 /* else a parker */
    uint32_t born;                /* core_generation when made; a forked child leaves it alone */
} wake_box;

typedef struct loop_box {
    wake_box base;
    _Atomic int wake_fd;          /* what wakers write to; NO_FD until somebody off the loop has woken it */
    int read_fd;                  /* what the loop reads from; the same for an eventfd */
    void *loop;                   /* the loop's identity, to find its mailbox by; never followed */
} loop_box;

enum { NO_FD = -1, NO_READER = -2 }; /* NO_READER: a loop without add_reader */

typedef struct parker {
    wake_box base;
    nc_waiter waiter;
    PyThread_type_lock lock;      /* taken; a kick releases it */
} parker;

/* Not on the blocked thread's stack: a daemon thread may die there while the line still knows its waiter. */
static parker *parker_new(const void *owner)
{
    parker *p = PyMem_RawCalloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    nc_box_init(&p->base.box);
    p->base.born = core_generation();
    p->waiter.box = &p->base.box;
    p->waiter.owner = owner;
    p->lock = PyThread_allocate_lock();
    if (p->lock == NULL) {
        PyMem_RawFree(p);
        return NULL;
    }
    PyThread_acquire_lock(p->lock, NOWAIT_LOCK);
    return p;
}

static void loop_box_close(loop_box *b)
{
    int wake = atomic_load_explicit(&b->wake_fd, memory_order_relaxed); /* the last to know it */
    if (wake >= 0)
        close(wake);
    if (b->read_fd >= 0 && b->read_fd != wake)
        close(b->read_fd);
}

static void box_unref(nc_box *box)
{
    if (!nc_box_unref(box))
        return;
    wake_box *b = container_of(box, wake_box, box);
    if (b->is_loop)
        loop_box_close((loop_box *)b);
    else
        PyThread_free_lock(((parker *)b)->lock);
    PyMem_RawFree(b);
}

static bool open_wake_fds(int fds[2])
{
#ifdef __linux__
    fds[0] = fds[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fds[0] >= 0;
#else
    if (pipe(fds) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
    return true;
#endif
}

/* One write a burst.  A full pipe is as good as a written one: the reader has yet to come by. */
static void wake_fd_write(int fd)
{
    static const uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void wake_fd_clear(int fd)
{
    uint64_t buffer[8];
    while (read(fd, buffer, sizeof buffer) == (ssize_t)sizeof buffer)
        ; /* an eventfd answers 8 bytes, once; a pipe until it is empty */
}

/* ---- the awaitable's struct (its type is further down) ---------------------------------------------- */

enum { CREATED, PARKED, DONE };

typedef struct Awaitable {
    PyObject_HEAD
    Call call;
    double timeout;               /* seconds; < 0: none */
    uint8_t state;
    bool running;                 /* inside a step: Python code that it runs cannot step it again */
    bool enrolled;                /* `waiter` is in its gate's line; waiter.box is set */
    bool expired;                 /* the timer went off */
    PyObject *future;             /* what the task waits on while PARKED */
    PyObject *timer;              /* asyncio.TimerHandle */
    nc_waiter waiter;             /* set up when it first has to wait */
} Awaitable;

static void awaitable_resolve(core_state *st, Awaitable *aw);
static void awaitable_unline(Awaitable *aw, nc_box **kicks);

/* ---- a loop's mailbox ------------------------------------------------------------------------------- */

typedef struct Mailbox {
    PyObject_HEAD
    PyObject *module;             /* keeps `st` alive */
    core_state *st;
    loop_box *box;
    PyObject *loop;               /* weak reference */
    PyObject *key;
} Mailbox;

/* The mailbox's loop, a new reference, or NULL without an exception when it is gone. */
static PyObject *mailbox_loop(Mailbox *m)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *loop;
    PyWeakref_GetRef(m->loop, &loop);
    return loop;
#else
    PyObject *loop = PyWeakref_GET_OBJECT(m->loop);
    return loop == Py_None ? NULL : Py_NewRef(loop);
#endif
}

/* A new reference, or NULL without an exception. */
static PyObject *dict_find(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    if (PyDict_GetItemRef(dict, key, &value) < 0)
        PyErr_Clear();
    return value;
#else
    PyObject *value = PyDict_GetItemWithError(dict, key);
    if (value == NULL)
        PyErr_Clear();
    return Py_XNewRef(value);
#endif
}

/* Resolve the future of everyone in the box.  On the loop's thread. */
static void mailbox_drain(Mailbox *m)
{
    nc_waiter *w = nc_box_take(&m->box->base.box);
    while (w != NULL) {
        Awaitable *aw = container_of(w, Awaitable, waiter);
        w = w->mail_next; /* before it is received: it may be posted again from then on */
        Py_INCREF(aw);
        if (nc_post_receive(&aw->waiter))
            awaitable_resolve(m->st, aw);
        else
            Py_DECREF(aw); /* left the line meanwhile: the post's own reference */
        Py_DECREF(aw);
    }
}

/* The loop is closed or gone: nobody will ever run there.  Whoever was called gives its turn to the next. */
static void loop_box_bury(loop_box *box, nc_box **kicks)
{
    nc_waiter *w = nc_box_take(&box->base.box);
    while (w != NULL) {
        Awaitable *aw = container_of(w, Awaitable, waiter);
        w = w->mail_next;
        Py_INCREF(aw);
        if (nc_post_receive(&aw->waiter)) {
            Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
            awaitable_unline(aw, kicks);
            Py_END_CRITICAL_SECTION2();
        } else
            Py_DECREF(aw);
        Py_DECREF(aw);
    }
}

/* The loop's reader: the wake fd was written to. */
static PyObject *mailbox_wake(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Mailbox *m = (Mailbox *)self;
    wake_fd_clear(m->box->read_fd);
    mailbox_drain(m);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_wake_def = {"_wake", mailbox_wake, METH_NOARGS, NULL};

/* Give the mailbox a wake fd that its loop reads.  On the loop's thread.  Without one, every burst takes
 * the way through call_soon_threadsafe. */
static void mailbox_open_fd(Mailbox *m, PyObject *loop)
{
    int fds[2];
    if (atomic_load_explicit(&m->box->wake_fd, memory_order_relaxed) != NO_FD || !open_wake_fds(fds))
        return; /* relaxed: only this thread writes it; out of descriptors: try again next time */
    PyObject *fd = PyLong_FromLong(fds[0]), *reader = PyCFunction_New(&mailbox_wake_def, (PyObject *)m);
    PyObject *done = fd != NULL && reader != NULL
                         ? PyObject_CallMethodObjArgs(loop, m->st->s_add_reader, fd, reader, NULL)
                         : NULL;
    Py_XDECREF(fd);
    Py_XDECREF(reader);
    if (done != NULL) {
        Py_DECREF(done);
        m->box->read_fd = fds[0];
        atomic_store_explicit(&m->box->wake_fd, fds[1], memory_order_release); /* F1 */
        return;
    }
    bool never = PyErr_ExceptionMatches(PyExc_NotImplementedError) || PyErr_ExceptionMatches(PyExc_AttributeError);
    PyErr_Clear();
    close(fds[0]);
    if (fds[1] != fds[0])
        close(fds[1]);
    if (never)
        atomic_store_explicit(&m->box->wake_fd, NO_READER, memory_order_release); /* F1 */
}

/* Sent by call_soon_threadsafe when there is no wake fd (yet). */
static PyObject *mailbox_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Mailbox *m = (Mailbox *)self;
    PyObject *loop = mailbox_loop(m);
    if (loop != NULL) {
        mailbox_open_fd(m, loop);
        Py_DECREF(loop);
    }
    mailbox_drain(m);
    Py_RETURN_NONE;
}

static PyMethodDef mailbox_arm_def = {"_arm", mailbox_arm, METH_NOARGS, NULL};

static int mailbox_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Mailbox *)self)->module);
    Py_VISIT(((Mailbox *)self)->loop);
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
        box_unref(&m->box->base.box);
    }
    Py_XDECREF(m->loop);
    Py_XDECREF(m->key);
    if (kicks != NULL)
        settle(m->st, NULL, kicks);
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

/* Called when a loop is freed: self is (dict of mailboxes, key). */
static PyObject *forget_loop(PyObject *self, PyObject *Py_UNUSED(weakref))
{
    if (PyDict_DelItem(PyTuple_GET_ITEM(self, 0), PyTuple_GET_ITEM(self, 1)) < 0)
        PyErr_Clear(); /* a newer loop's first wait cleared it away already */
    Py_RETURN_NONE;
}

static PyMethodDef forget_loop_def = {"_forget_loop", forget_loop, METH_O, NULL};

/* 1, 0, or 0 where asking fails: only a loop that says so is closed. */
static int loop_is_closed(core_state *st, PyObject *loop)
{
    PyObject *closed = PyObject_CallMethodNoArgs(loop, st->s_is_closed);
    int is = closed == NULL ? 0 : PyObject_IsTrue(closed);
    Py_XDECREF(closed);
    if (PyErr_Occurred())
        PyErr_Clear();
    return is == 1;
}

/* Mailboxes of loops that were closed keep a descriptor open until the loop is freed: let them go. */
static void forget_closed_loops(core_state *st)
{
    PyObject *all = PyDict_Values(st->mailboxes);
    for (Py_ssize_t i = 0; all != NULL && i < PyList_GET_SIZE(all); i++) {
        Mailbox *m = (Mailbox *)PyList_GET_ITEM(all, i);
        PyObject *loop = mailbox_loop(m);
        if ((loop == NULL || loop_is_closed(st, loop)) && PyDict_DelItem(st->mailboxes, m->key) < 0)
            PyErr_Clear();
        Py_XDECREF(loop);
    }
    Py_XDECREF(all);
    PyErr_Clear();
}

static Mailbox *mailbox_new(core_state *st, PyObject *loop, PyObject *key)
{
    forget_closed_loops(st); /* one comes, others may go */
    Mailbox *m = (Mailbox *)st->mailbox_type->tp_alloc(st->mailbox_type, 0);
    if (m == NULL)
        return NULL;
    m->module = Py_NewRef(st->module);
    m->st = st;
    PyObject *self = PyTuple_Pack(2, st->mailboxes, key), *forget = NULL;
    if (self != NULL)
        forget = PyCFunction_New(&forget_loop_def, self);
    Py_XDECREF(self);
    m->key = Py_NewRef(key);
    m->loop = forget != NULL ? PyWeakref_NewRef(loop, forget) : NULL;
    Py_XDECREF(forget);
    m->box = m->loop != NULL ? PyMem_RawCalloc(1, sizeof *m->box) : NULL;
    if (m->box == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        Py_DECREF(m);
        return NULL;
    }
    nc_box_init(&m->box->base.box);
    m->box->base.is_loop = true;
    m->box->base.born = core_generation();
    m->box->loop = loop;
    m->box->read_fd = -1;
    atomic_store_explicit(&m->box->wake_fd, NO_FD, memory_order_relaxed); /* nobody else knows it yet */
    if (PyDict_SetItem(st->mailboxes, key, (PyObject *)m) < 0)
        Py_CLEAR(m);
    return m;
}

/* The loop's mailbox, a new reference; made when `create`.  NULL without an exception if there is none. */
static Mailbox *mailbox_of(core_state *st, PyObject *loop, bool create)
{
#if !NC_FREE_THREADED
    Mailbox *recent = (Mailbox *)st->recent;
    if (recent != NULL && recent->box->loop == loop && recent->box->base.born == core_generation()) {
        PyObject *alive = mailbox_loop(recent); /* or has another loop got the address? */
        Py_XDECREF(alive);
        if (alive == loop)
            return (Mailbox *)Py_NewRef(recent);
    }
#endif
    PyObject *key = PyLong_FromVoidPtr(loop);
    if (key == NULL)
        return NULL;
    Mailbox *m = (Mailbox *)dict_find(st->mailboxes, key);
    if (m != NULL && m->box->base.born != core_generation())
        Py_CLEAR(m); /* the parent process's */
    if (m == NULL && create)
        m = mailbox_new(st, loop, key);
    Py_DECREF(key);
#if !NC_FREE_THREADED
    if (m != NULL)
        Py_XSETREF(st->recent, Py_NewRef(m));
#endif
    return m;
}

/* ---- kicking ---------------------------------------------------------------------------------------- */

/* Is a task of `loop` being run by this thread right now?  Inside a bare callback the answer is no, as it
 * is inside a signal handler that interrupted the loop's select(): there only a wake-up call helps. */
static bool in_task_of(core_state *st, PyObject *loop)
{
    PyObject *task = PyDict_Check(st->current_tasks) ? dict_find(st->current_tasks, loop)
                                                     : PyObject_CallOneArg(st->current_tasks, loop);
    if (task == NULL)
        PyErr_Clear();
    bool inside = task != NULL && task != Py_None;
    Py_XDECREF(task);
    return inside;
}

/* If this thread is running a task of the box's loop, deliver at once. */
static bool deliver_here(core_state *st, loop_box *box)
{
    PyObject *loop = PyObject_CallNoArgs(st->get_running_loop);
    if (loop == NULL || loop == Py_None) {
        PyErr_Clear();
        Py_XDECREF(loop);
        return false;
    }
    Mailbox *m = mailbox_of(st, loop, false);
    bool here = m != NULL && m->box == box && in_task_of(st, loop);
    if (here)
        mailbox_drain(m);
    PyErr_Clear();
    Py_XDECREF(m);
    Py_DECREF(loop);
    return here;
}

/* Ask the loop to come by, through its own queue. */
static void call_soon_threadsafe(core_state *st, Mailbox *m, PyObject *loop, nc_box **kicks)
{
    PyObject *arm = PyCFunction_New(&mailbox_arm_def, (PyObject *)m);
    PyObject *done = arm != NULL ? PyObject_CallMethodOneArg(loop, st->s_call_soon_threadsafe, arm) : NULL;
    Py_XDECREF(arm);
    if (done != NULL) {
        Py_DECREF(done);
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (loop_is_closed(st, loop)) { /* the loop may be closed between any question and the call */
        loop_box_bury(m->box, kicks);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    } else {
        PyErr_Restore(type, value, traceback);
        PyErr_WriteUnraisable(loop);
    }
}

static void kick_loop(core_state *st, loop_box *box, nc_box **kicks)
{
    if (deliver_here(st, box))
        return;
    PyObject *key = PyLong_FromVoidPtr(box->loop);
    Mailbox *m = key != NULL ? (Mailbox *)dict_find(st->mailboxes, key) : NULL;
    Py_XDECREF(key);
    PyObject *loop = m != NULL && m->box == box ? mailbox_loop(m) : NULL;
    int fd = atomic_load_explicit(&box->wake_fd, memory_order_acquire); /* F1 */
    if (loop == NULL || loop_is_closed(st, loop))
        loop_box_bury(box, kicks);
    else if (fd >= 0)
        wake_fd_write(fd);
    else
        call_soon_threadsafe(st, m, loop, kicks);
    Py_XDECREF(loop);
    Py_XDECREF(m);
}

void settle(core_state *st, Chan *c, nc_box *kicks)
{
    bool orphans = c != NULL && nc_gate_flag(&c->gate[RX], memory_order_relaxed) & NC_GONE; /* W2 was before */
    if (kicks == NULL && !orphans)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_XINCREF(c);
    while (kicks != NULL) {
        wake_box *b = container_of(nc_box_unchain(&kicks), wake_box, box);
        if (b->born == core_generation()) {
            if (b->is_loop)
                kick_loop(st, (loop_box *)b, &kicks);
            else
                PyThread_release_lock(((parker *)b)->lock);
        }
        box_unref(&b->box);
    }
    if (orphans)
        chan_discard_orphans(c);
    Py_XDECREF(c);
    PyErr_Restore(type, value, traceback);
}

/* ---- the line --------------------------------------------------------------------------------------- */

void gate_notify(Chan *c, int side, nc_box **kicks)
{
    nc_gate *g = &c->gate[side];
    nc_gate_enter(g, core_generation());
    nc_gate_call_all(g, chan_have(c, side), kicks);
    nc_gate_exit(g);
}

/* Take a place in line, or keep the one held, and look once more: true if it is the waiter's turn after
 * all.  `requeue`: it got part of what it wants and goes to the end, so that a long batch starves nobody. */
static bool line_up(Call *call, nc_waiter *w, bool enrolled, bool requeue, nc_box **kicks)
{
    Chan *c = call->ep->chan;
    int side = call->ep->side;
    nc_gate *g = &c->gate[side];
    nc_gate_enter(g, core_generation());
    bool in_line = enrolled && w->born == g->born;
    if (in_line && requeue) {
        nc_gate_leave(g, w);
        in_line = false;
    }
    if (!in_line) {
        w->least = call->least;
        w->share = call->share;
        nc_gate_enrol(g, w);
    } else if (nc_waiter_state_of(w) == NC_CALLED)
        nc_gate_rejoin(g, w);
    NC_STEP("line_up: enrolled, not looked again");
    uint64_t have = chan_have(c, side); /* W3 */
    bool turn = nc_gate_my_turn(g, w, have);
    nc_gate_call_all(g, have, kicks);
    nc_gate_exit(g);
    return turn || nc_waiter_state_of(w) == NC_CALLED;
}

/* Leave the line for good, and hand on what the waiter was called for but did not take. */
static void line_leave(Call *call, nc_waiter *w, nc_box **kicks)
{
    Chan *c = call->ep->chan;
    int side = call->ep->side;
    nc_gate *g = &c->gate[side];
    nc_gate_enter(g, core_generation());
    nc_gate_leave(g, w);
    nc_gate_call_all(g, chan_have(c, side), kicks);
    nc_gate_exit(g);
}

int wait_traverse_line(nc_gate *g, visitproc visit, void *arg)
{
    for (nc_waiter *w = g->first; w != NULL; w = w->next) { /* its links are written by Python threads alone */
        if (!container_of(w->box, wake_box, box)->is_loop)
            continue;
        Awaitable *aw = container_of(w, Awaitable, waiter);
        Py_VISIT(aw);
        if (atomic_load_explicit(&w->post, memory_order_relaxed) == NC_POST_NONE) /* else the mail holds it */
            Py_VISIT(aw);
    }
    return 0;
}

/* ---- awaitables: one step --------------------------------------------------------------------------- */

enum { STEP_SLEEP = STEP_PARTIAL + 1, STEP_PREPARE };

/* In line there were two references to it.  The caller holds another. */
static void awaitable_unline(Awaitable *aw, nc_box **kicks)
{
    if (!aw->enrolled)
        return;
    line_leave(&aw->call, &aw->waiter, kicks);
    aw->enrolled = false;
    if (nc_post_abandon(&aw->waiter))
        Py_DECREF(aw);
    Py_DECREF(aw);
}

static void awaitable_end(Awaitable *aw, nc_box **kicks)
{
    awaitable_unline(aw, kicks);
    aw->state = DONE;
}

/* Look, and line up while there is nothing.  Holding the awaitable and its endpoint. */
static int awaitable_advance(Awaitable *aw, PyObject **out, nc_box **kicks)
{
    Call *call = &aw->call;
    bool requeue = false;
    for (;;) {
        bool called = aw->enrolled && nc_waiter_state_of(&aw->waiter) == NC_CALLED;
        if (called || !aw->enrolled) {
            step s = call->op->look(call, called, out, kicks);
            if (s == STEP_READY || s == STEP_ERROR) {
                awaitable_end(aw, kicks);
                return s;
            }
            requeue = s == STEP_PARTIAL;
        }
        if (aw->expired || aw->timeout == 0) {
            awaitable_end(aw, kicks);
            call->op->timed_out(call);
            return STEP_ERROR;
        }
        if (aw->future == NULL)
            return STEP_PREPARE;
        if (!aw->enrolled) {
            Py_INCREF(aw);
            Py_INCREF(aw);
        }
        bool turn = line_up(call, &aw->waiter, aw->enrolled, requeue, kicks);
        aw->enrolled = true;
        if (!turn) {
            aw->state = PARKED;
            return STEP_SLEEP;
        }
    }
}

/* The first thing a step does.  STEP_READY: go on; STEP_BLOCKED: nobody called it, so why does it run? */
static int awaitable_begin(Awaitable *aw, PyObject **stale)
{
    if (aw->running) {
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
        return STEP_ERROR;
    }
    if (aw->state == DONE) {
        PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited %s()", aw->call.op->qualname);
        return STEP_ERROR;
    }
    aw->running = true;
    if (aw->state == PARKED && aw->enrolled && !aw->expired && nc_waiter_state_of(&aw->waiter) != NC_CALLED) {
        *stale = Py_XNewRef(aw->future);
        return STEP_BLOCKED;
    }
    *stale = aw->future;
    aw->future = NULL;
    return STEP_READY;
}

/* Between two steps nothing but STEP_PREPARE keeps others out.  Holding the awaitable. */
static int awaitable_finish(Awaitable *aw, int s, PyObject **out)
{
    if (s == STEP_SLEEP)
        *out = Py_NewRef(aw->future);
    if (s != STEP_PREPARE)
        aw->running = false;
    return s;
}

/* The future that the task will wait on, a new reference.  Runs Python code; NULL with an exception set. */
static PyObject *awaitable_prepare(core_state *st, Awaitable *aw)
{
    PyObject *future = NULL, *loop = PyObject_CallNoArgs(st->get_running_loop);
    if (loop == NULL)
        return NULL;
    if (loop == Py_None) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() has to wait, and no asyncio event loop is running here to wait on "
                     "(other async libraries are not supported)",
                     aw->call.op->qualname);
        goto done;
    }
    Mailbox *m = mailbox_of(st, loop, true);
    if (m == NULL)
        goto done;
    if (aw->waiter.box == NULL) {
        nc_box_ref(&m->box->base.box);
        aw->waiter.box = &m->box->base.box;
    }
    bool same = aw->waiter.box == &m->box->base.box;
    Py_DECREF(m);
    if (!same) {
        PyErr_Format(PyExc_RuntimeError, "%s() was first awaited on another event loop", aw->call.op->qualname);
        goto done;
    }
    if (aw->timeout > 0 && aw->timer == NULL) {
        PyObject *expire = PyObject_GetAttr((PyObject *)aw, st->s_expire);
        PyObject *delay = expire != NULL ? PyFloat_FromDouble(aw->timeout) : NULL;
        if (delay != NULL)
            aw->timer = PyObject_CallMethodObjArgs(loop, st->s_call_later, delay, expire, NULL);
        Py_XDECREF(delay);
        Py_XDECREF(expire);
        if (aw->timer == NULL)
            goto done;
    }
    future = PyObject_CallMethodNoArgs(loop, st->s_create_future);
    if (future != NULL && PyObject_SetAttr(future, st->s_blocking, Py_True) < 0)
        Py_CLEAR(future);
done:
    Py_DECREF(loop);
    return future;
}

/* A step of something that sleeps and that nobody called: its future was resolved by somebody else, or a
 * second task awaits it. */
static bool awaitable_woken_by_stranger(core_state *st, Awaitable *aw, PyObject *future)
{
    PyObject *done = future != NULL ? PyObject_CallMethodNoArgs(future, st->s_done) : Py_NewRef(Py_False);
    int is = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    if (is == 0)
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited by another task", aw->call.op->qualname);
    return is > 0;
}

/* Let go of what an ended call need not keep.  Runs Python code; keeps the current exception. */
static void awaitable_release(core_state *st, Awaitable *aw)
{
    PyObject *timer, *future, *held, *type, *value, *traceback;
    Py_BEGIN_CRITICAL_SECTION(aw);
    timer = aw->timer;
    future = aw->future;
    held = aw->call.value;
    aw->timer = aw->future = aw->call.value = NULL;
    Py_END_CRITICAL_SECTION();
    if (timer == NULL && future == NULL && held == NULL)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (timer != NULL) {
        PyObject *done = PyObject_CallMethodNoArgs(timer, st->s_cancel);
        if (done == NULL)
            PyErr_WriteUnraisable(timer);
        Py_XDECREF(done);
        Py_DECREF(timer);
    }
    Py_XDECREF(future);
    Py_XDECREF(held);
    PyErr_Restore(type, value, traceback);
}

/* One step: STEP_READY with the result, STEP_ERROR, or STEP_SLEEP with the future to wait on. */
static int awaitable_step(Awaitable *aw, PyObject **out)
{
    Chan *c = aw->call.ep->chan;
    core_state *st = c->st;
    nc_box *kicks = NULL;
    PyObject *stale = NULL, *future = NULL;
    bool begun = false;
    int s;
    *out = NULL;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    s = awaitable_begin(aw, &stale);
    begun = s != STEP_ERROR;
    if (s == STEP_READY)
        s = awaitable_finish(aw, awaitable_advance(aw, out, &kicks), out);
    Py_END_CRITICAL_SECTION2();
    if (!begun)
        return STEP_ERROR;
    if (s == STEP_BLOCKED) {
        bool resolved = awaitable_woken_by_stranger(st, aw, stale);
        Py_BEGIN_CRITICAL_SECTION(aw);
        aw->running = resolved;
        if (resolved) {
            future = aw->future;
            aw->future = NULL;
        }
        Py_END_CRITICAL_SECTION();
        Py_XDECREF(stale);
        if (!resolved)
            return STEP_ERROR;
        stale = future;
        s = STEP_PREPARE;
    }
    while (s == STEP_PREPARE) {
        settle(st, c, kicks);
        kicks = NULL;
        future = awaitable_prepare(st, aw);
        Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
        aw->future = future;
        if (future != NULL)
            s = awaitable_advance(aw, out, &kicks);
        else {
            awaitable_end(aw, &kicks);
            s = STEP_ERROR;
        }
        s = awaitable_finish(aw, s, out);
        Py_END_CRITICAL_SECTION2();
    }
    if (s != STEP_SLEEP)
        awaitable_release(st, aw);
    Py_XDECREF(stale);
    settle(st, c, kicks);
    return s;
}

/* Resolve what the task waits on, so that it looks again.  On the loop's thread; runs Python code. */
static void awaitable_resolve(core_state *st, Awaitable *aw)
{
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(aw);
    future = Py_XNewRef(aw->future);
    Py_END_CRITICAL_SECTION();
    if (future == NULL)
        return;
    PyObject *done = PyObject_CallMethodOneArg(future, st->s_set_result, Py_None);
    if (done == NULL) {
        /* cancelled in the same tick: the cancellation leaves the line and hands the turn on */
        if (PyErr_ExceptionMatches(st->invalid_state))
            PyErr_Clear();
        else
            PyErr_WriteUnraisable(future);
    }
    Py_XDECREF(done);
    Py_DECREF(future);
}

/* ---- awaitables: the type --------------------------------------------------------------------------- */

PyObject *wait_new(Call *call, double timeout)
{
    core_state *st = call->ep->chan->st;
    Awaitable *aw = PyObject_GC_New(Awaitable, st->awaitable_type);
    if (aw == NULL) {
        Py_XDECREF(call->value);
        Py_DECREF(call->ep);
        return NULL;
    }
    aw->call = *call;
    aw->timeout = timeout;
    aw->state = CREATED;
    aw->running = aw->enrolled = aw->expired = false;
    aw->future = aw->timer = NULL;
    aw->waiter.box = NULL;
    aw->waiter.owner = call->ep;
    atomic_store_explicit(&aw->waiter.state, NC_OUTSIDE, memory_order_relaxed); /* nobody else knows it yet */
    atomic_store_explicit(&aw->waiter.post, NC_POST_NONE, memory_order_relaxed);
    PyObject_GC_Track(aw);
    return (PyObject *)aw;
}

static PySendResult awaitable_am_send(PyObject *self, PyObject *Py_UNUSED(arg), PyObject **out)
{
    switch (awaitable_step((Awaitable *)self, out)) {
    case STEP_READY:
        if (*out == NULL)
            *out = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    case STEP_SLEEP:
        return PYGEN_NEXT;
    default:
        return PYGEN_ERROR;
    }
}

/* Raise StopIteration(value), which may be a tuple or an exception itself.  Steals value. */
static void raise_stop_iteration(PyObject *value)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
}

static PyObject *awaitable_iternext(PyObject *self)
{
    PyObject *out;
    switch (awaitable_step((Awaitable *)self, &out)) {
    case STEP_SLEEP:
        return out;
    case STEP_READY:
        if (out != NULL) /* NULL without an exception stands for None */
            raise_stop_iteration(out);
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *awaitable_send(PyObject *self, PyObject *arg)
{
    PyObject *out;
    switch (awaitable_am_send(self, arg, &out)) {
    case PYGEN_NEXT:
        return out;
    case PYGEN_RETURN:
        raise_stop_iteration(out);
        return NULL;
    default:
        return NULL;
    }
}

/* End it before its time: true if there was something to end; false with an exception set. */
static bool awaitable_abort(Awaitable *aw)
{
    nc_box *kicks = NULL;
    bool ok = false;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    if (aw->running)
        PyErr_Format(PyExc_RuntimeError, "%s() is already being awaited", aw->call.op->qualname);
    else {
        ok = true;
        awaitable_end(aw, &kicks);
    }
    Py_END_CRITICAL_SECTION2();
    if (!ok)
        return false;
    Chan *c = aw->call.ep->chan;
    awaitable_release(c->st, aw);
    settle(c->st, c, kicks);
    return true;
}

/* throw(exception), or the older throw(type[, value[, traceback]]). */
static PyObject *awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Awaitable *aw = (Awaitable *)self;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes 1 to 3 arguments");
        return NULL;
    }
    PyObject *type = args[0], *value = n > 1 ? args[1] : NULL, *traceback = n > 2 ? args[2] : NULL;
    if (traceback == Py_None)
        traceback = NULL;
    if (PyExceptionInstance_Check(type)) {
        value = type;
        type = (PyObject *)Py_TYPE(type);
        if (traceback == NULL)
            traceback = PyException_GetTraceback(value);
        else
            Py_INCREF(traceback);
    } else if (PyExceptionClass_Check(type) && (traceback == NULL || PyTraceBack_Check(traceback)))
        Py_XINCREF(traceback);
    else {
        PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %.200s",
                     Py_TYPE(type)->tp_name);
        return NULL;
    }
    if (aw->state == DONE) {
        Py_XDECREF(traceback);
        PyErr_Format(PyExc_RuntimeError, "cannot reuse already awaited %s()", aw->call.op->qualname);
        return NULL;
    }
    if (!awaitable_abort(aw)) {
        Py_XDECREF(traceback);
        return NULL;
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), traceback);
    return NULL;
}

static PyObject *awaitable_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!awaitable_abort((Awaitable *)self))
        return NULL;
    Py_RETURN_NONE;
}

/* The timer went off. */
static PyObject *awaitable_expire(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Awaitable *aw = (Awaitable *)self;
    Py_BEGIN_CRITICAL_SECTION(aw);
    aw->expired = true;
    Py_END_CRITICAL_SECTION();
    awaitable_resolve(aw->call.ep->chan->st, aw);
    Py_RETURN_NONE;
}

static PyObject *awaitable_repr(PyObject *self)
{
    static const char *const states[] = {"created", "waiting", "done"};
    Awaitable *aw = (Awaitable *)self;
    return PyUnicode_FromFormat("<%s() %s at %p>", aw->call.op->qualname, states[aw->state], self);
}

static PyObject *awaitable_name(PyObject *self, void *qualified)
{
    const call_op *op = ((Awaitable *)self)->call.op;
    return PyUnicode_FromString(qualified ? op->qualname : op->name);
}

static PyObject *awaitable_cr_running(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((Awaitable *)self)->running);
}

static PyObject *awaitable_cr_await(PyObject *self, void *Py_UNUSED(ignored))
{
    PyObject *future;
    Py_BEGIN_CRITICAL_SECTION(self);
    future = Py_NewRef(((Awaitable *)self)->future != NULL ? ((Awaitable *)self)->future : Py_None);
    Py_END_CRITICAL_SECTION();
    return future;
}

static PyObject *awaitable_cr_frame(PyObject *Py_UNUSED(self), void *Py_UNUSED(ignored)) { Py_RETURN_NONE; }

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg)
{
    Awaitable *aw = (Awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(aw->call.ep);
    Py_VISIT(aw->call.value);
    Py_VISIT(aw->future);
    Py_VISIT(aw->timer);
    return 0;
}

/* Unreachable: leave the line, which breaks the cycle through it. */
static int awaitable_clear(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyObject *future = aw->future, *timer = aw->timer, *value = aw->call.value;
    nc_box *kicks = NULL;
    Py_BEGIN_CRITICAL_SECTION2(aw, aw->call.ep);
    awaitable_end(aw, &kicks);
    aw->future = aw->timer = aw->call.value = NULL;
    Py_END_CRITICAL_SECTION2();
    Py_XDECREF(future);
    Py_XDECREF(timer);
    Py_XDECREF(value);
    settle(aw->call.ep->chan->st, aw->call.ep->chan, kicks);
    return 0;
}

static void awaitable_dealloc(PyObject *self)
{
    Awaitable *aw = (Awaitable *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(aw->future);
    Py_CLEAR(aw->timer);
    Py_CLEAR(aw->call.value);
    if (aw->waiter.box != NULL)
        box_unref(aw->waiter.box);
    Py_DECREF(aw->call.ep);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef awaitable_methods[] = {
    {"send", awaitable_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))awaitable_throw, METH_FASTCALL, NULL},
    {"close", awaitable_close, METH_NOARGS, NULL},
    {"_expire", awaitable_expire, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef awaitable_getset[] = {
    {"__name__", awaitable_name, NULL, NULL, NULL},
    {"__qualname__", awaitable_name, NULL, NULL, (void *)1},
    {"cr_running", awaitable_cr_running, NULL, NULL, NULL},
    {"cr_await", awaitable_cr_await, NULL, NULL, NULL},
    {"cr_frame", awaitable_cr_frame, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_tp_dealloc, awaitable_dealloc},
    {Py_tp_traverse, awaitable_traverse},
    {Py_tp_clear, awaitable_clear},
    {Py_tp_repr, awaitable_repr},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaitable_am_send},
    {Py_tp_iternext, awaitable_iternext},
    {Py_tp_methods, awaitable_methods},
    {Py_tp_getset, awaitable_getset},
    {0, NULL},
};

static PyType_Spec awaitable_spec = {
    .name = "nexus_channels._core.Awaitable",
    .basicsize = sizeof(Awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaitable_slots,
};

/* ---- blocking --------------------------------------------------------------------------------------- */

static double monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

enum { SPIN_LEAST = 16, SPIN_MOST = 1024 }; /* pauses */

/* Asleep until a kick, a signal or the deadline (< 0: none), at first awake for the blink of an eye in
 * which the answer often comes; without the GIL. */
static PyLockStatus parker_sleep(parker *p, double deadline, unsigned *spin)
{
    PyLockStatus slept = PY_LOCK_ACQUIRED;
    PY_TIMEOUT_T us = -1;
    if (deadline >= 0) {
        double left = deadline - monotonic();
        if (left <= 0)
            return PY_LOCK_FAILURE;
        us = left > 3600 ? (PY_TIMEOUT_T)3600000000 : (PY_TIMEOUT_T)ceil(left * 1e6); /* it is asked again */
    }
    Py_BEGIN_ALLOW_THREADS
    unsigned spins = 0;
    while (spins < *spin && nc_waiter_state_of(&p->waiter) != NC_CALLED)
        nc_relax(&spins);
    if (nc_waiter_state_of(&p->waiter) != NC_CALLED) {
        *spin = *spin / 2 > SPIN_LEAST ? *spin / 2 : SPIN_LEAST;
        slept = PyThread_acquire_lock_timed(p->lock, us, 1);
    } else
        *spin = *spin * 2 < SPIN_MOST ? *spin * 2 : SPIN_MOST;
    Py_END_ALLOW_THREADS
    return slept == PY_LOCK_FAILURE && us > 0 && deadline > monotonic() ? PY_LOCK_ACQUIRED : slept;
}

/* Take the mail off, so that the next post finds the box empty and kicks. */
static void parker_receive(parker *p)
{
    if (nc_box_take(&p->base.box) != NULL)
        nc_post_receive(&p->waiter);
}

/* Having found nothing: line up and sleep until the call is done.  The result as in look. */
static step park(Call *call, double timeout, PyObject **out)
{
    Endpoint *ep = call->ep;
    Chan *c = ep->chan;
    double deadline = timeout < 0 ? -1 : monotonic() + timeout;
    parker *p = parker_new(ep);
    if (p == NULL) {
        PyErr_NoMemory();
        return STEP_ERROR;
    }
    bool enrolled = false, turn;
    step s = STEP_BLOCKED;
    nc_box *kicks = NULL;
    for (;;) {
        Py_BEGIN_CRITICAL_SECTION(ep);
        if (enrolled && nc_waiter_state_of(&p->waiter) == NC_CALLED) {
            parker_receive(p);
            s = call->op->look(call, true, out, &kicks);
        } else
            s = STEP_BLOCKED;
        turn = false;
        if (s == STEP_BLOCKED || s == STEP_PARTIAL) {
            p->base.born = core_generation(); /* a signal handler may have forked us */
            turn = line_up(call, &p->waiter, enrolled, s == STEP_PARTIAL, &kicks);
            enrolled = true;
        }
        Py_END_CRITICAL_SECTION();
        settle(c->st, c, kicks);
        kicks = NULL;
        if (s == STEP_READY || s == STEP_ERROR)
            break;
        if (turn)
            continue;
        /* relaxed: a hint; the last sleeper on this endpoint leaves what suited it */
        unsigned spin = atomic_load_explicit(&ep->spin, memory_order_relaxed);
        PyLockStatus slept = parker_sleep(p, deadline, &spin);
        atomic_store_explicit(&ep->spin, spin, memory_order_relaxed);
        bool called = nc_waiter_state_of(&p->waiter) == NC_CALLED;
        if (slept == PY_LOCK_INTR && PyErr_CheckSignals() < 0) {
            s = STEP_ERROR;
            break;
        }
        if (slept == PY_LOCK_FAILURE && !called) {
            call->op->timed_out(call);
            s = STEP_ERROR;
            break;
        }
    }
    Py_BEGIN_CRITICAL_SECTION(ep);
    line_leave(call, &p->waiter, &kicks);
    Py_END_CRITICAL_SECTION();
    box_unref(&p->base.box);
    settle(c->st, c, kicks);
    return s;
}

PyObject *wait_blocking(Call *call, double timeout)
{
    Endpoint *ep = call->ep;
    PyObject *out = NULL;
    nc_box *kicks = NULL;
    step s;
    Py_BEGIN_CRITICAL_SECTION(ep);
    s = call->op->look(call, false, &out, &kicks);
    Py_END_CRITICAL_SECTION();
    settle(ep->chan->st, ep->chan, kicks);
    if (s == STEP_BLOCKED || s == STEP_PARTIAL) {
        if (timeout == 0) {
            call->op->timed_out(call);
            return NULL;
        }
        s = park(call, timeout, &out);
    }
    if (s == STEP_ERROR)
        return NULL;
    return out != NULL ? out : Py_NewRef(Py_None);
}

/* ---- module ----------------------------------------------------------------------------------------- */

int wait_add_types(PyObject *module, core_state *st)
{
    st->mailbox_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mailbox_spec, NULL);
    st->awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    return st->mailbox_type != NULL && st->awaitable_type != NULL ? 0 : -1;
}
