/* py_wake.c: how somebody who waits is reached: the boxes in which called waiters are posted, and what stands in line
 * for an awaitable.  Touches nc_gate.h; what kind of box it is, a loop's or a thread's, only the box knows.
 *
 * A loop has one mailbox, however many channels its tasks wait on; a blocked thread has a parker.  A burst of
 * wake-ups costs one kick: a write to the loop's wake fd, or the release of the parker's lock.  Neither needs
 * the GIL, so the same path serves threads that never hold it.
 *
 * What stands in line for an awaitable is its sleeper, a block of its own that refers to the future the task
 * waits on, and through it to the task: so a waiting task lives as long as the channel it waits on.  The
 * awaitable owns the sleeper; if it goes while a post is in the mail, whoever takes the mail frees it.
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
        kicks = NULL; /* those whose turn it is because others will not come */
        while (now != NULL) {
            wake_box *b = container_of(nc_box_unchain(&now), wake_box, box);
            if (b->born == core_generation())
                b->kind->kick(st, b, &kicks);
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
    Py_XDECREF(atomic_load_explicit(&sl->future, memory_order_relaxed)); /* the last to know it */
    wake_box_unref(sl->waiter.box);
    Chan *c = sl->chan;
    if (c == NULL) {
        PyMem_Free(sl);
        return;
    }
    if (!spare_keep(c->st, SPARE_SLEEPERS, sl))
        PyMem_Free(sl);
    Py_DECREF(c); /* may be the last, and take the module along */
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

/* Mail is nobody's that the collector could ask, and of a loop that was dropped nobody takes it any more: what waits
 * there lets go of its future, and with it of that loop.  Of its channel too, with a GIL; without, whoever takes the
 * mail may be looking at it just now. */
void sleeper_leave(sleeper *sl)
{
    sleeper_set_future(sl, NULL); /* not the last reference: the awaitable's is released later */
    if (nc_post_abandon(&sl->waiter))
        sleeper_free(sl);
#if !NC_FREE_THREADED
    else
        Py_CLEAR(sl->chan); /* nor this: its endpoint's */
#endif
}
