/* py_inside.c: what is read of CPython's insides, apart from all else because of the headers that it takes.  Each has a
 * public way beside it, and is used only where a check at import shows that both say the same. */
#include <patchlevel.h>
#if PY_VERSION_HEX < 0x030C0000
#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_runtime.h>
#else
#include <Python.h>
#endif

PyThreadState *const *inside_tstate(void);

/* Where the current thread state stands while the GIL is held; NULL where that is not known.  Asked for with the GIL.
 */
PyThreadState *const *inside_tstate(void)
{
#if PY_VERSION_HEX < 0x030C0000
    PyThreadState *const *where = (PyThreadState *const *)(void *)&_PyRuntime.gilstate.tstate_current._value;
    return *where == PyThreadState_Get() ? where : NULL;
#else
    return NULL;
#endif
}
