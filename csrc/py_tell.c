/* py_tell.c: what is told of the processes at the other side of a channel: what went wrong with one of them, and how
 * they have ended.
 */
#include "py_tell.h"
#include "py_reach.h"

#if REACHES

/* What the child of a fork is told. */
static const char stayed[] = "this end stayed in the process that made it, as a fork takes no end of a shared channel "
                             "along: share() it, and attach() the ticket in the child";

nc_lanes_fault tell_take_fault(nc_chan *block, int *why)
{
    nc_lanes *l = block->lanes;
    nc_lanes_fault fault = nc_lanes_take_fault(l, why);
    nc_lanes_enter(l);
    if (fault != NC_LANES_SOUND)
        os_reach_listen_again(reach_of(block));
    nc_lanes_exit(l);
    return fault;
}

bool tell_fault(Chan *c)
{
    int why;
    if (reach_of(c->block)->forked) {
        core_raise(c->st, E_RECV, NULL, stayed);
        return true;
    }
    switch (tell_take_fault(c->block, &why)) {
    case NC_LANES_SOUND:
        return false;
    case NC_LANES_GARBLED:
        core_raise(c->st, E_CHANNEL, NULL,
                   "a process wrote what no lane of this channel can hold, so its lane has ended; the others go on");
        break;
    case NC_LANES_REFUSED:
        core_raise(c->st, E_CHANNEL, NULL,
                   "what came to this receiver is no lane of its channel (capacity %llu), and was refused; the others "
                   "go on",
                   (unsigned long long)reach_of(c->block)->capacity);
        break;
    case NC_LANES_SYSTEM:
        errno = why;
        PyErr_SetFromErrno(PyExc_OSError);
        break;
    }
    return true;
}

/* Replace the message of an exception, and mark it. */
void tell_how(Chan *c)
{
    if (c->block == NULL || c->block->lanes == NULL || !PyErr_Occurred())
        return;
    bool forked = reach_of(c->block)->forked, crashed = nc_lanes_crashed(c->block->lanes);
    if (!forked && !crashed)
        return;
    PyObject *error = core_take_error();
    PyObject *args = forked ? Py_BuildValue("(s)", stayed) : NULL;
    if ((args != NULL && PyObject_SetAttrString(error, "args", args) < 0) ||
        (crashed && PyObject_SetAttrString(error, "crashed", Py_True) < 0))
        PyErr_Clear(); /* no memory: it says less, and is raised all the same */
    Py_XDECREF(args);
    PyErr_Clear();
    core_give_error(error);
}

#else

nc_lanes_fault tell_take_fault(nc_chan *Py_UNUSED(block), int *Py_UNUSED(why)) { return NC_LANES_SOUND; }
bool tell_fault(Chan *Py_UNUSED(c)) { return false; }
void tell_how(Chan *Py_UNUSED(c)) {}

#endif
