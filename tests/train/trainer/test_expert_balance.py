"""Mixtures of experts in training: auxiliary losses, biases that follow the load, and what is logged of it."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from blocks import moe
from blocks.context import Routed, advance
from blocks.errors import ConfigError
from tests.oracle import error
from tests.train.fakes import VOCAB, FakeSource, fake_run
from tests.train.run.test_resume import Died, Scythe
from train.config.run import TrainConfig
from train.data import Batch
from train.run.single_run import train_run
from train.trainer.expert_balance import add_up, auxiliary_loss, mixtures, spread, violation
from train.trainer.initial_state import InitialStates
from train.trainer.step import clip, gradients
from zoo.config.model import ModelConfig, load_model
from zoo.convert.checkpoint import family_of
from zoo.model.model import Model, build

EXPERTS, TOP_K = 8, 2
BIASED = {"scores": "sigmoid", "selection_bias": True, "bias_rate": 0.02}


def mixed(pattern: str = "2*(A E)", tokens: dict[str, Any] | None = None, **experts: Any) -> ModelConfig:
    """Attention and experts."""
    block = {"type": "moe", "n_experts": EXPERTS, "top_k": TOP_K, "hidden": 16, **experts}
    values = {"d_model": 16, "vocab_size": VOCAB, "pattern": pattern, "tokens": tokens or {}}
    return load_model(values | {"blocks": {"A": {"type": "gqa", "n_heads": 2}, "E": block}})


def skewed(seed: int, step: int, batch: int = 16, length: int = 32) -> Batch:
    """A few frequent ids, every second one told by the one before it."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    often = torch.arange(1, VOCAB + 1.0) ** -1.5
    ids = torch.multinomial(often.expand(batch, VOCAB), length + 1, replacement=True, generator=generator)
    ids[:, 1::2] = (ids[:, :length:2] + 1) % VOCAB
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None)


def routed_by(model: Model, rows: Batch, **given: Tensor) -> tuple[Tensor, list[Routed]]:
    calls: list[Routed] = []
    loss, _ = model.loss(rows.inputs, rows.labels, documents=rows.documents, routed=calls, **given)
    return loss, calls


def routed_alone(block: nn.Module, x: Tensor, padding: Tensor | None = None) -> Routed:
    """What one mixture tells of x (b, t, d)."""
    calls: list[Routed] = []
    block(x, None, replace(advance(None, *x.shape[:2], padding=padding)[0], routed=calls))
    return calls[0]


@pytest.mark.parametrize("padded", [False, True])
def test_the_balance_loss_is_hugging_faces(padded: bool) -> None:
    """Of each layer; theirs of several layers pools their loads first, which can't see that each is uneven in its own way."""
    theirs = pytest.importorskip("transformers.models.mixtral.modeling_mixtral").load_balancing_loss_func
    block = moe.Config(n_experts=EXPERTS, top_k=TOP_K, balance=0.3).build(16).double()
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    padding = torch.arange(7) < torch.tensor([[0], [3], [5]]) if padded else None
    loss = routed_alone(block, x, padding).loss
    logits = block.logits(x).flatten(0, 1)
    expected = theirs((logits,), EXPERTS, TOP_K, None if padding is None else ~padding)
    assert error(loss, 0.3 * expected) < 1e-6  # theirs adds up in float32
    ours, truth = (torch.autograd.grad(value, block.router.weight)[0] for value in (loss, 0.3 * expected))
    assert error(ours, truth) < 1e-6


def test_the_z_loss_by_hand() -> None:
    block = moe.Config(n_experts=EXPERTS, top_k=TOP_K, z_loss=0.1, scores="sigmoid").build(16).double()
    x = torch.randn(1, 4, 16, dtype=torch.float64)
    by_token = [math.log(sum(math.exp(r) for r in row)) ** 2 for row in block.logits(x)[0].tolist()]
    assert float(routed_alone(block, x).loss.detach()) == pytest.approx(0.1 * sum(by_token) / 4, rel=1e-12)


@pytest.mark.parametrize(("tokens", "expected"), [([0, 1, 2, 3], 1.0), ([2, 2, 2, 2], 4.0), ([0, 0, 1, 1], 2.0)])
def test_balance_by_hand(tokens: list[int], expected: float) -> None:
    """Sure routers: the loss is the number of experts over the number that is used."""
    block = moe.Config(n_experts=4, top_k=1, balance=1.0).build(4).double()
    with torch.no_grad():
        block.router.weight.copy_(100 * torch.eye(4))
    call = routed_alone(block, torch.eye(4, dtype=torch.float64)[None, tokens])
    assert float(call.loss.detach()) == pytest.approx(expected, rel=1e-12)
    assert call.load.tolist() == [tokens.count(e) for e in range(4)]


def test_the_bias_follows_the_load() -> None:
    block = moe.Config(n_experts=4, top_k=1, selection_bias=True, bias_rate=0.25).build(8)
    block.rebalance(torch.tensor([3.0, 1.0, 2.0, 2.0]))
    block.rebalance(torch.tensor([4.0, 0.0, 1.0, 3.0]))
    assert block.selection_bias is not None
    assert block.selection_bias.tolist() == [-0.5, 0.5, 0.25, -0.25]


def test_violation_and_dead_experts() -> None:
    assert float(violation(torch.tensor([2.0, 2.0]))) == 0
    assert float(violation(torch.tensor([4.0, 0.0, 0.0, 0.0]))) == 3
    worst, dead = spread([torch.tensor([2.0, 2.0]), torch.tensor([4.0, 0.0, 0.0, 0.0])])
    assert (float(worst), float(dead)) == (1.5, 0.5)


def test_what_is_learned_is_not_what_is_measured() -> None:
    """The loss, the logits and the likelihoods are the same with and without auxiliary losses."""
    rows = skewed(0, 0, batch=2)
    plain, trained = (build(mixed(**keys)) for keys in ({}, {"balance": 0.5, "z_loss": 0.5}))
    (loss, none), (same, calls) = routed_by(plain, rows), routed_by(trained, rows)
    assert torch.equal(loss, same)
    assert torch.equal(plain.nll(rows.inputs, rows.labels)[0], trained.nll(rows.inputs, rows.labels)[0])
    assert [call.loss.item() for call in none] == [0, 0]
    assert auxiliary_loss(calls) == torch.stack([calls[0].loss, calls[1].loss]).mean() > 1


def test_padding_is_not_counted() -> None:
    """Sequences of 20 and 12 tokens beside each other, as they are alone."""
    model = build(mixed(balance=1.0, z_loss=0.1)).double()
    rows = skewed(0, 0, batch=2, length=20)
    padding = torch.arange(20) < torch.tensor([[0], [8]])
    _, calls = routed_by(model, rows, padding=padding)
    alone = [routed_by(model, Batch(rows.inputs[i : i + 1, at:], rows.labels[i : i + 1, at:], None))[1] for i, at in ((0, 0), (1, 8))]
    for call, first, second in zip(calls, *alone, strict=True):
        assert torch.equal(call.load, first.load + second.load)
    assert [int(call.load.sum()) for call in calls] == [32 * TOP_K, 32 * TOP_K]


@pytest.mark.parametrize("packed", [False, True])
def test_pieces_of_a_step_add_up(packed: bool) -> None:
    drawn = FakeSource(packed=packed).batch(0, 8)
    rows = Batch(drawn.inputs, drawn.labels, drawn.documents)
    results = []
    for train in (TrainConfig(batch_size=8), TrainConfig(batch_size=2, accumulate=4)):
        model = build(mixed(balance=0.5)).double()
        step = gradients(model, rows, InitialStates(train, model.config, 0), train, 0, 0)
        results.append((step.loss, list(step.loads.values()), {name: p.grad for name, p in model.named_parameters()}))
    assert error(results[0][0], results[1][0]) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    model = build(mixed(balance=0.5)).double()
    for piece in rows.split(2):
        loss, calls = routed_by(model, piece)
        ((loss + auxiliary_loss(calls)) / 4).backward()
    for name, p in model.named_parameters():
        assert error(results[1][2][name], p.grad) < 1e-12, name


def test_segments_are_met_in_turn() -> None:
    """20 tokens in segments of 8, two tokens of memory before each and behind each that is full."""
    model = build(mixed(tokens={"memory": {"count": 2, "segment": 8}}))
    train, rows = TrainConfig(batch_size=2), skewed(0, 0, batch=2, length=20)
    loads = gradients(model, rows, InitialStates(train, model.config, 0), train, 0, 0).loads
    assert list(loads) == mixtures(model)
    assert [int(load.sum()) for load in loads.values()] == [2 * TOP_K * (20 + 3 * 2 + 2 * 2)] * 2


def test_a_shared_mixture_adds_up_its_uses() -> None:
    model = build(mixed("A E A E", share=True))
    met = mixtures(model)
    assert len(met) == 2
    assert met[0] is met[1]
    _, calls = routed_by(model, skewed(0, 0, batch=2))
    loads = add_up(met, [call.load for call in calls])
    assert list(loads) == [met[0]]
    assert torch.equal(loads[met[0]], calls[0].load + calls[1].load)


def test_a_run_logs_the_load_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.trainer.metrics_callback.BAR_SECONDS", -1.0)
    spec = fake_run(11, mixed(**BIASED, balance=0.1), batch_size=2, accumulate=2, log_every=3, checkpoint_every=4)
    train_run(spec, tmp_path / "whole", source=FakeSource())
    for step in (2, 5, 9):
        with pytest.raises(Died):
            train_run(spec, tmp_path / "broken", source=FakeSource(), progress=Scythe(step))
    train_run(spec, tmp_path / "broken", source=FakeSource())
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "broken" / "metrics.csv").read_bytes()
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == [3, 6, 9, 11]
    assert all(float(line["load_violation"]) > 0 and 0 <= float(line["dead_experts"]) < 1 for line in lines)
    weights, again = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("whole", "broken"))
    biases = [name for name in weights if name.endswith("selection_bias")]
    assert len(biases) == 2
    assert all(bool(weights[name].any()) for name in biases)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def trained(seed: int, steps: int, batch: int, **experts: Any) -> list[float]:
    """The violation of each step."""
    model, train = build(mixed(**experts), seed), TrainConfig(batch_size=batch)
    optimiser, violations = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for step in range(steps):
        loads = gradients(model, skewed(seed, step, batch), InitialStates(train, model.config, seed), train, seed, step).loads
        clip(list(model.parameters()), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for block, load in loads.items():
            block.rebalance(load)
        violations.append(float(spread(list(loads.values()))[0]))
    return violations


def mean_of_last(violations: list[float], count: int = 20) -> float:
    return sum(violations[-count:]) / count


@pytest.mark.parametrize("keys", [{"balance": 1.0}, BIASED], ids=["balance", "bias"])
def test_balanced_experts_even_out(keys: dict[str, Any]) -> None:
    """On the same tokens, again and again."""
    block = moe.Config(n_experts=EXPERTS, top_k=TOP_K, **keys).build(16)
    x, optimiser, violations = torch.randn(1, 256, 16) + 0.5, torch.optim.SGD([block.router.weight], lr=0.3), []
    for _ in range(60):
        call = routed_alone(block, x)
        if call.loss.requires_grad:
            call.loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        block.rebalance(call.load)
        violations.append(float(violation(call.load)))
    assert violations[0] > 0.8
    assert violations[-1] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_balanced_experts_are_more_even_than_unbalanced_ones(seed: int) -> None:
    plain = {scores: mean_of_last(trained(seed, 100, 16, scores=scores)) for scores in ("softmax", "sigmoid")}
    for scores, keys in (("softmax", {"balance": 0.02}), ("sigmoid", BIASED)):
        violations = trained(seed, 100, 16, **keys)
        assert mean_of_last(violations) < 2 / 3 * min(violations[0], plain[scores])


def test_what_is_of_training_is_not_exported() -> None:
    values = {"d_model": 16, "vocab_size": VOCAB, "pattern": "A E", "tie_embeddings": False}
    blocks = {"A": {"type": "gqa", "n_heads": 2, "rope": {"base": 10000}}, "E": {"type": "moe", "balance": 0.02, "z_loss": 0.001}}
    assert family_of(load_model(values | {"blocks": blocks}))[0] == "mixtral"


@pytest.mark.parametrize("options", [{"balance": -0.1}, {"z_loss": -1.0}, {"bias_rate": -1.0}, {"bias_rate": 0.1}])
def test_impossible_weights(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as wrong:
        moe.Config(**options).check(32)
    assert wrong.value.place == next(iter(options))
