"""Tile sizes of the programs, by chip. Found by compiling ahead of time: nothing spills registers and everything fits (docs/triton.md).

Tiles of 64 keys hold the blocks of 50 and 63 tokens that the method is published with, landmark included; where the longest block is
shorter a program takes narrower tiles. On sm_80 such tiles would spill in the gradient of keys of 64 channels.
"""

from kernels.chips import Tiles

WIDEST = {2: 128, 4: 64}  # channels of a head, by the bytes of one: wider float32 ones would spill

# Of each chip and program: heads of at most 64 and of 128 channels of two bytes, and heads of at most 64 channels of float32.
SETTINGS = {
    ("sm_80", "forward"): (Tiles(64, 64, 4, 2), Tiles(64, 64, 8, 2), Tiles(32, 64, 8, 2)),
    ("sm_80", "query_gradients"): (Tiles(32, 64, 4, 2), Tiles(32, 64, 8, 2), Tiles(32, 32, 8, 2)),
    ("sm_80", "key_gradients"): (Tiles(32, 32, 4, 2), Tiles(32, 64, 8, 2), Tiles(32, 16, 8, 1)),
    ("sm_90", "forward"): (Tiles(64, 64, 4, 2), Tiles(64, 64, 8, 2), Tiles(32, 64, 8, 2)),
    ("sm_90", "query_gradients"): (Tiles(64, 64, 8, 2), Tiles(64, 64, 8, 2), Tiles(32, 32, 8, 2)),
    ("sm_90", "key_gradients"): (Tiles(32, 64, 4, 2), Tiles(32, 64, 8, 1), Tiles(16, 32, 4, 1)),
    ("sm_100", "forward"): (Tiles(64, 64, 8, 2), Tiles(64, 64, 8, 2), Tiles(32, 64, 8, 2)),
    ("sm_100", "query_gradients"): (Tiles(64, 64, 8, 2), Tiles(32, 64, 8, 2), Tiles(32, 64, 8, 2)),
    ("sm_100", "key_gradients"): (Tiles(32, 64, 8, 2), Tiles(32, 64, 8, 2), Tiles(32, 16, 8, 1)),
    ("gfx942", "forward"): (Tiles(64, 64, 4, 1), Tiles(64, 64, 4, 1), Tiles(32, 32, 4, 1)),
    ("gfx942", "query_gradients"): (Tiles(32, 64, 4, 1), Tiles(16, 64, 4, 1), Tiles(32, 32, 4, 1)),
    ("gfx942", "key_gradients"): (Tiles(32, 64, 4, 1), Tiles(16, 64, 4, 1), Tiles(32, 32, 4, 1)),
}


def tiles(chip: str, program: str, width: int, size: int) -> Tiles:
    """The settings of `program` for heads padded to `width` channels of `size` bytes."""
    if chip == "interpreter":
        return Tiles(32, 16, 4, 1)
    return SETTINGS[chip, program][2 if size == 4 else int(width > 64)]
