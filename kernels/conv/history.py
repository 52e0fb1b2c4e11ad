"""The inputs that a piece of text is read after: shared by the convolution and by token shift."""

import torch
from torch import Tensor

from kernels.dtypes import wide


def extend(x: Tensor, state: Tensor | None, width: int, *, reset: Tensor | None, pads: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Put the last `width` inputs before x, directly before its first real token.

    x (b, t, c); state (b, width, c) or None. Returns full (b, width + t, c), the document run of each of its entries
    (b, width + t; None = all one), and the state after x: its last `width` inputs, 0 where they are of an earlier document.
    """
    b, t, c = x.shape
    past = x.new_zeros(b, width, c) if state is None else state.to(x.dtype)
    full = torch.cat([past, x], 1)
    index = torch.arange(width + t, device=x.device)
    if pads is not None:  # the past moves right over the padding; what is left of it becomes 0
        moved = (index < width + pads[:, None]) & (index >= pads[:, None])
        source = torch.where(moved, index - pads[:, None], index)
        full = full.gather(1, source[..., None].expand(b, width + t, c)) * (index >= pads[:, None])[..., None]
    run = None
    last = full[:, t:]
    if reset is not None:
        run = torch.cat([reset.new_zeros(b, width, dtype=torch.int64), reset.cumsum(1)], 1)
        last = last * (run[:, t:] == run[:, -1:])[..., None]
    return full, run, wide(last)


def previous(x: Tensor, state: Tensor | None, *, reset: Tensor | None, pads: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token shift: the input before each token (0 at the start of a document). x (b, t, c), state (b, 1, c) -> (b, t, c), state."""
    full, _, state = extend(x, state, 1, reset=reset, pads=pads)
    before = full[:, :-1]
    return (before if reset is None else before.masked_fill(reset[..., None], 0)), state
