/* py_listen.c: channels of bytes that other processes find by a path: Listener, and connecting.  Touches py_reach.h and
 * os_listen.h.
 *
 * A listener is a socket that the epoll of its receiver hears.  So whoever waits on the receiver, or looks at it, lets
 * senders in, and nobody else does.  What a sender gets for its connection is a door as any other.
 */
#include "py_listen.h"
#include "py_chan.h"
#include "py_doc.h"
#include "py_endpoint.h"
#include "py_reach.h"
#include "py_shared.h"

typedef struct Listener {
    PyObject_HEAD
    Endpoint *receiver; /* strong */
    PyObject *path; /* as it was passed: str or bytes; strong */
} Listener;

static const char *name_of(bool many) { return many ? "mpsc_bytes" : "spsc_bytes"; }

#if REACHES

/* ---- errors --------------------------------------------------------------------------------------------- */

/* Raise OSError(number, text, path), of the class that the number stands for; NULL.  Takes `text` over, which may be
 * NULL with an exception set. */
static PyObject *raise_about(int number, PyObject *text, PyObject *path)
{
    PyObject *args = text != NULL ? Py_BuildValue("(iNO)", number, text, path) : NULL;
    if (args != NULL)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return NULL;
}

static PyObject *raise_text(int number, const char *text, PyObject *path)
{
    return raise_about(number, PyUnicode_FromString(text), path);
}

static PyObject *raise_too_long(PyObject *path, PyObject *encoded)
{
    return raise_about(ENAMETOOLONG,
                       PyUnicode_FromFormat("this path has %zd bytes, and a socket's has %d at most: use a shorter "
                                            "one, or one from the current folder",
                                            PyBytes_GET_SIZE(encoded), (int)OS_PATH_MOST),
                       path);
}

static PyObject *raise_strangers(PyObject *path, const char *what, uid_t theirs)
{
    return raise_about(EPERM,
                       PyUnicode_FromFormat("%s user %lu, and this process is of user %lu: both have to be of one user",
                                            what, (unsigned long)theirs, (unsigned long)geteuid()),
                       path);
}

/* ---- arguments ------------------------------------------------------------------------------------------- */

typedef struct place {
    PyObject *path; /* str or bytes; strong */
    PyObject *encoded; /* bytes; strong */
    bool many;
} place;

static void place_clear(place *at)
{
    Py_CLEAR(at->path);
    Py_CLEAR(at->encoded);
}

/* False with an exception set, and then there is nothing to clear. */
static bool parse_place(place *at, const char *name, PyObject *const *args, Py_ssize_t n)
{
    long kind = n == 3 ? PyLong_AsLong(args[0]) : -1;
    *at = (place){.many = kind == MPSC_BYTES};
    if (kind != SPSC_BYTES && kind != MPSC_BYTES) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "%s takes a kind, a path and one more argument", name);
        return false;
    }
    at->path = PyOS_FSPath(args[1]);
    if (at->path != NULL && PyUnicode_FSConverter(at->path, &at->encoded))
        return true;
    place_clear(at);
    return false;
}

/* ---- the receiver: opening --------------------------------------------------------------------------------- */

static PyObject *raise_unbound(const place *at)
{
    switch (errno) {
    case ENAMETOOLONG:
        return raise_too_long(at->path, at->encoded);
    case EEXIST:
        return raise_text(errno,
                          "there is a file that is no socket, and it was left alone: remove it, or use another path",
                          at->path);
    case EADDRINUSE:
        return raise_text(errno, "somebody listens there already: close that listener, or use another path", at->path);
    default:
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, at->path);
    }
}

/* A socket that listens there; false with an exception set. */
static bool bind_there(os_listening *os, const place *at)
{
    os_result result = os_listen_open(os, PyBytes_AS_STRING(at->encoded));
    if (result != OS_OK) {
        raise_unbound(at);
        return false;
    }
    do {
        Py_BEGIN_ALLOW_THREADS;
        result = os_listen_lock(os);
        Py_END_ALLOW_THREADS;
        if (result != OS_OK && errno == EINTR && PyErr_CheckSignals() < 0) {
            os_listen_forget(os);
            return false;
        }
    } while (result != OS_OK && errno == EINTR);
    if (result == OS_OK)
        result = os_listen_bind(os);
    if (result == OS_OK)
        return true;
    raise_unbound(at);
    os_listen_forget(os);
    return false;
}

static PyObject *open_there(PyObject *module, const place *at, uint64_t capacity)
{
    core_state *st = PyModule_GetState(module);
    os_listening os;
    Listener *l = (Listener *)core_new(st->listener_type);
    if (l == NULL)
        return NULL;
    l->path = Py_NewRef(at->path);
    l->receiver = (Endpoint *)shared_open_receiver(module, at->many ? MPSC_BYTES : SPSC_BYTES, capacity);
    if (l->receiver == NULL || !bind_there(&os, at)) {
        Py_DECREF(l);
        return NULL;
    }
    if (os_reach_listen(reach_of(l->receiver->chan->block), &os, !at->many) == OS_OK)
        return (PyObject *)l;
    PyErr_SetFromErrno(PyExc_OSError);
    os_listen_close(&os);
    Py_DECREF(l);
    return NULL;
}

PyObject *listen_open(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    place at;
    if (!parse_place(&at, "listen_at()", args, n))
        return NULL;
    uint64_t capacity = shared_parse_capacity(args[2]);
    PyObject *listener = capacity != 0 ? open_there(module, &at, capacity) : NULL;
    place_clear(&at);
    return listener;
}

static os_reach *listener_reach(Listener *l) { return reach_of(l->receiver->chan->block); }

static bool is_listening(Listener *l)
{
    os_reach *r = listener_reach(l);
    nc_lanes_enter(&r->lanes);
    bool listens = r->listening != NULL && !r->forked;
    nc_lanes_exit(&r->lanes);
    return listens;
}

/* Whoever waits for the receiver sees the end now, if nobody is left.  Runs Python code. */
static void stop_listening(Listener *l)
{
    os_reach *r = listener_reach(l);
    nc_lanes_enter(&r->lanes);
    os_reach_stop_listening(r);
    nc_lanes_exit(&r->lanes);
    reach_hear(l->receiver->chan);
}

#else

/* There is the type, and never an object of it. */
static bool is_listening(Listener *Py_UNUSED(l)) { return false; }
static void stop_listening(Listener *Py_UNUSED(l)) {}

#endif

/* ---- the receiver: Listener -------------------------------------------------------------------------------- */

static PyObject *listener_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    stop_listening((Listener *)self);
    Py_RETURN_NONE;
}

static PyObject *listener_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return listener_close(self, NULL);
}

static PyObject *listener_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

static PyObject *listener_get_receiver(PyObject *self, void *Py_UNUSED(ignored))
{
    return Py_NewRef(((Listener *)self)->receiver);
}

static PyObject *listener_get_path(PyObject *self, void *Py_UNUSED(ignored))
{
    return Py_NewRef(((Listener *)self)->path);
}

static PyObject *listener_is_closed(PyObject *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!is_listening((Listener *)self));
}

static PyObject *listener_repr(PyObject *self)
{
    Listener *l = (Listener *)self;
    return PyUnicode_FromFormat("<%s of %s, %s %R, at %p>", Py_TYPE(self)->tp_name,
                                name_of(l->receiver->chan->kind == MPSC_BYTES),
                                is_listening(l) ? "listens at" : "closed, was at", l->path, self);
}

static PyObject *listener_reduce(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%.200s': pass its path on, which other processes connect to",
                 Py_TYPE(self)->tp_name);
    return NULL;
}

static int listener_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Listener *)self)->receiver);
    return 0;
}

static void listener_dealloc(PyObject *self)
{
    Listener *l = (Listener *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (l->receiver != NULL)
        stop_listening(l);
    Py_XDECREF(l->receiver);
    Py_XDECREF(l->path);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef listener_methods[] = {
    {"close", listener_close, METH_NOARGS, listener_close_doc},
    {"__enter__", listener_enter, METH_NOARGS, enter_doc},
    {"__exit__", FAST(listener_exit), METH_FASTCALL, exit_doc},
    {"__reduce_ex__", listener_reduce, METH_O, reduce_doc},
    ENDPOINT_GENERIC,
    END_OF_METHODS,
};

static PyGetSetDef listener_getset[] = {
    {"receiver", listener_get_receiver, NULL, DOC_LISTENER_RECEIVER, NULL},
    {"path", listener_get_path, NULL, DOC_LISTENER_PATH, NULL},
    {"is_closed", listener_is_closed, NULL, DOC_LISTENER_IS_CLOSED, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot listener_slots[] = {
    {Py_tp_dealloc, listener_dealloc},
    {Py_tp_traverse, listener_traverse},
    {Py_tp_repr, listener_repr},
    {Py_tp_methods, listener_methods},
    {Py_tp_getset, listener_getset},
    {Py_tp_doc, (void *)listener_doc},
    {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "nexus_channels.Listener",
    .basicsize = sizeof(Listener),
    .flags = CORE_TYPE_FLAGS,
    .slots = listener_slots,
};

int listen_add_types(PyObject *module, core_state *st)
{
    st->listener_type = core_add_type(module, &listener_spec, "Listener");
    return st->listener_type != NULL ? 0 : -1;
}

/* ---- the sender -------------------------------------------------------------------------------------------- */

#if REACHES

enum { NO_END = -1 };

/* Nanoseconds that are left; 0: none; NO_END. */
static int64_t time_left(int64_t deadline)
{
    int64_t left = deadline - now_ns();
    return deadline < 0 ? NO_END : left > 0 ? left : 0;
}

static PyObject *raise_timeout(const place *at, double timeout)
{
    PyObject *seconds = PyFloat_FromDouble(timeout);
    PyObject *text = seconds == NULL
                         ? NULL
                         : PyUnicode_FromFormat("the receiver did not answer within %R seconds: a sender comes in when "
                                                "the receiver waits for a message, or looks for one",
                                                seconds);
    Py_XDECREF(seconds);
    return raise_about(ETIMEDOUT, text, at->path);
}

/* Why it cannot be connected: errno. */
static PyObject *raise_unconnected(const place *at, double timeout)
{
    struct stat file;
    int why = errno;
    switch (why) {
    case EAGAIN:
        return raise_timeout(at, timeout);
    case ENOENT:
        return raise_text(why, "nobody listens there: there is no such file", at->path);
    case ECONNREFUSED:
        if (lstat(PyBytes_AS_STRING(at->encoded), &file) == 0 && !S_ISSOCK(file.st_mode) && !S_ISLNK(file.st_mode))
            return raise_text(why, "nobody listens there: this file is no socket", at->path);
        return raise_text(why, "nobody listens there any more: whoever made this socket has ended without closing it",
                          at->path);
    case EPROTOTYPE:
        return raise_text(why, "whoever listens there is no receiver of nexus_channels", at->path);
    case EACCES:
        if (stat(PyBytes_AS_STRING(at->encoded), &file) == 0 && file.st_uid != geteuid())
            return raise_strangers(at->path, "this socket is of", file.st_uid);
        errno = why;
        break;
    }
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, at->path);
}

/* Connect; false with an exception set. */
static bool call_there(os_reach *r, const place *at, double timeout, int64_t deadline)
{
    struct sockaddr_un to;
    if (os_listen_address(&to, PyBytes_AS_STRING(at->encoded)) != OS_OK) {
        raise_too_long(at->path, at->encoded);
        return false;
    }
    if (to.sun_path[0] == '\0') { /* no path; as an address it would be none either */
        raise_text(ENOENT, "nobody listens there: the path is empty", at->path);
        return false;
    }
    os_result result = OS_SYSTEM;
    if (!os_reach_open_door(r)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    do {
        int64_t left = time_left(deadline);
        Py_BEGIN_ALLOW_THREADS;
        result = os_listen_call(r->door, &to, left < 0 ? NO_END : left / 1000);
        Py_END_ALLOW_THREADS;
        if (result == OS_OK)
            return true;
    } while (errno == EINTR && PyErr_CheckSignals() == 0);
    if (!PyErr_Occurred())
        raise_unconnected(at, timeout);
    return false;
}

/* Wait until there is something to read.  False with an exception set. */
static bool wait_there(int fd, const place *at, double timeout, int64_t deadline)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left = time_left(deadline);
        struct timespec time = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        int n;
        Py_BEGIN_ALLOW_THREADS;
        n = ppoll(&ready, 1, left < 0 ? NULL : &time, NULL);
        Py_END_ALLOW_THREADS;
        if (n > 0)
            return true;
        if (n == 0) {
            raise_timeout(at, timeout);
            return false;
        }
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        }
        if (PyErr_CheckSignals() < 0)
            return false;
    }
}

/* What was read is no greeting to go by. */
static PyObject *raise_ungreeted(const place *at, os_result result, const os_greeting *greeting)
{
    if (result == OS_CRASHED)
        return raise_text(ECONNREFUSED, "the receiver has closed its listener, or ended, before it let this sender in",
                          at->path);
    if (result == OS_WRONG_VERSION)
        return raise_about(EPROTO,
                           PyUnicode_FromFormat("the receiver speaks version %u of this protocol, and this process "
                                                "version %u: both need the same nexus_channels",
                                                (unsigned)greeting->version, (unsigned)OS_GREETING_VERSION),
                           at->path);
    if (result == OS_SYSTEM)
        return PyErr_SetFromErrno(PyExc_OSError);
    return raise_text(EPROTO, "whoever listens there is no receiver of nexus_channels", at->path);
}

/* Is this sender let in, and is the channel of its kind?  False with an exception set. */
static bool check_greeting(const place *at, const os_greeting *greeting)
{
    if (greeting->verdict == OS_FOREIGN)
        raise_strangers(at->path, "the receiver is now of", greeting->user);
    else if (greeting->many != at->many)
        PyErr_Format(PyExc_ValueError, "%R leads to a channel of %s: use %s.connect(), not %s.connect()", at->path,
                     name_of(greeting->many), name_of(greeting->many), name_of(at->many));
    else if (greeting->verdict == OS_TAKEN)
        raise_text(ECONNREFUSED,
                   "this spsc_bytes channel has a sender already, and takes the next one when that has closed; use "
                   "mpsc_bytes for many",
                   at->path);
    else
        return true;
    return false;
}

/* Read who listens, and what.  False with an exception set. */
static bool greet_there(int fd, const place *at, double timeout, int64_t deadline, os_greeting *greeting)
{
    uid_t user;
    os_bell_refuse_descriptors(fd);
    if (os_listen_user(fd, &user) != OS_OK) {
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    if (user != geteuid()) {
        raise_strangers(at->path, "whoever listens there is of", user);
        return false;
    }
    if (!wait_there(fd, at, timeout, deadline))
        return false;
    os_result result = os_listen_heed(fd, greeting);
    if (result == OS_OK)
        return check_greeting(at, greeting);
    raise_ungreeted(at, result, greeting);
    return false;
}

static PyObject *connect_there(PyObject *module, const place *at, double timeout)
{
    os_greeting greeting;
    int64_t deadline = timeout < 0 || timeout > 1e9 ? NO_END : now_ns() + (int64_t)(timeout * 1e9);
    os_reach *r = reach_knock();
    PyObject *tx = NULL;
    if (r == NULL)
        return NULL;
    if (call_there(r, at, timeout, deadline) && greet_there(r->door, at, timeout, deadline, &greeting))
        tx = shared_open_sender(module, at->many ? MPSC_BYTES : SPSC_BYTES, greeting.capacity, greeting.name, &r->door);
    reach_knocked(r);
    return tx;
}

PyObject *listen_connect(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    place at;
    double timeout;
    if (!parse_place(&at, "connect_to()", args, n))
        return NULL;
    PyObject *tx = core_parse_timeout(args[2], &timeout) ? connect_there(module, &at, timeout) : NULL;
    place_clear(&at);
    return tx;
}

#else

PyObject *listen_open(PyObject *module, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return shared_open(module, NULL, 0); /* which says that it is not for this system */
}

PyObject *listen_connect(PyObject *module, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n))
{
    return shared_open(module, NULL, 0);
}

#endif
