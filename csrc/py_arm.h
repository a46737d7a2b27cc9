/* py_arm.h: the arms of a select: one call each, with its place in line; see py_arm.c. */
#ifndef PY_ARM_H
#define PY_ARM_H

#include "py_types.h"

typedef struct arm {
    Call call;                    /* one send, receive or claim; .ep and .value are strong */
    PyObject *giving;             /* the Sending or Claiming that was passed; strong.  NULL: .call.ep was passed */
    nc_waiter *waiter;            /* its place in line: a sleeper's, or a blocked thread's; NULL: it has none yet */
    bool busy;                    /* the last look found its turn, and its endpoint lent to a claim */
} arm;

/* A place in the order in which the arms are looked at. */
typedef struct arm_turn {
    uint64_t chosen;              /* the endpoint's, when the order was made */
    Py_ssize_t index;
} arm_turn;

/* Make an arm, which is as arm_clear() leaves it, of what was passed; false with TypeError or BusyError set. */
bool arm_make(core_state *st, arm *a, PyObject *passed);
/* For memory that was not an arm yet. */
static inline void arm_init(arm *a) { *a = (arm){.call = {.n = 1, .least = 1, .share = 1}}; }
void arm_clear(arm *a);
/* What was passed; borrowed. */
static inline PyObject *arm_passed(const arm *a) { return a->giving != NULL ? a->giving : (PyObject *)a->call.ep; }
/* The current exception came of this arm: it says so by .index and .arm. */
void arm_blame(core_state *st, PyObject *passed, Py_ssize_t index);
/* Is an endpoint there twice?  If so, ValueError is set. */
bool arms_repeat(const arm *arms, Py_ssize_t n);
/* The index as an int, a new reference, or NULL with an exception set. */
static inline PyObject *arm_index(core_state *st, Py_ssize_t i)
{
    return i < PyTuple_GET_SIZE(st->first_indices) ? Py_NewRef(PyTuple_GET_ITEM(st->first_indices, i))
                                                   : PyLong_FromSsize_t(i);
}
/* Is an arm of a channel that belongs to another thread?  Its index, with WrongThreadError set; else -1. */
Py_ssize_t arms_off_thread(const arm *arms, Py_ssize_t n);
/* The order in which to look: the arm that was chosen least recently first, or `biased`, as they were passed. */
void arms_order(arm *arms, Py_ssize_t n, bool biased, arm_turn *turns);
/* Arm `index` was chosen: it is the last in the next order. */
void arms_chose_among(arm *arms, Py_ssize_t n, Py_ssize_t index);
static inline void arms_chose(arm *arms, Py_ssize_t n, Py_ssize_t index)
{
    if (n > 1) /* else there is no order; and a select of others asks only whether this was earlier than they were */
        arms_chose_among(arms, n, index);
}
/* Can the arm surely not go on now?  A glance that holds nothing: if not sure, false. */
bool arm_surely_waits(const arm *a);

/* The keyword arguments of a select, all of which are optional; `timeout` is NULL where there is none.  False with an
 * exception set. */
bool arms_parse_keywords(core_state *st, const char *name, PyObject *const *values, PyObject *kwnames, double *timeout,
                         bool *biased);

/* Methods of senders: sending(value), claiming(n). */
PyObject *endpoint_sending(PyObject *self, PyObject *value);
PyObject *endpoint_claiming(PyObject *self, PyObject *n);

#endif
