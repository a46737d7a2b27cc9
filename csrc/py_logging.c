/* py_logging.c: the message that a log record becomes, for nexus_channels/logging.py, where its layout is described.
 * In C because each logging call makes one, which in Python takes longer than to send it.  Touches nothing of channels.
 */
#include "py_logging.h"

enum { PLACES, ROOM, CREATED, MSECS, TEXT, KEY };        /* the arguments; what is left of them is the key */
enum { CREATED_AT = 0, MSECS_AT = 8, PLACE_AT = 12 };    /* in a message, little endian; behind the place, the text */

static bool put_time(char *message, PyObject *created, PyObject *msecs)
{
    return PyFloat_CheckExact(created) && PyFloat_CheckExact(msecs) &&
           PyFloat_Pack8(PyFloat_AS_DOUBLE(created), message + CREATED_AT, 1) == 0 &&
           PyFloat_Pack4(PyFloat_AS_DOUBLE(msecs), message + MSECS_AT, 1) == 0;
}

/* The message, or NULL, with an exception or without one: for a text that is too long, or a record of no usual kind. */
static PyObject *message_at(PyObject *place, PyObject *const *args)
{
    Py_ssize_t size, room = PyLong_AsSsize_t(args[ROOM]);
    const char *text = PyUnicode_CheckExact(args[TEXT]) ? PyUnicode_AsUTF8AndSize(args[TEXT], &size) : NULL;
    if (text == NULL || size > room)
        return NULL;
    Py_ssize_t place_size = PyBytes_GET_SIZE(place);
    PyObject *message = PyBytes_FromStringAndSize(NULL, PLACE_AT + place_size + size);
    if (message == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(message);
    memcpy(to + PLACE_AT, PyBytes_AS_STRING(place), (size_t)place_size);
    memcpy(to + PLACE_AT + place_size, text, (size_t)size);
    if (!put_time(to, args[CREATED], args[MSECS]))
        Py_CLEAR(message);
    return message;
}

PyObject *logging_message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n)
{
    if (n < KEY || !PyDict_CheckExact(args[PLACES]) || !PyLong_Check(args[ROOM])) {
        PyErr_SetString(PyExc_TypeError, "log_message() takes a dict, an int, two times, a text, and a key");
        return NULL;
    }
    PyObject *key = PyTuple_New(n - KEY);
    if (key == NULL)
        return NULL;
    for (Py_ssize_t i = KEY; i < n; i++)
        PyTuple_SET_ITEM(key, i - KEY, Py_NewRef(args[i]));
    PyObject *place = core_dict_find(args[PLACES], key);
    PyObject *message =
        place != NULL && PyBytes_CheckExact(place) && PyBytes_GET_SIZE(place) > 0 ? message_at(place, args) : NULL;
    Py_XDECREF(place);
    if (message == NULL) {
        core_drop_error();
        return key;
    }
    Py_DECREF(key);
    return message;
}
