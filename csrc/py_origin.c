/* py_origin.c: where a coroutine was made, as CPython's own remember it. */
#include "py_origin.h"

#include <frameobject.h>

PyObject *origin_here(int depth)
{
    PyFrameObject *frame = PyEval_GetFrame();
    PyObject *list = PyList_New(0);
    Py_XINCREF(frame);
    while (frame != NULL && list != NULL && PyList_GET_SIZE(list) < depth) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *place = Py_BuildValue("(OiO)", code->co_filename, PyFrame_GetLineNumber(frame), code->co_name);
        if (place == NULL || PyList_Append(list, place) < 0)
            Py_CLEAR(list);
        Py_XDECREF(place);
        Py_DECREF(code);
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    PyObject *origin = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return origin;
}

int origin_depth(core_state *st)
{
#if PY_VERSION_HEX >= 0x030D0000
    (void)st;
    return PyThreadState_GetUnchecked()->coroutine_origin_tracking_depth;
#else
    return (st->tstate != NULL ? *st->tstate : PyThreadState_Get())->coroutine_origin_tracking_depth;
#endif
}
