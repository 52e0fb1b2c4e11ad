"""Checkpoints of Hugging Face in and out: a folder's config.json and tensors as a zoo model, and a zoo model as such a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from blocks.errors import ConfigError
from zoo.config.model import ModelConfig, load_model
from zoo.config.schema import merge
from zoo.convert import families, weight_map
from zoo.convert.byte_tokenizer import BYTES, TOKENIZER, write_byte_tokenizer
from zoo.convert.families import Family
from zoo.convert.hf_folder import (
    HF_CONFIG,
    SHARD_SIZE,
    copy_companions,
    read_config,
    read_shards,
    resolve,
    staged,
    write_json,
    write_shards,
)
from zoo.convert.shared.layers import require_same
from zoo.model.model import Model
from zoo.weights.safetensors_io import CONFIG, WEIGHTS, assemble, check_weights, owned, skeleton, weights_of

PLAINEST = ("llama", "mistral", "qwen3")  # the families to write first: what they say others can say too
OWN = "zoo"  # the family of every model, written where no other takes it: transformers reads it after `import zoo.hf`


def read(folder: Path, tensors_of: Callable[[Path], Mapping[str, Tensor]] = read_shards) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model's mapping, as its YAML would hold it, and its weights by the zoo's names as they are stored. tensors_of: read_shards, or
    read_headers for shapes alone. Raises ConfigError where the config is none that the zoo can compute, or the weights are not exactly
    those of the config."""
    values, _, tensors = _read(folder, tensors_of)
    return values, tensors


def _read(
    folder: Path, tensors_of: Callable[[Path], Mapping[str, Tensor]] = read_shards
) -> tuple[dict[str, Any], ModelConfig, dict[str, Tensor]]:
    """`read`, and the config of the mapping."""
    hf = read_config(folder)
    chosen = families.of_model_type(hf["model_type"])
    try:
        values = chosen.to_zoo(hf)
    except ConfigError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:  # text for a number, a number for a list ...
        raise ConfigError(str(folder / HF_CONFIG), None, f"holds a value that no {hf['model_type']} has: {error}") from error
    config = load_model(values)
    own = weights_of(skeleton(config))
    tensors = weight_map.to_zoo(chosen.rules(config), tensors_of(folder), own, str(folder))
    check_weights(own, tensors, str(folder))
    return values, config, tensors


def import_folder(path: str | Path, dtype: torch.dtype | None = torch.float32) -> Model:
    """The model of a Hugging Face folder or hub id, on the CPU, in eval mode. dtype: of the weights; None: as they are stored.

    Raises ConfigError as read does."""
    folder = resolve(path)
    _, config, tensors = _read(folder)
    return assemble(config, tensors, str(folder), dtype)


def import_to(path: str | Path, out: str | Path, dtype: torch.dtype | None = None) -> ModelConfig:
    """Write a folder that zoo.load reads: config.yaml, model.safetensors, the tokenizer's files if there. Raises ConfigError as read does,
    and where `out` holds anything; then nothing is written.

    dtype: of the weights in the file; None: each as it is stored. (zoo.load computes in float32 whatever the file holds.)"""
    folder = resolve(path)
    with staged(Path(out)) as fresh:
        values, config, tensors = _read(folder)
        for name in tensors:
            tensors[name] = owned(tensors[name], dtype)
        text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)
        (fresh / CONFIG).write_text(f"# imported from {path}\n{text}", encoding="utf-8")
        save_file(tensors, fresh / WEIGHTS)
        copy_companions(folder, fresh)
    return config


def export_folder(
    model: Model,
    path: str | Path,
    family: str | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
    companions: str | Path | None = None,
    shard_size: str = SHARD_SIZE,
) -> str:
    """Write a folder that AutoModelForCausalLM.from_pretrained reads (of the family zoo: after `import zoo.hf`); the family's name.

    family: see family_of. extra: keys of config.json laid on top (bos_token_id ...). companions: a folder whose tokenizer goes along; a
    model of 256 ids without one gets the tokenizer of bytes. shard_size: above it the weights are shards with an index. Raises ConfigError
    where the family does not take the model, or `path` holds anything; then nothing is written.
    """
    name, hf, chosen = family_of(model.config, family)
    tensors = weight_map.to_hf(chosen.rules(model.config), weights_of(model), name)
    with staged(Path(path)) as fresh:
        write_json(fresh / HF_CONFIG, merge(hf | {"dtype": _dtype(tensors)}, extra or {}))
        write_shards(tensors, fresh, shard_size)
        if companions is not None:
            copy_companions(Path(companions), fresh)
        if model.config.vocab_size == BYTES and not (fresh / TOKENIZER).is_file():
            write_byte_tokenizer(fresh)
    return name


def family_of(config: ModelConfig, name: str | None = None) -> tuple[str, dict[str, Any], Family]:
    """The family that a model is written as: its name, config.json and module. None: the plainest that takes it, its own last.

    Raises ConfigError where the named family does not take it."""
    if name is not None:
        chosen = families.family(name)
        return name, _to_hf(name, chosen, config), chosen
    for candidate in (*PLAINEST, *(n for n in families.names() if n not in (*PLAINEST, OWN))):
        with suppress(ConfigError):  # not a member of this one
            return family_of(config, candidate)
    return family_of(config, OWN)


def _to_hf(name: str, chosen: Family, config: ModelConfig) -> dict[str, Any]:
    hf = chosen.to_hf(config)
    require_same(name, config, load_model(chosen.to_zoo(hf)))
    return hf


def _dtype(tensors: Mapping[str, Tensor]) -> str:
    """Of most numbers."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0]
