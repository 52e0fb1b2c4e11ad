"""Compares every back end of a block's operations with the reference, on this machine: `zoo check TYPE --backend all`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blocks.base import Config
from kernels import BACKENDS, BackendError, backend
from kernels.backends import Backends, observed
from kernels.verify import TOLERANCE
from zoo.check.contract import ContractError
from zoo.check.fixtures import Piece, Subject, ids, kinds_of, read, scrambled

LENGTH = 150  # more than two chunks, and no multiple of one
COMPARED = tuple(name for name in BACKENDS if name not in ("auto", "reference"))


class BackendCheck(NamedTuple):
    """One back end on one block. `operations` are those that it served; `refusal` is why it served none."""

    backend: str
    dtype: str
    operations: tuple[str, ...]
    worst: float
    refusal: str | None


def check_backends(config: Config, d_model: int, names: Sequence[str] = COMPARED) -> Iterator[BackendCheck]:
    """Outputs and gradients of a block under each back end, on the GPU if there is one, beside the reference's: float32 and, on a
    GPU, bfloat16 autocast. Raises ContractError where they differ by more than the dtype's tolerance."""
    config.check(d_model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        subject = Subject(config, scrambled(config.build(d_model, 1, 3)).float().to(device), d_model)
    truth, _ = _outputs(subject, "reference", torch.float32)
    for name in names:
        for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
            yield _compare(subject, name, dtype, truth)


def _compare(subject: Subject, name: str, dtype: torch.dtype, truth: list[Tensor]) -> BackendCheck:
    precision = str(dtype).removeprefix("torch.")
    try:
        tensors, served = _outputs(subject, name, dtype)
    except BackendError as error:
        return BackendCheck(name, precision, (), 0.0, str(error))
    if not served:
        return BackendCheck(name, precision, (), 0.0, "none of this block's operations has it")
    scale = max(float(t.norm()) for t in truth[1:])
    worst = 0.0
    for tensor, expected in zip(tensors, truth, strict=True):
        if float(expected.norm()) > 1e-4 * scale:
            worst = max(worst, float((tensor - expected).norm() / expected.norm()))
    if not worst <= TOLERANCE[dtype]:
        raise ContractError(f"backend {name!r} ({', '.join(served)}; {precision}) differs from the reference by {worst:.1e}")
    return BackendCheck(name, precision, served, worst, None)


def _outputs(subject: Subject, name: str, dtype: torch.dtype) -> tuple[list[Tensor], tuple[str, ...]]:
    """The block's output and its gradients to the input and every parameter, and which operations the back end served."""
    served: dict[str, None] = {}

    def note(operation: str, chosen: str, backends: Backends[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if chosen == name:
            served[operation] = None

    device = next(subject.block.parameters()).device
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, LENGTH, subject.d_model, generator=generator).to(device).requires_grad_()
    kinds = kinds_of(subject.config, 2, LENGTH)
    piece = Piece(x, kinds=None if kinds is None else kinds.to(device), tokens=ids(2, LENGTH).to(device))
    with backend(name), observed(note), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        y, _, _ = read(subject, [piece])
    weight = torch.randn(y.shape, generator=generator).to(y)
    wanted = [x, *(p for p in subject.block.parameters() if p.requires_grad)]
    grads = torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True)
    return [y.detach().float(), *(torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True))], tuple(served)
