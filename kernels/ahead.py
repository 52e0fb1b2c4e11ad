"""Every Triton program of ours compiled for every chip, without one: registers, spills, shared memory, matrix instructions.

    python -m kernels.ahead         # writes docs/triton.md; exit code 1 where a program spills or doesn't fit

The programs are those of `variants()` in kernels/*/triton.py (see chips.Variant). Needs TRITON_INTERPRET unset.
"""

import importlib
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource, CompiledKernel

from kernels.chips import CHIPS, Chip, Variant

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "triton.md"
PROCESSES = 2
CHIP = {chip.name: chip for chip in CHIPS}
MATRIX = r"wgmma\.mma_async|tcgen05\.mma|mma\.sync|v_mfma_\w+?_\d+x\d+x\d+"  # products of tiles, in PTX and in GCN assembly


class Task(NamedTuple):
    """One compilation."""

    operation: str  # the folder
    variant: int  # its place among them
    chip: str


class Row(NamedTuple):
    """What came of it."""

    operation: str
    program: str
    chip: str
    registers: int  # a thread
    spills: int  # bytes that ptxas stores, or VGPRs that LLVM spills: either is a failure
    shared: int  # bytes
    matrix: str  # the instruction of its matrix products


def variants(operation: str) -> list[Variant]:
    """Those of kernels/<operation>/triton.py."""
    return [Variant(*row) for row in importlib.import_module(f"kernels.{operation}.triton").variants()]


def tasks(*, common: bool) -> list[Task]:
    """All compilations, or only the common ones."""
    operations = sorted(path.parent.name for path in HERE.glob("*/triton.py"))
    found = [(operation, i, variant) for operation in operations for i, variant in enumerate(variants(operation))]
    return [Task(operation, i, chip) for operation, i, variant in found for chip in variant.chips if variant.common or not common]


def measure(wanted: Sequence[Task], processes: int = PROCESSES) -> list[Row]:
    """Compile them, in the order given, some at a time."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(run, wanted))


def run(task: Task) -> Row:
    """Compile one."""
    variant, chip = variants(task.operation)[task.variant], CHIP[task.chip]
    kernel = build(variant, chip)
    registers, spills = _nvidia(kernel, chip) if chip.backend == "cuda" else _amd(kernel)
    found = re.search(MATRIX, kernel.asm["ptx" if chip.backend == "cuda" else "amdgcn"])
    return Row(task.operation, variant.name, chip.name, registers, spills, kernel.metadata.shared, found[0] if found else "")


def build(variant: Variant, chip: Chip) -> CompiledKernel:
    """The compiled program. Raises triton's CompilationError where it is wrong."""
    names = variant.function.arg_names
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    divisible = {(names.index(name),): [["tt.divisibility", 16]] for name in variant.aligned}
    source = ASTSource(variant.function, signature, variant.constants, divisible)
    return triton.compile(source, target=GPUTarget(chip.backend, chip.arch, chip.warp), options=variant.options)


def _nvidia(kernel: CompiledKernel, chip: Chip) -> tuple[int, int]:
    """Registers a thread, and bytes of spill stores: only a program with a stack frame may have any, and needs a second look."""
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder, "program.cubin"), Path(folder, "program.ptx")
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _output(str(Path(get_ptxas(80).path).with_name("cuobjdump")), "-res-usage", str(cubin))
        registers, stack = (int(_number(rf"{name}:(\d+)", usage)) for name in ("REG", "STACK"))
        if not stack:
            return registers, 0
        ptx.write_text(kernel.asm["ptx"])
        target = _number(r"\.target (sm_\w+)", kernel.asm["ptx"])
        log = _output(get_ptxas(int(chip.arch)).path, "-v", f"--gpu-name={target}", str(ptx), "-o", str(cubin))
        return registers, int(_number(r"(\d+) bytes spill stores", log))


def _amd(kernel: CompiledKernel) -> tuple[int, int]:
    text = kernel.asm["amdgcn"]
    return int(_number(r"\.vgpr_count:\s+(\d+)", text)), int(_number(r"\.vgpr_spill_count:\s+(\d+)", text))


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in the compiler's output")
    return found[1]


def faults(rows: Sequence[Row]) -> list[str]:
    """What must not be: spills, more shared memory than there is."""
    found = []
    for row in rows:
        where, limit = f"{row.operation}: {row.program} on {row.chip}", CHIP[row.chip].shared
        if row.spills:
            found.append(f"{where} spills {row.spills}")
        if row.shared > limit:
            found.append(f"{where} takes {row.shared} bytes of shared memory of {limit}")
    return found


def line(row: Row) -> str:
    """A row of the table."""
    return f"| {row.operation} | {row.program} | {row.chip} | {row.registers} | {row.spills} | {row.shared} | {row.matrix or '-'} |"


def page(rows: Sequence[Row]) -> str:
    """docs/triton.md."""
    limits = ", ".join(f"{chip.name} {chip.shared}" for chip in CHIPS)
    return "\n".join(
        [
            "# Our Triton programs on each chip",
            "",
            f"`python -m kernels.ahead` writes this page: what Triton {triton.__version__} makes of every program, without a GPU.",
            f"No program may spill registers, nor take more shared memory than a chip has (bytes: {limits}).",
            "Registers are those of a thread (on AMD VGPRs and AGPRs), spills bytes on NVIDIA and registers on AMD, shared memory bytes.",
            "",
            "| operation | program | chip | registers | spills | shared | matrix products |",
            "| --- | --- | --- | ---: | ---: | ---: | --- |",
            *map(line, rows),
            "",
        ]
    )


def main() -> int:
    """Write the page. Returns the exit code."""
    rows = measure(tasks(common=False))
    PAGE.write_text(page(rows))
    print("\n".join(faults(rows)) or f"{len(rows)} programs: none spills, all fit", file=sys.stderr)
    return int(bool(faults(rows)))


if __name__ == "__main__":
    sys.exit(main())
