"""Any task, read by models that know all, see a little way back, or know the laws that the tokens are drawn from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from blocks.errors import ConfigError
from zoo.config.schema import parse
from zoo.measures import recall, task
from zoo.measures.shared.base import Result
from zoo.measures.shared.statistics import wilson
from zoo.measures.task import binned
from zoo.model.model import Model
from zoo.tasks import HELD_OUT, TASKS, in_context_languages
from zoo.tasks.shared.real_text import drawing, needs

VOCAB = 256


class Fake(Model):
    """Says what it was given to say of every example, in the order in which the examples come; the head passes logits on."""

    def __init__(self, logits: list[Tensor], vocab: int) -> None:
        super().__init__(zoo.load_model({"d_model": vocab, "vocab_size": vocab, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"}))
        self.embedding.weight = nn.Parameter(torch.eye(vocab))
        self.logits, self.begun = logits, 0  # (t, vocabulary) each

    def hidden(self, tokens: Tensor, state: Any = None, **_: Any) -> tuple[Tensor, Any]:
        b, t = tokens.shape
        if state is None:
            state = torch.tensor([(self.begun + i) % len(self.logits) for i in range(b)]), torch.tensor(0)
            self.begun += b
        which, at = state
        said = torch.stack([self.logits[i][int(at) : int(at) + t] for i in which.tolist()])
        return said, (which, at + t)


def oracle(config: task.Config, reach: int = 10**9, longest: int = 10**9, wrong: int = 0) -> Fake:
    """Knows all answers; is wrong beyond `reach` tokens back, in rows longer than `longest`, in the first `wrong` rows of the last case."""
    logits = []
    for _, case in (cases := config.cases(VOCAB)):
        batch = TASKS[config.task].generate(case, 0, HELD_OUT, config.examples)
        bad = torch.from_numpy(batch.info["distance"] > reach) | (torch.tensor(case.length) > longest)
        if case is cases[-1].config:
            bad[:wrong] = True
        said = torch.where(bad, batch.labels + 1, batch.labels) % VOCAB
        logits += list(20.0 * nn.functional.one_hot(said, VOCAB).float())
    return Fake(logits, VOCAB)


def lawful(config: in_context_languages.Config, examples: int, weight: float = 1.0, delimiter: float = 5.0) -> Fake:
    """Knows the true laws of in-context languages, mixed with the uniform one; believes in delimiters, too."""
    laws = in_context_languages.distributions(config, 0, HELD_OUT, examples)
    uniform = torch.full_like(laws, 1 / (config.vocab_size - 1))
    mixed = (weight * laws + (1 - weight) * uniform).clamp(min=1e-9)
    mixed[..., 0] = delimiter
    return Fake(list(mixed.log()), config.vocab_size)


MQAR = task.Config(task="mqar", grid={"length": [32, 64, 128], "pairs": [2, 4]}, by=("distance",), examples=16)


def run(config: task.Config, model: Model, **changes: Any) -> Result:
    return task.run(model, replace(config, **changes), 0)


@pytest.mark.parametrize("call_tokens", [1, 7, 100_000])
def test_who_knows_all_is_right_at_every_length(call_tokens: int) -> None:
    found = run(MQAR, oracle(MQAR), call_tokens=call_tokens)
    assert {r.value for r in found.rows if r.metric in ("accuracy", "exact", "mean_accuracy")} == {1.0}
    for pairs in (2, 4):
        assert found.row("effective_length", f"pairs={pairs}")[2:] == (128.0, 128.0, 128.0, 16)
        assert found.row("censored", f"pairs={pairs}").value == 1
        assert found.row("chance", f"length=32;pairs={pairs}").value == 1 / pairs
    assert found.row("accuracy", "length=64;pairs=4")[2:5] == pytest.approx(wilson(16, 16)[:3])
    counted = [r for r in found.rows if r.metric == "answers" and "length=64;pairs=4" in str(r.condition)]
    assert sum(r.value for r in counted) == 4 * 16


def test_who_sees_a_few_tokens_back_is_right_about_those() -> None:
    found = run(MQAR, oracle(MQAR, reach=15))
    near = {
        float(str(r.condition).rpartition("=")[2]): r.value for r in found.rows if r.metric == "accuracy" and "distance" in str(r.condition)
    }
    assert set(near) > {4.0, 8.0, 16.0, 32.0}
    for r in found.rows:
        if r.metric == "accuracy" and "distance" in r.condition:
            assert r.value == float(float(r.condition["distance"]) < 16), r
    batch = TASKS["mqar"].generate(parse(TASKS["mqar"].Config, {"vocab_size": VOCAB, "length": 64, "pairs": 4}), 0, HELD_OUT, 16)
    distance = batch.info["distance"][batch.info["distance"] > 0]
    assert found.row("accuracy", "length=64;pairs=4").value == (distance < 16).mean()


def test_the_effective_length_is_the_last_before_the_threshold() -> None:
    for longest, value, censored in ((32, 32.0, 0.0), (64, 64.0, 0.0), (16, 0.0, 0.0), (128, 128.0, 1.0)):
        found = run(MQAR, oracle(MQAR, longest=longest))
        assert found.row("effective_length", "pairs=2")[2:5] == (value, value, value)
        assert found.row("censored", "pairs=2").value == censored
    half = run(MQAR, oracle(MQAR, reach=15), threshold=0.01)
    assert half.row("effective_length", "pairs=4").value == 128
    pairs = run(MQAR, oracle(MQAR, longest=64), along="pairs")
    assert [pairs.row("effective_pairs", f"length={length}").value for length in (32, 64, 128)] == [4, 4, 0]


def test_the_interval_of_an_effective_length() -> None:
    """Right in 14 of 16 examples at 64 tokens: a resample is above .856 more often than not, and below often enough."""
    config = replace(MQAR, grid={"length": [32, 64]}, conditions=({"pairs": 2},), threshold=0.856)
    size = run(config, oracle(config, wrong=2)).row("effective_length")
    assert size[2:5] == (64.0, 32.0, 64.0)


def test_recall_is_mqar() -> None:
    """The two measures say the same of the same examples."""
    model = zoo.build({"d_model": 16, "vocab_size": 64, "blocks": {"M": {"type": "mamba1"}}, "pattern": "M"})
    old = recall.run(model, recall.Config(sizes=((24, 4), (16, 2)), examples=9), 3)
    new = task.run(model, task.Config(task="mqar", conditions=({"length": 24, "pairs": 4}, {"length": 16, "pairs": 2}), examples=9), 3)
    assert [r for r in new.rows if r.metric in ("accuracy", "exact", "nll", "chance")] == list(old.rows)


@pytest.mark.parametrize("call_tokens", [1, 7, 100_000])
def test_who_knows_the_laws_has_no_distance_to_them(call_tokens: int) -> None:
    config = task.Config(task="in_context_languages", conditions=({"length": 40},), examples=4, vocab_size=20, call_tokens=call_tokens)
    small = in_context_languages.Config(length=40)
    found = task.run(lawful(small, 4), config, 0)
    assert found.row("tvd", "length=40").value == pytest.approx(0, abs=1e-6)
    assert found.row("legal", "length=40").value == 0, "the delimiter is likeliest, and never legal"
    assert task.run(lawful(small, 4, delimiter=1e-9), config, 0).row("legal", "length=40").value == 1
    choices = in_context_languages.generate(in_context_languages.Config(length=40), 0, HELD_OUT, 4).info["choices"]
    best = np.mean([(1 / row[row > 0]).mean() for row in choices])
    assert found.row("best", "length=40").value == pytest.approx(best)


def test_the_distance_to_a_uniform_law() -> None:
    """Total variation to the uniform law over 19 symbols, of a law that is uniform over c of them, is 1 - c / 19."""
    config = task.Config(task="in_context_languages", conditions=({"length": 40},), examples=4, vocab_size=20)
    found = task.run(lawful(in_context_languages.Config(length=40), 4, weight=0.0), config, 0)
    choices = in_context_languages.generate(in_context_languages.Config(length=40), 0, HELD_OUT, 4).info["choices"]
    assert found.row("tvd", "length=40").value == pytest.approx(np.mean([1 - row[row > 0].mean() / 19 for row in choices]), abs=1e-6)


def test_bins() -> None:
    assert binned(np.array([-1, 0, 1, 7, 8, 15, 16, 1000, 1024])).tolist() == [-1, 0, 1, 7, 8, 8, 16, 512, 1024]
    assert binned(np.array([0.0, 0.05, 0.1, 0.3, 0.1 * 3, 0.999, 1.0])).tolist() == [0, 0, 0.1, 0.3, 0.3, 0.9, 0.9]


TEXT = {"form": "text", "haystack": "text", "length": 400}
REAL: dict[str, dict[str, Any]] = {
    "needle": TEXT,
    "threading": TEXT,
    "variable_tracking": TEXT,
    "facts": {**TEXT, "length": 700},
    "passkey": {"haystack": "text", "length": 300},
    "many_shot": {"form": "text", "noise": 0, "classes": 2, "size": 20},
}


@pytest.mark.parametrize("name", REAL)
def test_real_text_comes_from_the_documents(name: str) -> None:
    config = task.Config(task=name, conditions=(REAL[name],), examples=2)
    reads = config.reads
    assert reads is not None
    model = zoo.build({"d_model": 8, "vocab_size": 256, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"})
    config.check(model.config)
    texts = [torch.tensor([0, *(f"Nothing of note, {i}. ".encode() * 60)]) for i in range(reads.documents)]
    assert all(len(text) >= reads.tokens for text in texts)
    assert task.run(model, config, 0, data=texts).row("chance", f"length={config.cases(256)[0].config.length}").n == 2
    case = config.cases(256)[0].config
    drawn = drawing(name, case, [text.numpy() for text in texts])(0, 0, 2)
    assert all(b"Nothing of note, " in bytes(row.tolist()) for row in drawn.inputs)
    assert all(0 not in row for row in drawn.inputs), "no separators"
    with pytest.raises(ConfigError, match="needs documents"):
        task.run(model, config, 0)
    with pytest.raises(ConfigError, match="needs documents of bytes"):
        drawing(name, case, [np.array([300] * 1000)] * 2)


def test_documents_that_speak_of_the_task_are_left_out() -> None:
    config = parse(TASKS["passkey"].Config, {"haystack": "text", "length": 300})
    assert needs(config) == (1, 1 + config.room)
    good, bad = (np.frombuffer(text * 60, dtype=np.uint8) for text in (b"A word. ", b"The Pass Key is mine. "))
    drawn = drawing("passkey", config, [bad, good])(0, 0, 4)
    assert all(bytes(row.tolist()).lower().count(b"pass key") == 5 and b"mine" not in bytes(row.tolist()) for row in drawn.inputs)


@pytest.mark.parametrize(("values", "message"), [
    ({"task": "mqr"}, "task = 'mqr'"),
    ({"task": "mqar", "conditions": []}, "at least one"),
    ({"task": "mqar", "conditions": [3]}, r"conditions\[0\] = 3: must be changes to mqar"),
    ({"task": "mqar", "grid": {"pair": [2]}}, "mqar has no such key"),
    ({"task": "mqar", "grid": {"pairs": []}}, "must be a list"),
    ({"task": "mqar", "along": "hops"}, "along = 'hops'"),
    ({"task": "mqar", "score": "nll"}, "choices: accuracy, exact"),
    ({"task": "mqar", "threshold": 0}, "threshold = 0"),
    ({"task": "mqar", "examples": 1}, "examples = 1"),
    ({"task": "mqar", "conditions": [{"pair": 2}]}, "conditions.pair: mqar has no such key. did you mean pairs"),
    ({"task": "mqar", "conditions": [{"pairs": 200}]}, "vocab_size 256 has only 127 keys"),
    ({"task": "mqar", "conditions": [{"pairs": 2}, {"pairs": 2}]}, "is there more than once"),
    ({"task": "mqar", "vocab_size": 300}, "the model has only 256 ids"),
    ({"task": "mqar", "by": ["hops"]}, "by = 'hops'.*choices: length, pairs, overwritten, distance, stale"),
    ({"task": "mqar", "by": ["pairs"], "grid": {"pairs": [2, 4]}}, "is what the conditions differ in"),
    ({"task": "needle", "conditions": [{"form": "text", "haystack": "text", "length": 100}]}, "needles, header and questions need|length"),
    ({"task": "many_shot", "conditions": [{"form": "text", "noise": 0, "labels": "given"}]}, "must be drawn"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(values: dict[str, Any], message: str) -> None:
    model = zoo.load_model({"d_model": 8, "vocab_size": 256, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"})
    with pytest.raises(ConfigError, match=message):
        parse(task.Config, values).check(model)
