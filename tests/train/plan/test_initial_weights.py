"""A run that starts from given weights: where they go, what config.yaml says, and that going on reads them no more."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import zoo
from blocks.errors import ConfigError
from tests.train.experiments import write_experiment
from tests.train.fakes import FakeSource, fake_run, model_config
from train.config.experiment import load_experiment
from train.config.run import RunConfig, parse_run
from train.plan.initial_weights import first_model
from train.plan.plan import make_plan
from train.run.single_run import train_run
from zoo.convert.checkpoint import export_folder
from zoo.model.model import build
from zoo.weights.safetensors_io import Tensors, save_weights, weights_of


def start(folder: Path, seed: int = 9) -> Path:
    """A folder with other weights of the runs' own model."""
    folder.mkdir()
    save_weights(build(model_config(), seed), folder / "model.safetensors")
    return folder


def spec(init: Path, steps: int = 6, **changes: Any) -> RunConfig:
    made = fake_run(steps, model_config(), checkpoint_every=2).as_dict()
    return parse_run(made | {"init": str(init)} | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


class _Stopped(Exception):
    pass


class _StopAfter:
    """A bar that ends the run from outside at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def start(self, name: str, step: int, steps: int) -> None: ...

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        if step >= self.step:
            raise _Stopped

    def stop(self) -> None: ...


def test_the_first_model_has_the_given_weights(tmp_path: Path) -> None:
    given, plain = weights_of(build(model_config(), 9)), weights_of(build(model_config(), 0))
    first = weights_of(first_model(spec(start(tmp_path / "init"))))
    assert all(torch.equal(first[name], given[name]) for name in given)
    fresh = weights_of(first_model(spec(tmp_path / "init", fresh=["F"])))
    for name, tensor in fresh.items():
        assert torch.equal(tensor, (plain if "_F." in name else given)[name]), name


def test_a_run_is_trained_from_them_and_goes_on_without_them(tmp_path: Path) -> None:
    init = start(tmp_path / "init")
    train_run(spec(init), tmp_path / "whole", source=FakeSource())
    train_run(fake_run(6, model_config(), checkpoint_every=2), tmp_path / "plain", source=FakeSource())
    whole, plain = weights(tmp_path / "whole"), weights(tmp_path / "plain")
    assert not any(torch.equal(whole[name], plain[name]) for name in whole if whole[name].ndim > 1)
    config = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())
    assert (config["init"], config["fresh"]) == (str(init), None)
    with pytest.raises(_Stopped):
        train_run(spec(init), tmp_path / "cut", source=FakeSource(), progress=_StopAfter(3))
    shutil.rmtree(init)
    train_run(spec(init), tmp_path / "cut", source=FakeSource())
    cut = weights(tmp_path / "cut")
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    with pytest.raises(ConfigError, match="no such folder"):
        train_run(spec(init), tmp_path / "anew", source=FakeSource())
    assert not (tmp_path / "anew" / "config.yaml").exists()


def test_another_init_is_another_run(tmp_path: Path) -> None:
    train_run(spec(start(tmp_path / "a"), 2), tmp_path / "run", source=FakeSource())
    with pytest.raises(ConfigError, match="init"):
        train_run(spec(start(tmp_path / "b"), 2), tmp_path / "run", source=FakeSource())
    with pytest.raises(ConfigError, match="fresh"):
        parse_run(spec(tmp_path / "a").as_dict() | {"init": None, "fresh": ["F"]})


def test_an_experiment_says_at_once_what_does_not_fit(tmp_path: Path) -> None:
    model = {"d_model": 16, "vocab_size": 256, "blocks": {"A": {"type": "gqa", "n_heads": 2}, "F": {"type": "swiglu", "hidden": 32}}}
    (tmp_path / "init").mkdir()
    save_weights(zoo.build(model | {"pattern": "A F"}), tmp_path / "init" / "model.safetensors")
    members = {"attention": {"init": str(tmp_path / "init")}, "recurrent": {"init": str(tmp_path / "init"), "vary": []}}
    path = write_experiment(tmp_path, models=members, match={"tolerance": 0.5})
    with pytest.raises(ConfigError, match=r"models\.attention.*embedding\.weight"):
        make_plan(load_experiment(path))  # the recall part has another vocabulary
    path = write_experiment(tmp_path, models=members, match={"tolerance": 0.5}, parts={"recall": {"set": {"vocab_size": 256}}})
    plan = make_plan(load_experiment(path))
    assert [run.transfer.fresh for run in plan.runs if run.model == "recurrent" and run.transfer] == [("00_R",)] * 2
    assert any("new: 00_R; left: 00_A" in line for line in plan.starts())


@pytest.mark.parametrize("kept_by", ["zoo", "hf"])
def test_planning_reads_headers_and_a_worker_each_tensor_once(kept_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {"A": {"type": "gqa", "n_heads": 2}, "F": {"type": "swiglu", "hidden": 32}}
    given = zoo.build({"d_model": 16, "vocab_size": 256, "blocks": blocks, "pattern": "A F"})
    if kept_by == "hf":
        export_folder(given, tmp_path / "init")
    else:
        (tmp_path / "init").mkdir()
        save_weights(given, tmp_path / "init" / "model.safetensors")
    reads: list[str] = []
    headers: list[int] = []
    whole, shapes = Tensors.__getitem__, Tensors.shapes
    monkeypatch.setattr(Tensors, "__getitem__", lambda tensors, name: (reads.append(name), whole(tensors, name))[1])
    monkeypatch.setattr(Tensors, "shapes", lambda tensors: (headers.append(1), shapes(tensors))[1])
    model = {"model": {"d_model": 16, "vocab_size": 256, "blocks": blocks, "pattern": "A F"}, "init": str(tmp_path / "init"), "vary": []}
    changes = {"seeds": [0, 1], "match": {"tolerance": 0.5}, "parts": {"recall": {"set": {"vocab_size": 256}}}}
    plan = make_plan(load_experiment(write_experiment(tmp_path, models={"attention": model}, **changes)))
    given_runs = [run for run in plan.runs if run.transfer is not None]
    assert (len(given_runs), reads, len(headers)) == (4, [], 1)  # two seeds of two parts
    first_model(given_runs[0].config)
    assert reads
    assert len(reads) == len(set(reads))
