"""Recall and passkey on readers that know the answer, know half of it, or guess."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from blocks.errors import ConfigError
from zoo.measures import passkey, recall
from zoo.model.model import Model
from zoo.tasks import mqar

VOCAB = 64


class Reader(Model):
    """Looks keys up in all that it has read; answers with the token that followed the key, the last time or the first."""

    def __init__(self, *, latest: bool = True, reach: int = 10**9, vocab: int = VOCAB) -> None:
        super().__init__(zoo.load_model({"d_model": vocab, "vocab_size": vocab, "blocks": {"F": {"type": "mlp"}}, "pattern": "F"}))
        self.latest, self.reach = latest, reach
        self.embedding.weight = nn.Parameter(20.0 * torch.eye(vocab))

    def hidden(self, tokens: Tensor, state: Any = None, **_: Any) -> tuple[Tensor, Any]:
        text = tokens if state is None else torch.cat([state, tokens], 1)
        start = text.shape[1] - tokens.shape[1]
        said = torch.stack([torch.tensor([self._answer(row, i) for i in range(start, len(row))]) for row in text.tolist()])
        return F.one_hot(said, self.config.vocab_size).float(), text

    def _answer(self, row: list[int], i: int) -> int:
        found = [row[j + 1] for j in range(0, i - 1, 2) if row[j] == row[i] and i - j <= self.reach]
        return 0 if not found else found[-1 if self.latest else 0]


CONFIG = recall.Config(sizes=((16, 2), (32, 4)), examples=20, filler="noise")


@pytest.mark.parametrize("call_tokens", [5, 64, 10_000])
def test_a_perfect_memory(call_tokens: int) -> None:
    found = recall.run(Reader(), recall.Config(sizes=((16, 2), (32, 4)), examples=20, filler="noise", call_tokens=call_tokens), 0)
    for where, chance in (("length=16;pairs=2", 0.5), ("length=32;pairs=4", 0.25)):
        assert found.row("accuracy", where)[2:] == pytest.approx((1.0, 0.8389, 1.0, 20), abs=1e-4)
        assert found.row("exact", where).value == 1
        assert found.row("nll", where).value < 1e-3
        assert found.row("chance", where).value == chance


def test_a_memory_that_does_not_overwrite() -> None:
    config = recall.Config(sizes=((32, 4),), examples=20, overwrite=0.5, filler="noise")
    where = "length=32;pairs=4;overwrite=0.5"
    right, wrong = recall.run(Reader(), config, 0), recall.run(Reader(latest=False), config, 0)
    assert (right.row("accuracy", where).value, right.row("stale", where).value) == (1.0, 0.0)
    assert (wrong.row("accuracy", where).value, wrong.row("stale", where).value) == (0.5, 0.5)
    assert wrong.row("exact", where).value == 0


def test_other_seeds_ask_other_examples() -> None:
    first, second = (recall.run(Reader(reach=12), CONFIG, seed) for seed in (0, 1))
    assert first != second
    assert first.row("accuracy", "length=32;pairs=4").value < 1


def test_passkey_by_depth() -> None:
    """A reader that sees 20 tokens back finds what is no deeper than that."""
    config = passkey.Config(form="tokens", lengths=(32,), depths=(0.0, 1.0), examples=8)
    found = passkey.run(Reader(reach=20), config, 0)
    assert [found.row("accuracy", f"length=32;depth={depth}").value for depth in (0, 1)] == [0.0, 1.0]
    pooled = found.row("accuracy", "length=32")
    assert (pooled.value, pooled.n) == (0.5, 16)
    assert found.row("chance", "length=32").value == 1 / 32
    assert found.row("nll", "length=32;depth=0").value > 10


def test_passkey_in_bytes_is_right_only_as_a_whole() -> None:
    """A model that always says '1' is right about numbers of ones alone."""
    subject = Reader(vocab=256)
    subject.hidden = lambda tokens, state=None: (F.one_hot(torch.full_like(tokens, ord("1")), 256).float(), None)  # type: ignore[method-assign]
    found = passkey.run(subject, passkey.Config(lengths=(200,), depths=(0.5,), digits=1, examples=200), 0)
    one = found.row("accuracy", "length=200;depth=0.5")
    assert one.low < 0.1 < one.high
    five = passkey.run(subject, passkey.Config(lengths=(200,), depths=(0.5,), digits=5, examples=200), 0)
    assert five.row("accuracy", "length=200;depth=0.5").value == 0
    assert five.row("nll", "length=200;depth=0.5").value == pytest.approx(18, abs=1)  # nine digits of ten are wrong by 20 nats


def test_passkey_in_a_given_text() -> None:
    config = passkey.Config(lengths=(200,), depths=(0.5,), filler="text", examples=4)
    text = torch.tensor(list(b"Nothing of note is written here, at some length. " * 8))
    subject = zoo.build({"d_model": 16, "vocab_size": 256, "blocks": {"M": {"type": "mamba1"}}, "pattern": "M"})
    assert passkey.run(subject, config, 0, data=[text]).row("accuracy", "length=200").n == 4
    with pytest.raises(ConfigError, match="needs documents"):
        passkey.run(subject, config, 0)


def test_tasks_that_do_not_fit_the_model() -> None:
    subject = Reader()
    with pytest.raises(ConfigError, match="needs a model of bytes"):
        passkey.run(subject, passkey.Config(), 0)
    with pytest.raises(ConfigError, match="the model has only 64 ids"):
        recall.run(subject, recall.Config(vocab_size=65), 0)
    with pytest.raises(ConfigError, match="the model has only 64 ids"):
        passkey.run(subject, passkey.Config(form="tokens", vocab_size=65), 0)


@pytest.mark.parametrize(
    ("vocab_size", "overwrite", "expected"),
    [(8192, 0.0, mqar.SMALL_TEST_SIZES), (256, 0.0, mqar.SMALL_TEST_SIZES[:7]), (64, 0.5, mqar.SMALL_TEST_SIZES[:3]), (4, 0.0, None)],
)
def test_without_sizes_recall_asks_what_the_ids_suffice_for(vocab_size: int, overwrite: float, expected: Any) -> None:
    config = recall.Config(overwrite=overwrite)
    if expected is None:
        with pytest.raises(ConfigError, match="pairs"):
            config.tasks(vocab_size)
        return
    assert tuple((task.length, task.pairs) for task in config.tasks(vocab_size)) == expected
