"""The ledger: parameters, FLOPs and state bytes, exact integers, a row a sub-layer, on one definition for every block.

One sequence (batch 1). FLOPs are forward; training is 3x (backward = 2x forward). Embedding look-ups, norms and element-wise
work count 0; the head counts 2 d_model vocab_size a token. State bytes are those of the tensors held after `length` tokens.
Active parameters are all but the experts that a token did not choose: the embedding counts whole, as in Mixtral's 12.9B and Qwen3's
A3B (DeepSeek and gpt-oss leave an untied embedding out, MiniMax and GLM-5 the head too); a shared block counts once, as in one use.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from blocks.base import Cost
from blocks.context import TEXT
from blocks.parts import norm_params
from zoo.config.layers import block_configs, norm_places
from zoo.config.model import ModelConfig

TRAIN_FACTOR = 3  # forward 1 + backward 2
CURSOR_BYTES = 8  # the position of the next token, int64


@dataclass(frozen=True)
class Row:
    """One sub-layer (or the embedding, or the head)."""

    index: int | None  # None for what is not a sub-layer
    name: str
    type: str
    cost: Cost

    def as_dict(self) -> dict[str, Any]:
        return {"index": self.index, "name": self.name, "type": self.type, **_numbers(self.cost)}


@dataclass(frozen=True)
class Ledger:
    """All rows of a model at one length."""

    rows: tuple[Row, ...]
    length: int
    embedding_params: int  # of the tokens' and the positions' embeddings

    @property
    def total(self) -> Cost:
        return sum((row.cost for row in self.rows), Cost())

    @property
    def params(self) -> int:
        return self.total.params

    @property
    def active_params(self) -> int:
        """What one token meets."""
        return self.total.active_params

    @property
    def params_non_embedding(self) -> int:
        return self.total.params - self.embedding_params

    @property
    def flops(self) -> int:
        """Forward, one sequence."""
        return self.total.flops

    @property
    def flops_train(self) -> int:
        """Forward and backward, one sequence."""
        return TRAIN_FACTOR * self.total.flops

    @property
    def state_bytes(self) -> int:
        return self.total.state_bytes

    def as_dict(self) -> dict[str, Any]:
        """The object that `zoo show --json` prints."""
        total = _numbers(self.total) | {"params_non_embedding": self.params_non_embedding, "flops_train": self.flops_train}
        return {"layers": [row.as_dict() for row in self.rows], "total": total, "length": self.length}


def _numbers(cost: Cost) -> dict[str, int]:
    values = asdict(cost)
    del values["idle_params"]
    return values | {"active_params": cost.active_params}


def ledger(config: ModelConfig, length: int) -> Ledger:
    """The ledger of a model for one sequence of `length` text tokens. No module is built."""
    d, vocab = config.d_model, config.vocab_size
    tables = (vocab + (config.positions or 0)) * d
    entrance = _inserted_params(config) + config.embedding_norm * _norm_params(config)
    embedding = Row(None, "embedding", "embedding", Cost(params=tables + entrance, state_bytes=0))
    head_params = _norm_params(config) + (0 if config.tie_embeddings else vocab * d)
    head_flops = 2 * length * d * vocab
    head = Row(None, "head", "tied head" if config.tie_embeddings else "head", Cost(head_params, head_flops, head_flops))
    rows = (_segment_rows if config.tokens.memory else _plain_rows)(config, length)
    cursor = Row(None, "cursor", "position", Cost(state_bytes=CURSOR_BYTES)) if rows_hold_state(config, length) else None
    return Ledger((embedding, *rows, head, *([cursor] if cursor else [])), length, tables)


def rows_hold_state(config: ModelConfig, length: int) -> bool:
    """Whether a position is held after `length` tokens (a segment memory that has just closed holds only itself)."""
    memory = config.tokens.memory
    return memory is None or length % memory.segment != 0


def _plain_rows(config: ModelConfig, length: int) -> tuple[Row, ...]:
    return stack_rows(config, config.tokens.sequence(length))


def stack_rows(config: ModelConfig, kinds: list[int]) -> tuple[Row, ...]:
    """A row a sub-layer for one sequence whose tokens have these kinds."""
    rows = []
    named = config.named
    costs: dict[str, Cost] = {}  # of each named block: the same in all its layers
    for index, (branches, place) in enumerate(zip(block_configs(config), norm_places(config), strict=True)):
        cost = Cost(params=_norm_params(config) * {"sandwich": 2, "none": 0}.get(place, 1))
        if config.parallel == "mean_norm" and len(branches) > 1:
            cost += Cost(params=len(branches) * config.d_model)
        for name, block, counted in branches:
            if name not in costs:
                costs[name] = block.cost_of_kinds(config.d_model, kinds)
            cost += costs[name] if counted else replace(costs[name], params=0, idle_params=0)
        rows.append(Row(index, "|".join(n for n, _, _ in branches), "|".join(named[n].type for n, _, _ in branches), cost))
    return tuple(rows)


def _segment_rows(config: ModelConfig, length: int) -> tuple[Row, ...]:
    """Full segments read [memory | segment | memory]; the last, open one reads [memory | rest]."""
    memory = config.tokens.memory
    assert memory is not None
    full, rest = divmod(length, memory.segment)
    whole = stack_rows(config, [TEXT] * (memory.segment + 2 * memory.count))
    opened = stack_rows(config, [TEXT] * (memory.count + rest))
    rows = []
    for a, b in zip(whole, opened, strict=True):
        flops = full * a.cost.flops + (b.cost.flops if rest else 0)
        executed = full * a.cost.executed_flops + (b.cost.executed_flops if rest else 0)
        spent = replace(a.cost, flops=flops, executed_flops=executed, state_bytes=b.cost.state_bytes if rest else 0)
        rows.append(replace(a, cost=spent))
    held = Row(None, "memory", "segment memory", Cost(memory.count * config.d_model, state_bytes=4 * memory.count * config.d_model))
    return (held, *rows)


def _norm_params(config: ModelConfig) -> int:
    return norm_params(config.norm, config.d_model)


def _inserted_params(config: ModelConfig) -> int:
    plan = config.tokens
    count = (plan.prefix.count if plan.prefix else 0) + int(plan.meta is not None) + int(plan.landmark is not None)
    return count * config.d_model
