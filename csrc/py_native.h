/* py_native.h: an end that native threads attach to; see py_native.c. */
#ifndef PY_NATIVE_H
#define PY_NATIVE_H

#include "py_park.h"

#include "nexus_channels.h"

typedef struct native_end {
    nexus_end face;               /* the address points here; this paragraph is read-only */
    nc_chan *block;               /* a reference */
    parker *parker;               /* a reference; where the thread sleeps */
    int side;
    uint32_t born;                /* core_generation when made: a forked child does not touch it */

    lease lease;                  /* its references: the object, the attachment, the endpoint, and each capsule */

    nc_record record;             /* of the open claim; from here on fields of the thread that is in a call */
    bool unnotified;              /* something was committed quietly: receivers were not notified */
    unsigned spin;                /* pauses worth spending before a wait sleeps */
} native_end;

/* A further end of that side, with one reference, which counts as open; NULL with an exception set.  From now on native
 * threads may come to the channel. */
native_end *native_end_new(Chan *c, int side);
/* Take it back from its thread.  `abandon`: the thread is said to be gone for good, so a claim that it left open ends,
 * too. */
void native_end_close(native_end *e, bool abandon, nc_box **kicks);
/* Is the other side gone?  Any thread, with or without the GIL. */
bool native_end_disconnected(native_end *e);

#endif
