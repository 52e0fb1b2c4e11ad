"""Tasks in real text: they train on the training documents, are measured on the test documents, and say what they lack before."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.errors import ConfigError
from tests.train.experiments import TRAIN, experiment, finished, write_text_folder
from train.config.experiment import load_experiment
from train.data import open_source
from train.measure.results import ALL, read
from train.plan.plan import make_plan
from train.report.page import build_report

NEEDLE = {"kind": "needle", "form": "text", "haystack": "text", "length": 340, "value_size": 1}
MEASURES: dict[str, Any] = {
    "needles": {
        "measure": "task",
        "task": "needle",
        "conditions": [{"form": "text", "haystack": "text", "value_size": 1}],
        "grid": {"length": [320, 400]},
        "by": ["depth"],
        "examples": 4,
    },
    "repeats": {"window": 100, "documents": 3},
}


def write(folder: Path, data: dict[str, Any], measures: dict[str, Any]) -> Path:
    """The experiment with one part, its text beside it."""
    part = {"data": data, "budget": {"steps": 3}, "train": TRAIN, "measures": measures}
    values = experiment(folder)
    values |= {"parts": {"hidden": part}, "models": {"attention": values["models"]["attention"]}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_folder(tmp_path_factory.mktemp("documents") / "text")


def test_each_split_is_for_its_own_batches(text: Path) -> None:
    for split in ("val", "test"):  # a word that no other split has
        for file in (text / split).iterdir():
            file.write_text(file.read_text().replace("state", split.upper()))
    source = open_source(NEEDLE | {"path": str(text)}, seed=1)
    assert source.label == "needle in text"
    drawn = {"train": source.batch(0, 16).inputs} | {s: source.held_out(16, s)["length=340"].inputs for s in ("validation", "test")}
    words = {"train": b"state", "validation": b"VAL", "test": b"TEST"}
    for split, rows in drawn.items():
        seen = b"".join(bytes(row.tolist()) for row in rows)
        assert {name for name, word in words.items() if word in seen} == {split}
    assert source.fingerprint != open_source({**NEEDLE, "haystack": "random"}).fingerprint


def test_from_the_yaml_to_the_report(text: Path, tmp_path: Path) -> None:
    out = finished(write(tmp_path, NEEDLE | {"path": str(text)}, MEASURES), tmp_path / "out")
    records = [r for r in read(out / "results.csv") if r.seed == ALL and r.model == "attention"]
    series = {(r.metric, str(r.condition)) for r in records if r.measure == "needles"}
    assert {("accuracy", "length=320"), ("accuracy", "length=400"), ("effective_length", ""), ("mean_accuracy", "")} <= series
    assert any(metric == "accuracy" and "depth=" in condition for metric, condition in series)
    assert {("nll", "window=100;tokens=repeats"), ("share", "window=100;tokens=others")} <= {(r.metric, str(r.condition)) for r in records}
    page = build_report(out).read_text()
    for words in ("needles: accuracy by length", "needles: accuracy by depth", "repeats: repeated n-grams", "effective length (tokens)"):
        assert words in page


@pytest.mark.parametrize(
    ("data", "measures", "message"),
    [
        ({**NEEDLE, "haystack": "random"}, MEASURES, "hidden.*reads documents, and needle is a generated task"),
        (NEEDLE, {"needles": MEASURES["needles"] | {"grid": {"length": [5000]}}}, "measures.needles.*the longest document has 524 tokens"),
        (NEEDLE | {"length": 40_000}, {}, "data.length.*bytes of haystack"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_trained(
    text: Path, tmp_path: Path, data: dict[str, Any], measures: dict[str, Any], message: str
) -> None:
    with_path = data | ({"path": str(text)} if data["haystack"] == "text" else {})
    with pytest.raises(ConfigError, match=message):
        make_plan(load_experiment(write(tmp_path, with_path, measures)))
