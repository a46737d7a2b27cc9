/* py_logging.c: the message that a log record becomes, for nexus_channels/logging.py, where its layout is described.
 * In C because each logging call makes one, which in Python takes longer than to send it.  Touches nothing of channels.
 */
#include "py_logging.h"

enum { PLACES, ROOM, CREATED, MSECS, TEXT, TASK, KEY };               /* the arguments; the rest of them is the key */
enum { CREATED_AT = 0, MSECS_AT = 8, PLACE_AT = 12, TASK_AT = 4, HEAD = 18 };    /* in a message; in its place */
enum { LONGEST_NAME = 256 };                                          /* bytes of a task's name, as in logging.py */

/* A part of the message: what it has in UTF-8. */
typedef struct Part {
    const char *utf8;
    Py_ssize_t size;
} Part;

/* False, with an exception or without one, for what is no str, not to be written in UTF-8, or too long. */
static bool part_of(PyObject *text, Py_ssize_t room, Part *part)
{
    part->utf8 = PyUnicode_CheckExact(text) ? PyUnicode_AsUTF8AndSize(text, &part->size) : NULL;
    return part->utf8 != NULL && part->size <= room;
}

static bool put_time(char *message, PyObject *created, PyObject *msecs)
{
    return PyFloat_CheckExact(created) && PyFloat_CheckExact(msecs) &&
           PyFloat_Pack8(PyFloat_AS_DOUBLE(created), message + CREATED_AT, 1) == 0 &&
           PyFloat_Pack4(PyFloat_AS_DOUBLE(msecs), message + MSECS_AT, 1) == 0;
}

/* The length of the task's name, in characters, in the head that is copied. */
static void put_task_length(char *head, Py_ssize_t length)
{
    head[TASK_AT] = (char)(length & 0xFF);
    head[TASK_AT + 1] = (char)(length >> 8);
}

/* The message, or NULL, with an exception or without one: for a text that is too long, or a record of no usual kind. */
static PyObject *message_at(PyObject *place, PyObject *const *args)
{
    Part text, task = {"", 0};
    bool has_task = args[TASK] != Py_None;
    if (!part_of(args[TEXT], PyLong_AsSsize_t(args[ROOM]), &text) ||
        (has_task && !part_of(args[TASK], LONGEST_NAME, &task)))
        return NULL;
    Py_ssize_t place_size = PyBytes_GET_SIZE(place);
    PyObject *message = PyBytes_FromStringAndSize(NULL, PLACE_AT + place_size + task.size + text.size);
    if (message == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(message), *behind = to + PLACE_AT + place_size;
    memcpy(to + PLACE_AT, PyBytes_AS_STRING(place), (size_t)place_size);
    if (has_task) {
        put_task_length(to + PLACE_AT, PyUnicode_GET_LENGTH(args[TASK]));
        memcpy(behind, task.utf8, (size_t)task.size);
    }
    memcpy(behind + task.size, text.utf8, (size_t)text.size);
    if (!put_time(to, args[CREATED], args[MSECS]))
        Py_CLEAR(message);
    return message;
}

PyObject *logging_message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n)
{
    if (n < KEY || !PyDict_CheckExact(args[PLACES]) || !PyLong_Check(args[ROOM])) {
        PyErr_SetString(PyExc_TypeError, "log_message() takes a dict, an int, two times, a text, a task, and a key");
        return NULL;
    }
    PyObject *key = PyTuple_New(n - KEY);
    if (key == NULL)
        return NULL;
    for (Py_ssize_t i = KEY; i < n; i++)
        PyTuple_SET_ITEM(key, i - KEY, Py_NewRef(args[i]));
    PyObject *place = core_dict_find(args[PLACES], key);
    PyObject *message =
        place != NULL && PyBytes_CheckExact(place) && PyBytes_GET_SIZE(place) >= HEAD ? message_at(place, args) : NULL;
    Py_XDECREF(place);
    if (message == NULL) {
        core_drop_error();
        return key;
    }
    Py_DECREF(key);
    return message;
}
