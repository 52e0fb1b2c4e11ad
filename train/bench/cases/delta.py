"""The delta rule beside Hugging Face's and fla's chunk forms, and its guard rails: linear in the length, ahead of its own recurrence."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kernels import delta
from kernels.delta import reference
from train.bench import peers
from train.bench.case import Case, Step, Target, leaf, training

B, H, E = 4, 4, 64  # rows, heads, width of keys and values
GATES = ("none", "scalar", "vector")
Inputs = dict[str, Tensor | None]


def cases() -> Iterator[Case]:
    for t, targets in ((1024, (2.0, 2.5, 2.5)), (4096, (3.0, 3.5, 4.0))):
        equal, shipped, naive = targets
        ours, flops = partial(_ours, "scalar", t), 3 * B * delta.flops(t, H, E, E)
        hugging_face = "Hugging Face torch_chunk_gated_delta_rule, chunk 64"
        yield Case("gated delta", _shape(t), hugging_face, ours, partial(_hugging_face, t), Target(equal=equal, shipped=shipped), flops)
        yield Case("gated delta", _shape(t), "fla naive chunk 64", ours, partial(_fla_gated, t), Target(equal=naive), flops)
    flops = 3 * B * delta.dplr_flops(1024, H, E, E)
    yield Case("dplr", _shape(1024), "fla naive dplr chunk 32", partial(_ours, "dplr", 1024), _fla_dplr, Target(equal=10.0), flops)
    for gate in (*GATES, "dplr"):
        name = gate if gate == "dplr" else f"delta, gate {gate}"
        yield Case(name, _shape(4096), "itself at T1024", partial(_ours, gate, 4096), partial(_ours, gate, 1024), Target(limit=4.6))
        yield Case(name, _shape(64), "its own recurrence", partial(_ours, gate, 64), partial(_recurrence, gate, 64), Target(equal=1.0))


def inputs(gate: str, t: int) -> Inputs:
    """Arguments by name: keys of length 1, log decays of -0.7 in the mean (for dplr: of RWKV-7, down to -0.6)."""
    q, v = leaf(B, t, H, E, scale=E**-0.5, seed=0), leaf(B, t, H, E, seed=2)
    key = F.normalize(leaf(B, t, H, E, seed=1), dim=-1).detach()
    if gate == "dplr":
        w, rate = leaf(B, t, H, E, seed=3), leaf(B, t, H, E, seed=4).detach().sigmoid()
        w = (-0.6 * w.detach().sigmoid()).requires_grad_()
        given = {"a": (-key).requires_grad_(), "b": (key * rate).requires_grad_()}
        return {"q": q, "w": w, "k": leaf(B, t, H, E, scale=E**-0.5, seed=5), "v": v, **given}
    shape = (B, t, H, E) if gate == "vector" else (B, t, H)
    g = None if gate == "none" else (-F.softplus(leaf(*shape, seed=3).detach())).requires_grad_()
    beta = leaf(B, t, H, seed=4).detach().sigmoid().requires_grad_()
    return {"q": q, "k": key.requires_grad_(), "v": v, "g": g, "beta": beta}


def hugging_face_gated(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Its torch function itself: the decorator around it would call another library where there is one."""
    function: Any = peers.hugging_face("qwen3_next.modeling_qwen3_next").torch_chunk_gated_delta_rule
    return function.__wrapped__(q * E**0.5, k, v, g, beta)[0]


def fla_gated(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    return peers.fla("gated_delta_rule/naive.py").naive_chunk_gated_delta_rule(q, k, v, g, beta, scale=1.0)[0]


def fla_dplr(q: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    heads_first = [x.transpose(1, 2) for x in (q * E**0.5, k, v, a, b, w)]
    return peers.fla("generalized_delta_rule/dplr/naive.py").dplr_chunkwise(*heads_first)[0].transpose(1, 2)


def _shape(t: int) -> str:
    return f"B{B} T{t} H{H} K{E} V{E}"


def _step(function: Callable[..., Any], given: Inputs) -> Step:
    return training(function, *given.values())


def _ours(gate: str, t: int) -> Step:
    return _step(delta.dplr if gate == "dplr" else delta.delta, inputs(gate, t))


def _recurrence(gate: str, t: int) -> Step:
    return _step(reference.dplr if gate == "dplr" else reference.delta, inputs(gate, t))


def _hugging_face(t: int) -> Step:
    return _step(hugging_face_gated, inputs("scalar", t))


def _fla_gated(t: int) -> Step:
    return _step(fla_gated, inputs("scalar", t))


def _fla_dplr() -> Step:
    return _step(fla_dplr, inputs("dplr", 1024))
