"""Elementwise gated recurrences, h_t = a_t h_{t-1} + x_t, and Mamba's selective scan, which is one a state entry.

    h, state = linear_scan(a, x, state, reset=, chunk=)                 a, x, h (b, t, c), state (b, c)
    y, state = selective_scan(x, dt, A, B, C, state, more=, reset=, chunk=)    x, dt, y (b, t, c), B, C (b, t, n), state (b, c, n)

`linear_scan` takes the logarithm of the decay: h_t = exp(a_t) h_{t-1} + x_t with a <= 0. `selective_scan` is

    h_t = exp(dt_t A) h_{t-1} + (dt_t x_t) B_t^T,    y_t = h_t C_t,    A (c, n) < 0, dt >= 0

(Mamba, arXiv:2312.00752; B is scaled by dt, as all its checkpoints are, not by the exact integral that the paper writes).
more (b, t), <= 0, is added to all log decays dt A of a token; it has no gradient.
States are float32 (or float64) and None at the start of a text; reset (b, t) bool marks tokens that forget what was before
them; a token with a = 0, x = 0 (or dt = 0) leaves the state as it is. chunk, in tokens, changes speed and memory only.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from kernels.backends import Backends, LibraryBackend, serve, with_step
from kernels.dtypes import wide
from kernels.linear_scan import chunked, reference
from kernels.opaque import opaque

__all__ = ["executed_flops", "flops", "linear_scan", "selective_scan"]

LINEAR: Backends[..., tuple[Tensor, Tensor]] = {
    "fla": LibraryBackend("kernels.linear_scan.fla", "linear_scan"),
    "chunked": chunked.linear_scan,
    "reference": reference.linear_scan,
}
SELECTIVE: Backends[..., tuple[Tensor, Tensor]] = {
    "mamba_ssm": LibraryBackend("kernels.linear_scan.mamba_ssm", "selective_scan"),
    "chunked": chunked.selective_scan,
    "reference": reference.selective_scan,
}
LINEAR_STEP, SELECTIVE_STEP = with_step(LINEAR, reference.linear_scan), with_step(SELECTIVE, reference.selective_scan)


def _linear_outputs(a: Tensor, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return wide(x), wide(x[:, 0])


def _selective_outputs(x: Tensor, dt: Tensor, A: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return x, wide(x[:0]).new_empty(x.shape[0], *A.shape)


@opaque(_linear_outputs)
def linear_scan(
    a: Float[Tensor, "b t c"],
    x: Float[Tensor, "b t c"],
    state: Float[Tensor, "b c"] | None = None,
    *,
    reset: Bool[Tensor, "b t"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b c"]]:
    """See the module; a is a log decay. Returns h in float32 (or float64) and its last value. No matmuls: it counts 0 FLOPs."""
    return serve("linear_scan", LINEAR_STEP if x.shape[1] == 1 else LINEAR, a, x, state, reset=reset, chunk=chunk)


@opaque(_selective_outputs)
def selective_scan(
    x: Float[Tensor, "b t c"],
    dt: Float[Tensor, "b t c"],
    A: Float[Tensor, "c n"],
    B: Float[Tensor, "b t n"],
    C: Float[Tensor, "b t n"],
    state: Float[Tensor, "b c n"] | None = None,
    *,
    more: Float[Tensor, "b t"] | None = None,
    reset: Bool[Tensor, "b t"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b c n"]]:
    """See the module. Returns y in x's dtype and the state after it."""
    backends = SELECTIVE_STEP if x.shape[1] == 1 else SELECTIVE
    return serve("selective_scan", backends, x, dt, A, B, C, state, more=more, reset=reset, chunk=chunk)


def flops(length: int, channels: int, states: int) -> int:
    """Of `selective_scan`: a multiply-add an entry of the state to write it and another to read it."""
    return 4 * length * channels * states


def executed_flops(length: int, channels: int, states: int) -> int:
    """Of `selective_scan`, chunked: the read is a matmul; the write is elementwise and counts 0."""
    return 2 * length * channels * states
