"""A weight map: rules that say which tensor of the zoo's model (zoo) is made of which of a checkpoint (hf), and the other way round.

    Rule("norm.weight", "model.norm.weight")
    Rule("stack.blocks.00_A.qkv.weight", ("...q_proj.weight", "...k_proj.weight", "...v_proj.weight"), Concat((64, 32, 32)))

Every step only moves numbers, so that a round trip is exact to the bit. Rules say what may be there: a rule about tensors that the
zoo's model has not (a bias, a norm) is passed over. What must be there is decided by the two sides: every tensor of the model must be
made by one rule, and every one of the checkpoint be used by one, or named as no weight or as left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from blocks.errors import ConfigError
from zoo.convert.weight_ops import Step
from zoo.weights.safetensors_io import listed

LISTED = 100  # tensors that an error names; the rest is counted


class Rule:
    """zoo (a name or several) <- hf (a name or several), through steps from hf to zoo."""

    def __init__(self, zoo: str | Sequence[str], hf: str | Sequence[str], *steps: Step) -> None:
        self.zoo = (zoo,) if isinstance(zoo, str) else tuple(zoo)
        self.hf = (hf,) if isinstance(hf, str) else tuple(hf)
        self.steps = steps

    def to_zoo(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The zoo's tensors by name, made of the checkpoint's."""
        moved = [tensors[name] for name in self.hf]
        for step in self.steps:
            moved = step.to_zoo(moved)
        return dict(zip(self.zoo, moved, strict=True))

    def to_hf(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The checkpoint's tensors by name, made of the zoo's. Linear and orthogonal, so that it also maps gradients."""
        moved = [tensors[name] for name in self.zoo]
        for step in reversed(self.steps):
            moved = step.to_hf(moved)
        return dict(zip(self.hf, moved, strict=True))


@dataclass(frozen=True)
class Tied:
    """A checkpoint may hold `name` as a second copy of `source`: checked on the way in, not written on the way out."""

    name: str
    source: str


@dataclass(frozen=True)
class NotAWeight:
    """Names in the checkpoint (a pattern with *) that hold nothing learned: causal masks, inverse frequencies."""

    pattern: str


@dataclass(frozen=True)
class LeftOut:
    """Names in the checkpoint (a pattern with *) that are learned and no part of the model: a vision tower, multi-token prediction."""

    pattern: str


@dataclass(frozen=True)
class Within:
    """Checkpoints of a larger model hold this one under another prefix: what begins with `other` is read as beginning with `prefix`."""

    prefix: str
    other: str


@dataclass(frozen=True)
class Trunk:
    """Checkpoints of the model without its head leave this prefix of all names out."""

    prefix: str


@dataclass(frozen=True)
class Also:
    """A tensor may go by another name in a checkpoint: it is read by either, and written by `name`."""

    name: str
    other: str


@dataclass(frozen=True)
class Either:
    """Two forms in which checkpoints hold the same tensors: written by `rule`, read by `other` where a checkpoint holds its names."""

    rule: Rule
    other: Rule


Entry = Rule | Either | Tied | NotAWeight | LeftOut | Within | Trunk | Also


def linear(zoo: str, hf: str | Sequence[str], *steps: Step) -> list[Rule]:
    """The weight and the bias of a projection (or a norm)."""
    names = (hf,) if isinstance(hf, str) else hf
    return [Rule(f"{zoo}.{part}", [f"{name}.{part}" for name in names], *steps) for part in ("weight", "bias")]


def to_zoo(entries: Sequence[Entry], hf: Mapping[str, Tensor], own: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Tensors for every name in `own` (the model's) from a checkpoint's. Raises ConfigError (place) listing all that does not fit."""
    hf = renamed(entries, _prefixed(entries, hf))
    rules = _present(entries, own, hf)
    used = {name for rule in rules for name in rule.hf} | _no_weights(entries, hf)
    missing = sorted(name for rule in rules for name in rule.hf if name not in hf)
    _complain(place, ("lacks", missing), ("holds what the model has no place for", sorted(set(hf) - used)), *_unmade(rules, own))
    tensors: dict[str, Tensor] = {}
    for rule in rules:
        tensors |= rule.to_zoo(hf)
    shapes = [f"{n} {list(t.shape)} instead of {list(own[n].shape)}" for n, t in tensors.items() if t.shape != own[n].shape]
    _complain(place, ("has other sizes than its config says", shapes))
    return tensors


def to_hf(entries: Sequence[Entry], own: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """A checkpoint's tensors from the model's. Raises ConfigError (place) if the rules leave a tensor of the model out."""
    rules = _present(entries, own, {})
    _complain(place, *_unmade(rules, own))
    tensors: dict[str, Tensor] = {}
    for rule in rules:
        tensors |= rule.to_hf(own)
    return tensors


class Renamed(Mapping[str, Tensor]):
    """Tensors by other names, each looked up (read) when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        """names: new -> that in `tensors`."""
        self.tensors, self.names = tensors, names

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.names[name]]

    def __contains__(self, name: object) -> bool:
        return name in self.names  # what Mapping does instead reads the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def renamed(entries: Sequence[Entry], hf: Mapping[str, Tensor]) -> Renamed:
    """A checkpoint's tensors by the names that are written."""
    names = {entry.other: entry.name for entry in entries if isinstance(entry, Also) and entry.name not in hf}
    return Renamed(hf, {names.get(name, name): name for name in hf})


def _present(entries: Sequence[Entry], own: Mapping[str, Tensor], hf: Mapping[str, Tensor]) -> list[Rule]:
    """The rules of what the model has, in the form that the checkpoint has."""
    chosen = [entry if not isinstance(entry, Either) else entry.other if _holds(hf, entry.other) else entry.rule for entry in entries]
    return [entry for entry in chosen if isinstance(entry, Rule) and any(name in own for name in entry.zoo)]


def _holds(hf: Mapping[str, Tensor], rule: Rule) -> bool:
    return all(name in hf for name in rule.hf)


def _unmade(rules: Sequence[Rule], own: Mapping[str, Tensor]) -> list[tuple[str, list[str]]]:
    made = [name for rule in rules for name in rule.zoo]
    twice = sorted({name for name in made if made.count(name) > 1})
    absent = sorted(set(made) - set(own))
    return [("no rule makes", sorted(set(own) - set(made))), ("rules make twice", twice), ("rules make what is not there:", absent)]


def _prefixed(entries: Sequence[Entry], hf: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for entry in entries:
        if isinstance(entry, Within) and any(name.startswith(entry.other) for name in hf):
            return Renamed(hf, {re.sub(f"^{re.escape(entry.other)}", entry.prefix, name): name for name in hf})
        if isinstance(entry, Trunk) and not any(name.startswith(entry.prefix) for name in hf):
            return Renamed(hf, {entry.prefix + name: name for name in hf})
    return hf


def _no_weights(entries: Sequence[Entry], hf: Mapping[str, Tensor]) -> set[str]:
    """What a checkpoint may hold besides the model's weights: buffers, what is left out, and exact copies of tied weights."""
    patterns = [entry.pattern for entry in entries if isinstance(entry, (NotAWeight, LeftOut))]
    names = {name for name in hf if any(fnmatchcase(name, pattern) for pattern in patterns)}
    for entry in entries:
        if isinstance(entry, Tied) and {entry.name, entry.source} <= set(hf) and _copies(hf[entry.name], hf[entry.source]):
            names.add(entry.name)
    return names


def _copies(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers; of shapes alone (device meta), whether they may be."""
    return a.shape == b.shape if a.is_meta or b.is_meta else torch.equal(a, b)


def _complain(place: str, *faults: tuple[str, list[str]]) -> None:
    texts = [f"{what} {listed(names, LISTED)}" for what, names in faults if names]
    if texts:
        raise ConfigError(place, None, "; ".join(texts))
