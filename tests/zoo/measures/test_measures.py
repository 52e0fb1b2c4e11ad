"""What holds for every measure: its protocol, the same numbers whatever the pieces, bounded memory."""

import gc
import inspect
from dataclasses import fields, is_dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import psutil
import pytest
import torch

import zoo
from blocks.errors import ConfigError
from zoo.config.schema import parse
from zoo.measures import (
    MEASURES,
    attention_entropy,
    collapse,
    induction_heads,
    loss,
    passkey,
    recall,
    remembrance,
    repeats,
    retrieval_heads,
    rope,
    state,
    task,
    unexplored,
)
from zoo.measures.shared.base import Result, Row
from zoo.measures.shared.condition import Condition
from zoo.measures.shared.streaming import shape_of_call, spans

VOCAB = 256
MIXERS = {
    "window": {"type": "gqa", "n_heads": 2, "window": 7},
    "mamba1": {"type": "mamba1", "d_state": 4},
    "mamba2": {"type": "mamba2", "d_state": 4, "head_dim": 8},
    "gated_delta": {"type": "gated_delta"},
}
STEPPED = ("window", "mamba1")  # also read token by token
TOKENS: dict[str, Any] = {
    "prefix": {"prefix": {"count": 3}},
    "meta": {"meta": {"every": 5}},
    "memory": {"memory": {"count": 2, "segment": 9}},
}
CONFIGS: dict[str, Any] = {
    "collapse": collapse.Config(train_length=8, times=4, documents=2),
    "loss": loss.Config(window=24, bytes_per_token=1.0),
    "passkey": passkey.Config(form="tokens", lengths=(16, 22), depths=(0.0, 1.0), examples=3),
    "recall": recall.Config(sizes=((24, 4), (16, 2)), examples=3, overwrite=0.5),
    "state": state.Config(length=40, every=13, documents=2, horizons=(5, 20), retention_from=12, train_length=15),
    "remembrance": remembrance.Config(train_length=10, times=(0.6, 2.0), documents=2),
    "repeats": repeats.Config(n=1, window=20),
    "task": task.Config(task="in_context_languages", grid={"length": [16, 24]}, by=("string",), examples=3),
    "unexplored": unexplored.Config(train_length=13, times=4, documents=4, looks=3),
    "attention_entropy": attention_entropy.Config(length=40, documents=2, queries=5),
    "induction_heads": induction_heads.Config(span=8, ngram_length=20, alphabet=4, orders=(1, 2), examples=3),
    "retrieval_heads": retrieval_heads.Config(
        form="tokens", lengths=(16,), depths=(0.0, 1.0), examples=3, ablation_examples=3, heads=(1,), draws=2
    ),
    "rope": rope.Config(source="model", lengths=(8,), samples=20, documents=2, read=20),
}


def model(mixer: dict[str, Any], tokens: dict[str, Any] | None = None) -> zoo.Model:
    config = {"d_model": 16, "vocab_size": VOCAB, "blocks": {"M": mixer, "F": {"type": "swiglu"}}, "pattern": "M F", "tokens": tokens or {}}
    return zoo.build(config).double()


def documents(count: int = 4, length: int = 52) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, VOCAB, (length,), generator=generator) for _ in range(count)]


def assert_same(found: Result, expected: Result) -> None:
    assert [(r.condition, r.metric, r.n) for r in found.rows] == [(r.condition, r.metric, r.n) for r in expected.rows]
    for a, b in zip(found.rows, expected.rows, strict=True):
        scale = 1e-9 if a.metric in ("retention", "excess") else 1e-10
        assert a[2:5] == pytest.approx(b[2:5], rel=scale, abs=scale, nan_ok=True), (a, b)


@pytest.mark.parametrize("name", MEASURES)
def test_protocol(name: str) -> None:
    measure = MEASURES[name]
    assert measure.SUMMARY
    assert is_dataclass(measure.Config)
    assert all(f.kw_only for f in fields(measure.Config))
    assert list(inspect.signature(measure.run).parameters) == [
        "model",
        "config",
        "seed",
        "data",
        "progress",
        *(["keep"] if measure.RESUMABLE else []),
    ]
    subject = model(MIXERS["mamba1"])
    subject.train()
    told: list[tuple[int, int]] = []
    found = measure.run(subject, CONFIGS[name], 0, data=documents(), progress=lambda done, total: told.append((done, total)))
    assert subject.training, "the model's mode is put back"
    assert told[-1][0] == told[-1][1], "progress ends at its total"
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    keys = [(r.condition, r.metric) for r in found.rows]
    assert len(keys) == len(set(keys)), "no row twice"
    assert all(isinstance(v, float) for r in found.rows for v in r[2:5])
    assert all(r.low <= r.value <= r.high for r in found.rows)
    assert all(Condition.parse(str(r.condition)) == r.condition for r in found.rows)
    named = {r.metric for r in found.rows} | {headline.metric for headline in measure.HEADLINE}
    assert all(any(fnmatchcase(metric, known) for known in measure.METRICS) for metric in named)
    assert measure.run(subject, CONFIGS[name], 0, data=documents()) == found, "a second run gives the same"


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("mixer", MIXERS)
def test_pieces_do_not_matter(name: str, mixer: str) -> None:
    subject, measure = model(MIXERS[mixer]), MEASURES[name]
    whole = measure.run(subject, replace(CONFIGS[name], call_tokens=100_000), 0, data=documents())
    for call_tokens in (1, 37) if mixer in STEPPED else (37,):
        assert_same(measure.run(subject, replace(CONFIGS[name], call_tokens=call_tokens), 0, data=documents()), whole)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("plan", TOKENS)
def test_models_that_insert_tokens(name: str, plan: str) -> None:
    subject, measure = model(MIXERS["mamba1"], TOKENS[plan]), MEASURES[name]
    whole = measure.run(subject, replace(CONFIGS[name], call_tokens=100_000), 0, data=documents())
    assert_same(measure.run(subject, replace(CONFIGS[name], call_tokens=23), 0, data=documents()), whole)
    assert all(torch.isfinite(torch.tensor(r.value)) for r in whole.rows if r.metric not in ("onset", "onset_ratio", "leaves_minimum"))


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.reads is not None])
def test_documents_are_asked_for(name: str) -> None:
    subject, run = model(MIXERS["mamba1"]), MEASURES[name].run
    with pytest.raises(ConfigError, match="data"):
        run(subject, CONFIGS[name], 0)
    with pytest.raises(ConfigError, match=r"data\.1"):
        run(subject, CONFIGS[name], 0, data=[*documents(1), documents(1)[0][:1], *documents(1)])


def test_float32_agrees_to_its_precision() -> None:
    subject = model(MIXERS["mamba1"]).float()
    a, b = (collapse.run(subject, replace(CONFIGS["collapse"], call_tokens=n), 0, data=documents()) for n in (3, 100_000))
    for one, other in zip(a.rows, b.rows, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", ["collapse", "state"])
def test_memory_does_not_grow(name: str) -> None:
    subject, data = model(MIXERS["mamba1"]).float(), documents(2, 1600)
    configs = {
        "collapse": collapse.Config(train_length=100, times=16, documents=2, call_tokens=80),
        "state": state.Config(length=1600, every=1600, documents=2, horizons=(), call_tokens=80),
    }
    seen: dict[int, int] = {}

    def watch(done: int, total: int) -> None:
        for percent in (5, 15):  # of the work: both within the stream
            if percent not in seen and 100 * done >= percent * total:
                seen[percent] = _alive()

    MEASURES[name].run(subject, configs[name], 0, data=data, progress=watch)
    assert seen[15] <= seen[5] + 1024


def _alive() -> int:
    """Bytes of all tensors that exist."""
    gc.collect()
    return sum(x.numel() * x.element_size() for x in gc.get_objects() if type(x) is torch.Tensor)


@pytest.mark.parametrize(("name", "values", "message"), [
    ("collapse", {}, "train_length: is missing"),
    ("collapse", {"train_length": 16, "margn": 1}, "did you mean margin"),
    ("collapse", {"train_length": 16, "stride": 17}, "stride = 17"),
    ("recall", {"sizes": []}, "at least one"),
    ("recall", {"examples": 1}, "examples = 1"),
    ("passkey", {"form": "words"}, "choices: bytes, tokens"),
    ("state", {"every": 5000}, "every = 5000"),
    ("loss", {"window": 0}, "window = 0"),
])  # fmt: skip
def test_configs_are_read_strictly(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(MEASURES[name].Config, values)


def test_configs_are_read_from_yaml_values() -> None:
    assert parse(recall.Config, {"sizes": [[64, 4], [128, 8]]}).sizes == ((64, 4), (128, 8))
    assert parse(passkey.Config, {"lengths": [256], "depths": [0, 0.5]}).depths == (0.0, 0.5)


def test_result_finds_rows() -> None:
    rows = (
        Row(Condition({"position": 8}), "nll", 2.0, 1.0, 3.0, 4),
        Row(Condition({"position": 2}), "nll", 1.0, 1.0, 1.0, 4),
        Row(Condition(), "size", 1.0, 1.0, 1.0, 1),
    )
    found = Result(rows)
    assert found.row("size") == rows[2]
    assert [x for x, _ in found.curve("nll", "position")] == [2.0, 8.0]
    with pytest.raises(KeyError):
        found.row("nll", "position=4")


def test_spans_are_cut_at_marks() -> None:
    assert spans(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert spans(10, 4, [1, 8, 10]) == [(0, 1), (1, 5), (5, 8), (8, 10)]
    assert spans(10, 4, [3, 7], start=5) == [(5, 7), (7, 10)]


def test_a_call_reads_no_more_than_it_may() -> None:
    for rows, length, tokens in [(5, 100, 1000), (50, 100, 1000), (5, 5000, 1000), (3, 7, 1)]:
        beside, piece = shape_of_call(rows, length, tokens)
        assert 1 <= beside <= rows
        assert 1 <= piece <= length
        assert beside * piece <= tokens


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["mamba1", "mamba2", "gated_delta", "window"])
def test_a_hundred_thousand_tokens(mixer: str) -> None:
    """Streamed, in the memory of the first ten thousand."""
    process, peaks = psutil.Process(), {}
    config = state.Config(length=102_400, every=10_240, documents=2, horizons=())

    def watch(done: int, total: int) -> None:
        peaks[10 * done // total] = process.memory_info().rss

    found = state.run(model(MIXERS[mixer]).float(), config, 0, data=documents(2, 102_400), progress=watch)
    assert peaks[10] - peaks[2] < 20 * 2**20
    sizes = {r.value for _, r in found.curve("state_bytes", "token")}
    assert len(sizes) == 1
