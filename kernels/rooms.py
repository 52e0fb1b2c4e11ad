"""Which room of an operation serves a call: `auto` (the fastest that fits) or one named with `backend`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

BACKENDS = ("auto", "reference", "chunked")

P = ParamSpec("P")
R = TypeVar("R")
_chosen: ContextVar[str] = ContextVar("backend", default="auto")


class BackendError(ValueError):
    """A backend was asked for by name and can't serve."""


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Serve every operation inside this `with` from the room `name`; `auto` lets each operation choose."""
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is not one of {', '.join(BACKENDS)}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def pick(operation: str, rooms: Mapping[str, Callable[P, R]]) -> Callable[P, R]:
    """The function of `rooms` (fastest first) that the chosen backend names."""
    name = _chosen.get()
    if name == "auto":
        return next(iter(rooms.values()))
    if name not in rooms:
        raise BackendError(f"{operation} has no backend {name!r}; it has {', '.join(rooms)}")
    return rooms[name]
