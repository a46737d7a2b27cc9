/* py_chan.h: opening a channel, checking and closing its endpoints; see py_chan.c. */
#ifndef PY_CHAN_H
#define PY_CHAN_H

#include "py_types.h"

PyObject *chan_open(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* A new Chan of which one side is here, and reaches the other by lanes, none of which is open yet. */
Chan *chan_new_reach(PyObject *module, chan_kind kind, int side, uint64_t capacity);
/* A capacity, in items or bytes, or 0 with an exception set. */
uint64_t chan_parse_capacity(PyObject *arg);
/* The receiver of a new channel that nobody else has, for a call without an endpoint; a new reference. */
Endpoint *chan_lone_receiver(PyObject *module);
/* A new endpoint of a channel. */
Endpoint *endpoint_new(Chan *c, int side);
/* The Chan of this interpreter for a channel that comes from elsewhere, or has gone there, a new reference; NULL with
 * an exception set.  Takes over the caller's reference to the block. */
Chan *chan_here(PyObject *module, chan_kind kind, nc_chan *block);
/* Have chan_here() find it: its channel is about to be shared.  0, or -1 with an exception set. */
int chan_list(Chan *c);
/* An endpoint in steps: first one that has no channel yet, and counts nowhere.  Nobody may meet it so: the caller runs
 * no Python code before it begins, or is discarded.  It begins with a place in the count of its side, the caller's. */
Endpoint *endpoint_prepare(Chan *c, int side);
void endpoint_begin(Endpoint *ep, Chan *c);
void endpoint_discard(Endpoint *ep, Chan *c);
/* Close the endpoint.  The caller holds the endpoint, or has the last reference to it.  Boxes that need a kick are
 * chained to `kicks`. */
void endpoint_close_held(Endpoint *ep, nc_box **kicks);
/* Does the channel belong to another thread?  If so, WrongThread is set. */
bool chan_off_thread(Chan *c);
/* Set Full with `value`, or Empty.  The message tells whether the channel really is full or empty, or calls that
 * already wait have a right to what there is. */
void chan_raise_full(Chan *c, PyObject *value);
void chan_raise_empty(Chan *c);
/* Can the endpoint be used at all?  STEP_READY, or STEP_ERROR with an exception set. */
step endpoint_check(Endpoint *ep);
/* The endpoint's `lent` is set: does the native end still use it?  If not, it is given back here.  Holding the
 * endpoint. */
bool endpoint_leased(Endpoint *ep);

#endif
