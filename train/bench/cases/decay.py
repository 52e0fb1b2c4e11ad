"""Matrix memories that decay, and layers around them, beside Hugging Face's Mamba-2 and fla's naive forms; and their guard rails."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import mamba2
from blocks.context import Context
from kernels import decay
from kernels.decay import reference
from train.bench import peers
from train.bench.case import Case, Step, Target, leaf, module_training, training

B, H, E = 4, 4, 64  # rows, heads, width of keys and values
SSD = {"h": 8, "p": 64, "n": 128}  # heads, width of a head, state size
D_MODEL = 256
GATES = ("none", "scalar", "vector")
SCALE = E**-0.5


def cases() -> Iterator[Case]:
    yield from _mamba2()
    yield from _linear()
    for gate in GATES:
        name = f"decay, gate {gate}"
        yield Case(name, _shape(4096), "itself at T1024", partial(_ours, gate, 4096), partial(_ours, gate, 1024), Target(limit=4.6))
        yield Case(name, _shape(64), "its own recurrence", partial(_ours, gate, 64), partial(_recurrence, gate, 64), Target(equal=1.0))


def _mamba2() -> Iterator[Case]:
    t, (h, p, n) = 1024, SSD.values()
    flops = 3 * B * decay.flops(t, h, n, p)
    target = Target(equal=6.0, shipped=8.0, share=0.45)
    peer = "Hugging Face mamba2_chunk_scan, chunk 256"
    yield Case("ssd", f"B{B} T{t} H{h} P{p} N{n}", peer, partial(_ssd, ssd, t), partial(_ssd, hugging_face_ssd, t), target, flops)
    for t, shipped in ((256, 3.0), (1024, 4.0), (4096, 7.0)):
        flops = 3 * B * mamba2.Config().cost(D_MODEL, t).flops
        target = Target(equal=2.5, shipped=shipped)
        peer = "Hugging Face Mamba2Mixer, chunk 256"
        yield Case("mamba2 layer", f"B{B} T{t} D{D_MODEL}", peer, partial(_layer, t), partial(_mixer, t), target, flops)


def _linear() -> Iterator[Case]:
    flops = 3 * B * decay.flops(256, H, E, E)
    peer = "fla naive recurrence"
    yield Case("gla", _shape(256), peer, partial(_ours, "vector", 256), partial(_fla, fla_gla, "vector", 256), Target(equal=8.0), flops)
    strong = partial(_ours, "vector", 256, 30.0), partial(_fla, fla_gla, "vector", 256, 30.0)
    yield Case("gla, strong decay", _shape(256), peer, *strong, Target(), flops)
    for t, equal in ((1024, 2.0), (4096, 5.0)):
        flops = 3 * B * decay.flops(t, H, E, E)
        sides = partial(_ours, "scalar", t), partial(_fla, fla_simple, "scalar", t)
        yield Case("simple gla", _shape(t), "fla naive chunk 64", *sides, Target(equal=equal), flops)
        sides = partial(_ours, "fixed", t), partial(_fla, fla_simple, "fixed", t)
        yield Case("retnet", _shape(t), "fla naive chunk 64", *sides, Target(equal=equal), flops)
    flops = 3 * B * decay.flops(1024, H, E, E)
    sides = partial(_ours, "none", 1024), partial(_fla, fla_linear, "none", 1024)
    yield Case("linear attention", _shape(1024), "fla naive chunk 64", *sides, Target(), flops, "the same products: a tie is honest")


def inputs(gate: str, t: int, strength: float = 1.0) -> tuple[Tensor | None, ...]:
    """q, k, v, g: log decays of -0.05 `strength` in the mean, as GLA's start; `fixed` are RetNet's, constants."""
    q, k, v = (leaf(B, t, H, E, scale=scale, seed=i) for i, scale in enumerate((1.0, SCALE, 1.0)))
    if gate == "none":
        return q, k, v, None
    if gate == "fixed":
        return q, k, v, torch.log1p(-(2.0 ** (-5 - torch.arange(H)))).expand(B, t, H)
    shape = (B, t, H, E) if gate == "vector" else (B, t, H)
    return q, k, v, (strength * F.logsigmoid(leaf(*shape, seed=3).detach()) / 16).requires_grad_()


def ssd_inputs(t: int) -> tuple[Tensor, ...]:
    """x, dt, A, B, C: steps and rates as Mamba-2 starts with, the steps varied by their inputs."""
    h, p, n = SSD.values()
    x, b, c = leaf(B, t, h, p, seed=0), leaf(B, t, 1, n, scale=n**-0.5, seed=1), leaf(B, t, 1, n, seed=2)
    start = torch.linspace(1e-3, 1e-1, h)
    dt = F.softplus(leaf(B, t, h, scale=0.5, seed=3).detach() + start.expm1().log())
    return x, dt.requires_grad_(), (-torch.arange(1.0, h + 1)).requires_grad_(), b, c


def ssd(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return decay.decay(c, b, dt[..., None] * x, dt * a)[0]


def hugging_face_ssd(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Its torch function itself: the decorator around it would call another library where there is one."""
    scan: Any = peers.hugging_face("mamba2.modeling_mamba2").mamba2_chunk_scan
    return getattr(scan, "__wrapped__", scan)(x, dt, a, b, c, chunk_size=256)


def fla_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    return peers.fla("gla/naive.py").naive_recurrent_gla(q / SCALE, k, v, g)[0]


def fla_simple(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    return peers.fla("simple_gla/naive.py").naive_chunk_simple_gla(q, k, v, g, scale=1.0)[0]


def fla_linear(q: Tensor, k: Tensor, v: Tensor, g: None) -> Tensor:
    return peers.fla("linear_attn/naive.py").naive_chunk_linear_attn(q, k, v, scale=1.0)


def layers() -> tuple[nn.Module, nn.Module]:
    """Our block and Hugging Face's mixer, with the same weights."""
    torch.manual_seed(0)
    ours = mamba2.Config().build(D_MODEL)
    package = peers.hugging_face("mamba2.modeling_mamba2")
    sizes = {"num_heads": 8, "head_dim": 64, "state_size": 128, "n_groups": 1, "expand": 2}
    config = package.Mamba2Config(hidden_size=D_MODEL, **sizes, chunk_size=256, num_hidden_layers=1, use_bias=False)
    theirs = package.Mamba2Mixer(config, 0)
    state = {name.replace("conv.", "conv1d."): x for name, x in ours.state_dict().items()}
    state["conv1d.weight"] = state["conv1d.weight"][:, None]
    theirs.load_state_dict(state)
    return ours, theirs


def _shape(t: int) -> str:
    return f"B{B} T{t} H{H} K{E} V{E}"


def _ssd(function: Any, t: int) -> Step:
    return training(function, *ssd_inputs(t))


def _layer(t: int) -> Step:
    ours, _ = layers()
    return module_training(ours, lambda x: ours(x, None, Context(torch.arange(t).expand(B, -1))), leaf(B, t, D_MODEL))


def _mixer(t: int) -> Step:
    _, theirs = layers()
    return module_training(theirs, theirs, leaf(B, t, D_MODEL))


def _ours(gate: str, t: int, strength: float = 1.0) -> Step:
    return training(decay.decay, *inputs(gate, t, strength))


def _recurrence(gate: str, t: int) -> Step:
    return training(reference.decay, *inputs(gate, t))


def _fla(function: Any, gate: str, t: int, strength: float = 1.0) -> Step:
    return training(function, *inputs(gate, t, strength))
