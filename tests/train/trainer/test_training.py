"""One run: its step, its states, its folder."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils import _pytree as pytree

from blocks.catalogue import block_types, config_class
from blocks.context import LANDMARK, META, PREFIX
from blocks.errors import ConfigError
from blocks.state import detach
from tests.train.fakes import FakeSource, fake_run, model_config
from train.config.run import RunConfig, TrainConfig, first_difference, parse_run
from train.data import Batch, open_source
from train.run.single_run import train_run
from train.system.nested_tensors import load_nested, save_nested
from train.trainer.initial_state import InitialStates
from train.trainer.optimiser import adamw, decayed
from train.trainer.step import gradients
from zoo.config.model import load_model
from zoo.ledger.growth import growing
from zoo.model.model import IGNORE, build

ROOT = Path(__file__).parents[3]


def rows(batch: int = 8, step: int = 0, packed: bool = False) -> Batch:
    drawn = FakeSource(packed=packed).batch(step, batch)
    hidden = torch.rand(drawn.labels.shape, generator=torch.Generator().manual_seed(step)) < 0.4
    labels = drawn.labels.masked_fill(hidden, IGNORE)
    return Batch(drawn.inputs, labels, drawn.documents)


def named_gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packed", [False, True])
def test_accumulation_equals_one_large_batch(packed: bool) -> None:
    results = []
    batch = rows(packed=packed)
    for train in (TrainConfig(batch_size=8), TrainConfig(batch_size=2, accumulate=4)):
        model = build(model_config()).double()
        loss, states, _ = gradients(model, batch, InitialStates(train, model.config, 0), train, 0, 0)
        results.append((loss, named_gradients(model)))
        assert len(states) == train.accumulate
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=0)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_step_can_be_run_again() -> None:
    train = TrainConfig(batch_size=8)
    model = build(model_config(dropout=0.3)).train()
    losses = []
    for step in (1, 2, 2):
        losses.append(gradients(model, rows(step=1), InitialStates(train, model.config, 0), train, 5, step)[0])
    assert torch.equal(losses[1], losses[2])
    assert not torch.equal(losses[0], losses[1])  # another step, other dropout


def initial_after(train: TrainConfig, model: Any, batch: Batch) -> InitialStates:
    initial = InitialStates(train, model.config, 0)
    with torch.no_grad():
        _, state = model.hidden(batch.inputs, documents=batch.documents)
    initial.keep([state])
    return initial


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_state_passing_continues_another_row_or_starts_anew(share: float, packed: bool) -> None:
    model = build(model_config()).double().eval()
    train = TrainConfig(batch_size=8, state="pass", state_share=share)
    before, now = rows(packed=packed), rows(step=1, packed=packed)
    (state, documents), *_ = initial_after(train, model, before).of_step(1, [now.documents])
    documents = None if documents is None else documents.expand_as(now.inputs)
    got = model.hidden(now.inputs, state, documents=documents)[0]
    fresh = model.hidden(now.inputs, documents=now.documents)[0]
    chosen = 0
    for row in range(8):
        if torch.allclose(got[row], fresh[row], atol=1e-12):
            continue
        candidates = [after_row(model, before, other, now, row) for other in range(8)]
        matches = [other for other, y in enumerate(candidates) if torch.allclose(got[row], y, atol=1e-12)]
        assert matches
        assert matches != [row]
        chosen += 1
    assert chosen == {0.0: 0, 1.0: 8}.get(share, chosen)
    assert share != 0.5 or 0 < chosen < 8


def after_row(model: Any, before: Batch, other: int, now: Batch, row: int) -> Tensor:
    """Row `row` of now, read after row `other` of before as one document."""
    head = None if before.documents is None else before.documents[other : other + 1]
    _, state = model.hidden(before.inputs[other : other + 1], documents=head)
    if now.documents is None:
        return model.hidden(now.inputs[row : row + 1], state)[0][0]
    assert head is not None
    ids = now.documents[row : row + 1] + head[0, -1] - now.documents[row, 0]
    return model.hidden(now.inputs[row : row + 1], state, documents=ids)[0][0]


def test_tbptt_reads_on_and_stops_the_gradient() -> None:
    model = build(model_config()).double().eval()
    train = TrainConfig(batch_size=8, state="tbptt")
    first, second = rows(), rows(step=1)
    initial = initial_after(train, model, first)
    (state, documents), *_ = initial.of_step(1, [None])
    assert documents is None
    got = model.hidden(second.inputs, state)[0]
    whole = model.hidden(torch.cat([first.inputs, second.inputs], 1))[0]
    torch.testing.assert_close(got, whole[:, 12:], rtol=1e-10, atol=1e-12)
    _, state = model.hidden(first.inputs)
    initial.keep([state])
    assert initial.states[0].layers[0][0].total.requires_grad is False
    assert torch.equal(initial.states[0].layers[0][0].total, detach(state).layers[0][0].total)


def test_growing_states_are_refused_restarted_or_kept() -> None:
    model = model_config("L G F")
    assert growing(model) == {(1, 0): "G"}
    with pytest.raises(ConfigError, match=r"train\.state = 'pass': the state of G grows"):
        InitialStates(TrainConfig(state="pass"), model, 0)
    for rule, kept in (("restart", False), ("keep", True)):
        initial = InitialStates(TrainConfig(state="tbptt", growing_state=rule), model, 0)
        initial.keep([build(model).hidden(rows().inputs)[1]])
        assert [layer[0] is not None for layer in initial.states[0].layers][:2] == [True, kept]


PLANS = {PREFIX: {"prefix": {"count": 2}}, META: {"meta": {"every": 4}}, LANDMARK: {"landmark": {"every": 4}}}


@pytest.mark.parametrize("block", block_types())
@pytest.mark.parametrize("state", ["pass", "tbptt"])
def test_states_of_every_block_are_carried_and_kept(block: str, state: str, tmp_path: Path) -> None:
    plan = {key: value for kind in config_class(block).needs_kinds for key, value in PLANS[kind].items()}
    model = build(load_model({"d_model": 32, "vocab_size": 24, "blocks": {"X": {"type": block}}, "pattern": "X X", "tokens": plan}))
    rule = "restart" if config_class(block).restartable else "keep"
    train = TrainConfig(batch_size=4, accumulate=2, state=state, state_share=0.5, growing_state=rule)
    initial = InitialStates(train, model.config, 0)
    for step in range(3):
        model.zero_grad()
        loss, states, _ = gradients(model, rows(step=step, packed=step == 1), initial, train, 0, step)
        assert bool(torch.isfinite(loss))
        assert all(bool(torch.isfinite(gradient).all()) for gradient in named_gradients(model).values())
        initial.keep(states)
        save_nested(initial.states, tmp_path / "carried")
        again = load_nested(tmp_path / "carried")
        for ours, theirs in zip(pytree.tree_leaves(initial.states), pytree.tree_leaves(again), strict=True):
            assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
        assert pytree.tree_structure(again) == pytree.tree_structure(initial.states)
        initial.states = again


def test_what_cannot_begin_in_the_middle_is_not_restarted() -> None:
    model = load_model({"d_model": 32, "vocab_size": 24, "blocks": {"C": {"type": "core_context"}}, "pattern": "C"})
    with pytest.raises(ConfigError, match=r"train\.growing_state = 'restart': C can't begin"):
        InitialStates(TrainConfig(state="pass", growing_state="restart"), model, 0)


def test_segment_memory_can_stream_but_not_be_mixed() -> None:
    model = model_config(tokens={"memory": {"count": 2, "segment": 5}})
    with pytest.raises(ConfigError, match=r"train\.state"):
        InitialStates(TrainConfig(state="pass"), model, 0)
    InitialStates(TrainConfig(state="tbptt"), model, 0)


def test_weight_decay_is_for_matrices_only() -> None:
    model = build(model_config("L F", tokens={"prefix": {"count": 2}}, tie_embeddings=False))
    decays = decayed(model)
    assert {name for name, yes in decays.items() if yes} == {
        "stack.blocks.00_L.inner.weight",
        "stack.blocks.00_L.outer.weight",
        *(name for name in decays if name.startswith("stack.blocks.01_F") and name.endswith("weight")),
        "head.weight",
    }
    optimiser = adamw(model, TrainConfig())
    assert sum(p.numel() for g in optimiser.param_groups for p in g["params"]) == sum(p.numel() for p in model.parameters())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_its_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = fake_run(40, lr=0.01, validate_every=20, validate_rows=8, log_every=10, loggers=("csv", "tensorboard"))
    summary = train_run(spec, tmp_path / "run", source=FakeSource(lengths=(12, 7)))
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    names = {p.name for p in (tmp_path / "run").iterdir()}
    csvs = {"metrics.csv", "timings.csv", "validation.csv"}
    assert names == {"config.yaml", "checkpoint", "summary.json", "environment.json", "tensorboard", *csvs}
    metrics = table(tmp_path / "run" / "metrics.csv")
    assert [row["step"] for row in metrics] == ["10", "20", "30", "40"]
    assert int(metrics[-1]["tokens"]) == summary.tokens == 4 * 20 * (12 + 7)
    assert int(metrics[-1]["flops"]) == summary.flops
    assert float(metrics[-1]["loss"]) < float(metrics[0]["loss"]) < 1.1 * math.log(24)
    assert [row["condition"] for row in table(tmp_path / "run" / "validation.csv")] == ["text", "text"]
    assert summary.status == "done"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["loss"] == summary.loss
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["data"]["fingerprint"] == "0" * 64


def test_config_yaml_is_the_run(tmp_path: Path) -> None:
    spec = fake_run(3, model=model_config("2*(L F) L|F", dropout=0.1, tokens={"prefix": {"count": 1}}), validate_every=None)
    train_run(spec, tmp_path, source=FakeSource())
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert list(values) == ["name", "model", "data", "train", "kernels", "budget", "seed", "steps"]
    again = parse_run(values)
    assert isinstance(again, RunConfig)
    assert again.as_dict() == values
    assert [p.shape for p in build(again.model).parameters()] == [p.shape for p in build(spec.model).parameters()]


def test_a_done_run_returns_at_once_and_another_is_refused(tmp_path: Path) -> None:
    summary = train_run(fake_run(3), tmp_path, source=FakeSource())
    stamp = (tmp_path / "summary.json").stat().st_mtime_ns
    assert train_run(fake_run(3), tmp_path) == summary  # no source: it is not needed
    assert (tmp_path / "summary.json").stat().st_mtime_ns == stamp
    for changed, key in (
        (fake_run(3, lr=0.5), "train.lr"),
        (fake_run(4), "budget.steps"),
        (fake_run(3, model_config("L")), "model.blocks.F"),
    ):
        with pytest.raises(ConfigError, match="holds a run with") as caught:
            train_run(changed, tmp_path, source=FakeSource())
        assert caught.value.place == key


def test_other_data_are_refused(tmp_path: Path) -> None:
    train_run(fake_run(3), tmp_path, source=FakeSource())
    (tmp_path / "summary.json").unlink()
    other = FakeSource()
    other.fingerprint = "1" * 64
    with pytest.raises(ConfigError, match="other data"):
        train_run(fake_run(3), tmp_path, source=other)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 8"):
        train_run(fake_run(3, model_config(vocab_size=8)), tmp_path / "a", source=FakeSource())
    with pytest.raises(ConfigError, match=r"train\.state = 'tbptt'"):
        train_run(fake_run(3, state="tbptt"), tmp_path / "b", source=FakeSource())
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"train\.device = 'cuda': there is no CUDA device"):
            train_run(fake_run(3, device="cuda"), tmp_path / "d", source=FakeSource())
    with pytest.raises(ConfigError, match=r"train\.loggers = 'wandb': no such logger"):
        train_run(fake_run(3, loggers=("wandb",)), tmp_path / "c", source=FakeSource())


def test_any_lightning_logger(tmp_path: Path) -> None:
    logger = {"class": f"{CSVLogger.__module__}.CSVLogger", "save_dir": str(tmp_path / "logs"), "flush_logs_every_n_steps": 1}
    train_run(fake_run(3, loggers=(logger,)), tmp_path / "run", source=FakeSource())
    assert list((tmp_path / "logs").rglob("metrics.csv"))


class Watched:
    """A Bar that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, name: str, step: int, steps: int) -> None:
        self.calls.append(("start", name, step, steps))

    def update(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        self.calls.append(("update", step))

    def stop(self) -> None:
        self.calls.append(("stop",))


def test_progress_is_told(tmp_path: Path) -> None:
    bar = Watched()
    train_run(fake_run(5), tmp_path / "run", source=FakeSource(), progress=bar)
    assert (bar.calls[0], bar.calls[-2], bar.calls[-1]) == (("start", "tiny", 0, 5), ("update", 5), ("stop",))


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"clip": None}, {"accumulate": 2}, {"state": "tbptt"}, {"state": "pass"}])
def test_options_train(tmp_path: Path, change: dict[str, Any]) -> None:
    spec = fake_run(3, data={"kind": "fake", "mode": "stream"}, **change)
    assert train_run(spec, tmp_path, source=FakeSource()).status == "done"


def test_real_blocks_and_real_data(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for i in range(6):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i}: " + "the cat sat on the mat; " * 40)
    blocks = {"M": {"type": "mamba2", "d_state": 8, "head_dim": 8}, "F": {"type": "swiglu"}}
    model = load_model({"d_model": 16, "vocab_size": 256, "blocks": blocks, "pattern": "M F"})
    for mode, state in (("window", "pass"), ("stream", "tbptt")):
        data = {"kind": "text", "path": str(tmp_path / "text"), "length": 32, "mode": mode}
        spec = fake_run(8, model, data, batch_size=2, state=state, state_share=0.5, validate_every=8, validate_rows=2)
        assert train_run(spec, tmp_path / mode, source=open_source(data)).status == "done"


def test_the_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train_run(fake_run(3, model_config(dropout=0.2)), tmp_path, source=FakeSource())
    assert torch.equal(torch.get_rng_state(), before)


def test_first_difference() -> None:
    assert first_difference({"a": {"b": 1, "c": [1]}}, {"a": {"b": 1, "c": [1]}}) is None
    assert first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ("a.c", 2, 3)
    assert first_difference({"a": 1}, {"a": 1, "d": 0}) == ("d", None, 0)


COMPILED = """
import sys, warnings
from pathlib import Path
from tests.train.fakes import FakeSource, fake_run
from train.run.single_run import train_run
from zoo.config.model import load_model
blocks = {"M": {"type": "mamba2", "d_state": 8, "head_dim": 8}, "F": {"type": "swiglu"}}
model = load_model({"d_model": 16, "vocab_size": 24, "blocks": blocks, "pattern": "M F"})
for compiled in (False, True):
    spec = fake_run(6, model, compile=compiled, state="pass")
    print(train_run(spec, Path(sys.argv[1]) / str(compiled), source=FakeSource()).loss)
"""


@pytest.mark.slow
def test_compiled_training_agrees(tmp_path: Path) -> None:
    """In a process without shape checks, which can't be traced."""
    done = subprocess.run([sys.executable, "-c", COMPILED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, compiled = map(float, done.stdout.split())
    assert compiled == pytest.approx(plain, rel=1e-4)
