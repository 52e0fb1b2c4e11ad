"""The report from plan.json and results.csv alone, and of a folder that an earlier version left."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from train.report.figures import DRAWN
from train.report.page import build_report
from zoo.config.model import load_model
from zoo.ledger.ledger import ledger
from zoo.measures import MEASURES

EARLIER = Path(__file__).parent / "earlier_version"  # without weights, as it is: plan.json holds neither ledgers nor the experiment's file
EXPERIMENT: dict[str, Any] = {
    "path": "my experiments/tiny.yaml",
    "overrides": ["seeds=[0]", "parts.text.budget.steps=20"],
    "text": "name: <tiny>\n",
}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path / "earlier"))


def tables(page: str) -> list[str]:
    return re.findall(r"<table>.*?</table>", page, re.DOTALL)


def with_new_keys(folder: Path) -> None:
    """Give plan.json what a plan of today holds."""
    plan = json.loads((folder / "plan.json").read_text())
    plan["experiment_file"] = EXPERIMENT
    for run in plan["runs"]:
        values = yaml.safe_load((folder / run["part"] / f"{run['model']}-seed{run['seed']}" / "config.yaml").read_text())
        run["ledger"] = ledger(load_model(values["model"]), plan["data"][run["part"]]["length"]).as_dict()
    (folder / "plan.json").write_text(json.dumps(plan))


def test_a_folder_of_an_earlier_version(earlier: Path) -> None:
    page = build_report(earlier).read_text()
    assert page.count("<svg") == 4
    assert page.count("Ledger of") == 4
    assert "recall, 2 pairs, 32 tokens: %" in page
    assert "window 24: bits/byte" in page
    assert "torch 2.13.0" in page
    assert "The last call of <code>zoo run</code> took" in page
    assert "zoo run EXPERIMENT.yaml" in page
    assert "The experiment's file" not in page


def test_plan_and_results_are_enough(earlier: Path, tmp_path: Path) -> None:
    """Ledgers and all numbers are the same with nothing else in the folder; what the run's machine said is left out."""
    before = build_report(earlier).read_text()
    with_new_keys(earlier)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("plan.json", "results.csv"):
        shutil.copy(earlier / name, alone)
    page = build_report(alone).read_text()
    assert tables(page) == tables(before)
    assert re.findall(r"<svg.*?</svg>", page, re.DOTALL) == re.findall(r"<svg.*?</svg>", before, re.DOTALL)
    assert "torch" not in page


def test_without_ledgers_and_configs_there_is_still_a_report(earlier: Path) -> None:
    for path in earlier.rglob("config.yaml"):
        path.unlink()
    page = build_report(earlier).read_text()
    assert "Ledger of" not in page
    assert "recall, 2 pairs, 32 tokens: %" in page


def test_how_to_reproduce_is_what_was_typed(earlier: Path) -> None:
    with_new_keys(earlier)
    page = build_report(earlier).read_text()
    assert "zoo run &#39;my experiments/tiny.yaml&#39; &#39;seeds=[0]&#39; parts.text.budget.steps=20" in page
    assert "<pre>name: &lt;tiny&gt;\n</pre>" in page


def test_every_figure_belongs_to_a_measure() -> None:
    assert set(MEASURES) >= DRAWN
