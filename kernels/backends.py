"""Which room of an operation serves a call: `auto` (the fastest that fits) or one named with `backend`.

A room is a function. One that needs a GPU library is a `LibraryBackend`: its module is imported when it is first asked for, and beside
the function it has `refuses`, which says why a call can't be served there.
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
    """A backend was asked for by name and can't serve."""


@dataclass(frozen=True)
class LibraryBackend:
    """The room `function` of the file kernels/<operation>/<room>.py, imported when first asked for.

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


def with_step(rooms: Backends[P, R], step: Callable[P, R]) -> Backends[P, R]:
    """The rooms for calls of a single token, where `step` is the first that is no guest: a recurrence beats its chunked form there.
    It is chosen only by itself: a named backend stays what it is."""
    guests = {name: room for name, room in rooms.items() if isinstance(room, LibraryBackend)}
    return guests | {"step": step} | dict(rooms)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Serve the operations inside this `with` from their room `name`, where they have one; it holds for the whole process."""
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
    """Tell `by` of every call inside this `with`, before it is served: the operation, the name of the room, the rooms, the arguments."""
    global _observer
    before, _observer = _observer, by
    try:
        yield
    finally:
        _observer = before


@contextmanager
def edited(by: Editor) -> Iterator[None]:
    """Hand every result inside this `with` to `by`, with the operation's name, and take what it returns for the result."""
    global _editor
    before, _editor = _editor, by
    try:
        yield
    finally:
        _editor = before


def serve(operation: str, rooms: Backends[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call the room of `rooms` (fastest first) that the chosen backend names; an operation without such a room chooses by itself,
    as under `auto`: the first that fits, on a CPU the first that is no guest. Raises BackendError if the named room refuses."""
    name = _chosen if _chosen in rooms else _first(rooms, *args, **kwargs)
    room = rooms[name]
    why = room.refuses(*args, **kwargs) if isinstance(room, LibraryBackend) and name == _chosen else None
    if why is not None:
        raise BackendError(f"{operation}: backend {name!r} can't serve this call: {why}")
    if _observer is not None:
        _observer(operation, name, rooms, args, kwargs)
    result = room(*args, **kwargs)
    return result if _editor is None else _editor(operation, result)


def _first(rooms: Backends[P, R], *args: P.args, **kwargs: P.kwargs) -> str:
    on_gpu = isinstance(args[0], Tensor) and args[0].is_cuda
    for name, room in rooms.items():
        if not isinstance(room, LibraryBackend) or (on_gpu and room.refuses(*args, **kwargs) is None):
            return name
    raise BackendError("no room serves without a GPU library")  # each operation has its reference
