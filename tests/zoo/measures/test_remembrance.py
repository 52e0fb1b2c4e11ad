"""Effective remembrance of models whose memory is known."""

import sys
from dataclasses import dataclass
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
from zoo.measures import remembrance
from zoo.measures.remembrance import Config, _forgotten, distance, starts

VOCAB, SEEN = 12, 8


class State(NamedTuple):
    last: Tensor  # (b, SEEN - 1, d)


class Window(nn.Module):
    """y = the sum of the last SEEN inputs."""

    def forward(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, State]:
        last = x.new_zeros(len(x), SEEN - 1, x.shape[-1]) if state is None else state.last
        inputs = torch.cat([last, x], 1)
        y = torch.zeros_like(x)
        for lag in range(SEEN):  # in one order, whatever the shape: bit for bit the same
            y = y + inputs[:, lag : lag + x.shape[1]]
        return y, State(inputs[:, 1 - SEEN :])


@dataclass(frozen=True, kw_only=True)
class WindowConfig(BlockConfig):
    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        return Window()


def model(monkeypatch: pytest.MonkeyPatch, block: dict[str, object]) -> zoo.Model:
    module = ModuleType("windowed")
    module.Config = WindowConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "windowed", module)
    plugins = ["windowed"] if block["type"] == "windowed.Config" else []
    made = zoo.build({"d_model": 8, "vocab_size": VOCAB, "blocks": {"X": block}, "pattern": "X", "plugins": plugins}).double()
    with torch.no_grad():
        made.embedding.weight *= 5
    return made


def documents(count: int = 4, length: int = 64) -> list[Tensor]:
    return [torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_a_window_remembers_nothing_beyond_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(train_length=16, times=(1.0, 4.0), documents=4)
    found = remembrance.run(model(monkeypatch, {"type": "windowed.Config"}), config, 0, data=documents())
    for end in (16, 64):
        for start in starts(end):
            value = found.row("remembrance", f"end={end};start={start}").value
            if end - start >= SEEN:
                assert value == 0
            else:
                assert value > 0.01
        assert found.row("context", f"end={end};threshold=0.1").value == SEEN
        assert found.row("forgotten_share", f"end={end};threshold=0.1").value == 1 - SEEN / end


def test_attention_in_a_window_remembers_nothing_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(monkeypatch, {"type": "gqa", "n_heads": 2, "window": SEEN, "rope": None})
    found = remembrance.run(subject, Config(train_length=32, times=(1.0,), documents=2), 0, data=documents())
    values = {start: found.row("remembrance", f"end=32;start={start}").value for start in starts(32)}
    assert max(value for start, value in values.items() if 32 - start >= SEEN) < 1e-12
    assert min(value for start, value in values.items() if 32 - start < SEEN) > 1e-3


@pytest.mark.parametrize("call_tokens", [1, 7, 10_000])
def test_values_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch, call_tokens: int) -> None:
    subject, data = model(monkeypatch, {"type": "mamba1", "d_state": 4}), documents(2)
    config = Config(train_length=10, times=(1.0, 2.0), documents=2, call_tokens=call_tokens)
    found = remembrance.run(subject, config, 0, data=data)
    with torch.no_grad():
        for end in (10, 20):
            for start in starts(end):
                whole, part = (subject(torch.stack(data)[:, a:end])[0][:, -1].softmax(-1) for a in (0, start))
                expected = float((whole - part).abs().sum(-1).mean() / 2)
                assert found.row("remembrance", f"end={end};start={start}").value == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_total_variation_of_known_distributions() -> None:
    p = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]], dtype=torch.float64)
    q = torch.tensor([[0.0, 0, 1], [0.25, 0.5, 0.25]], dtype=torch.float64)
    assert distance(p, q).tolist() == [1.0, 0.25]


def test_grid_is_dense_at_both_ends() -> None:
    assert starts(16) == [1, 2, 4, 8, 12, 14, 15]
    assert starts(20) == [1, 2, 4, 8, 10, 12, 16, 18, 19]
    assert starts(2) == [1]


def test_forgotten_is_up_to_the_first_start_that_matters() -> None:
    values = np.array([[[0.0, 0.05, 0.2, 0.05]], [[0.2, 0, 0, 0]], [[0.0, 0, 0, 0]]])
    assert _forgotten(values, grid=np.array([1, 2, 4, 7]), threshold=0.1).tolist() == [2, 0, 7]


def test_ends_must_hold_two_tokens() -> None:
    assert Config(train_length=256).ends == [128, 256, 512, 1024]
    with pytest.raises(ConfigError, match="an end must be at 2 tokens"):
        Config(train_length=4, times=(0.25,))
