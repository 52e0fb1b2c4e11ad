"""Killed at any instant and started again, a run ends with the same bits."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

import train.trainer.fit
from blocks.errors import ConfigError
from tests.train.fakes import FakeSource, fake_run, model_config
from train.config.run import RunConfig
from train.run.single_run import train_run
from train.system import atomic_files
from train.system.atomic_files import Table
from train.system.nested_tensors import load_nested, save_nested
from train.trainer.checkpoint import Progress, restore, save
from train.trainer.progress import Bar
from zoo.model.model import build

assert train.trainer.fit  # imported before the children are forked


def spec_with_everything(steps: int = 40, **changes: Any) -> RunConfig:
    """Dropout, state passing, accumulation, mixed lengths, validation."""
    train_ = {"state": "pass", "state_share": 0.6, "accumulate": 2, "batch_size": 2, "validate_every": 7, "validate_rows": 4}
    return fake_run(steps, model_config(dropout=0.2), **{**train_, "log_every": 5, "checkpoint_every": 3, **changes})


def train_in(folder: Path, spec: RunConfig, bar: Bar | None = None) -> None:
    train_run(spec, folder, source=FakeSource(lengths=(12, 7)), progress=bar)


def forked(work: Callable[[], None]) -> int:
    """A child process that does the work; its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("metrics.csv", "validation.csv", "config.yaml"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for name in ("model", "optimiser", "carried"):
        ours, theirs = (load_file(folder / "checkpoint" / f"{name}.safetensors") for folder in (a, b))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert not [p.name for p in a.iterdir() if p.suffix in (".tmp", ".next", ".old")]


def kill_and_go_on(tmp_path: Path, kills: int, seed: int, **changes: Any) -> int:
    """Train without a break, then with `kills` kills at random moments; how many of them found the child at work."""
    spec = spec_with_everything(**changes)
    start = time.perf_counter()
    assert os.waitpid(forked(lambda: train_in(tmp_path / "whole", spec)), 0)[1] == 0
    seconds, draw, hits = time.perf_counter() - start, random.Random(seed), 0
    for _ in range(kills):
        child = forked(lambda: train_in(tmp_path / "broken", spec))
        time.sleep(draw.uniform(0, 1.5 / kills) * seconds)
        os.kill(child, signal.SIGKILL)
        hits += os.waitpid(child, 0)[1] == signal.SIGKILL
    assert os.waitpid(forked(lambda: train_in(tmp_path / "broken", spec)), 0)[1] == 0
    assert_same_run(tmp_path / "broken", tmp_path / "whole")
    return hits


def test_killed_runs_end_alike(tmp_path: Path) -> None:
    assert kill_and_go_on(tmp_path, 3, seed=0) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("state", ["pass", "tbptt", "none"])
def test_ten_kills(tmp_path: Path, state: str) -> None:
    data = {"data": {"kind": "fake", "mode": "stream"}} if state == "tbptt" else {}
    assert kill_and_go_on(tmp_path, 10, seed=1, steps=300, state=state, **data) >= 5


class Died(BaseException):
    """The process is gone."""


class Scythe(Bar):
    """Dies after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def start(self, name: str, step: int, steps: int) -> None:
        pass

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        if step >= self.step:
            raise Died

    def stop(self) -> None:
        pass


def test_stopped_after_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.trainer.metrics_callback.BAR_SECONDS", -1.0)
    spec = spec_with_everything(steps=13)
    train_in(tmp_path / "whole", spec)
    for step in (1, 2, 3, 5, 8, 11):
        with pytest.raises(Died):
            train_in(tmp_path / "broken", spec, Scythe(step))
    train_in(tmp_path / "broken", spec)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_a_keyboard_interrupt_and_can_be_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.trainer.metrics_callback.BAR_SECONDS", -1.0)

    class Impatient(Scythe):
        def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
            if step == self.step:
                os.kill(os.getpid(), signal.SIGINT)

    spec, handler = spec_with_everything(steps=8), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "broken", spec, Impatient(5))
    assert signal.getsignal(signal.SIGINT) is handler
    train_in(tmp_path / "broken", spec)
    train_in(tmp_path / "whole", spec)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


def test_a_checkpoint_is_whole_at_every_instant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die before each call that touches the disk in turn: what is read back is the old checkpoint or the new one."""
    models = [build(model_config(), seed) for seed in (0, 1)]
    found, call = [], 0
    while True:
        folder = tmp_path / str(call)
        folder.mkdir()
        save(folder, models[0], {}, [], Progress(step=1))
        try:
            with monkeypatch.context() as patched:
                die_at(patched, call)
                save(folder, models[1], {}, [], Progress(step=2))
            done = True
        except Died:
            done = False
        kept = restore(folder)
        assert kept is not None
        assert torch.equal(kept.model["embedding.weight"], models[kept.progress.step - 1].embedding.weight)
        assert sorted(p.name for p in folder.iterdir()) == ["checkpoint"]
        found.append(kept.progress.step)
        call += 1
        if done:
            break
    assert call > 8
    assert found == sorted(found)
    assert set(found) == {1, 2}


def die_at(patched: pytest.MonkeyPatch, call: int) -> None:
    """Raise Died before the call-th use of anything that writes."""
    count = iter(range(10**6))

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def use(*args: Any, **kwargs: Any) -> Any:
            if next(count) == call:
                raise Died
            return real(*args, **kwargs)

        return use

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (shutil, "rmtree")):
        patched.setattr(owner, name, guarded(getattr(owner, name)))
    patched.setattr("train.trainer.checkpoint.save_file", guarded(save_file))
    patched.setattr("zoo.weights.safetensors_io.save_file", guarded(save_file))


class Pair(NamedTuple):
    a: Any
    b: Any


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    x = torch.arange(6.0).view(2, 3)
    value = [Pair((x.t(), x[:1]), None), {"k": Pair(3, "label")}, (), [], torch.zeros(0, 2, dtype=torch.bfloat16), torch.tensor([True])]
    save_nested(value, tmp_path / "f.safetensors")
    got = load_nested(tmp_path / "f.safetensors")
    assert repr(got) == repr(value)
    assert type(got[0]) is Pair


def test_only_named_tuples_are_looked_up(tmp_path: Path) -> None:
    save_nested([Pair(1, 2)], tmp_path / "f.safetensors")
    text = (tmp_path / "f.safetensors").read_bytes()
    name = f'\\"{Pair.__module__}\\", \\"Pair\\"'.encode()
    assert name in text
    for wrong in (b'\\"subprocess\\", \\"Popen\\"', b'\\"os\\", \\"system\\"'):
        (tmp_path / "g.safetensors").write_bytes(text.replace(name, wrong.ljust(len(name))))
        with pytest.raises(ValueError, match="NamedTuple"):
            load_nested(tmp_path / "g.safetensors")


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a state holds a set"):
        save_nested([{1}], tmp_path / "f.safetensors")


def test_a_table_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = Table(path, ("step", "x"), 0)
    for step in (1, 2, 30):
        table.add(step=step, x=0.1 * step)
    with path.open("a") as file:
        file.write("2,0.")  # a line that was not finished
    Table(path, ("step", "x"), 2)
    assert path.read_text() == "step,x\n1,0.1\n2,0.2\n"


def test_two_processes_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    class Second(Scythe):
        def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
            with pytest.raises(ConfigError, match="another process"):
                train_in(tmp_path, spec_with_everything(steps=2))

    train_in(tmp_path, spec_with_everything(steps=2), Second(0))


def test_leftovers_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.tmp").mkdir()
    (tmp_path / "checkpoint.tmp" / "model.safetensors").write_bytes(b"half")
    assert restore(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    atomic_files.write_text(tmp_path / "x", "y")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
