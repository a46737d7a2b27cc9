/* py_claim.h: claims, as the endpoints of channels of bytes hand them out (py_log.c). */
#ifndef NC_PY_CLAIM_H
#define NC_PY_CLAIM_H

#include "py_types.h"

typedef struct Claim Claim;

/* For a read claim all of these mean release.  Quietly: abort it if that is possible, without an exception. */
enum { FINISH_ABORT, FINISH_COMMIT, FINISH_QUIETLY };
typedef enum {
    CLAIM_KEPT,  /* nothing changed; ClaimReleased or BufferError is set, unless quietly */
    CLAIM_ENDED, /* as asked for */
    CLAIM_LOST,  /* it was to be sent, but the receiver is gone: aborted, and ClaimDisconnected is set */
} claim_fate;

/* An open claim on a record, a new reference.  From its start on it has borrowed the endpoint.  Holding the endpoint.
 *
 * There are two steps, as claim_make() may begin a collection, and so run any Python code.  That code may use the
 * endpoint, close it, or take the message that was just looked at.  So make the claim first, then look, then start the
 * claim with what was found; claim_start() runs no Python code.  A claim that was not started counts as ended, and can
 * be dropped.  NULL with an exception set. */
Claim *claim_make(Endpoint *ep);
PyObject *claim_start(Claim *claim, const nc_record *record);
/* As claim_make() where that runs no Python code; else NULL, without an exception. */
Claim *claim_spare(Endpoint *ep);
bool claim_is_open(Claim *claim);
/* End a claim: commit its first n bytes, abort or release it.  The caller holds the endpoint, and a reference to it
 * besides the claim's.  If it has ended, the caller has the claim let go of the endpoint.  Runs Python code if a closed
 * sender leaves with it. */
claim_fate claim_finish_held(Endpoint *ep, Claim *claim, int how, uint64_t n, nc_box **kicks);
/* The claim has ended: let go of the endpoint.  This may close the endpoint, and run Python code.  It may be called
 * while holding the endpoint.  But others may use the endpoint meanwhile: a free-threaded build leaves an outer
 * critical section while it waits for an inner one. */
void claim_let_go(Claim *claim);
/* The iteration over the claim was left: end it, now or with its last view.  Runs Python code; keeps the current
 * exception. */
void claim_leave_behind(Claim *claim);
/* rx.release(), tx.abort(): end the open claim, whoever has it. */
PyObject *endpoint_end_claim(PyObject *self, PyObject *);
/* The view for a `with` block, a new reference, or NULL with an exception set. */
PyObject *claim_enter(PyObject *self, PyObject *);
/* The `with` block is left: normally, commit or release; by an exception, abort or release.  A claim that the block has
 * ended itself is left alone.  False with an exception set. */
bool claim_leave(Claim *claim, bool failed);

/* May a call on the endpoint begin: is it not lent?  False with BusyError set. */
bool endpoint_idle(Endpoint *ep);
/* Is the endpoint lent to a claim or to a native end?  Holding the endpoint. */
bool claim_lent(Endpoint *ep);
/* If so: STEP_BUSY for a call that is `patient` and may wait for it, else STEP_ERROR with BusyError set. */
step claim_busy(Endpoint *ep, bool patient);

/* May a message have n bytes?  False with ZeroLengthClaim or ClaimTooLarge set. */
bool claim_check_size(Chan *c, uint64_t n);
/* A size to claim, 0 with an exception set. */
Py_ssize_t claim_parse_size(Chan *c, PyObject *arg);

/* The iterator over claims, in py_claim_await.c. */
typedef struct ClaimIterator {
    PyObject_HEAD
    Endpoint *ep;                 /* strong, NULL once the iterator has ended; in the iterator's critical section */
    Claim *last;                  /* strong; in the endpoint's critical section */
} ClaimIterator;

void claim_free_spares(core_state *st);

#endif
