/* py_shared.h: channels between processes: opened, and their ends packed up to move; see py_shared.c. */
#ifndef PY_SHARED_H
#define PY_SHARED_H

#include "py_types.h"

/* An end of a channel on its way to another process. */
typedef struct os_parcel parcel; /* os_parcel.h */

/* The capacity of a lane for a wish, or 0 with an exception set. */
uint64_t shared_parse_capacity(PyObject *arg);
/* open_shared(kind, capacity) -> (sender, receiver) */
PyObject *shared_open(PyObject *module, PyObject *const *args, Py_ssize_t n);
/* A sender that has come by that door, which it takes over, unless this fails.  A receiver that nobody can come to yet.
 * NULL with an exception set. */
PyObject *shared_open_sender(PyObject *module, chan_kind kind, uint64_t capacity, uint64_t name, int *door);
PyObject *shared_open_receiver(PyObject *module, chan_kind kind, uint64_t capacity);
/* leave_shared(): the ends of this process leave, as when it exits. */
PyObject *shared_leave(PyObject *module, PyObject *ignored);
/* An empty parcel; NULL with an exception set. */
parcel *parcel_new(void);
/* Move an endpoint into the parcel, and close it here.  Holding the endpoint, which is idle; false with an exception
 * set, and then nothing has changed. */
bool parcel_pack(parcel *p, Endpoint *ep, nc_box **kicks);
/* Make an endpoint of what is in the parcel; NULL with an exception set, and then it is still there.  ValueError if
 * another copy of the parcel was unpacked before, in whichever process. */
PyObject *parcel_unpack(PyObject *module, parcel *p);
/* Give up what is in it, unless it was unpacked from a copy; so no copy can be unpacked any more. */
void parcel_void(parcel *p);
/* Close what is in it, and free it; NULL will do.  Copies stay as they are. */
void parcel_free(parcel *p);
/* What it holds, for multiprocessing: (bytes, tuple of descriptors, which stay the parcel's); and a parcel of that,
 * which takes the descriptors over.  NULL with an exception set. */
PyObject *parcel_parts(parcel *p);
parcel *parcel_of_parts(PyObject *numbers, PyObject *fds);
/* Which end it holds; RX or TX.  And of which kind the channel is. */
int parcel_side(const parcel *p);
chan_kind parcel_kind(const parcel *p);

#endif
