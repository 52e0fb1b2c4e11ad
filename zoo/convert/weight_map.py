"""A weight map: rules that say which of our tensors is made of which of theirs. The same rules read a checkpoint and write one.

    Rule("norm.weight", "model.norm.weight")
    Rule("stack.blocks.00_A.qkv.weight", ("...q_proj.weight", "...k_proj.weight", "...v_proj.weight"), Concat((64, 32, 32)))

Every step only moves numbers, so that a round trip is exact to the bit. Rules say what may be there: a rule whose tensors of ours do not
exist in the model (a bias, a norm that this model has not) is passed over. What must be there is decided by the two sides: every tensor
of ours must be made by one rule, and every one of theirs be used by one, or named as no weight or as left out.
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
    """ours (a name or several) <- theirs (a name or several), through steps from theirs to ours."""

    def __init__(self, ours: str | Sequence[str], theirs: str | Sequence[str], *steps: Step) -> None:
        self.ours = (ours,) if isinstance(ours, str) else tuple(ours)
        self.theirs = (theirs,) if isinstance(theirs, str) else tuple(theirs)
        self.steps = steps

    def to_ours(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors by name from theirs."""
        moved = [tensors[name] for name in self.theirs]
        for step in self.steps:
            moved = step.to_ours(moved)
        return dict(zip(self.ours, moved, strict=True))

    def to_theirs(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their tensors by name from ours. Linear and orthogonal, so that it also maps gradients."""
        moved = [tensors[name] for name in self.ours]
        for step in reversed(self.steps):
            moved = step.to_theirs(moved)
        return dict(zip(self.theirs, moved, strict=True))


@dataclass(frozen=True)
class Tied:
    """Theirs may hold `name` as a second copy of `source`: checked on the way in, not written on the way out."""

    name: str
    source: str


@dataclass(frozen=True)
class NotAWeight:
    """Names of theirs (a pattern with *) that hold nothing learned: causal masks, inverse frequencies."""

    pattern: str


@dataclass(frozen=True)
class LeftOut:
    """Names of theirs (a pattern with *) that are learned and no part of our model: a vision tower, the prediction of further tokens."""

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
    """Theirs may go by another name: it is read by either, and written by `name`."""

    name: str
    other: str


@dataclass(frozen=True)
class Either:
    """The same tensors of ours in two forms of theirs: written by `rule`, read by `other` where a checkpoint holds its names."""

    rule: Rule
    other: Rule


Entry = Rule | Either | Tied | NotAWeight | LeftOut | Within | Trunk | Also


def linear(ours: str, theirs: str | Sequence[str], *steps: Step) -> list[Rule]:
    """The weight and the bias of a projection (or a norm)."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    return [Rule(f"{ours}.{part}", [f"{name}.{part}" for name in names], *steps) for part in ("weight", "bias")]


def to_ours(entries: Sequence[Entry], theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """Tensors for every name in `own` (the model's) from a checkpoint's. Raises ConfigError (place) listing all that does not fit."""
    theirs = renamed(entries, _prefixed(entries, theirs))
    rules = _present(entries, own, theirs)
    used = {name for rule in rules for name in rule.theirs} | _no_weights(entries, theirs)
    missing = sorted(name for rule in rules for name in rule.theirs if name not in theirs)
    _complain(place, ("lacks", missing), ("holds what the model has no place for", sorted(set(theirs) - used)), *_unmade(rules, own))
    found: dict[str, Tensor] = {}
    for rule in rules:
        found |= rule.to_ours(theirs)
    shapes = [f"{n} {list(t.shape)} instead of {list(own[n].shape)}" for n, t in found.items() if t.shape != own[n].shape]
    _complain(place, ("has other sizes than its config says", shapes))
    return found


def to_theirs(entries: Sequence[Entry], own: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """A checkpoint's tensors from the model's. Raises ConfigError (place) if the rules leave a tensor of ours behind."""
    rules = _present(entries, own, {})
    _complain(place, *_unmade(rules, own))
    found: dict[str, Tensor] = {}
    for rule in rules:
        found |= rule.to_theirs(own)
    return found


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


def renamed(entries: Sequence[Entry], theirs: Mapping[str, Tensor]) -> Renamed:
    """A checkpoint's tensors by the names that we write."""
    names = {entry.other: entry.name for entry in entries if isinstance(entry, Also) and entry.name not in theirs}
    return Renamed(theirs, {names.get(name, name): name for name in theirs})


def _present(entries: Sequence[Entry], own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[Rule]:
    """The rules of what the model has, in the form that the checkpoint has."""
    chosen = [entry if not isinstance(entry, Either) else entry.other if _holds(theirs, entry.other) else entry.rule for entry in entries]
    return [entry for entry in chosen if isinstance(entry, Rule) and any(name in own for name in entry.ours)]


def _holds(theirs: Mapping[str, Tensor], rule: Rule) -> bool:
    return all(name in theirs for name in rule.theirs)


def _unmade(rules: Sequence[Rule], own: Mapping[str, Tensor]) -> list[tuple[str, list[str]]]:
    made = [name for rule in rules for name in rule.ours]
    twice = sorted({name for name in made if made.count(name) > 1})
    absent = sorted(set(made) - set(own))
    return [("no rule makes", sorted(set(own) - set(made))), ("rules make twice", twice), ("rules make what is not there:", absent)]


def _prefixed(entries: Sequence[Entry], theirs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for entry in entries:
        if isinstance(entry, Within) and any(name.startswith(entry.other) for name in theirs):
            return Renamed(theirs, {re.sub(f"^{re.escape(entry.other)}", entry.prefix, name): name for name in theirs})
        if isinstance(entry, Trunk) and not any(name.startswith(entry.prefix) for name in theirs):
            return Renamed(theirs, {entry.prefix + name: name for name in theirs})
    return theirs


def _no_weights(entries: Sequence[Entry], theirs: Mapping[str, Tensor]) -> set[str]:
    """What a checkpoint may hold besides our weights: buffers, what is left out, and exact copies of tied weights."""
    patterns = [entry.pattern for entry in entries if isinstance(entry, (NotAWeight, LeftOut))]
    found = {name for name in theirs if any(fnmatchcase(name, pattern) for pattern in patterns)}
    for entry in entries:
        if isinstance(entry, Tied) and {entry.name, entry.source} <= set(theirs) and _copies(theirs[entry.name], theirs[entry.source]):
            found.add(entry.name)
    return found


def _copies(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers; of shapes alone (device meta), whether they may be."""
    return a.shape == b.shape if a.is_meta or b.is_meta else torch.equal(a, b)


def _complain(place: str, *faults: tuple[str, list[str]]) -> None:
    texts = [f"{what} {listed(names, LISTED)}" for what, names in faults if names]
    if texts:
        raise ConfigError(place, None, "; ".join(texts))
