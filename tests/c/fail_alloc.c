/* fail_alloc.c: lets the memory allocations of one thread of a Python process fail, each in turn.
 *
 * arm(n) makes the n-th allocation from now on fail, n = 0 the first, of whatever domain; with arm(n, forever=True)
 * all that follow fail as well.  disarm() ends it and returns how many allocations failed.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

static const PyMemAllocatorDomain domains[] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
enum { DOMAINS = 3 };

static PyMemAllocatorEx real[DOMAINS];
static _Atomic unsigned long victim; /* the thread whose allocations fail; 0: nobody's */
static long before, failed;          /* how many still succeed; how many did not.  The victim's */
static bool forever;

static bool fails(void)
{
    if (atomic_load_explicit(&victim, memory_order_relaxed) != PyThread_get_thread_ident())
        return false;
    if (before > 0) {
        before--;
        return false;
    }
    if (failed > 0 && !forever)
        return false;
    failed++;
    return true;
}

static void *hook_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    return fails() ? NULL : a->malloc(a->ctx, size);
}

static void *hook_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    return fails() ? NULL : a->calloc(a->ctx, count, size);
}

static void *hook_realloc(void *ctx, void *old, size_t size)
{
    PyMemAllocatorEx *a = ctx;
    return fails() ? NULL : a->realloc(a->ctx, old, size);
}

static void hook_free(void *ctx, void *memory)
{
    PyMemAllocatorEx *a = ctx;
    a->free(a->ctx, memory);
}

static PyObject *arm(PyObject *Py_UNUSED(module), PyObject *args)
{
    long n;
    int all = 0;
    if (!PyArg_ParseTuple(args, "l|p", &n, &all))
        return NULL;
    before = n;
    failed = 0;
    forever = all != 0;
    atomic_store_explicit(&victim, PyThread_get_thread_ident(), memory_order_relaxed);
    Py_RETURN_NONE;
}

static PyObject *disarm(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    atomic_store_explicit(&victim, 0, memory_order_relaxed);
    return PyLong_FromLong(failed);
}

static int install(PyObject *Py_UNUSED(module))
{
    for (int i = 0; i < DOMAINS; i++) {
        PyMem_GetAllocator(domains[i], &real[i]);
        PyMemAllocatorEx hook = {&real[i], hook_malloc, hook_calloc, hook_realloc, hook_free};
        PyMem_SetAllocator(domains[i], &hook);
    }
    return 0;
}

static PyMethodDef methods[] = {
    {"arm", arm, METH_VARARGS, NULL},
    {"disarm", disarm, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)install},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fail_alloc",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_fail_alloc(void) { return PyModuleDef_Init(&definition); }
