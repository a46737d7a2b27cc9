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
    struct os_reach_fd *lanes; /* what other processes ring by, a reference; or NULL, as between threads */
    int epoll;         /* then this is what loops wait on: of fds[0] and of `lanes`; else -1 */
    bool hears;        /* `lanes` is in it: while armed; this and the next in the notifier's critical section */
    bool epoll_lost;   /* it is not ours any more */
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
