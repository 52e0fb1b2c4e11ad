"""What the start-up settings gain on this machine: one training step, with a choice and without it, in processes that take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import torch

from train.bench.case import Case, Step, Target, leaf, module_training
from train.bench.run import Effort, Process, turns

EFFORT = Effort(rounds=7, seconds=12)


def _layer(autocast: bool) -> Step:
    """Forward and backward of a Mamba-2 layer at width 256 on 4 rows of 1024 tokens."""
    from blocks.context import advance
    from blocks.mamba2 import Config

    torch.manual_seed(0)
    block, x = Config().build(256), leaf(4, 1024, 256)
    context, _ = advance(None, 4, 1024)

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return block(x, None, context)[0]

    return module_training(block, forward, x)


PROBE = Case("probe", "Mamba-2 layer, d 256, 4 x 1024 tokens", "bf16 autocast", lambda: _layer(False), lambda: _layer(True), Target())


@dataclass(frozen=True)
class Gain:
    """How many times faster the probe is with a choice than with the other one."""

    choice: str
    beside: str
    ratio: float


def gains(threads: int) -> Iterator[Gain]:
    """Measure every choice, the others as they are by default."""
    for name, value, other in (("ZOO_ALLOCATOR", "keep", "system"), ("OMP_WAIT_POLICY", "passive", "active")):
        yield Gain(f"{name}={value}", other, _compare({name: value}, {name: other}, threads, threads))
    yield Gain("ZOO_MATMUL=auto", "torch", _compare({"ZOO_MATMUL": "auto"}, {"ZOO_MATMUL": "torch"}, threads, threads))
    if threads > 1:
        yield Gain(f"{threads} threads", "1", _compare({}, {}, threads, 1))
    with Process("ours", threads) as process:
        times = process.ask(case=PROBE.name, clock="wall", rounds=EFFORT.rounds, seconds=EFFORT.seconds)
        yield Gain("train.precision=bf16", "fp32", median(times["ours"]) / median(times["theirs"]))


def _compare(chosen: dict[str, str], other: dict[str, str], threads: int, other_threads: int) -> float:
    request = {"case": PROBE.name, "side": "ours"}
    passive = {"OMP_WAIT_POLICY": "passive"}
    with ExitStack() as stack:
        first = stack.enter_context(Process("ours", threads, passive | chosen))
        second = stack.enter_context(Process("ours", other_threads, passive | other))
        ours, theirs = turns(first, second, EFFORT, (request, request))
    return median(theirs) / median(ours)
