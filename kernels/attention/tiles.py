"""How the chunked back end cuts a call into dense tiles: decided by sizes alone, so that their cost is known beforehand."""

from typing import NamedTuple

BLOCK = 128  # queries a tile at most
ROWS = 32  # queries a tile of a window at least; else a quarter of it
ALIGN = 16  # keys before a window's tile come in multiples of it where there are as many: rows of scores begin on a cache line
PAIRS = 2**19  # (query, key) pairs of a tile at most, 2 MiB of float32 scores a head: a long past makes short tiles
ENTRIES = {"cpu": 3 * 2**15, "cuda": 2**26}  # scores that are formed at once, about: a fifth of a core's cache; what fills a GPU


class Tile(NamedTuple):
    """`blocks` blocks of `rows` queries each, the first at `start` among the t; each sees `reach` keys before its own."""

    start: int
    blocks: int
    rows: int
    reach: int
    sinks: int  # sink columns before them

    @property
    def keys(self) -> int:
        """Columns of a block."""
        return self.sinks + self.reach + self.rows

    @property
    def pairs(self) -> int:
        return self.blocks * self.rows * self.keys


def tiles(t: int, s: int, window: int | None, sink_tokens: int) -> list[Tile]:
    """The tiles that cover t queries, the last of s keys, in order; blocks that reach equally far are one tile."""
    before, most, rows = s - t, s, max(1, min(BLOCK, PAIRS // max(s, 1)))
    if window is not None:
        most, rows = -(-(window - 1) // ALIGN) * ALIGN, min(BLOCK, max(ROWS, window // 4))
    found: list[Tile] = []
    for start in range(0, t, rows):
        reach = min(before + start, most)
        tile = Tile(start, 1, min(rows, t - start), reach, sink_tokens if reach < before + start else 0)
        last = found[-1] if found else tile
        if last is not tile and last[2:] == tile[2:]:
            found[-1] = last._replace(blocks=last.blocks + 1)
        else:
            found.append(tile)
    return found


def fused(t: int, s: int, window: int | None, *, softcap: bool, sink_logits: bool, same_width: bool) -> bool:
    """Whether torch's scaled_dot_product_attention can serve rows without packing: the whole causal square, or one query."""
    return (window is None or window >= s) and t in (1, s) and same_width and not (softcap or sink_logits)
