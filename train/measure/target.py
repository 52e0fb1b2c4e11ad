"""What `zoo measure` is pointed at: the model, its data and where its rows are kept. What nobody says is assumed, and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, require
from train.data import Source, open_source
from train.data.text_codec import has_tokenizer
from train.data.vocabulary import check_vocabulary
from train.measure.measure import bytes_per_token, check_measure, parse_measure
from zoo.config.schema import load_yaml, merge
from zoo.convert.byte_tokenizer import BYTES, TOKENIZER
from zoo.convert.hf_folder import is_foreign, resolve
from zoo.convert.model_folder import home, load
from zoo.measures import MEASURES
from zoo.measures.shared.base import MeasureConfig
from zoo.model.model import Model
from zoo.weights.safetensors_io import CONFIG, find_weights

OUT = "runs"  # where rows of models go that have no run folder
LENGTH = 2048  # tokens of a training sequence, where nobody says it
CORPUS = {"kind": "text", "corpus": "sotu"}  # that measures read where nobody says it: it comes with the zoo
STREAMED = {"prompt": "joined", "documents": 4}  # of it, for measures that stream long texts: few of its documents are long


@dataclass(frozen=True)
class Target:
    """What is measured, and what must be known about it."""

    folder: Path  # its rows are kept here
    place: Path  # where its config and tokenizer are
    name: str
    model: Model
    data: dict[str, Any]  # as an experiment's YAML has it; empty: not known
    source: Source | None  # the data, opened
    seed: int
    train_length: int | None  # tokens of a training sequence; None: not known
    changes: dict[str, Any]  # to the model, as given
    changed: bool  # whether model or data are others than the run's own
    weights: dict[str, Any] | None  # which they are; None: those in `folder`
    assumed: tuple[str, ...] = ()  # what nobody said, a line each


def open_target(path: str | Path, changes: Mapping[str, Any], out: str | Path | None = None) -> Target:
    """The model at `path` (as zoo.load takes it) with changes {model, data, seed, train_length}. Raises ConfigError.

    out: where its rows go; None: its own folder, and runs/NAME for what Hugging Face keeps, in whose folders nothing is written.
    """
    local = resolve(path)
    model, place = load(local, changes.get("model", {})), home(local)
    values = load_yaml(place / CONFIG) if (place / CONFIG).is_file() else {}
    own = values.get("data") or {}
    data = merge(own, changes.get("data", {}))
    if data and not own:
        data |= _tokenizer(data, place, model.config.vocab_size)
    source = _source(data, model) if data else None
    length = source.length if source is not None and (own or "length" in data) else None
    folder = Path(out) if out is not None else _folder(path, local)
    return Target(
        folder=folder,
        place=place,
        name=str(values.get("name", folder.resolve().name)),
        model=model,
        data=data,
        source=source,
        seed=int(changes.get("seed", values.get("seed", 0))),
        train_length=changes.get("train_length", length),
        changes=dict(changes.get("model", {})),
        changed="model" in changes or "data" in changes,
        weights=_identity(local) if out is not None or is_foreign(local) else None,
    )


def complete(target: Target, specs: Mapping[str, Mapping[str, Any]]) -> tuple[Target, dict[str, MeasureConfig]]:
    """The measures' configs from their keys, and the target with what they need and nobody said. Raises ConfigError before any work."""
    keys = {kind: {f.name for f in fields(MEASURES[kind].Config)} for kind in specs}
    if target.train_length is None and any("train_length" in keys[kind] - set(spec) for kind, spec in specs.items()):
        length = min(LENGTH, target.model.config.positions or LENGTH)
        target = _assume(target, f"training sequences of {length} tokens (train_length=N)", train_length=length)
    configs = {kind: parse_measure(kind, {**spec, "measure": kind}, kind, target.train_length)[1] for kind, spec in specs.items()}
    readers = [kind for kind, config in configs.items() if config.reads is not None]
    if readers and not target.data:
        data = CORPUS | {"length": target.train_length or LENGTH}
        data |= _tokenizer(data, target.place, target.model.config.vocab_size)
        target = _assume(target, f"{_words('data.', data)} (data.KEY=VALUE)", data=data, source=_source(data, target.model), changed=True)
        streaming = [kind for kind in readers if "prompt" in keys[kind]]
        if streaming:
            target = _assume(target, f"of {', '.join(streaming)}: {_words('', STREAMED)} (KEY=VALUE)")
        specs = {kind: (STREAMED if kind in streaming else {}) | dict(spec) for kind, spec in specs.items()}
    return target, {kind: _config(target, kind, spec) for kind, spec in specs.items()}


def _config(target: Target, kind: str, values: Mapping[str, Any]) -> MeasureConfig:
    _, config = parse_measure(kind, {**values, "measure": kind}, kind, target.train_length, bytes_per_token(target.source))
    if target.source is not None:
        check_measure(kind, config, target.source, target.model.config, kind)
        return config
    try:
        config.check(target.model.config)
    except ConfigError as error:
        raise error.within(kind) from None
    return config


def _assume(target: Target, what: str, **values: Any) -> Target:
    return replace(target, assumed=(*target.assumed, what), **values)


def _words(before: str, values: Mapping[str, Any]) -> str:
    return " ".join(f"{before}{key}={value}" for key, value in values.items())


def _source(data: Mapping[str, Any], model: Model) -> Source:
    source = open_source(data)
    check_vocabulary(source, model.config.vocab_size, "model.vocab_size", "data.tokenizer=FOLDER/tokenizer.json")
    return source


def _tokenizer(data: Mapping[str, Any], place: Path, vocab_size: int) -> dict[str, Any]:
    """What text needs to become this model's ids, where nobody says it. Raises ConfigError where nothing is known."""
    if data.get("kind") not in ("text", "hub") or "tokenizer" in data:
        return {}
    if has_tokenizer(place):
        return {"tokenizer": str(place / TOKENIZER)}
    rule = f"text can't be read: {place} holds no {TOKENIZER}, and {vocab_size} ids are no bytes"
    require(vocab_size == BYTES, "data.tokenizer", None, rule, "data.tokenizer=FOLDER/tokenizer.json; null reads bytes all the same")
    return {}


def _folder(path: str | Path, local: Path) -> Path:
    if not is_foreign(local):
        return local if local.is_dir() else local.parent
    return Path(OUT) / (local.resolve().name if Path(path).exists() else path)


def _identity(local: Path) -> dict[str, Any]:
    """Enough to tell another model: where its files are, and when they were last changed."""
    files = [local / "config.json", *local.glob("*.safetensors")] if is_foreign(local) else [find_weights(local)]
    return {"place": str(local.resolve()), "changed": max(file.stat().st_mtime_ns for file in files)}
