/* py_call.h: a call, one send or receive, however it waits; see py_call.c.
 *
 * A message on its way: Sender method (py_ring.c, py_log.c; of a batch py_batch.c) -> Call -> its look -> nc_chan.h;
 * what has to wait goes through py_await.c and py_park.c, which know calls only by their `look`. */
#ifndef PY_CALL_H
#define PY_CALL_H

#include "py_chan.h"

typedef struct Call {
    const struct call_op *op;
    Endpoint *ep; /* strong, unless the call lives on the stack of a method of ep */
    PyObject *value; /* what to send: one value, or a list; strong, NULL once it is in the ring */
    Py_ssize_t n; /* recv_many: at most; send_many: how many went; claim: bytes */
    uint64_t least, share; /* for the waiter: needs, and will take at most */
    PyObject *entered; /* async with tx.claim(n): the claim, from its start to its end; strong */
    bool late; /* it has begun to wait: a lent endpoint is waited for, too */
    PyObject *source; /* send_many: the iterator that `value` is filled from; strong, NULL once it ended */
    PyObject *failure; /* what `source` ended with: to be raised when all that came before is sent; strong */
} Call;

typedef struct call_op {
    const char *name, *qualname;
    /* Try once, holding the endpoint.  `called`: it is this call's turn; else it must go behind those who
     * wait.  Whom it made room for, or gave something to, is chained to `kicks`. */
    step (*look)(Call *, bool called, PyObject **out, nc_box **kicks);
    /* Raise what this call raises when its time is up. */
    void (*timed_out)(Call *);
    bool claims; /* the awaitable is to be a ClaimAwaitable */
    bool paced; /* it counts when a task holds its loop by what is ready, and may have to yield */
    /* With a GIL, where most calls end: the result of a look that nobody has to be told of, a new reference; or NULL
     * without an exception, and the look is still to come.  Of bytes, the caller tells a native thread that has come to
     * want to know meanwhile.  NULL where there is no such short way. */
    PyObject *(*at_once)(Call *);
} call_op;

/* What objects and bytes do differently in a batch; the rest is py_call.c's. */
enum { AWAITED, BLOCKING, FORMS };
typedef struct payload_kind {
    PyObject *(*checked)(Chan *, PyObject *value); /* what is put into a batch for it, a new reference; NULL: itself */
    PyObject *(*as_passed)(PyObject *); /* what a member of a batch was passed as, borrowed; NULL: itself */
    uint64_t (*room_for)(PyObject *); /* what a member of a batch takes in the ring; NULL: 1 */
    uint64_t least; /* what a member takes at least */
    call_op send_many[FORMS], recv_many[FORMS];
} payload_kind;
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
PyObject *call_tell(Endpoint *ep, int side, PyObject *result);
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
