"""Run cases: `equal` in one process with the same settings for both sides, `shipped` in two processes that take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from train.bench.case import Case

SETTINGS = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "ZOO_", "LD_PRELOAD")  # a plain process begins without any of these


@dataclass(frozen=True)
class Result:
    """One comparison. ratio: the peer's time over ours; of a `limit`, ours over the peer's."""

    op: str
    shape: str
    peer: str
    kind: str  # equal | shipped | limit
    ours_ms: float
    peer_ms: float
    ratio: float
    target: float | None
    met: bool | None  # None without a target
    spread: float  # half the interquartile range of the rounds' ratios
    gemm_share: float | None  # useful FLOPs a second over those of a 2048-wide float32 product
    gemm_target: float | None
    rounds: int
    note: str


class Process:
    """A worker. Use as a context manager."""

    def __init__(self, settings: str, threads: int, environ: Mapping[str, str] | None = None) -> None:
        own = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
        command = [sys.executable, "-m", "train.bench.worker", settings, str(threads)]
        cwd = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own | dict(environ or {}), cwd=cwd
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises RuntimeError if the process ends instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a benchmark's process ended at {request}")
        return json.loads(line)


@dataclass(frozen=True)
class Effort:
    """How long a case is measured."""

    rounds: int = 9
    seconds: float = 20.0
    clock: str = "wall"


def turns(first: Process, second: Process, effort: Effort, requests: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Seconds of the steps of two processes that take turns, after two steps each that don't count."""
    ours: list[float] = []
    theirs: list[float] = []
    for process, request in zip((first, second), requests, strict=True):
        process.ask(**request)
    for number in range(effort.rounds + 2):
        for process, kept in ((first, ours), (second, theirs)):
            seconds = process.ask(step=True, clock=effort.clock)["seconds"]
            if number >= 2:
                kept.append(seconds)
        if sum(ours) + sum(theirs) > effort.seconds and number >= 4:
            break
    return ours, theirs


@contextmanager
def processes(threads: int) -> Iterator[tuple[Process, Process, Process]]:
    """Three workers: one for both sides of equal comparisons, ours as shipped, and the peer as its user gets it."""
    with Process("ours", threads) as both, Process("ours", threads) as ours, Process("plain", threads) as plain:
        yield both, ours, plain


def run(cases: Sequence[Case], threads: int, effort: Effort, told: Callable[[Result], None]) -> list[Result]:
    """Measure every case; `told` hears of each result as it comes."""
    results = []
    with processes(threads) as (both, ours, plain):
        for case in cases:
            for result in _measure(case, effort, both, ours, plain):
                results.append(result)
                told(result)
    return results


def _measure(case: Case, effort: Effort, both: Process, ours: Process, plain: Process) -> Iterator[Result]:
    answer = both.ask(case=case.name, clock=effort.clock, rounds=effort.rounds, seconds=effort.seconds)
    yield _result(case, answer["ours"], answer["theirs"], "equal" if case.target.limit is None else "limit", answer["gemm"])
    if case.target.shipped is not None:
        times = turns(ours, plain, effort, ({"case": case.name, "side": "ours"}, {"case": case.name, "side": "theirs"}))
        yield _result(case, *times, "shipped", None)


def _result(case: Case, ours: list[float], theirs: list[float], kind: str, gemm: float | None) -> Result:
    limit = kind == "limit"
    ratios = [(a / b if limit else b / a) for a, b in zip(ours, theirs, strict=True)]
    ratio = median(ours) / median(theirs) if limit else median(theirs) / median(ours)
    target: float | None = getattr(case.target, kind)
    share = None if case.flops is None or gemm is None else case.flops / median(ours) / gemm
    ordered = sorted(ratios)
    return Result(
        op=case.operation,
        shape=case.shape,
        peer=case.peer,
        kind=kind,
        ours_ms=1000 * median(ours),
        peer_ms=1000 * median(theirs),
        ratio=ratio,
        target=target,
        met=None if target is None else (ratio <= target if limit else ratio >= target),
        spread=(ordered[(3 * len(ordered)) // 4] - ordered[len(ordered) // 4]) / 2,
        gemm_share=share,
        gemm_target=case.target.share if kind == "equal" else None,
        rounds=len(ours),
        note=case.note,
    )


def as_json(results: Sequence[Result], machine: dict[str, Any]) -> dict[str, Any]:
    """What `zoo bench --json` prints."""
    return {"machine": machine, "results": [asdict(result) for result in results]}
