"""`kernels:` of a run: a first step that is compared with the references changes nothing; a wrong operation stops the run by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import kernels.decay
from blocks.errors import ConfigError
from kernels.verify import KernelError
from tests.train.fakes import FakeSource, fake_run
from train.config.run import KernelsConfig, RunConfig
from train.run.single_run import train_run
from zoo.config.model import load_model

MODEL = {"d_model": 16, "vocab_size": 24, "pattern": "G", "blocks": {"G": {"type": "gla", "n_heads": 2}}}


def spec(**kernels_config: object) -> RunConfig:
    return replace(fake_run(), model=load_model(MODEL), kernels=KernelsConfig(**kernels_config))


def test_verifying_changes_no_number(tmp_path: Path) -> None:
    summaries = [train_run(spec(verify=verify), tmp_path / str(verify), source=FakeSource()) for verify in (False, True)]
    assert summaries[0].loss == summaries[1].loss
    assert (tmp_path / "False" / "metrics.csv").read_bytes() == (tmp_path / "True" / "metrics.csv").read_bytes()


def test_a_wrong_operation_stops_the_run_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = kernels.decay.BACKENDS["chunked"]

    def wrong(q: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        o, state = room(q, *args, **kwargs)
        return torch.where(torch.arange(o.shape[1])[:, None, None] == 3, 0, o), state

    monkeypatch.setitem(kernels.decay.BACKENDS, "chunked", wrong)
    with pytest.raises(KernelError, match="decay: backend 'chunked' differs from the reference in output 0"):
        train_run(spec(verify=True), tmp_path, source=FakeSource())
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.setitem(kernels.decay.BACKENDS, "chunked", room)
    assert train_run(spec(verify=True), tmp_path, source=FakeSource()).status == "done"


def test_the_backend_is_the_one_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("chunked", "reference"):
        used = []
        own = kernels.decay.BACKENDS[room]

        def counted(*args: object, own: object = own, used: list = used, **kwargs: object) -> object:
            used.append(1)
            return own(*args, **kwargs)

        monkeypatch.setitem(kernels.decay.BACKENDS, room, counted)
        train_run(spec(backend=room), tmp_path / room, source=FakeSource())
        assert used
        monkeypatch.undo()
        assert json.loads((tmp_path / room / "environment.json").read_text(encoding="utf-8"))["settings"]


def test_a_backend_that_cannot_serve_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kernels\.backend.*fla.*decay.*auto takes what fits"):
        train_run(spec(backend="fla"), tmp_path, source=FakeSource())
    with pytest.raises(ConfigError, match="backend"):
        KernelsConfig(backend="cuda")
