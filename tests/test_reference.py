"""What help() shows: the examples of the docstrings run as printed, and every public callable has a signature."""

import doctest
import importlib
import importlib.util
import inspect

import pytest
from harness import has_wake_descriptors
from processes import needs_lanes

import nexus_channels

MODULES = ["local", "spsc", "mpsc", "spsc_bytes", "mpsc_bytes", "errors", "logging", "queue"]
if importlib.util.find_spec("anyio"):
    MODULES.append("anyio")
ENDPOINTS_AND_CLAIMS = {"Sender", "Receiver", "WriteClaim", "ReadClaim", "NativeSender", "NativeReceiver"}


def things():
    """{name: thing} of all that the modules export, the package's own names among them."""
    found = {}
    for module in (nexus_channels, *(importlib.import_module(f"nexus_channels.{name}") for name in MODULES)):
        found[module.__name__] = module
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    return found


THINGS = things()
CLASSES = {
    name: thing for name, thing in THINGS.items() if inspect.isclass(thing) and not issubclass(thing, BaseException)
}
METHODS = {
    f"{name}.{member}": getattr(cls, member)
    for name, cls in CLASSES.items()
    for member, value in vars(cls).items()
    if inspect.isroutine(value) and (not member.startswith("_") or inspect.ismethoddescriptor(value))
    if member not in ("__class_getitem__", "_dump", "__new__", "__reduce__")
}
FUNCTIONS = {name: thing for name, thing in THINGS.items() if callable(thing) and not inspect.isclass(thing)}


BY_DESCRIPTOR = {"nexus_channels.Notifier"}
BETWEEN_PROCESSES = {"Listener", "SubprocessTicket"}


def marks_of(name):
    between = name.rpartition(".")[2] in BETWEEN_PROCESSES
    return needs_lanes if between else has_wake_descriptors if name in BY_DESCRIPTOR else ()


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in THINGS])
def test_the_examples_of_a_docstring_run_as_printed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # else a program that one of them starts could find the sources here
    doc = inspect.getdoc(THINGS[name]) or ""
    test = doctest.DocTestParser().get_doctest(doc, {}, name, None, None)
    said = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("name", list(CLASSES))
def test_each_class_has_an_example(name):
    assert "\n>>> " in inspect.getdoc(CLASSES[name])


@pytest.mark.parametrize("name", list(METHODS | FUNCTIONS))
def test_the_signature_of_a_callable_can_be_read(name):
    parameters = inspect.signature((METHODS | FUNCTIONS)[name]).parameters
    assert all(not parameter.startswith("arg") for parameter in parameters)


def test_the_package_names_every_error():
    """They are named one by one there, for type checkers."""
    assert set(nexus_channels.errors.__all__) <= set(nexus_channels.__all__)


def test_every_kind_of_class_is_looked_at():
    assert {name.rpartition(".")[2] for name in CLASSES} >= ENDPOINTS_AND_CLAIMS


@pytest.mark.parametrize("name", sorted(nexus_channels.errors.__all__))
def test_what_was_not_sent_is_an_attribute_of_the_errors_of_sends(name):
    error = getattr(nexus_channels.errors, name)
    if issubclass(error, nexus_channels.TrySendError):
        value = object()
        assert error("said", value).value is value
