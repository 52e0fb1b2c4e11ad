"""A damaged checkpoint is refused, whatever is wrong with it, and so are tables beside it that lost rows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blocks.errors import ConfigError
from tests.train.run.test_resume import Died, Scythe, spec_with_everything, train_in
from train.config.run import RunConfig
from train.trainer.checkpoint import DIGEST, FILES

Damage = Callable[[Path], None]
STEP = 6  # of the checkpoint, of 11


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died after a checkpoint."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("train.trainer.metrics_callback.BAR_SECONDS", -1.0)
        with pytest.raises(Died):
            train_in(folder, config(), Scythe(STEP + 1))
    assert progress(folder)["step"] == STEP
    return folder


def config() -> RunConfig:
    return spec_with_everything(steps=11, log_every=2, validate_every=3)


def progress(folder: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((folder / "checkpoint" / "progress.json").read_text())
    return values


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "checkpoint" / "optimiser.safetensors"
        save_file(change(load_file(path)), path)

    return damage


def says(**changes: object) -> Damage:
    """progress.json with other values; None: without."""

    def damage(folder: Path) -> None:
        values = {key: value for key, value in (progress(folder) | changes).items() if value is not None}
        (folder / "checkpoint" / "progress.json").write_text(json.dumps(values))

    return damage


def first(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """The first tensor of a moment, changed."""

    def changed(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        key = next(k for k in sorted(values) if k.startswith(name))
        return values | {key: change(values[key])}

    return tensors(changed)


DAMAGES: dict[str, Damage] = {
    "no moments": tensors(lambda values: {}),
    "renamed": tensors(lambda values: {f"{name}x": tensor for name, tensor in values.items()}),
    "one missing": tensors(lambda values: dict(sorted(values.items())[1:])),
    "one more": tensors(lambda values: values | {"exp_avg/other": torch.zeros(1)}),
    "another shape": first("exp_avg/", lambda x: torch.zeros(1)),
    "another dtype": first("exp_avg_sq/", lambda x: x.long()),
    "a step of its own": first("step/", lambda x: x + 1),
    "an earlier step": tensors(lambda values: {k: torch.ones_like(x) if k.startswith("step/") else x for k, x in values.items()}),
    "a later step said": says(step=41),
    "an earlier step said": says(step=STEP - 1),
    "no step": says(step=None),
}


def refused(folder: Path) -> str:
    with pytest.raises(ConfigError, match="damaged") as caught:
        train_in(folder, config())
    assert "delete the run's folder" in str(caught.value)
    assert not (folder / "summary.json").exists()
    return str(caught.value)


@pytest.mark.parametrize("version", ["now", "2026.11"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused(stopped: Path, tmp_path: Path, name: str, version: str) -> None:
    """By its digests; and one of version 2026.11, which has none, by what its files say."""
    shutil.copytree(stopped, tmp_path / "run")
    if version != "now":
        says(**{FILES: None, DIGEST: None})(tmp_path / "run")
    DAMAGES[name](tmp_path / "run")
    refused(tmp_path / "run")


@pytest.mark.parametrize("content", ["{}", "[]", "", "3", '{"step": 6'])
def test_progress_that_can_not_be_read_is_refused(stopped: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "checkpoint" / "progress.json").write_text(content)
    assert "checkpoint" in refused(tmp_path / "run")


@pytest.mark.parametrize("name", ["model", "optimiser", "carried"])
def test_a_changed_number_is_refused(stopped: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint" / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert f"{name}.safetensors has changed" in refused(tmp_path / "run")
    path.write_bytes(data[: len(data) // 2])
    refused(tmp_path / "run")
    path.unlink()
    refused(tmp_path / "run")


@pytest.mark.parametrize("name", ["metrics.csv", "validation.csv"])
def test_tables_that_lost_rows_are_refused(stopped: Path, tmp_path: Path, name: str) -> None:
    whole = (stopped / name).read_text().splitlines(keepends=True)
    for i, lines in enumerate((whole[:-2], whole[:1] + whole[2:], [], ["step,nonsense\n"], whole[1:])):
        folder = tmp_path / str(i)
        shutil.copytree(stopped, folder)
        (folder / name).write_text("".join(lines))
        assert name in refused(folder)
    folder = tmp_path / "deleted"
    shutil.copytree(stopped, folder)
    (folder / name).unlink()
    assert name in refused(folder)


def test_an_intact_one_goes_on(stopped: Path, tmp_path: Path) -> None:
    for version in ("now", "2026.11"):
        folder = tmp_path / version
        shutil.copytree(stopped, folder)
        if version != "now":
            says(**{FILES: None, DIGEST: None})(folder)
        train_in(folder, config())
        assert (folder / "summary.json").exists()
    assert (tmp_path / "now" / "metrics.csv").read_bytes() == (tmp_path / "2026.11" / "metrics.csv").read_bytes()
