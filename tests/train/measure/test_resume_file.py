"""A measure killed and gone on with through a file."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from blocks.errors import ConfigError
from train.measure.resume_file import ResumeFile
from zoo.measures import MEASURES, collapse, state

CONFIGS: dict[str, Any] = {
    "collapse": collapse.Config(train_length=16, times=4, documents=2, call_tokens=20),
    "state": state.Config(length=60, every=20, documents=2, horizons=(), train_length=8, call_tokens=20),
}


class Killed(Exception):
    """What ends a run in these tests."""


class Mortal(ResumeFile):
    """Kills the run after so many offers."""

    patience = 0

    def save(self, tree: Any) -> None:
        super().save(tree)
        self.patience -= 1
        if self.patience == 0:
            raise Killed


def documents() -> list[torch.Tensor]:
    return [torch.randint(0, 30, (64,), generator=torch.Generator().manual_seed(i)) for i in range(2)]


@pytest.mark.parametrize("name", [name for name in MEASURES if MEASURES[name].RESUMABLE])
def test_rows_are_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    config = {
        "d_model": 16,
        "vocab_size": 30,
        "blocks": {"M": {"type": "gated_delta"}, "A": {"type": "gqa", "n_heads": 2}},
        "pattern": "M A",
    }
    model, run = zoo.build(config), MEASURES[name].run
    expected = run(model, CONFIGS[name], 0, data=documents())
    path = tmp_path / "measures" / "kept.safetensors"
    for patience in (3, 2, 1):  # killed three times on its way
        keeper = Mortal(path, {"seed": 0}, seconds=0)
        keeper.patience = patience
        with pytest.raises(Killed):
            run(model, CONFIGS[name], 0, data=documents(), keep=keeper)
    kept = ResumeFile(path, {"seed": 0}, seconds=0).load()
    assert kept.pieces == 6
    assert repr(run(model, CONFIGS[name], 0, data=documents(), keep=ResumeFile(path, {"seed": 0}))) == repr(expected)


def test_what_is_of_something_else_is_not_loaded(tmp_path: Path) -> None:
    keeper = ResumeFile(tmp_path / "kept", {"seed": 0, "config": {"a": [1]}}, seconds=0)
    assert keeper.load() is None
    keeper.save({"x": torch.arange(3), "y": (1, None)})
    found = ResumeFile(tmp_path / "kept", {"config": {"a": [1]}, "seed": 0}).load()
    assert torch.equal(found["x"], torch.arange(3))
    assert found["y"] == (1, None)
    assert ResumeFile(tmp_path / "kept", {"seed": 1, "config": {"a": [1]}}).load() is None
    assert os.listdir(tmp_path) == ["kept"], "nothing is left beside it"
    keeper.clear()
    keeper.clear()
    assert keeper.load() is None


def test_writes_are_rare(tmp_path: Path) -> None:
    keeper = ResumeFile(tmp_path / "kept", {}, seconds=3600)
    keeper.save({"x": 1})
    assert keeper.load() is None


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"no safetensors")
    with pytest.raises(ConfigError, match=r"is damaged: .* delete it to measure anew"):
        ResumeFile(tmp_path / "kept", {}).load()
