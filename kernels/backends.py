"""Which back end of an operation serves a call: `auto` (the fastest that fits) or one named with `backend`.

A back end is one implementation of an operation, a function. One that needs a GPU library is a `LibraryBackend`: its module is imported
when it is first asked for, and beside the function it has `refuses`, which says why a call can't be served there.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

BACKENDS = ("auto", "reference", "chunked", "triton", "fla", "mamba_ssm", "causal_conv1d")

P = ParamSpec("P")
R = TypeVar("R")
_chosen = "auto"  # of the process: a plain global, which torch.compile reads as a constant and watches


class BackendError(ValueError):
    """A back end was asked for by name and can't serve."""


@dataclass(frozen=True)
class LibraryBackend:
    """The function `function` of the file kernels/<operation>/<back end>.py, imported when first asked for.

    The file also has `refuses_<function>` with the same signature: a sentence that says why it can't serve this call, or None.
    """

    module: str
    function: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(self.module), self.function)(*args, **kwargs)

    def refuses(self, *args: Any, **kwargs: Any) -> str | None:
        """Why this call can't be served here; None if it can."""
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            return f"it can't be imported ({error})"
        return getattr(module, f"refuses_{self.function}")(*args, **kwargs)


Backends = Mapping[str, Callable[P, R]]
Observer = Callable[[str, str, Backends[..., Any], tuple[Any, ...], dict[str, Any]], None]
_observer: Observer | None = None
Editor = Callable[[str, Any], Any]
_editor: Editor | None = None


def with_step(backends: Backends[P, R], step: Callable[P, R]) -> Backends[P, R]:
    """The back ends for calls of a single token: `step`, the plain recurrence, comes before all but the library back ends, because it
    beats the chunked form there. Only `auto` chooses it: a back end asked for by name stays what it is."""
    libraries = {name: backend for name, backend in backends.items() if isinstance(backend, LibraryBackend)}
    return libraries | {"step": step} | dict(backends)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Serve the operations inside this `with` by their back end `name`, where they have one; it holds for the whole process."""
    global _chosen
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is not one of {', '.join(BACKENDS)}")
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


@contextmanager
def observed(by: Observer) -> Iterator[None]:
    """Call `by` before every call of an operation inside this `with`, with the operation's name, the name of the back end that will
    serve, all its back ends, and the arguments."""
    global _observer
    before, _observer = _observer, by
    try:
        yield
    finally:
        _observer = before


@contextmanager
def edited(by: Editor) -> Iterator[None]:
    """Hand every operation's name and result inside this `with` to `by`, and take what it returns as the result."""
    global _editor
    before, _editor = _editor, by
    try:
        yield
    finally:
        _editor = before


def serve(operation: str, backends: Backends[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the one of `backends` (fastest first) that was named with `backend`. An operation that has no such back end chooses as
    under `auto`: the first that fits, on a CPU the first that is no library back end. Raises BackendError if the named one refuses."""
    name = _chosen if _chosen in backends else _first(backends, *args, **kwargs)
    backend = backends[name]
    why = backend.refuses(*args, **kwargs) if isinstance(backend, LibraryBackend) and name == _chosen else None
    if why is not None:
        raise BackendError(f"{operation}: backend {name!r} can't serve this call: {why}")
    if _observer is not None:
        _observer(operation, name, backends, args, kwargs)
    result = backend(*args, **kwargs)
    return result if _editor is None else _editor(operation, result)


def _first(backends: Backends[P, R], *args: P.args, **kwargs: P.kwargs) -> str:
    on_gpu = isinstance(args[0], Tensor) and args[0].is_cuda
    for name, backend in backends.items():
        if not isinstance(backend, LibraryBackend) or (on_gpu and backend.refuses(*args, **kwargs) is None):
            return name
    raise BackendError("no back end serves without a GPU library")  # each operation has its reference
