/* py_call.h: a call is one send or receive, however it waits; see py_call.c, and py_types.h for the way of a message.
 */
#ifndef PY_CALL_H
#define PY_CALL_H

#include "py_types.h"

/* The ops of a batch, by form. */
#define BATCH_OPS(its_name, its_class, its_look, its_timed_out) \
    {                                                           \
        {.name = its_name,                                      \
         .qualname = its_class "." its_name,                    \
         .look = its_look,                                      \
         .timed_out = its_timed_out,                            \
         .paced = true},                                        \
        {.name = its_name "_blocking",                          \
         .qualname = its_class "." its_name "_blocking",        \
         .look = its_look,                                      \
         .timed_out = its_timed_out},                           \
    }

/* Something was published or given back the plain way, and the flag of `side` is up: call those who wait.  Returns
 * `result`.  Runs Python code. */
PyObject *call_notify(Endpoint *ep, int side, PyObject *result);
/* Raise errors[which] with a list of the values of a batch that were not sent, as they were passed. */
void call_raise_unsent(Call *call, int which, const char *why);
void call_send_many_timed_out(Call *call);
/* Everything that was taken from call->source is sent: take up to `most` more, as many as there is room for, but at
 * least one.  1: there is something to send; 0: the source has ended; -1 with an exception set.  Runs Python code. */
int call_refill(Call *call, Py_ssize_t most);
enum { CALL_BATCH = 64 }; /* the most to take at once, where no event loop has to run meanwhile */
/* Drop all that the call holds but its endpoint. */
void call_clear(Call *call);
/* May its source give more, or has the source failed? */
static inline bool call_has_more(const Call *call) { return call->source != NULL || call->failure != NULL; }
/* The call has failed with the current exception: its context becomes the exception that ended the source. */
void call_chain_failure(Call *call);
/* Raise the end of the stream, unless another exception is set. */
void call_raise_end(Call *call);
void call_recv_timed_out(Call *call);
/* The share of a waiter for a batch of n items.  Of bytes it is 1: the waiter waits for the first message, and its look
 * then says for how much more. */
uint64_t call_share(Chan *c, uint64_t n);
/* The member of a batch for a value, a new reference, or NULL with an exception set.  Steals the value. */
PyObject *call_member(Chan *c, PyObject *passed);

#endif
