"""`zoo measure` on a run, on a model without a run, with changes; interrupted and gone on with; wrong input."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.train.experiments import TRAIN, experiment, write_text_folder
from train.cli.command_line import run
from train.config.run import parse_run
from train.measure.resume_file import ResumeFile
from train.run.single_run import train_run
from zoo.measures import collapse
from zoo.model.model import Model

SIZES = ["collapse.times=4", "collapse.documents=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear attention with a decay, trained on some bytes of text."""
    text = write_text_folder(tmp_path_factory.mktemp("text"))
    model = experiment(text)["models"]["recurrent"]["model"]
    model["blocks"]["R"] = {"type": "mamba2", "d_state": 8, "head_dim": 8}
    data = {"kind": "text", "path": str(text), "length": 24}
    folder = tmp_path_factory.mktemp("run")
    train_run(parse_run({"name": "one", "model": model, "data": data, "train": TRAIN, "budget": {"steps": 4}}), folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def kept(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "measures" / f"{name}.json").read_text()))


def test_rows_pictures_and_a_second_time(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["measure", str(folder), "loss", "collapse", *SIZES]) == 0
    out = capsys.readouterr().out
    assert "bits_per_byte" in out or "nll" in out
    page = (folder / "measures" / "measures.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("<h2>") == 2
    assert kept(folder, "collapse")["of"]["config"]["train_length"] == 24
    monkeypatch.setattr(collapse, "run", None)  # what was measured is not measured again
    assert run(["measure", str(folder), "collapse", *SIZES]) == 0


def test_a_change_to_the_model_is_another_measurement(folder: Path) -> None:
    assert run(["measure", str(folder), "collapse", *SIZES]) == 0
    plain = kept(folder, "collapse")
    assert run(["measure", str(folder), "collapse", *SIZES, "model.blocks.R.retention=0.5"]) == 0
    changed = kept(folder, "collapse")
    assert changed["of"]["changes"]["model"] == {"blocks": {"R": {"retention": 0.5}}}
    assert changed["rows"] != plain["rows"]


def test_a_model_without_a_run_is_told_its_data(trained: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((trained / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values["model"]))
    shutil.copy(trained / "checkpoint" / "model.safetensors", tmp_path)
    data = [f"data.{key}={value}" for key, value in values["data"].items()]
    assert run(["measure", str(tmp_path), "collapse", *SIZES, *data]) == 0
    assert run(["measure", str(trained), "collapse", *SIZES]) == 0
    assert kept(tmp_path, "collapse")["rows"] == kept(trained, "collapse")["rows"]


def test_interrupted_it_goes_on(folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of the stream: the second attempt reads what is left, and the rows are those of one go."""
    monkeypatch.setattr("train.measure.measure.ResumeFile", partial(ResumeFile, seconds=0.0))
    command = ["collapse", *SIZES, "collapse.call_tokens=16"]
    calls, stop = [0], 6
    hidden = Model.hidden

    def counted(self: Model, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == stop:
            raise KeyboardInterrupt
        return hidden(self, *args, **kwargs)

    monkeypatch.setattr(Model, "hidden", counted)
    assert run(["measure", str(folder), *command]) == 1
    assert (folder / "measures" / "collapse.part").exists()
    assert run(["measure", str(folder), *command]) == 0
    in_two = calls[0] - 1
    assert not (folder / "measures" / "collapse.part").exists()
    calls[0] = stop
    assert run(["measure", str(trained), *command]) == 0
    assert calls[0] - stop == in_two
    assert kept(folder, "collapse")["rows"] == kept(trained, "collapse")["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collaps"], "measure = 'collaps': there is no such measure"),
        (["loss", "windw=3"], "loss.windw: loss has no such key. did you mean window?"),
        (["collapse", "times=900"], "collapse.min_length"),
        (["loss", "model.blocks.R.d_state=4"], "the model's is"),
    ],
)
def test_wrong_input(arguments: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["measure", str(trained), *arguments])
    said = capsys.readouterr()
    assert code == 2
    assert said.err.count("\n") == 1
    assert message in said.err
