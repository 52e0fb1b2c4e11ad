"""A run that goes wrong stops, says where, and keeps its last good checkpoint."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.train.fakes import FUSE, LIT, FakeSource, fake_run, model_config
from train.run.single_run import train_run
from train.trainer.checkpoint import Progress, restore
from train.trainer.divergence import TrainingFailed, has_diverged, smooth
from zoo.convert.model_folder import load


@pytest.fixture(autouse=True)
def _unlit() -> Iterator[None]:
    yield
    FUSE.clear()
    LIT.clear()


@pytest.mark.parametrize(
    ("kind", "what", "layer"),
    [
        ("output", "the loss is nan", "stack.blocks.00_L (output)"),
        ("gradient", "the gradient's norm is nan", "stack.blocks.02_L (gradient)"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run(tmp_path: Path, kind: str, what: str, layer: str) -> None:
    FUSE[kind] = 6
    with pytest.raises(TrainingFailed) as caught:
        train_run(fake_run(12, model_config(dropout=0.1)), tmp_path, source=FakeSource())
    assert (caught.value.step, caught.value.reason, caught.value.layer) == (6, what, layer)
    assert "the checkpoint of step 4 is kept" in str(caught.value)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["step"], summary["error"]["layer"]) == ("failed", 6, layer)
    saved = restore(tmp_path)
    assert saved is not None
    assert saved.progress.step == 4
    assert all(bool(torch.isfinite(p).all()) for p in load(tmp_path).parameters())


def test_a_failed_run_says_so_again_without_training(tmp_path: Path) -> None:
    FUSE["output"] = 2
    messages = []
    for _ in range(2):
        with pytest.raises(TrainingFailed) as caught:
            train_run(fake_run(5), tmp_path, source=FakeSource())
        messages.append(str(caught.value))
        FUSE.clear()
    assert messages[0] == messages[1]
    assert "no checkpoint was written yet" in messages[0]
    assert f"delete {tmp_path} to train it anew" in messages[0]


def test_a_diverging_loss_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"the smoothed loss is .*, its best was .*train\.diverged"):
        train_run(fake_run(400, lr=3.0, clip=None, warmup=0.0, schedule="constant", diverged=1.5), tmp_path, source=FakeSource())


def test_divergence_is_measured_against_the_best_and_a_guess() -> None:
    progress = Progress()
    for loss in [3.0] + [0.001] * 300:
        smooth(progress, loss)
    for _ in range(3):
        smooth(progress, 1.0)
    assert progress.best == pytest.approx(0.001, rel=0.01)
    assert not has_diverged(progress, 3.0, vocab_size=24)  # a jump, but far better than ln 24 = 3.18
    for _ in range(60):
        smooth(progress, 4.0)
    assert has_diverged(progress, 3.0, vocab_size=24)
    assert not has_diverged(progress, None, vocab_size=24)
    assert not has_diverged(Progress(), 3.0, vocab_size=24)
