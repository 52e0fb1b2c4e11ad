"""No tuning in tests: they ask whether a kernel is right, and a library that compiles dozens of configurations takes minutes a test."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any


@lru_cache
def keep_first() -> None:
    """Let Triton's autotuner keep the first configuration of every kernel that is declared from now on."""
    from triton.runtime import autotuner

    init: Callable[..., None] = autotuner.Autotuner.__init__

    @wraps(init)
    def first(self: Any, fn: Any, names: Any, configs: Any, *args: Any, **kwargs: Any) -> None:
        init(self, fn, names, list(configs or [])[:1], *args, **kwargs)

    autotuner.Autotuner.__init__ = first
