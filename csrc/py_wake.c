/* py_wake.c: how waiters are woken up: the boxes in which called waiters are posted, and the sleepers that stand in
 * line for awaitables.  Touches nc_gate.h.  Whether a box is a loop's or a thread's, only the box's kind knows.
 *
 * A loop has one mailbox, however many channels its tasks wait on; a blocked thread has a parker.  A burst of
 * wake-ups costs one kick: a write to the loop's wake fd, or the release of the parker's lock.  Neither needs
 * the GIL, so the same path serves threads that never hold it.
 *
 * A sleeper stands in line for an awaitable.  It refers to the future that the task waits on, and through the future to
 * the task: so a waiting task lives as long as the channel that it waits on.  The awaitable owns the sleeper.  If the
 * awaitable is freed while its sleeper is in the mail, whoever takes the mail frees the sleeper.
 */
#include "py_wake.h"

/* ---- boxes ----------------------------------------------------------------------------------------- */

void wake_box_unref(nc_box *box)
{
    if (!nc_box_unref(box))
        return;
    wake_box *b = container_of(box, wake_box, box);
    b->kind->drop(b);
    PyMem_RawFree(b);
}

void wake_deliver(core_state *st, nc_box *kicks)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    bool failing = kicks != NULL && PyErr_Occurred() != NULL;
    if (failing)
        PyErr_Fetch(&type, &value, &traceback);
    while (kicks != NULL) {
        nc_box *now = nc_box_in_order(kicks);
        kicks = NULL; /* kicking may find others to kick: those behind waiters that will never run */
        while (now != NULL) {
            wake_box *b = container_of(nc_box_unchain(&now), wake_box, box);
            if (b->born != core_generation())
                ; /* the parent process's */
            else if (b->home == st->number)
                b->kind->kick(st, b, &kicks);
            else
                b->kind->kick_without_gil(b);
            wake_box_unref(&b->box);
        }
    }
    if (failing)
        PyErr_Restore(type, value, traceback);
}

void wake_boxes(nc_box *kicks)
{
    kicks = nc_box_in_order(kicks);
    while (kicks != NULL) {
        wake_box *b = container_of(nc_box_unchain(&kicks), wake_box, box);
        if (b->born == core_generation())
            b->kind->kick_without_gil(b);
        wake_box_unref(&b->box);
    }
}

bool wake_reached(nc_box *box)
{
    wake_box *b = container_of(box, wake_box, box);
    return b->kind->reached(b);
}

/* ---- sleepers --------------------------------------------------------------------------------------- */

void wake_free_spares(core_state *st)
{
    for (sleeper *sl; (sl = spare_take(st, SPARE_SLEEPERS)) != NULL;)
        PyMem_Free(sl);
}

sleeper *sleeper_new(nc_box *box, Endpoint *owner)
{
    sleeper *sl = spare_take(owner->chan->st, SPARE_SLEEPERS);
    if (sl == NULL && (sl = PyMem_Malloc(sizeof *sl)) == NULL)
        return NULL;
    nc_box_ref(box);
    sl->waiter.box = box;
    sl->waiter.owner = owner;
    sl->chan = (Chan *)Py_NewRef(owner->chan);
    sl->side = owner->side;
    atomic_store_explicit(&sl->waiter.state, NC_OUTSIDE, memory_order_relaxed); /* nobody else knows it yet */
    atomic_store_explicit(&sl->waiter.post, NC_POST_NONE, memory_order_relaxed);
    atomic_store_explicit(&sl->future, NULL, memory_order_relaxed);
    return sl;
}

void sleeper_free(sleeper *sl)
{
    Py_XDECREF(atomic_load_explicit(&sl->future, memory_order_relaxed)); /* nobody else knows it any more */
    wake_box_unref(sl->waiter.box);
    Chan *c = sl->chan;
    if (c == NULL) {
        PyMem_Free(sl);
        return;
    }
    if (!spare_keep(c->st, SPARE_SLEEPERS, sl))
        PyMem_Free(sl);
    Py_DECREF(c); /* may be the last reference, and drop the module, too */
}

PyObject *sleeper_swap_future(sleeper *sl, PyObject *future)
{
#if NC_FREE_THREADED
    return atomic_exchange_explicit(&sl->future, future, memory_order_acq_rel); /* S1 */
#else
    PyObject *old = atomic_load_explicit(&sl->future, memory_order_relaxed); /* S1 */
    atomic_store_explicit(&sl->future, future, memory_order_relaxed);        /* S1 */
    return old;
#endif
}

void sleeper_set_future(sleeper *sl, PyObject *future)
{
    Py_XINCREF(future);
    Py_XDECREF(sleeper_swap_future(sl, future));
}

/* The collector cannot see the sleepers in a mailbox, and nobody takes the mail of a loop that was dropped.  So a
 * sleeper that is abandoned in the mail drops its future here, and with the future that loop.  With a GIL it drops its
 * channel, too.  Without one, the thread that takes the mail may be reading that field now. */
void sleeper_leave(sleeper *sl)
{
    sleeper_set_future(sl, NULL); /* not the last reference: the awaitable's is released later */
    if (nc_post_abandon(&sl->waiter))
        sleeper_free(sl);
#if !NC_FREE_THREADED
    else
        Py_CLEAR(sl->chan); /* nor is this the last: the endpoint has one */
#endif
}
