"""Time a case: both sides alternate in one process, and what counts is the median."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from train.bench.case import Case, Step

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Times(NamedTuple):
    """Seconds of every round, in order."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """The peer's median over ours: how many times faster ours is."""
        return median(self.theirs) / median(self.ours)


def alternate(case: Case, rounds: int = 7, clock: str = "wall", seconds: float = 20.0) -> Times:
    """Rounds of one step of each side, after two that don't count; no new round begins after `seconds`, but three are always run.
    `cpu` counts the processor's time of this process: immune to neighbours on a shared machine, right with one thread only."""
    now = CLOCKS[clock]
    ours, theirs = case.ours(), case.theirs()
    for step in (ours, theirs, ours, theirs):
        step()
    times = Times([], [])
    end = time.perf_counter() + seconds
    while len(times.ours) < 3 or (len(times.ours) < rounds and time.perf_counter() < end):
        for step, kept in ((ours, times.ours), (theirs, times.theirs)):
            kept.append(timed(step, now))
    return times


def timed(step: Step, now: Callable[[], float]) -> float:
    """Seconds of one step."""
    begun = now()
    step()
    return now() - begun


def gemm_rate(clock: str = "wall", size: int = 2048, rounds: int = 5) -> float:
    """FLOPs a second of a float32 matrix product of `size`, the best of `rounds`: what this machine can reach."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = [timed(lambda: a @ b, CLOCKS[clock]) for _ in range(rounds + 1)][1:]
    return 2 * size**3 / min(times)
