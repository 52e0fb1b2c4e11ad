"""The contract of a block: `y, state = block(x, state, ctx)`, its config, its cost, its errors.

    x, y: (batch, length, d_model), any length >= 1; state None = start of text.

One forward: a whole sequence, pieces of any sizes with the state carried, and one token at a time give the same output,
and the state is differentiable. Packed documents never leak and padding never changes an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

S = TypeVar("S")


class ConfigError(ValueError):
    """The user's input is wrong: where, what was found, the rule, and what would be right. One line, no traceback."""

    def __init__(self, place: str, value: Any, rule: str, alternatives: str = "") -> None:
        self.place, self.value, self.rule, self.alternatives = place, value, rule, alternatives
        found = "" if value is None else f" = {value!r}"
        super().__init__(f"{place}{found}: {rule}" + (f". {alternatives}" if alternatives else ""))

    def within(self, prefix: str) -> ConfigError:
        """The same error seen from outside: its place is prefixed with `prefix.`."""
        place = f"{prefix}.{self.place}" if self.place else prefix
        return ConfigError(place, self.value, self.rule, self.alternatives)


@dataclass(frozen=True)
class Cost:
    """A ledger row, exact integers, for one sequence (batch 1).

    flops:          forward, what the mathematics needs: multiply-add = 2, matmul-like work only, visible pairs only; a
                    recurrence costs its recurrence.
    executed_flops: forward, what the chunked room spends in matmuls (dense tiles, chunk length included).
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


class Cursor(NamedTuple):
    """Where each row stands after the tokens read so far: what positions and documents need to go on."""

    position: Tensor  # (b,) int64: position of the next token in its document
    document: Tensor | None  # (b,) int64: running count of the documents begun before this one; None = never packed or padded
    label: Tensor | None  # (b,) int64: the caller's id of the current document


class Routed(NamedTuple):
    """What a mixture of experts tells the training step about one call."""

    load: Tensor  # (n_experts,) float: how many tokens each expert was chosen by, padding not counted
    loss: Tensor  # (): its auxiliary losses, weighed


@dataclass(frozen=True)
class Context:
    """What all layers share about a piece of text. b batch, t time.

    Padding is always leading in a row (the model moves it there): a block may count on that. A padded token neither
    changes a state nor is seen by any other token; what a block outputs there is never used, but must be finite.
    """

    positions: Tensor  # (b, t) int64: position in the document; 0 at padding
    documents: Tensor | None = None  # (b, t) int64: running count of documents in the row, -1 at padding; None = no packing, no padding
    reset: Tensor | None = None  # (b, t) bool: first token of a new document, the state before it must be forgotten; None = nowhere
    padding: Tensor | None = None  # (b, t) bool, leading in each row; None = nowhere
    kinds: Tensor | None = None  # (b, t) int64: TEXT, or what a token plan inserted (PREFIX, META, LANDMARK); None = all text
    shared: dict[str, Tensor] = field(default_factory=dict)  # values that one layer leaves for later layers of the same forward
    tokens: Tensor | None = None  # (b, t) int64: the ids that were read, -1 where a token was inserted; None = not known
    embedded: Tensor | None = None  # (b, t, d): what the first sub-layer reads; None = the block stands alone: what it reads itself
    routed: list[Routed] | None = None  # where mixtures of experts leave one each; None = not wanted, as everywhere but in a training step
    use: int = 0  # of a block that the pattern uses several times with the same weights (share: true): which time this is, from 0

    @property
    def keep(self) -> Tensor | None:
        """(b, t) bool: not padding; None = everywhere."""
        return None if self.padding is None else ~self.padding

    @property
    def pads(self) -> Tensor | None:
        """(b,) int64: the number of leading padded tokens of each row; None = no padding."""
        return None if self.padding is None else self.padding.sum(1)


TEXT, PREFIX, META, LANDMARK = range(4)


def advance(
    cursor: Cursor | None,
    batch: int,
    length: int,
    *,
    documents: Tensor | None = None,
    padding: Tensor | None = None,
    kinds: Tensor | None = None,
    tokens: Tensor | None = None,
    device: torch.device | str | None = None,
) -> tuple[Context, Cursor]:
    """The context of the next `length` tokens of each row, and the cursor after them.

    documents: (b, t) ids, any integers; a new document starts where the id changes. None = the current document goes on.
    padding: (b, t) bool, leading in each row. kinds, tokens: (b, t), see Context.
    """
    start = torch.zeros(batch, dtype=torch.int64, device=device) if cursor is None else cursor.position
    device = start.device
    steps = torch.arange(length, device=device)
    if padding is not None and not bool(padding.any()):
        padding = None
    packed = documents is not None or padding is not None or (cursor is not None and cursor.document is not None)
    if not packed:
        positions = start[:, None] + steps
        return Context(positions, kinds=kinds, tokens=tokens), Cursor(start + length, None, None)

    count = torch.zeros_like(start) if cursor is None or cursor.document is None else cursor.document
    label = cursor.label if cursor is not None else None
    real = torch.ones(batch, length, dtype=torch.bool, device=device) if padding is None else ~padding
    pads = (~real).sum(1)
    has_text = pads < length
    if documents is None:
        reset = torch.zeros_like(real)
    else:
        first = documents.gather(1, pads.clamp(max=length - 1)[:, None])
        fresh = start == 0  # nothing read yet: the first document needs no reset
        before = first if label is None else torch.where(fresh[:, None], first, label[:, None])
        ids = torch.where(real, documents, before)  # padding goes on with what was before it
        reset = (ids != torch.cat([before, ids[:, :-1]], 1)) & real
        label = torch.where(has_text, ids[:, -1], before[:, 0])
    run = reset.cumsum(1)
    offsets = steps - pads[:, None]  # index among the real tokens of the row
    last_reset = torch.where(reset, offsets, -1).cummax(1).values
    positions = torch.where(run > 0, offsets - last_reset, start[:, None] + offsets).where(
        real, torch.zeros((), dtype=torch.int64, device=device)
    )
    numbers = (count[:, None] + run).where(real, torch.full((), -1, dtype=torch.int64, device=device))
    after = Cursor(torch.where(has_text, positions[:, -1] + 1, start), count + run[:, -1], label)
    ctx = Context(positions, numbers, reset if bool(reset.any()) else None, padding, kinds, tokens=tokens)
    return ctx, after


@dataclass(frozen=True, kw_only=True)
class Config:
    """The sizes of one block. Subclasses are frozen keyword-only dataclasses: a comment a field, checks in `check`."""

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
        """The same block where the pattern uses its weights `uses` times; only one that has weights of each use's own is another."""
        return self

    def resolved(self, d_model: int) -> Config:
        """The same block in one spelling: sizes that follow from others written out, keys without effect at their defaults."""
        return self

    def cost(self, d_model: int, length: int) -> Cost:
        """The ledger's row for one sequence of `length` tokens, all text."""
        raise NotImplementedError

    def cost_of_kinds(self, d_model: int, kinds: Sequence[int]) -> Cost:
        """The row for a sequence whose tokens have these kinds; only a block that reads ctx.kinds differs from `cost`."""
        return self.cost(d_model, len(kinds))


def require(ok: bool, place: str, value: Any, rule: str, alternatives: str = "") -> None:
    """Raise ConfigError unless `ok`."""
    if not ok:
        raise ConfigError(place, value, rule, alternatives)


def divisors(n: int) -> str:
    """The divisors of n as text, for the 'alternatives' of an error."""
    return "divisors: " + ", ".join(str(i) for i in range(1, n + 1) if n % i == 0)


def one_of(place: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless value is one of `allowed`."""
    require(value in allowed, place, value, "is not one of the choices", "choices: " + ", ".join(allowed))


def no_decay(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter of two or more dimensions as exempt from weight decay (one-dimensional ones always are)."""
    parameter.no_decay = True  # type: ignore[attr-defined]
    return parameter


def map_state(fn: Any, state: S) -> S:
    """Apply fn to every tensor of a state (None stays None)."""
    return pytree.tree_map_only(Tensor, fn, state)


def detach(state: S) -> S:
    """The same state, cut from the graph."""
    return map_state(lambda t: t.detach(), state)


def state_tensors(state: Any) -> list[Tensor]:
    """Every tensor that a state holds."""
    return [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]


def state_bytes(state: Any) -> int:
    """The bytes that a state's tensors really hold."""
    return sum(t.numel() * t.element_size() for t in state_tensors(state))
