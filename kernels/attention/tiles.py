"""How the chunked room cuts a call into dense tiles: decided by sizes alone, so that their cost is known beforehand."""

from typing import NamedTuple

BLOCK = 256  # queries a tile at most, where each tile takes its keys as one slice
PAIRS = 2**21  # (query, key) pairs of such a tile at most, 8 MiB of float32 scores a head: a long past makes short tiles
BAND = 256  # widest window whose blocks are as long as the window and run side by side in one matmul
ROWS = 32  # shortest block of a band
SEGMENT = 4096  # queries that run side by side at most: bounds memory
KEPT = 2**25  # weights that a call keeps for its backward pass at most; more are recomputed, tile by tile


class Tile(NamedTuple):
    """`blocks` blocks of `rows` queries each, the first at `start` among the t; each sees `reach` keys before its own."""

    start: int
    blocks: int
    rows: int
    reach: int
    sinks: int  # sink columns before them

    @property
    def pairs(self) -> int:
        return self.blocks * self.rows * (self.sinks + self.reach + self.rows)


def tiles(t: int, s: int, window: int | None, sink_tokens: int) -> list[Tile]:
    """The tiles that cover t queries, the last of s keys."""
    before = s - t
    if window is None or window > BAND or t <= max(window, ROWS):
        found = []
        block = max(1, min(BLOCK, PAIRS // max(s, 1))) if window is None else BLOCK
        for start in range(0, t, block):
            reach = before + start if window is None else min(before + start, window - 1)
            found.append(Tile(start, 1, min(block, t - start), reach, sink_tokens if reach < before + start else 0))
        return found
    rows = max(window, ROWS)
    step = SEGMENT // rows * rows
    return [Tile(start, -(-min(step, t - start) // rows), rows, window - 1, sink_tokens) for start in range(0, t, step)]


def fused(t: int, s: int, window: int | None, *, softcap: bool, sink_logits: bool, same_width: bool) -> bool:
    """Whether torch's scaled_dot_product_attention can serve rows without packing: the whole causal square, or one query."""
    return (window is None or window >= s) and t in (1, s) and same_width and not (softcap or sink_logits)
