"""Mamba's selective scan on mamba-ssm's CUDA kernel (arXiv:2312.00752), which knows no start state, no documents and no gradient
of the last state. It gets all three from tokens of our own around the text:

- before it, n tokens write the start state, a column each: B is one-hot, dt x the column. Their steps are so short that
  exp(dt A) rounds to 1, and powers of two, so that dt x is exact.
- before a document's first token, a token with x = 0 and a step so long that exp(dt A) is 0.
- after it, n tokens with dt = 0 read the last state, a column each: C is one-hot. The kernel differentiates them like any token.

Without gradients the kernel's own last state is taken, and a single token is served by mamba-ssm's Triton step.
"""

from typing import NamedTuple

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.ops.triton.selective_state_update import selective_state_update
from torch import Tensor

from kernels.dtypes import wide
from kernels.gpu import differentiated, lacks_gpu, unknown_dtype

WRITE = 2.0**-40  # |A| below 2^15 keeps exp(dt A) = 1 in float32
FORGET = 2.0**100
STATES = 256  # entries of B and C that the kernel has room for


def refuses_selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None = None,
    *,
    more: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> str | None:
    del reset, chunk
    if more is not None:
        return "mamba-ssm's decays are dt A and nothing more"
    if A.shape[1] > STATES:
        return f"{A.shape[1]} states a channel are more than the {STATES} of mamba-ssm"
    return lacks_gpu(x) or unknown_dtype("mamba-ssm", x, dt, A, B, C, *(() if state is None else (state,)))


@torch.compiler.disable
def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None = None,
    *,
    more: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """All in float32: dt and the state are, and the kernel takes one dtype. With `reset` the host waits for the device once."""
    del more, chunk  # there is none, and the kernel's own is fixed
    text = Text(*(wide(i).transpose(1, 2) for i in (x, dt, B, C)))
    trained = differentiated(x, dt, A, B, C, state)
    if x.shape[1] == 1 and not trained:
        return _step(x, text, A, state, reset)
    order = None if reset is None else torch.arange(x.shape[1], device=x.device) + reset.cumsum(1)
    parts = [text if order is None else _spread(text, order, reset)]
    if state is not None:
        parts.insert(0, _writers(wide(state)))
    if trained:
        parts.append(_readers(x.shape[0], *A.shape, like=text.x))
    whole = Text(*(torch.cat(i, -1) for i in zip(*parts, strict=True)))
    y, last = selective_scan_fn(whole.x, whole.dt, wide(A).contiguous(), whole.B, whole.C, return_last_state=True)
    if trained:
        y, last = y.split([y.shape[2] - A.shape[1], A.shape[1]], 2)
    y = y if state is None else y[..., A.shape[1] :]
    y = y if order is None else y.gather(2, _index(order, y))
    return y.transpose(1, 2).to(x.dtype), last.contiguous()


class Text(NamedTuple):
    """What the kernel reads, time last."""

    x: Tensor  # (b, c, t)
    dt: Tensor  # (b, c, t)
    B: Tensor  # (b, n, t)
    C: Tensor  # (b, n, t)


def _writers(state: Tensor) -> Text:
    """The tokens that write a start state (b, c, n)."""
    one_hot = torch.eye(state.shape[2], device=state.device, dtype=state.dtype).expand(state.shape[0], -1, -1)
    return Text(state / WRITE, torch.full_like(state, WRITE), one_hot, torch.zeros_like(one_hot))


def _readers(b: int, c: int, n: int, *, like: Tensor) -> Text:
    """The tokens that read the last state: their outputs (b, c, n) are it."""
    nothing, one_hot = like.new_zeros(b, c, n), torch.eye(n, device=like.device, dtype=like.dtype).expand(b, n, n)
    return Text(nothing, nothing, torch.zeros_like(one_hot), one_hot)


def _spread(text: Text, order: Tensor, reset: Tensor | None) -> Text:
    """The text with its tokens at the places `order` (b, t), and before each document's first one that forgets."""
    assert reset is not None
    length = int(order[:, -1].max()) + 1
    x, dt, B, C = (i.new_zeros(*i.shape[:2], length).scatter(2, _index(order, i), i) for i in text)
    steps = dt.new_zeros(dt.shape[0], length).scatter(1, (order - 1).clamp(min=0), reset * FORGET)
    return Text(x, dt + steps[:, None], B, C)


def _index(order: Tensor, like: Tensor) -> Tensor:
    return order[:, None].expand(-1, like.shape[1], -1)


def _step(x: Tensor, text: Text, A: Tensor, state: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token; the library writes the new state over the old one, so it gets a copy. It wants a D and a bias: zeros."""
    after = torch.zeros_like(A, dtype=torch.float32).repeat(x.shape[0], 1, 1) if state is None else wide(state).clone()
    if reset is not None:
        after.masked_fill_(reset[..., None], 0)
    zeros = after.new_zeros(A.shape[0])
    y = selective_state_update(after, *(i[..., 0] for i in text[:2]), wide(A), *(i[..., 0] for i in text[2:]), D=zeros, dt_bias=zeros)
    return y[:, None].to(x.dtype), after
