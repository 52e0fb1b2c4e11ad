"""Tile sizes of the programs, by chip, and the variants of the programs that are compiled ahead of time.

Found by compiling for each chip: no registers are spilled to memory, everything fits the shared memory, and tiles are no larger than that.
"""

from collections.abc import Iterator
from typing import Any

from kernels.attention import programs
from kernels.chips import CHIPS, Tiles, Variant, padded

WIDEST = 256  # channels of a head
PROGRAMS = ("forward", "query_gradients", "key_gradients")
POINTERS = {"q", "k", "v", "mix", "o", "second", "do", "dq", "dk", "dv", "dmix"}
FLOATS, TABLES = {"sums", "pulls", "sinks"}, {"table", "reach"}
NUMBERS = {"scale": "fp32", "slope": "fp32", "cap": "fp32"} | dict.fromkeys(("window", "sink_tokens", "t", "s", "H", "M"), "i32")
TYPES = {"bf16": 2, "fp32": 4}
# maps, sets, key and value width, dtype: softmax attention, differential attention
SHAPES = (
    (1, 1, 64, 64, "bf16"),
    (1, 1, 128, 128, "bf16"),
    (1, 1, 192, 128, "bf16"),
    (1, 1, 64, 64, "fp32"),
    (1, 1, 128, 128, "fp32"),
    (2, 2, 64, 128, "bf16"),
    (2, 1, 64, 64, "bf16"),
    (2, 2, 64, 128, "fp32"),
)


def tiles(chip: str, program: str, width: int, size: int, maps: int) -> Tiles:
    """The settings of `program` for heads padded to `width` channels of `size` bytes; rows are queries."""
    if chip == "interpreter":
        return Tiles(16, 32, 4, 1)
    wide = size == 4 or width > 128
    if chip == "gfx942":  # more warps share out too few registers there, and more stages hold too many
        if program == "key_gradients":
            return Tiles(32, 32 // maps, 4, 1)
        return Tiles(32 if wide or (maps == 2 and program == "forward") else 64, 32, 4, 1)
    if wide:
        small = size == 4 and width > 64  # products of float32 hold whole rows in registers
        rows, keys = (16 * maps, 16) if small else (32, 32)
        return Tiles(rows, keys, 8 if width > 64 or chip == "sm_100" else 4, 2 if width <= 128 else 1)
    warps = 4 if width <= 64 and maps == 1 else 8
    if program == "key_gradients":
        return Tiles(32, 64, warps, 2)
    long = program == "forward" and width > 64 and maps == 1
    return Tiles(128 if long else 64, 32 if maps == 2 else 64, warps, 2)


def constants(e: int, w: int, maps: int, sets: int, *, sinks: bool, softcap: bool, chosen: Tiles) -> dict[str, Any]:
    """The constants of a program for heads of e and w channels."""
    tile = {"E": e, "W": w, "EP": padded(e), "WP": padded(w), "BM": chosen.rows, "BN": chosen.keys}
    return tile | {"MAPS": maps, "SETS": sets, "SINKS": sinks, "SOFTCAP": softcap, "PRECISION": "ieee"}


def variants() -> list[Variant]:
    """Every program in packed rows with sinks for the usual widths; the plain window and the cap with sink logits once each."""
    found = [_variant(chip.name, p, shape, masks="packed") for chip in CHIPS for p in PROGRAMS for shape in SHAPES]
    return found + [_variant(chip.name, p, SHAPES[0], masks=m) for chip in CHIPS for p in PROGRAMS for m in ("window", "capped")]


def _variant(chip: str, program: str, shape: tuple[int, int, int, int, str], *, masks: str) -> Variant:
    maps, sets, e, w, dtype = shape
    function = getattr(programs, program)
    absent = _absent(maps, masks)
    types = dict(_types(function.arg_names, dtype, absent))
    chosen = tiles(chip, program, max(padded(e), padded(w)), TYPES[dtype], maps)
    fixed = constants(e, w, maps, sets, sinks=masks == "packed", softcap=masks == "capped", chosen=chosen)
    fixed |= dict.fromkeys(absent & set(function.arg_names))
    aligned = tuple(name for name, kind in types.items() if kind.startswith("*") or name in ("t", "s"))
    name = f"attention {program} maps={maps} sets={sets} {e}/{w} {dtype} {masks}"
    options, common = {"num_warps": chosen.warps, "num_stages": chosen.stages}, shape == SHAPES[0] and masks == "packed"
    return Variant(name, function, types, fixed, options, aligned, (chip,), common)


def _absent(maps: int, masks: str) -> set[str]:
    """The tensors that a call of this kind lacks."""
    lacking = {"mix", "second", "dmix"} if maps == 1 else set()
    lacking |= set() if masks == "packed" else TABLES
    return lacking | (set() if masks == "capped" else {"sinks"})


def _types(names: list[str], dtype: str, absent: set[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if name in absent:
            continue
        if name in POINTERS:
            yield name, f"*{dtype}"
        elif name in FLOATS:
            yield name, "*fp32"
        elif name in TABLES:
            yield name, "*i32"
        elif name in NUMBERS:
            yield name, NUMBERS[name]
