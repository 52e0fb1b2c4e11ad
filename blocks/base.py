"""The contract of a block: `y, state = block(x, state, ctx)`, its config and its cost.

    x, y: (batch, length, d_model), any length >= 1; state None = start of text.

One forward: a whole sequence, pieces of any sizes with the state carried, and one token at a time give the same output,
and the state is differentiable. Packed documents never leak and padding never changes an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import nn

from blocks.context import Context
from blocks.errors import ConfigError, divisors, one_of, require

__all__ = ["Config", "ConfigError", "Context", "Cost", "divisors", "no_decay", "one_of", "require"]  # what a block of one's own needs


@dataclass(frozen=True)
class Cost:
    """A ledger row, exact integers, for one sequence (batch 1).

    flops:          forward, what the mathematics needs: multiply-add = 2, matmul-like work only, visible pairs only; a
                    recurrence costs its recurrence.
    executed_flops: forward, what the chunked back end spends in matmuls (dense tiles, chunk length included).
    state_bytes:    the state after `length` tokens of one unpadded document, float32.
    idle_params:    of params, those that one token does not meet: the experts that it did not choose.
    """

    params: int = 0
    flops: int = 0
    executed_flops: int = 0
    state_bytes: int = 0
    idle_params: int = 0

    @property
    def active_params(self) -> int:
        """The parameters that one token meets."""
        return self.params - self.idle_params

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of one block. Subclasses are frozen keyword-only dataclasses: a comment a field, checks in `check`."""

    kind: ClassVar[str] = "mixer"  # "mixer" mixes time, "channel" mixes only channels
    causal: ClassVar[bool] = True
    paper: ClassVar[str] = ""  # name, arXiv id
    restartable: ClassVar[bool] = True  # state None may also stand at positions > 0: what came before is unseen, as at a start
    needs_kinds: ClassVar[tuple[int, ...]] = ()  # token kinds without which the block is meaningless (see Context.kinds)
    needs_tokens: ClassVar[bool] = False  # the block is meaningless without token ids (see Context.tokens)

    def check(self, d_model: int) -> None:
        """Raise ConfigError (place = the field's name) where the sizes are impossible at this width."""

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        """The module. `layer` (0-based) and `n_layers` count the residual sub-layers that hold a mixer; some
        initialisations depend on them."""
        raise NotImplementedError

    def shared(self, uses: int) -> Config:
        """The config where the pattern uses the same weights `uses` times; it differs only if each use has some weights of its own."""
        return self

    def resolved(self, d_model: int) -> Config:
        """The same block in one canonical form: derived sizes written out, keys without effect at their defaults."""
        return self

    def cost(self, d_model: int, length: int) -> Cost:
        """The ledger's row for one sequence of `length` tokens, all text."""
        raise NotImplementedError

    def cost_of_kinds(self, d_model: int, kinds: Sequence[int]) -> Cost:
        """The row for a sequence whose tokens have these kinds; only a block that reads ctx.kinds differs from `cost`."""
        return self.cost(d_model, len(kinds))


def no_decay(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter of two or more dimensions as exempt from weight decay (one-dimensional ones always are)."""
    parameter.no_decay = True  # type: ignore[attr-defined]
    return parameter
