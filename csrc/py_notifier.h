/* py_notifier.h: what rx.notifier() and tx.notifier() return; see py_notifier.c. */
#ifndef PY_NOTIFIER_H
#define PY_NOTIFIER_H

#include "py_wake.h"

/* A notifier's place in line, and how it is reached there: an observer whose kick is a write to a descriptor. */
typedef struct notifier_box {
    wake_box base;
    nc_waiter waiter;
    int fds[2];        /* to read from, to write to; an eventfd is both */
    _Atomic bool lost; /* the descriptor is not ours any more; relaxed: set once, a hint for the next call */
} notifier_box;

typedef struct Notifier {
    PyObject_HEAD
    PyObject *weakrefs;
    Chan *chan;         /* strong: it has the line */
    PyObject *endpoint; /* a weak reference: a notifier does not keep its endpoint open */
    notifier_box *box;  /* a reference, NULL once closed; in the notifier's critical section */
    uint8_t side;
} Notifier;

#endif
