"""What is set once, before anything runs, so that this machine computes as fast as it can: each choice named, switchable, reported.

    allocator  keep | system       ZOO_ALLOCATOR       keep: freed memory stays with the process; a page given back costs a fault
                                                       when it is wanted again, and a training step wants the same pages every time
    matmul     auto | onednn | torch  ZOO_MATMUL       who multiplies float32 matrices; auto: oneDNN on processors that are not
                                                       Intel's, where MKL does not use AVX-512, if a product shows full accuracy
    waiting    passive | active    OMP_WAIT_POLICY     passive: waiting threads sleep; spinning ones steal the cores of others
    threads    a number            OMP_NUM_THREADS     of one operation; as many as there are physical cores

Only the command line sets these (a library must not change its user's process); what is in force stands in every run's environment.json.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHOICES = {"ZOO_ALLOCATOR": ("keep", "system"), "ZOO_MATMUL": ("auto", "onednn", "torch"), "OMP_WAIT_POLICY": ("passive", "active")}
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
TOP_PAD = 64 << 20  # bytes asked from the system at once
ACCURACY = 5e-6  # largest relative error of a float32 product of 256 terms


@dataclass(frozen=True)
class Setting:
    """One choice: what was asked for, what is in force and why."""

    name: str
    asked: str
    value: str
    why: str
    switch: str  # the environment variable and its values


def before_torch(environ: MutableMapping[str, str] = os.environ) -> None:
    """What OpenMP reads only once, when torch is imported."""
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_in_force: list[Setting] = []


def set_up(environ: Mapping[str, str] = os.environ) -> None:
    """Put every choice into force in this process. Raises ConfigError for a value that is none of the choices."""
    _in_force[:] = [_allocator(_asked("ZOO_ALLOCATOR", environ)), _matmul(_asked("ZOO_MATMUL", environ))]


def settings(environ: Mapping[str, str] = os.environ) -> list[Setting]:
    """What is in force in this process; without the first two where nothing was set up."""
    return [*_in_force, _waiting(environ), _threads()]


def _asked(variable: str, environ: Mapping[str, str]) -> str:
    from blocks.errors import one_of

    value = environ.get(variable, CHOICES[variable][0]).lower()
    one_of(variable, value, CHOICES[variable])
    return value


def _switch(variable: str) -> str:
    return f"{variable}={'|'.join(CHOICES[variable])}"


def _allocator(asked: str) -> Setting:
    value, why = asked, "as asked"
    if asked == "keep":
        value, why = _keep_memory()
    return Setting("allocator", asked, value, why, _switch("ZOO_ALLOCATOR"))


def _keep_memory() -> tuple[str, str]:
    """Tell glibc never to map a block by itself and never to give the end of the heap back."""
    if platform.libc_ver()[0] != "glibc":
        return "system", "only glibc's allocator can be told"
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: TOP_PAD}
    if all(mallopt(option, value) for option, value in wanted.items()):
        return "keep", "memory is given back when the process ends"
    return "system", "the allocator refused"


def _matmul(asked: str) -> Setting:
    value, why = "torch", "as asked"
    if asked == "onednn" or (asked == "auto" and not _intel()):
        value, why = _try_onednn()
    elif asked == "auto":
        why = "MKL is at its best on Intel's processors"
    return Setting("matmul", asked, value, why, _switch("ZOO_MATMUL"))


def _try_onednn() -> tuple[str, str]:
    """oneDNN's float32 product, kept if it is one: the switch allows bfloat16, which some processors then use."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return "torch", "this torch has no oneDNN"
    switch: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, switch.fp32_precision = switch.fp32_precision, "bf16"
    error = product_error()
    if error < ACCURACY:
        return "onednn", f"full float32 accuracy here: {error:.0e}"
    switch.fp32_precision = before
    return "torch", f"oneDNN rounds on this processor: {error:.0e}"


def product_error(size: int = 256) -> float:
    """The largest error of a float32 matrix product beside float64, relative to the largest entry."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    return float(((a @ b).double() - exact).abs().max() / exact.abs().max())


def _waiting(environ: Mapping[str, str]) -> Setting:
    value = environ.get("OMP_WAIT_POLICY", "active").lower()
    return Setting("waiting", value, value, "read when torch was imported", _switch("OMP_WAIT_POLICY"))


def _threads() -> Setting:
    import torch

    cores, threads = physical_cores(), torch.get_num_threads()
    why = f"{cores} physical cores" + (": more threads than cores" if threads > cores else "")
    return Setting("threads", str(threads), str(threads), why, "OMP_NUM_THREADS=N, zoo run --threads N")


def physical_cores() -> int:
    """Cores that this process may use, hyperthreads counted once."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


def cpu_flags() -> set[str]:
    """The processor's features as Linux names them; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def bfloat16() -> str:
    """How this processor multiplies bfloat16: amx, avx512 or emulated."""
    flags = cpu_flags()
    return "amx" if "amx_bf16" in flags else "avx512" if "avx512_bf16" in flags else "emulated"


def _intel() -> bool:
    info = Path("/proc/cpuinfo")
    return "GenuineIntel" in info.read_text(encoding="utf-8") if info.exists() else platform.machine() not in ("arm64", "aarch64")
