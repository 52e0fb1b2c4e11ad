"""The inputs that a piece of text is read after: shared by the convolution and by token shift."""

import torch
from torch import Tensor

from kernels.dtypes import wide


def behind(
    x: Tensor, state: Tensor | None, width: int, *, reset: Tensor | None, pads: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor]:
    """The last `width` inputs before x, directly before its first real token.

    x (b, t, c); state (b, width, c) or None. Returns past (b, width, c), None = zeros; x, changed only at its padding; the
    document run of each entry of both (b, width + t), None = all one; and the state after x: its last `width` inputs, 0
    where they are of an earlier document.
    """
    b, t, c = x.shape
    past = None if state is None else state.to(x.dtype)
    if pads is not None:  # the past moves right over the padding; what is left of it becomes 0
        full = x if past is None else torch.cat([past, x], 1)
        index = torch.arange(full.shape[1], device=x.device)
        if past is not None:
            moved = (index < width + pads[:, None]) & (index >= pads[:, None])
            source = torch.where(moved, index - pads[:, None], index)
            full = full.gather(1, source[..., None].expand(full.shape))
        full = full * (index >= pads[:, None])[..., None]
        past, x = (None, full) if past is None else (full[:, :width], full[:, width:])
    run = None
    last = x[:, t - width :] if t >= width else torch.cat([x.new_zeros(b, width - t, c) if past is None else past[:, t:], x], 1)
    if reset is not None:
        run = torch.cat([reset.new_zeros(b, width, dtype=torch.int64), reset.cumsum(1)], 1)
        last = last * (run[:, t:] == run[:, -1:])[..., None]
    return past, x, run, wide(last).contiguous()  # a state must not keep the whole piece in memory


def extend(
    x: Tensor, state: Tensor | None, width: int, *, reset: Tensor | None, pads: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """What `behind` gives, past and x as one: full (b, width + t, c), its document run (None = all one), and the state after x."""
    past, x, run, after = behind(x, state, width, reset=reset, pads=pads)
    before = x.new_zeros(x.shape[0], width, x.shape[2]) if past is None else past
    return torch.cat([before, x], 1), run, after


def previous(x: Tensor, state: Tensor | None, *, reset: Tensor | None, pads: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token shift: the input before each token (0 at the start of a document). x (b, t, c), state (b, 1, c) -> (b, t, c), state."""
    full, _, state = extend(x, state, 1, reset=reset, pads=pads)
    before = full[:, :-1]
    return (before if reset is None else before.masked_fill(reset[..., None], 0)), state
