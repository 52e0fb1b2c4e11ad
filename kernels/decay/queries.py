"""Several queries that read one memory, for back ends where every query has a memory of its own: keys, values and decays are repeated."""

from collections.abc import Callable
from functools import wraps

from torch import Tensor

Backend = Callable[..., tuple[Tensor, Tensor]]


def repeated(backend: Backend) -> Backend:
    """The back end, with queries that share memories allowed; all memories of a group end alike, one of each is returned."""

    @wraps(backend)
    def served(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None = None,
        state: Tensor | None = None,
        *,
        bonus: Tensor | None = None,
        reset: Tensor | None = None,
        chunk: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        queries = q.shape[2] // v.shape[2]
        if queries < 2:
            return backend(q, k, v, g, state, bonus=bonus, reset=reset, chunk=chunk)
        k, v = (x.repeat_interleave(queries, 2) for x in (k, v))
        g = None if g is None else g.repeat_interleave(queries, 2)
        state = None if state is None else state.repeat_interleave(queries, 1)
        bonus = None if bonus is None else bonus.repeat_interleave(queries, 0)
        o, after = backend(q, k, v, g, state, bonus=bonus, reset=reset, chunk=chunk)
        return o, after[:, ::queries]

    return served
