"""What attention costs, for one unpadded document read in one piece. e key width, w value width, h query heads."""

from collections.abc import Callable
from typing import Any

import torch

from kernels.attention.tiles import fused, tiles


def visible_pairs(length: int, window: int | None = None, sink_tokens: int = 0) -> int:
    """(query, key) pairs that the mask leaves."""
    if window is None or window >= length:
        return _capped(length, length)
    return _capped(length, window) + _capped(length - window, sink_tokens)


def _capped(n: int, cap: int) -> int:
    """sum of min(i, cap) for i = 1 .. n"""
    m = min(n, cap)
    return m * (m + 1) // 2 + (n - m) * cap


def flops(length: int, heads: int, key: int, value: int, *, window: int | None = None, sink_tokens: int = 0, maps: int = 1) -> int:
    """Scores and weighted values of the visible pairs; maps = 2: differential attention (two maps meet the values as one)."""
    return 2 * heads * (maps * key + value) * visible_pairs(length, window, sink_tokens)


def executed_flops(
    length: int,
    heads: int,
    key: int,
    value: int,
    *,
    window: int | None = None,
    sink_tokens: int = 0,
    softcap: bool = False,
    sink_logits: bool = False,
    maps: int = 1,
    packed: bool = False,
) -> int:
    """Dense tiles of the chunked back end; where torch's fused attention serves (never where documents were given: `packed`), the
    whole length x length square."""
    if maps == 1 and not packed and fused(length, length, window, softcap=softcap, sink_logits=sink_logits, same_width=key == value):
        pairs = length * length
    else:
        pairs = sum(tile.pairs for tile in tiles(length, length, window, sink_tokens))
    return 2 * heads * (maps * key + value) * pairs


def _sdpa_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """q (b, h, t, e), k (b, m, s, e), v (b, m, s, w): torch's counter calls it with whatever the operation was given."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


# For FlopCounterMode(custom_mapping=...): torch counts 0 for its fused attention on a CPU.
SDPA_FLOPS: dict[Any, Callable[..., int]] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops}
