"""`zoo run`, killed at random moments and started again, ends with the same bytes, and leaves no process behind."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.train.experiments import finished, write_experiment

POLL = 0.02  # seconds
LAST_GASP = 15  # seconds that the workers of a killed command have to end


def start(experiment: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """`zoo run` as a user starts it."""
    command = [sys.executable, "-m", "train.cli", "run", str(experiment), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(experiment: Path, out: Path, workers: int) -> None:
    process = start(experiment, out, workers)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def trace(out: Path) -> set[tuple[str, int, int]]:
    """What the runs have written: it changes with every step that is logged."""
    found = set()
    for path in out.rglob("*/*"):
        try:
            about = path.stat()
        except FileNotFoundError:  # replaced at this moment
            continue
        found.add((str(path.relative_to(out)), about.st_mtime_ns, about.st_size))
    return found


def kill_at_work(process: subprocess.Popen[bytes], out: Path, seconds: float) -> bool:
    """Kill the command alone, `seconds` after its workers have begun to write; whether it was still at work."""
    before = trace(out)
    while process.poll() is None and trace(out) == before:
        time.sleep(POLL)
    time.sleep(seconds)
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, orphans = psutil.wait_procs(family, timeout=LAST_GASP)
    assert not orphans, [orphan.cmdline() for orphan in orphans]
    return process.returncode == -signal.SIGKILL


def results(out: Path) -> dict[str, bytes]:
    """What must be the same in every repetition."""
    kept = ("model.safetensors", "results.csv", "plan.json", "metrics.csv", "config.yaml")
    paths = [*(path for path in out.rglob("*") if path.name in kept), *out.rglob("measures/*.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def kill_and_go_on(tmp_path: Path, workers: int, kills: int, seed: int, longest: float) -> int:
    """How many of `kills` kills met the command at work, all of them at most `longest` seconds after it began to write."""
    experiment, draw, met = write_experiment(tmp_path), random.Random(seed), 0
    finished(experiment, tmp_path / "whole")
    for _ in range(kills):
        met += kill_at_work(start(experiment, tmp_path / "broken", workers), tmp_path / "broken", draw.uniform(0, longest))
    finish(experiment, tmp_path / "broken", workers)
    whole, broken = results(tmp_path / "whole"), results(tmp_path / "broken")
    assert len([name for name in whole if name.endswith("model.safetensors")]) == 4
    assert broken.keys() == whole.keys()
    assert [name for name in whole if whole[name] != broken[name]] == []
    assert not [path for path in (tmp_path / "broken").rglob("*") if path.suffix in (".tmp", ".next", ".old")]
    return met


def test_killed_twice(tmp_path: Path) -> None:
    assert kill_and_go_on(tmp_path, workers=1, kills=2, seed=0, longest=1.0) >= 1


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path) -> None:
    assert kill_and_go_on(tmp_path, workers=2, kills=10, seed=1, longest=2.0) >= 5
