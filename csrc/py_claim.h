/* py_claim.h: claims, as the endpoints of channels of bytes hand them out (py_log.c). */
#ifndef NC_PY_CLAIM_H
#define NC_PY_CLAIM_H

#include "py_types.h"

typedef struct Claim Claim;

/* Of a read claim all are release; quietly: abort it without an exception, if that can be. */
enum { FINISH_ABORT, FINISH_COMMIT, FINISH_QUIETLY };
typedef enum {
    CLAIM_KEPT,  /* nothing changed: ClaimReleased or BufferError is set, unless quietly */
    CLAIM_ENDED, /* as asked for */
    CLAIM_LOST,  /* it was to be sent, and nobody was there: aborted, and ClaimDisconnected is set */
} claim_fate;

/* An open claim on a record, which has borrowed the endpoint from its start on; a new reference.  Holding the endpoint.
 *
 * In two steps, for the first may begin a collection, and with it any Python code: which may use the endpoint, take the
 * message that was just looked at, close it.  A claim that is not started has ended; drop it, or start it with what
 * was found since, which runs nothing.  NULL with an exception set. */
Claim *claim_make(Endpoint *ep);
PyObject *claim_start(Claim *claim, const nc_record *record);
/* The same where it runs nothing; else NULL, without an exception. */
Claim *claim_spare(Endpoint *ep);
bool claim_is_open(Claim *claim);
/* End a claim: commit its first n bytes, abort or release it.  Holding its endpoint, and another reference to that;
 * whoever ends it has it let go then. */
claim_fate claim_finish_held(Endpoint *ep, Claim *claim, int how, uint64_t n, nc_box **kicks);
/* It has ended: let go of the endpoint.  May close that, and run Python code.  May be called by who holds the endpoint,
 * which others may use meanwhile, as free-threaded builds leave an outer critical section to wait for an inner one. */
void claim_let_go(Claim *claim);
/* Its iteration was left: end it, now or when its last view goes.  Runs Python code; keeps the current exception. */
void claim_leave_behind(Claim *claim);
/* rx.release(), tx.abort(): end the claim that is open, whoever holds it. */
PyObject *endpoint_end_claim(PyObject *self, PyObject *);
/* The view for a `with` block, a new reference, or NULL with an exception set. */
PyObject *claim_enter(PyObject *self, PyObject *);
/* Leaving the block normally commits or releases, by an exception aborts or releases; what the block ended itself is
 * left alone.  False with an exception set. */
bool claim_leave(Claim *claim, bool failed);

/* May a call on the endpoint begin: is it not lent?  False with BusyError set. */
bool endpoint_idle(Endpoint *ep);
/* Is the endpoint lent, to a claim or to a native end?  Holding it. */
bool claim_lent(Endpoint *ep);
/* Then: STEP_BUSY for who is patient and may wait for it, else STEP_ERROR with BusyError set. */
step claim_busy(Endpoint *ep, bool patient);

/* May a message have n bytes?  False with ZeroLengthClaim or ClaimTooLarge set. */
bool claim_check_size(Chan *c, uint64_t n);
/* A size to claim, 0 with an exception set. */
Py_ssize_t claim_parse_size(Chan *c, PyObject *arg);

/* What iterates over claims: py_claim_await.c. */
typedef struct ClaimIterator {
    PyObject_HEAD
    Endpoint *ep;                 /* strong, NULL once it has come to its end; in the iterator's critical section */
    Claim *last;                  /* strong; in the endpoint's critical section */
} ClaimIterator;

void claim_free_spares(core_state *st);

#endif
