"""Run folders that version 2026.11 left half-trained go on to the losses that it came to itself.

version_2026_11/NAME is such a folder after step 3 of 6; its expected.csv is the metrics.csv of the run that 2026.11 finished.
"""

import csv
import shutil
from pathlib import Path

import pytest
import torch

import zoo
from train.config.run import parse_run
from train.run.single_run import train_run
from zoo.config.schema import load_yaml

FOLDER = Path(__file__).with_name("version_2026_11")


def losses(path: Path) -> list[float]:
    with path.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["pass", "fitted", "tbptt"])
def test_a_run_of_the_former_version_goes_on(name: str, tmp_path: Path) -> None:
    """Its states are carried on too: those passed on and drawn, an attention cache, a segment memory."""
    folder = tmp_path / name
    shutil.copytree(FOLDER / name, folder)
    assert zoo.load(folder)(torch.zeros(1, 3, dtype=torch.int64))[0].isfinite().all()
    summary = train_run(parse_run(load_yaml(folder / "config.yaml")), folder)
    assert (summary.status, summary.step) == ("done", 6)
    assert losses(folder / "metrics.csv") == pytest.approx(losses(folder / "expected.csv"), rel=1e-5)
