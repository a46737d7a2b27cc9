/* py_inside_311.c: what py_inside.c reads of CPython 3.11, apart from all else because of the headers that it takes. */
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030C0000
#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_runtime.h>

PyThreadState *const *inside_311_tstate(void);

PyThreadState *const *inside_311_tstate(void)
{
    return (PyThreadState *const *)(void *)&_PyRuntime.gilstate.tstate_current._value;
}
#else
typedef int inside_311_is_empty; /* a file must declare something */
#endif
