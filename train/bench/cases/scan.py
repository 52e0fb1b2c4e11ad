"""Elementwise scans: a Mamba-1 layer beside mambapy's parallel scan, and the guard rails of the selective scan."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from blocks import mamba1
from blocks.context import Context
from kernels import linear_scan as scan
from kernels.linear_scan import reference
from train.bench import peers
from train.bench.case import Case, Step, Target, leaf, module_training, training

B, D, T = 4, 256, 1024
CHANNELS, STATES = 2 * D, 16


def cases() -> Iterator[Case]:
    flops = 3 * B * mamba1.Config().cost(D, T).flops
    yield Case("mamba-1 layer", f"B{B} T{T} d{D} N{STATES}", "mambapy pscan", _layer, _mambapy, Target(equal=2.0), flops)
    shape = f"C{CHANNELS} N{STATES}"
    yield Case("selective scan", f"B{B} T4096 {shape}", "itself at T1024", partial(_scan, 4096), partial(_scan, T), Target(limit=4.6))
    yield Case("selective scan", f"B{B} T64 {shape}", "its own recurrence", partial(_scan, 64), partial(_recurrence, 64), Target(equal=1.0))


def layers() -> tuple[mamba1.Block, nn.Module]:
    """Ours and mambapy's, with the same weights."""
    torch.manual_seed(0)
    package = peers.mambapy("mamba")
    theirs = package.MambaBlock(package.MambaConfig(d_model=D, n_layers=1, d_state=STATES, pscan=True))
    ours = mamba1.Config(d_state=STATES).build(D)
    weights = {name.replace("conv1d.", "conv."): w for name, w in theirs.state_dict().items()}
    weights["conv.weight"] = weights["conv.weight"].view_as(ours.conv.weight)
    ours.load_state_dict(weights)
    return ours, theirs


def _layer() -> Step:
    ours, x = layers()[0], leaf(B, T, D)
    context = Context(positions=torch.arange(T).expand(B, T))
    return module_training(ours, lambda u: ours(u, None, context)[0], x)


def _mambapy() -> Step:
    theirs, x = layers()[1], leaf(B, T, D)
    return module_training(theirs, theirs, x)


def inputs(t: int) -> list[Tensor]:
    """x, dt, A, B, C as a Mamba layer starts with."""
    dt = (0.1 * leaf(B, t, CHANNELS, seed=1).detach().sigmoid()).requires_grad_()
    A = (-torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)).requires_grad_()
    return [leaf(B, t, CHANNELS), dt, A, leaf(B, t, STATES, seed=2), leaf(B, t, STATES, seed=3)]


def _scan(t: int) -> Step:
    return training(scan.selective_scan, *inputs(t))


def _recurrence(t: int) -> Step:
    return training(reference.selective_scan, *inputs(t))
