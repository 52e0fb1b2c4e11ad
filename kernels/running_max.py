"""The running maximum of a decayed recurrence: m_t = max(a_t + m_{t-1}, x_t).

What stabilises sums of exponentials, S_t = exp(a_t) S_{t-1} + exp(x_t) v_t: exp(-m_t) S_t never overflows, and the recurrence
goes on with exp(a_t + m_{t-1} - m_t) <= 1 and exp(x_t - m_t) <= 1 (RWKV-4, arXiv:2305.13048; xLSTM, arXiv:2405.04517).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kernels.opaque import opaque


def _outputs(_: Tensor, x: Tensor, *__: Tensor | None, **___: float | Tensor | None) -> tuple[Tensor, Tensor]:
    return x, x


@opaque(_outputs)
def running_max(
    a: Float[Tensor, "b t c"],
    x: Float[Tensor, "b t c"],
    state: Float[Tensor, "b c"] | None = None,
    *,
    start: float,
    reset: Bool[Tensor, "b t"] | None = None,
) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b t c"]]:
    """m_{t-1} and m_t for every token. start: m before a text (state None) and before a token of reset, finite.

    The texts before a token are joined in pairs, so that log2(t) passes do; differentiable as it stands. Traced by a compiler, the
    passes would be unrolled, another number of them for every power of two that a text's length crosses.
    """
    before = torch.full_like(x[:, :1], start) if state is None else state[:, None].to(x.dtype)
    past = torch.cat([before, torch.full_like(x[:, 1:], start)], 1)  # what stands before the first token of a document
    first = torch.arange(x.shape[1], device=x.device)[:, None] == 0
    if reset is not None:
        past, first = past.masked_fill(reset[..., None], start), first | reset[..., None]
    m, span = torch.where(first, torch.maximum(x, a + past), x), a.masked_fill(first, -torch.inf)
    step = 1
    while step < x.shape[1]:
        m = torch.cat([m[:, :step], torch.maximum(m[:, step:], span[:, step:] + m[:, :-step])], 1)
        span = torch.cat([span[:, :step], span[:, step:] + span[:, :-step]], 1)
        step *= 2
    return torch.where(first, past, torch.cat([before, m[:, :-1]], 1)), m
