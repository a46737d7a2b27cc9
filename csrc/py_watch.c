/* py_watch.c: event loops that hear the lanes of channels.  A loop on which a task has waited for a channel by lanes
 * has one more descriptor, from then on until the channel's end here is closed: whatever wakes the loop there, it
 * hears, and calls those whose turn it is, in whichever loop or thread they wait.
 *
 *      Chan.watches --> Watch <-- the loop, which calls it
 *                         |
 *                         '--> the descriptor, which is closed when the last Watch has gone
 */
#include "py_watch.h"
#include "py_loop.h"
#include "py_module.h"

#if REACHES

typedef struct Watch {
    PyObject_HEAD
    Chan *chan;    /* strong */
    Mailbox *box;  /* strong: of the loop */
    os_reach_fd *fd;  /* a reference */
    struct Watch *next; /* in Chan.watches; strong */
} Watch;

/* Take the Watch out of its channel's list; true if it was there.  Holding the channel. */
static bool watch_unlink(Chan *c, Watch *w)
{
    Watch **link = (Watch **)&c->watches;
    while (*link != NULL && *link != w)
        link = &(*link)->next;
    if (*link == NULL)
        return false;
    *link = w->next;
    w->next = NULL;
    c->watched = NULL;
    return true;
}

/* Has the loop nothing to hear any more?  Then it lets go of the descriptor. */
static bool watch_is_over(Chan *c)
{
    os_reach_fd *fd = reach_wait_on(c);
    if (fd == NULL)
        return true;
    os_reach_fd_unref(fd);
    return !c->block->lanes->reads && nc_lanes_over(c->block->lanes); /* the end of file lasts */
}

static void watch_end(Watch *w)
{
    Mailbox *m = w->box;
    bool linked;
    Py_BEGIN_CRITICAL_SECTION(w->chan);
    linked = watch_unlink(w->chan, w);
    Py_END_CRITICAL_SECTION();
    PyObject *loop = core_weak_target(m->loop);
    PyObject *fd = loop != NULL ? PyLong_FromLong(w->fd->fd) : NULL;
    PyObject *done = fd != NULL ? m->kind->unwatch(m, loop, fd) : NULL;
    if (done == NULL)
        core_drop_error();
    Py_XDECREF(done);
    Py_XDECREF(fd);
    Py_XDECREF(loop);
    if (linked)
        Py_DECREF(w); /* not the last: the caller has one */
}

/* What the loop calls when something was rung.  True: it is to call no more. */
static PyObject *watch_wake(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Watch *w = (Watch *)self;
    if (w->box->box->base.born != core_generation()) /* this loop came along with a fork */
        Py_RETURN_TRUE;
    bool nested = w->box->called;
    w->box->called = true;
    reach_answer(w->chan);
    w->box->called = nested;
    if (!watch_is_over(w->chan))
        Py_RETURN_FALSE;
    watch_end(w);
    Py_RETURN_TRUE;
}

static PyMethodDef watch_wake_def = {"_hear", watch_wake, METH_NOARGS, NULL};

/* The loop of a Watch will never call it again. */
static bool watch_is_idle(Watch *w)
{
    PyObject *loop = core_weak_target(w->box->loop);
    bool idle = loop == NULL || w->box->kind->closed(w->box, loop);
    Py_XDECREF(loop);
    return idle;
}

/* The Watch behind that one, or the first; a new reference or NULL. */
static Watch *watch_behind(Chan *c, Watch *w)
{
    Watch *next;
    Py_BEGIN_CRITICAL_SECTION(c);
    next = (Watch *)Py_XNewRef(w != NULL ? (PyObject *)w->next : c->watches);
    Py_END_CRITICAL_SECTION();
    return next;
}

/* Does that loop hear the channel?  On the way, Watches of loops that have ended are let go of. */
static bool watch_find(Chan *c, nc_box *box)
{
    bool found = false;
    for (Watch *w = watch_behind(c, NULL), *next; w != NULL; w = next) {
        bool idle = watch_is_idle(w), linked = false;
        next = watch_behind(c, w);
        Py_BEGIN_CRITICAL_SECTION(c);
        if (idle)
            linked = watch_unlink(c, w);
        else if (&w->box->box->base.box == box) {
            found = true;
            c->watched = box;
        }
        Py_END_CRITICAL_SECTION();
        if (linked)
            Py_DECREF(w);
        Py_DECREF(w);
    }
    return found;
}

static Watch *watch_new(Chan *c, Mailbox *m, os_reach_fd *fd)
{
    Watch *w = (Watch *)core_new(c->st->watch_type);
    if (w == NULL)
        return NULL;
    w->chan = (Chan *)Py_NewRef(c);
    w->box = (Mailbox *)Py_NewRef(m);
    os_reach_fd_ref(fd);
    w->fd = fd;
    return w;
}

static bool watch_start(Watch *w, PyObject *loop, const char *who)
{
    PyObject *fd = PyLong_FromLong(w->fd->fd), *done = NULL;
    PyObject *reader = fd != NULL ? PyCFunction_New(&watch_wake_def, (PyObject *)w) : NULL;
    if (reader != NULL)
        done = w->box->kind->watch(w->box, loop, fd, reader);
    Py_XDECREF(reader);
    Py_XDECREF(fd);
    if (done == NULL &&
        (PyErr_ExceptionMatches(PyExc_NotImplementedError) || PyErr_ExceptionMatches(PyExc_AttributeError)))
        PyErr_Format(PyExc_RuntimeError,
                     "%s() has to wait for another process, and %R has no add_reader() that works; use the blocking "
                     "form in a thread",
                     who, loop);
    Py_XDECREF(done);
    return done != NULL;
}

/* Is it known already that the loop hears the channel? */
static bool watch_is_known(Chan *c, nc_box *box)
{
    bool known;
    Py_BEGIN_CRITICAL_SECTION(c);
    known = c->watched == box;
    Py_END_CRITICAL_SECTION();
    return known;
}

bool watch_begin(Chan *c, PyObject *loop, nc_box *box, const char *who)
{
    if (c->block->lanes == NULL || watch_is_known(c, box) || watch_find(c, box))
        return true;
    os_reach_fd *fd = reach_wait_on(c);
    if (fd == NULL)
        return true; /* closed meanwhile, as the next look finds */
    Mailbox *m = mailbox_of(NULL, c->st, loop);
    Watch *w = m != NULL ? watch_new(c, m, fd) : NULL;
    bool begun = w != NULL && watch_start(w, loop, who);
    if (begun) {
        Py_BEGIN_CRITICAL_SECTION(c);
        w->next = (Watch *)c->watches;
        c->watches = Py_NewRef(w);
        c->watched = box;
        Py_END_CRITICAL_SECTION();
    }
    Py_XDECREF(w);
    Py_XDECREF(m);
    os_reach_fd_unref(fd);
    return begun;
}

static int watch_traverse(PyObject *self, visitproc visit, void *arg)
{
    Watch *w = (Watch *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(w->chan);
    Py_VISIT(w->box);
    Py_VISIT(w->next);
    return 0;
}

static int watch_clear(PyObject *self)
{
    Py_CLEAR(((Watch *)self)->next);
    return 0;
}

static void watch_dealloc(PyObject *self)
{
    Watch *w = (Watch *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (w->fd != NULL)
        os_reach_fd_unref(w->fd);
    Py_XDECREF(w->next);
    Py_XDECREF(w->box);
    Py_XDECREF(w->chan);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot watch_slots[] = {
    {Py_tp_dealloc, watch_dealloc},
    {Py_tp_traverse, watch_traverse},
    {Py_tp_clear, watch_clear},
    {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "nexus_channels._core.Watch",
    .basicsize = sizeof(Watch),
    .flags = CORE_TYPE_FLAGS,
    .slots = watch_slots,
};

int watch_add_types(PyObject *module, core_state *st)
{
    st->watch_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &watch_spec, NULL);
    return st->watch_type != NULL ? 0 : -1;
}

void watch_prune(Chan *c)
{
    if (c->watches == NULL)
        return;
    watch_find(c, NULL);
    if (c->watches == NULL)
        reach_unwatched(c);
}

#else

void watch_prune(Chan *Py_UNUSED(c)) {}

bool watch_begin(Chan *Py_UNUSED(c), PyObject *Py_UNUSED(loop), nc_box *Py_UNUSED(box), const char *Py_UNUSED(who))
{
    return true;
}

int watch_add_types(PyObject *Py_UNUSED(module), core_state *Py_UNUSED(st)) { return 0; }

#endif

bool loop_serves(Chan *c, PyObject *loop, nc_box *box, const char *who)
{
    return (!nc_chan_shared(c->block) || loop_reach(c->st, loop, box, who)) && watch_begin(c, loop, box, who);
}
