"""A small source, tiny models, and a block that breaks on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blocks.base import Config, Cost
from blocks.context import Context
from train.config.run import BudgetConfig, RunConfig, TrainConfig
from train.data import Batch
from zoo.config.model import ModelConfig, load_model

VOCAB = 24
FUSE: dict[str, int] = {}  # step at which "output", "gradient" or "loss" goes wrong
LIT: set[str] = set()  # what goes wrong in the batch drawn last


class FakeSource:
    """Random ids, every second one a repetition; rows of two lengths if wanted."""

    label, fingerprint, vocab_size = "fake", "0" * 64, VOCAB

    def __init__(self, seed: int = 0, lengths: tuple[int, ...] = (12,), packed: bool = False) -> None:
        self.seed, self.lengths, self.packed = seed, lengths, packed

    @property
    def length(self) -> int:
        return max(self.lengths)

    def batch(self, step: int, batch_size: int) -> Batch:
        LIT.clear()
        LIT.update(kind for kind, at in FUSE.items() if at == step)
        length = self.lengths[step % len(self.lengths)]
        generator = torch.Generator().manual_seed(1000 * step + self.seed)
        ids = torch.randint(VOCAB, (batch_size, length + 1), generator=generator)
        ids[:, 1::2] = ids[:, :length:2]
        documents = torch.arange(length).expand(batch_size, length) // 5 if self.packed else None
        return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), documents)

    def tokens_per_batch(self, batch_size: int) -> float:
        return batch_size * sum(self.lengths) / len(self.lengths)

    def held_out(self, count: int, split: str = "validation") -> dict[str, Batch]:
        return {"text": self.batch(10**6, count)}

    def with_seed(self, seed: int) -> FakeSource:
        return FakeSource(seed, self.lengths, self.packed)


class State(NamedTuple):
    """The running mean's numerator."""

    total: Tensor  # (b, 1, d)


@dataclass(frozen=True, kw_only=True)
class Leaky(Config):
    """h_t = a h_(t-1) + W x_t, y_t = V h_t, with a start that is learned; breaks where LIT says so."""

    decay: float = 0.5  # a

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        return LeakyBlock(self, d_model)

    def cost(self, d_model: int, length: int) -> Cost:
        return Cost(2 * d_model * d_model + d_model, 4 * d_model * d_model * length, 4 * d_model * d_model * length, 4 * d_model)


class _Break(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * float("nan")


class LeakyBlock(nn.Module):
    def __init__(self, config: Leaky, d_model: int) -> None:
        super().__init__()
        self.decay = config.decay
        self.start = nn.Parameter(0.1 * torch.randn(d_model))
        self.inner = nn.Linear(d_model, d_model, bias=False)
        self.outer = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, State]:
        h = self.start.expand(x.shape[0], 1, -1) if state is None else state.total
        out = []
        for i, token in enumerate(self.inner(x).split(1, 1)):
            if ctx.reset is not None:
                h = torch.where(ctx.reset[:, i, None, None], self.start, h)
            h = self.decay * h + token
            out.append(h)
        y = self.outer(torch.cat(out, 1))
        if "gradient" in LIT:
            y = _Break.apply(y)
        return (y * float("inf") if "output" in LIT else y * 1e6 if "loss" in LIT else y), State(h)


@dataclass(frozen=True, kw_only=True)
class Hoard(Leaky):
    """A block whose state, says its ledger, grows with the text."""

    def cost(self, d_model: int, length: int) -> Cost:
        own = super().cost(d_model, length)
        return Cost(own.params, own.flops, own.executed_flops, own.state_bytes * length)


def model_config(pattern: str = "L F L", **changes: Any) -> ModelConfig:
    """A tiny model: our block L (G: the one that grows) and swiglu F."""
    blocks = {
        "L": {"type": "tests.train.fakes.Leaky"},
        "G": {"type": "tests.train.fakes.Hoard"},
        "F": {"type": "swiglu", "hidden": 16},
    }
    used = {name: blocks[name] for name in blocks if name in pattern}
    return load_model({"d_model": 16, "vocab_size": VOCAB, "blocks": used, "pattern": pattern, "plugins": ["tests"], **changes})


def fake_run(steps: int = 12, model: ModelConfig | None = None, data: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    """A run of the tiny model; `train` are changes to its training."""
    values: dict[str, Any] = {"batch_size": 4, "log_every": 3, "checkpoint_every": 4, "loggers": ("csv",), **train}
    config = TrainConfig(**values)
    budget = BudgetConfig(steps=steps)
    return RunConfig(name="tiny", model=model or model_config(), data=data or {"kind": "fake"}, train=config, budget=budget, steps=steps)
