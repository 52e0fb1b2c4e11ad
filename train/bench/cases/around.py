"""What surrounds the mixers beside torch's own: short convolution, norm, the loss from hidden states, the optimiser."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.conv import conv
from kernels.cross_entropy import summed_cross_entropy
from kernels.norm import rms_norm
from train.bench.case import Case, Step, Target, leaf, training

B, T, C, WIDTH = 4, 1024, 768, 4  # of the convolution: x, B and C of a Mamba-2 layer
NORMS = ((16384, 512), (1024, 256))  # rows, width
TOKENS, VOCAB, D = 4096, 8192, 256  # of the loss
LABELLED = 0.25  # share of the tokens that have a label
PARAMETERS = 13  # matrices of the optimiser's case
SIDE = 330


def cases() -> Iterator[Case]:
    shape = f"B{B} T{T} C{C} W{WIDTH}"
    yield Case("causal conv + silu", shape, "F.conv1d in groups, silu", partial(_conv, conv_ours), partial(_conv, conv_torch), Target(1.5))
    for rows, width in NORMS:
        ours, theirs = partial(_norm, norm_ours, rows, width), partial(_norm, norm_torch, rows, width)
        yield Case("rms norm", f"{rows}x{width}", "F.rms_norm", ours, theirs, Target(equal=2.0))
    shape = f"{TOKENS} tokens D{D} V{VOCAB}"
    for name, share, target in (("all labelled", 1.0, Target(equal=0.95)), ("a quarter labelled", LABELLED, Target(equal=3.0))):
        ours, theirs = partial(_loss, loss_ours, share), partial(_loss, loss_torch, share)
        note = "ours holds 16 MiB of logits, the peer all of them" if share == 1 else ""
        yield Case("linear + cross-entropy", f"{shape}, {name}", "all logits, ignore_index", ours, theirs, target, note=note)
    ours, theirs = partial(_adamw, True), partial(_adamw, None)
    yield Case("adamw", f"{PARAMETERS} tensors of {SIDE}x{SIDE}", "torch's default", ours, theirs, Target(equal=2.0))


def conv_ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return conv(x, weight, bias, activation="silu")[0]


def conv_torch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As Mamba's slow path: padded on both sides, cut at the end."""
    y = F.conv1d(x.transpose(1, 2), weight[:, None], bias, padding=weight.shape[1] - 1, groups=len(weight))
    return F.silu(y[..., : x.shape[1]]).transpose(1, 2)


def norm_ours(x: Tensor, weight: Tensor) -> Tensor:
    return rms_norm(x, weight, eps=1e-5)


def norm_torch(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, 1e-5)


def loss_ours(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    rows = (labels >= 0).nonzero().squeeze(1)
    return summed_cross_entropy(hidden.index_select(0, rows), weight, labels.index_select(0, rows))


def loss_torch(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), labels, reduction="sum")


def labels_of(share: float) -> Tensor:
    """(tokens,): the given share of them labelled, the others -100."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(VOCAB, (TOKENS,), generator=generator)
    return labels.where(torch.rand(TOKENS, generator=generator) < share, torch.tensor(-100))


def _conv(function: Callable[..., Tensor]) -> Step:
    """The gradient comes in the order that the next layer gives it, (b, t, c), whatever the order of the output."""
    leaves, gradient = [leaf(B, T, C), leaf(C, WIDTH, seed=1), leaf(C, seed=2)], leaf(B, T, C, seed=3).detach()
    return lambda: torch.autograd.grad(function(*leaves), leaves, gradient)


def _norm(function: Callable[..., Tensor], rows: int, width: int) -> Step:
    return training(function, leaf(rows, width), leaf(width, seed=1))


def _loss(function: Callable[..., Tensor], share: float) -> Step:
    return training(function, leaf(TOKENS, D), leaf(VOCAB, D, scale=D**-0.5, seed=1), labels_of(share))


def _adamw(fused: bool | None) -> Step:
    """A step of the optimiser alone, on 1.4 million parameters."""
    parameters = [torch.nn.Parameter(leaf(SIDE, SIDE, seed=i).detach()) for i in range(PARAMETERS)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.AdamW(parameters, fused=fused).step
