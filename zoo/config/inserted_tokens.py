"""Tokens that a model inserts by itself (`tokens:`): prefix, meta, landmark, and segment memory.

    tokens: {prefix: {count: 16}}               learned tokens before every document (Hymba, arXiv:2411.13676)
    tokens: {meta: {every: 10}}                 one learned token somewhere in every 10 (Learned Meta-Tokens, arXiv:2509.16278)
    tokens: {landmark: {every: 50}}             one after every 50 (Landmark Attention, arXiv:2305.16300)
    tokens: {memory: {count: 4, segment: 128}}  segment-level recurrence (RMT, arXiv:2207.06881; zoo.model.segment_memory)

Where a token goes depends on the position in the document alone, so that a stream, its pieces and its steps agree.
Inserted tokens take positions, are read by every layer, and are neither predicted nor predicted from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from blocks.base import Config
from blocks.context import LANDMARK, META, PREFIX, TEXT, Context
from blocks.errors import ConfigError, require

KIND_NAMES = {PREFIX: "prefix", META: "meta", LANDMARK: "landmark"}


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Learned tokens before every document."""

    count: int  # how many


@dataclass(frozen=True, kw_only=True)
class Meta:
    """One learned token in every `every` positions, at a pseudo-random place among them."""

    every: int = 10  # the paper injects a tenth of the length
    seed: int = 0  # draws the places


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """One learned token after every `every` tokens of a document."""

    every: int = 50  # block length without its landmark


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Segment-level recurrence: read tokens before a segment, write tokens after it, nothing else is carried."""

    count: int = 4  # memory tokens
    segment: int = 128  # text tokens a segment


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """What a model inserts; any of prefix, meta and landmark together, or memory alone."""

    prefix: Prefix | None = None
    meta: Meta | None = None
    landmark: Landmark | None = None
    memory: Memory | None = None

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kinds that are inserted into the sequence."""
        plans = {PREFIX: self.prefix, META: self.meta, LANDMARK: self.landmark}
        return tuple(kind for kind, plan in plans.items() if plan is not None)

    def check(self) -> None:
        if self.prefix is not None:
            require(self.prefix.count >= 1, "tokens.prefix.count", self.prefix.count, "must be at least 1")
        if self.meta is not None:
            require(self.meta.every >= 1, "tokens.meta.every", self.meta.every, "must be at least 1")
        if self.landmark is not None:
            require(self.landmark.every >= 1, "tokens.landmark.every", self.landmark.every, "must be at least 1")
        if self.memory is not None:
            require(self.memory.count >= 1, "tokens.memory.count", self.memory.count, "must be at least 1")
            require(self.memory.segment >= 1, "tokens.memory.segment", self.memory.segment, "must be at least 1")
            require(not self.kinds, "tokens.memory", None, "goes with no other token plan", "remove memory, or the others")

    def check_block(self, name: str, type_name: str, config: Config) -> None:
        """Raise ConfigError where a block needs a kind of token that this plan does not insert."""
        for kind in config.needs_kinds:
            if kind not in self.kinds:
                plan = KIND_NAMES[kind]
                raise ConfigError(f"blocks.{name}.type", type_name, f"needs {plan} tokens", f"add tokens: {{{plan}: {{...}}}} to the model")
        if config.needs_tokens and self.memory is not None:
            rule = "reads token ids, which segments with memory don't have"
            raise ConfigError(f"blocks.{name}.type", type_name, rule, "remove tokens.memory")

    def inserted(self, positions: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """For each kind: (kind, how many stand directly before each text position, how many directly after it)."""
        none = torch.zeros_like(positions)
        counts = []
        if self.prefix is not None:
            counts.append((PREFIX, (positions == 0) * self.prefix.count, none))
        if self.meta is not None:
            counts.append((META, (positions % self.meta.every == _places(self.meta, positions)).long(), none))
        if self.landmark is not None:
            counts.append((LANDMARK, none, (positions % self.landmark.every == self.landmark.every - 1).long()))
        return counts

    def before(self, positions: Tensor) -> Tensor:
        """How many inserted tokens of the document come before each text position (those directly before it included)."""
        total = torch.zeros_like(positions)
        if self.prefix is not None:
            total = total + self.prefix.count
        if self.meta is not None:
            block = positions // self.meta.every
            total = total + block + (positions % self.meta.every >= _places(self.meta, positions)).long()
        if self.landmark is not None:
            total = total + positions // self.landmark.every
        return total

    def sequence(self, length: int) -> list[int]:
        """The kinds of the whole expanded sequence of one document of `length` text tokens."""
        if not self.kinds:
            return [TEXT] * length
        positions = torch.arange(length)[None]
        layout = insert(self, Context(positions))
        return [] if layout.ctx.kinds is None else layout.ctx.kinds[0].tolist()


def _places(meta: Meta, positions: Tensor) -> Tensor:
    """The place of the meta token in each position's run of `every`: a hash of (seed, run), the same for every document."""
    run = positions // meta.every
    mixed = (run + 1) * 0x9E3779B1 + (meta.seed + 1) * 0x85EBCA77
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & 0x7FFFFFFF
    return (mixed ^ (mixed >> 15)) % meta.every


class Layout(NamedTuple):
    """The expanded sequence: L slots a row, right-aligned, padding first."""

    ctx: Context  # of the expanded sequence
    source: Tensor  # (b, L) int64: the text token that a slot belongs to
    order: Tensor  # (b, L) int64: the how-manieth inserted token of its kind the slot is (prefix tokens differ by it)
    text: Tensor  # (b, t) int64: the slot of each text token; 0 at padding


def insert(plan: TokensConfig, ctx: Context) -> Layout:
    """The layout of the text of `ctx` with the plan's tokens inserted."""
    b, t = ctx.positions.shape
    keep = torch.ones(b, t, dtype=torch.long, device=ctx.positions.device) if ctx.padding is None else (~ctx.padding).long()
    parts = [(kind, n * keep, m * keep) for kind, n, m in plan.inserted(ctx.positions)]
    ahead = torch.stack([n for _, n, _ in parts]).sum(0)
    behind = torch.stack([m for _, _, m in parts]).sum(0)
    slots = ahead + keep + behind
    ends = slots.cumsum(1)
    total = ends[:, -1]
    length = int(total.max())
    pads = length - total
    index = torch.arange(length, device=slots.device) - pads[:, None]  # slot number among the row's real ones; negative = padding
    source = torch.searchsorted(ends, index.clamp(min=0), right=True).clamp(max=t - 1)
    offset = index - (ends - slots).gather(1, source)  # place within the token's own slots
    kinds, order = torch.full_like(source, TEXT), torch.zeros_like(source)
    first = torch.zeros_like(source)
    for kind, n, _ in parts:
        n = n.gather(1, source)
        here = (offset >= first) & (offset < first + n)
        kinds, order, first = kinds.where(~here, kind), torch.where(here, offset - first, order), first + n
    first = first + 1  # the text token itself
    for kind, _, m in parts:
        m = m.gather(1, source)
        here = (offset >= first) & (offset < first + m)
        kinds, first = kinds.where(~here, kind), first + m
    positions = (ctx.positions + plan.before(ctx.positions) - ahead).gather(1, source) + offset
    padding = index < 0
    expanded = Context(
        positions=positions.masked_fill(padding, 0),
        documents=None if ctx.documents is None else ctx.documents.gather(1, source).masked_fill(padding, -1),
        reset=None if ctx.reset is None else ctx.reset.gather(1, source) & (offset == 0) & ~padding,
        padding=padding if bool(padding.any()) else None,
        kinds=kinds.masked_fill(padding, TEXT),
        tokens=None if ctx.tokens is None else ctx.tokens.gather(1, source).masked_fill((kinds != TEXT) | padding, -1),
    )
    text = (pads[:, None] + ends - slots + ahead).masked_fill(keep == 0, 0)
    return Layout(expanded, source, order, text)
