/* py_call.h: a call, one send or receive, however it waits; see py_call.c.
 *
 * A message on its way: Sender method (py_ring.c, py_log.c; of a batch py_batch.c) -> Call -> its look -> nc_chan.h;
 * what has to wait goes through py_await.c and py_park.c, which know calls only by their `look`. */
#ifndef PY_CALL_H
#define PY_CALL_H

#include "py_types.h"

#define SEND_MANY_OPS(its_look)                   \
    {                                             \
        {.name = "send_many",                     \
         .qualname = "Sender.send_many",          \
         .look = its_look,                        \
         .timed_out = call_send_many_timed_out,   \
         .paced = true},                          \
        {.name = "send_many_blocking",            \
         .qualname = "Sender.send_many_blocking", \
         .look = its_look,                        \
         .timed_out = call_send_many_timed_out},  \
    }
#define RECV_MANY_OPS(its_look)                     \
    {                                               \
        {.name = "recv_many",                       \
         .qualname = "Receiver.recv_many",          \
         .look = its_look,                          \
         .timed_out = call_recv_timed_out,          \
         .paced = true},                            \
        {.name = "recv_many_blocking",              \
         .qualname = "Receiver.recv_many_blocking", \
         .look = its_look,                          \
         .timed_out = call_recv_timed_out},         \
    }

/* Something was published, or given back, the plain way, and the flag says that somebody wants to know.  Hands the
 * result on. */
PyObject *call_notify(Endpoint *ep, int side, PyObject *result);
/* Raise errors[which] with the list of what was not sent of a batch, as it was passed. */
void call_raise_unsent(Call *call, int which, const char *why);
void call_send_many_timed_out(Call *call);
/* All that was taken from call->source is sent: take up to `most` more, as far as there is room, or one.  1: there is
 * something to send; 0: that was all; -1 with an exception set.  Runs Python code. */
int call_refill(Call *call, Py_ssize_t most);
enum { CALL_BATCH = 64 }; /* so many at once, where no loop has to go on meanwhile */
/* Let go of what the call holds, but for its endpoint. */
void call_clear(Call *call);
/* Is there more in its source than was taken from it, or has the source failed? */
static inline bool call_has_more(const Call *call) { return call->source != NULL || call->failure != NULL; }
/* The call has failed with the current exception: what its source has ended with becomes that one's context. */
void call_chain_failure(Call *call);
/* The end of the stream as an error, unless another is set. */
void call_raise_end(Call *call);
void call_recv_timed_out(Call *call);
/* What a waiter of a batch of n takes at most, in items, or in bytes: those in line wait for the first message of a
 * batch, its look then says for how much. */
uint64_t call_share(Chan *c, uint64_t n);
/* What a member of a batch is put in for, a new reference or NULL with an exception set.  Steals what was passed. */
PyObject *call_member(Chan *c, PyObject *passed);

#endif
