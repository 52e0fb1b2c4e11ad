"""The collapse measure on models whose collapse is known, and its windows against reading one by one."""

import math
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from blocks.base import Config as BlockConfig
from blocks.context import Context
from blocks.errors import ConfigError
from zoo.measures import collapse, loss
from zoo.measures.collapse import Config, windows

VOCAB, WIDTH = 50, 16


class State(NamedTuple):
    read: Tensor  # (b,) tokens so far


class Fuse(nn.Module):
    """Adds nothing to the residual stream until `limit` tokens have been read, then `after` in one direction."""

    def __init__(self, config: "Config_") -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, State]:
        b, t, _ = x.shape
        start = x.new_zeros(b) if state is None else state.read
        broken = start[:, None] + torch.arange(1, t + 1) >= self.config.limit
        y = torch.zeros_like(x)
        y[..., 0] = torch.where(broken, self.config.after, 0.0).to(x.dtype)
        return y, State(start + t)


@dataclass(frozen=True, kw_only=True)
class Config_(BlockConfig):
    limit: int = 128
    after: float = 1000.0

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        return Fuse(self)


@pytest.fixture
def fuse(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("fuse")
    module.Config = Config_  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fuse", module)
    return module


def model(limit: int, after: float = 1000.0) -> zoo.Model:
    """Predicts the token it has just read, until the fuse blows."""
    block = {"type": "fuse.Config", "limit": limit, "after": after}
    made = zoo.build({"d_model": WIDTH, "vocab_size": VOCAB, "blocks": {"X": block}, "pattern": "X", "plugins": ["fuse"]})
    with torch.no_grad():
        made.embedding.weight *= 50
    return made


def repeats(count: int = 4, length: int = 512) -> list[Tensor]:
    """Documents of runs of the same token: most tokens are the one before."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, VOCAB, (length // 16,), generator=generator).repeat_interleave(16) for _ in range(count)]


def constants(count: int = 4, length: int = 512) -> list[Tensor]:
    """Documents of one token each: equally easy at every position."""
    return [torch.full((length,), token) for token in range(count)]


CONFIG = Config(train_length=32, times=16, documents=4)
SUMMARY = "train_length=32;length=512;margin=0.05"


@pytest.mark.parametrize("limit", [64, 128])
def test_onset_is_where_the_fuse_blows(fuse: ModuleType, limit: int) -> None:
    found = collapse.run(model(limit), CONFIG, 0, data=constants())
    for metric in ("onset", "leaves_minimum"):
        assert found.row(metric, SUMMARY)[2:5] == (limit, limit, limit)
    assert found.row("onset_ratio", SUMMARY).value == limit / 32
    assert found.row("collapsed", SUMMARY)[2:5] == (1.0, 1.0, 1.0)
    before = [r.value for position, r in found.curve("excess", "position") if position < limit]
    after = [r.value for position, r in found.curve("excess", "position") if position >= limit]
    assert max(before) < 1e-6
    assert min(after) > CONFIG.margin


def test_a_model_that_stays_whole_has_no_onset(fuse: ModuleType) -> None:
    found = collapse.run(model(10**6), CONFIG, 0, data=repeats())
    assert found.row("onset", SUMMARY)[2:5] == (math.inf,) * 3
    assert found.row("collapsed", SUMMARY)[2:5] == (0.0,) * 3
    assert found.row("excess_beyond", SUMMARY).value == pytest.approx(0, abs=1e-6)


def test_a_collapse_in_the_last_bucket_alone_is_none(fuse: ModuleType) -> None:
    assert collapse.run(model(CONFIG.edges[-2]), CONFIG, 0, data=repeats()).row("onset", SUMMARY).value == math.inf


def test_twice_the_largest_loss_inside_the_training_length(fuse: ModuleType) -> None:
    """The criterion of Stuffed Mamba, without windows."""
    without = replace(CONFIG, windows=0)
    where = f"{SUMMARY};windows=0"
    for limit, collapsed in ((64, 1.0), (10**6, 0.0)):
        found = collapse.run(model(limit), without, 0, data=repeats())
        assert found.row("collapsed_2x", where)[2:5] == (collapsed,) * 3
        stream = [(position, r.value) for position, r in found.curve("nll_stream", "position")]
        ratio = max(v for p, v in stream if p >= 32) / max(v for p, v in stream if p < 32)
        assert found.row("loss_ratio", where).value == pytest.approx(ratio)
        assert not {"nll_window", "excess", "onset"} & {r.metric for r in found.rows}
    broken = collapse.run(model(128, math.nan), without, 0, data=constants())
    assert broken.row("collapsed_2x", where).value == 1


def test_few_windows_are_paired_with_the_same_tokens(fuse: ModuleType) -> None:
    """A model whose loss is its text's: stream and window agree on any tokens, not on different ones."""
    subject, data = model(10**6), repeats()
    few = replace(CONFIG, windows=2)
    assert len(windows(few)) < len(windows(CONFIG)) / 2
    found, every = collapse.run(subject, few, 0, data=data), collapse.run(subject, CONFIG, 0, data=data)
    assert all(abs(r.value) < 1e-6 for _, r in found.curve("excess", "position"))
    assert [r for r in found.rows if r.metric == "nll_stream"] == [r for r in every.rows if r.metric == "nll_stream"]
    assert found.row("nll_window", "position=256") != every.row("nll_window", "position=256")
    assert found.row("onset", f"{SUMMARY};windows=2").value == math.inf
    assert collapse.run(model(128), few, 0, data=constants()).row("onset", f"{SUMMARY};windows=2").value == 128


@pytest.mark.parametrize("per_doubling", [1, 2, 9])
def test_few_windows_meet_every_bucket(per_doubling: int) -> None:
    config = Config(train_length=64, times=64, per_doubling=per_doubling, windows=1)
    seen = torch.zeros(config.length, dtype=torch.bool)
    for w in windows(config):
        assert not seen[w.first : w.last + 1].any(), "no token twice"
        seen[w.first : w.last + 1] = True
    assert all(seen[low:high].any() for low, high in pairwise(config.edges))
    assert int(seen.sum()) <= 64 + 16 * len(config.edges)


@pytest.mark.parametrize("after", [math.inf, math.nan])
def test_a_loss_that_is_no_number_is_a_collapse(fuse: ModuleType, after: float) -> None:
    found = collapse.run(model(128, after), CONFIG, 0, data=constants())
    assert found.row("onset", SUMMARY).value == 128
    assert found.row("leaves_minimum", SUMMARY).value == 128


def test_drift_of_the_text_is_not_an_excess(fuse: ModuleType) -> None:
    """Text that becomes unpredictable moves the streamed loss, not the excess."""
    data = [d.clone() for d in repeats()]
    for i, document in enumerate(data):
        document[200:] = torch.randint(0, VOCAB, (312,), generator=torch.Generator().manual_seed(i))
    found = collapse.run(model(10**6), CONFIG, 0, data=data)
    assert found.row("leaves_minimum", SUMMARY).value < math.inf
    assert found.row("onset", SUMMARY).value == math.inf


@pytest.mark.parametrize(("length", "times", "stride"), [(32, 16, None), (10, 3, None), (8, 2, 8), (9, 5, 1), (4, 2, None)])
def test_every_position_is_predicted_in_one_window(length: int, times: int, stride: int | None) -> None:
    config = Config(train_length=length, times=times, stride=stride)
    seen: list[int] = []
    for w in windows(config):
        assert w.last - w.start == length
        positions = list(range(w.first, w.last + 1))
        contexts = [p - w.start for p in positions]
        assert max(contexts) <= length
        assert w.start == 0 or min(contexts) > length - (stride or max(1, length // 4))
        seen += positions
    assert seen == list(range(1, config.length))


def test_windowed_loss_is_that_of_reading_each_window() -> None:
    subject = zoo.build({"d_model": 16, "vocab_size": 30, "blocks": {"M": {"type": "mamba1", "d_state": 4}}, "pattern": "M"}).double()
    data = [torch.randint(0, 30, (48,), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    config = Config(train_length=12, times=4, documents=2)
    found = collapse.run(subject, config, 0, data=data)
    expected = np.zeros((2, 48))
    with torch.no_grad():
        for d, document in enumerate(data):
            for w in windows(config):
                logits, _ = subject(document[None, w.start : w.last])
                losses = torch.nn.functional.cross_entropy(logits[0], document[w.start + 1 : w.last + 1], reduction="none")
                expected[d, w.first : w.last + 1] = losses[w.first - w.last - 1 :]
            logits, _ = subject(document[None])
            stream = torch.nn.functional.cross_entropy(logits[0, :-1], document[1:], reduction="none")
            assert expected[d, 1:13] == pytest.approx(stream[:12].numpy())  # inside the first window both are the same
    edges = config.edges
    for low, high in pairwise(edges):
        assert found.row("nll_window", f"position={low}").value == pytest.approx(expected[:, low:high].mean(), rel=1e-10)
    whole = loss.run(subject, loss.Config(), 0, data=data).row("nll", "window=document").value
    widths = np.diff(edges)
    stream_rows = [found.row("nll_stream", f"position={low}").value for low in edges[:-1]]
    assert float((np.array(stream_rows) * widths).sum() / widths.sum()) == pytest.approx(whole, rel=1e-10)


def test_edges_hold_the_training_length() -> None:
    assert Config(train_length=256, times=4).edges == [1, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024]
    assert Config(train_length=6, times=3, per_doubling=1).edges == [1, 6, 12, 18]


def test_short_documents_are_refused(fuse: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"data\.0 = 500: is shorter than the 512 tokens"):
        collapse.run(model(9), CONFIG, 0, data=constants(2, 500))
    with pytest.raises(ConfigError, match="at least 2 documents"):
        collapse.run(model(9), CONFIG, 0, data=repeats(1))


def test_loss_of_a_known_model(fuse: ModuleType) -> None:
    subject, data = model(10**6), [*repeats(3, 64), torch.tensor([3, 3, 4])]
    by_hand = [subject.loss(d[None])[0].detach().double() * (len(d) - 1) for d in data]
    expected = float(sum(by_hand)) / sum(len(d) - 1 for d in data)
    for window in (None, 7, 1):
        config = loss.Config(window=window, bytes_per_token=4.0)
        found = loss.run(subject, config, 0, data=data)
        where = f"window={window or 'document'}"
        assert found.row("nll", where).value == pytest.approx(expected, rel=1e-5)
        assert found.row("nll", where).n == 4
        bits = found.row("bits_per_token", where).value
        assert bits == pytest.approx(expected / math.log(2), rel=1e-5)
        assert found.row("bits_per_byte", where).value == pytest.approx(bits / 4)
