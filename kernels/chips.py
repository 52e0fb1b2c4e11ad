"""The chips that our Triton programs are compiled for and tuned to, and what they hold."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Chip(NamedTuple):
    """A kind of GPU as Triton's compiler names it."""

    name: str
    backend: str  # "cuda" or "hip"
    arch: int | str
    warp: int  # lanes
    shared: int  # bytes of shared memory that one program may take


# Shared memory that one thread block may ask for: 163 KB for compute capability 8.0, 227 KB for 9.0 and 10.0 (CUDA C++ Programming Guide,
# technical specifications per compute capability; the Ampere, Hopper and Blackwell tuning guides). gfx942 has 64 KiB of LDS (AMD GPU
# hardware specifications, rocm.docs.amd.com).
CHIPS = (
    Chip("sm_80", "cuda", 80, 32, 166912),
    Chip("sm_90", "cuda", 90, 32, 232448),
    Chip("sm_100", "cuda", 100, 32, 232448),
    Chip("gfx942", "hip", "gfx942", 64, 65536),
)


def family(x: Tensor) -> str:
    """Whose settings fit the device of x: a chip's name, or "interpreter" for a CPU. A CUDA device that is not listed gets those of
    sm_80, which fit the 99 KB of the smaller chips as well."""
    if not x.is_cuda:
        return "interpreter"
    if torch.version.hip is not None:
        return "gfx942"
    return {9: "sm_90", 10: "sm_100"}.get(torch.cuda.get_device_capability(x.device)[0], "sm_80")


class Tiles(NamedTuple):
    """Settings of a program."""

    rows: int  # queries a tile
    keys: int  # keys a tile
    warps: int
    stages: int  # of loads in flight


class Variant(NamedTuple):
    """A program as it is compiled for some calls; `variants()` of kernels/<operation>/triton.py lists them."""

    name: str
    function: Any  # with triton.jit
    signature: dict[str, str]  # types of the arguments that are no constants
    constants: dict[str, Any]
    options: dict[str, int]  # those of `options`
    aligned: tuple[str, ...]  # arguments divisible by 16
    chips: tuple[str, ...] = tuple(chip.name for chip in CHIPS)
    common: bool = True  # compiled in every test session, not in long proofs alone


def padded(width: int) -> int:
    """A side of a matrix product: a power of two, at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def options(chip: str, at: Tiles) -> dict[str, int]:
    """What Triton takes beside a program's constants. Left alone, NVIDIA's assembler spills a few registers to stay below steps of
    occupancy; with `maxnreg` it takes those that there are."""
    found = {"num_warps": at.warps, "num_stages": at.stages}
    return found | {"maxnreg": 255} if chip.startswith("sm_") else found
