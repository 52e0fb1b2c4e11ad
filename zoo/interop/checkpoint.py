"""Folders of Hugging Face: config.json and .safetensors, whole or in shards. Nothing is executed, nothing is unpickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import Tensor

from blocks.base import ConfigError
from zoo.config import ModelConfig, load_model
from zoo.interop import families, maps
from zoo.interop.byte_tokenizer import BYTES, GENERATION, TOKENIZER, TOKENIZER_CONFIG, write_byte_tokenizer
from zoo.interop.families import Family
from zoo.interop.layers import require_same
from zoo.model import Model, build
from zoo.schema import merge
from zoo.weights import CONFIG, WEIGHTS, put_weights, read_tensors, save_weights, weights_of

HF_CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
COMPANIONS = (TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", GENERATION)
PLAINEST = ("llama", "mistral", "qwen3")  # the families to write first: what they say others can say too
OWN = "zoo"  # the family of every model, written where no other takes it: transformers reads it after `import zoo.hf`
PATTERNS = ("*.json", "*.safetensors")  # all that is ever fetched


def import_folder(path: str | Path) -> Model:
    """The model of a Hugging Face folder or hub id, float32, on the CPU, in eval mode. Raises ConfigError where the config is none that
    the zoo can compute, or the weights are not exactly those of the config."""
    folder = resolve(path)
    return _read(folder, _to_zoo(read_config(folder)))


def import_to(path: str | Path, out: str | Path) -> Model:
    """import_folder, and write a folder that zoo.load reads: config.yaml, model.safetensors, the tokenizer's files if there."""
    folder, out = resolve(path), Path(out)
    values = _to_zoo(read_config(folder))
    model = _read(folder, values)
    out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)
    (out / CONFIG).write_text(f"# imported from {path}\n{text}", encoding="utf-8")
    save_weights(model, out / WEIGHTS)
    _copy_companions(folder, out)
    return model


def export_folder(
    model: Model,
    path: str | Path,
    family: str | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
    companions: str | Path | None = None,
) -> str:
    """Write a folder that AutoModelForCausalLM.from_pretrained reads (of the family zoo: after `import zoo.hf`); the family's name.

    family: see family_of. extra: keys of config.json laid on top (bos_token_id ...). companions: a folder whose tokenizer goes along; a
    model of 256 ids without one gets the tokenizer of bytes.
    """
    name, hf, chosen = family_of(model.config, family)
    tensors = {key: t.contiguous() for key, t in maps.to_theirs(chosen.rules(model.config), weights_of(model), name).items()}
    out = Path(path)
    out.mkdir(parents=True, exist_ok=True)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    (out / HF_CONFIG).write_text(json.dumps(merge(hf | {"dtype": dtype}, extra or {}), indent=2) + "\n", encoding="utf-8")
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    if companions is not None:
        _copy_companions(Path(companions), out)
    if model.config.vocab_size == BYTES and (companions is None or not (Path(companions) / TOKENIZER).is_file()):
        write_byte_tokenizer(out)
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


def _to_zoo(hf: Mapping[str, Any]) -> dict[str, Any]:
    return families.of_model_type(hf["model_type"]).to_zoo(hf)


def _read(folder: Path, values: Mapping[str, Any]) -> Model:
    config = load_model(values)
    model = build(config)
    entries = families.of_model_type(read_config(folder)["model_type"]).rules(config)
    put_weights(model, maps.to_ours(entries, read_shards(folder), weights_of(model), str(folder)), str(folder))
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a plain mapping. Raises ConfigError."""
    values = read_json(folder / HF_CONFIG)
    if not isinstance(values.get("model_type"), str):
        raise ConfigError(str(folder / HF_CONFIG), None, "has no model_type")
    return values


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: model.safetensors, or the shards that its index names. Raises ConfigError."""
    if (folder / WEIGHTS).is_file():
        return read_tensors(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise ConfigError(str(folder), None, f"holds no {WEIGHTS} and no {INDEX}", "pickled weights (.bin) are never read")
    listed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listed, Mapping):
        raise ConfigError(str(folder / INDEX), None, "has no weight_map")
    found: dict[str, Tensor] = {}
    for shard in sorted(set(listed.values())):
        if Path(shard).name != shard:
            raise ConfigError(str(folder / INDEX), shard, "is not a file of the folder")
        found |= read_tensors(folder / shard)
    absent = sorted(set(listed) - set(found))
    if absent:
        raise ConfigError(str(folder / INDEX), None, f"names tensors that no shard holds: {', '.join(absent)}")
    return found


def resolve(path: str | Path) -> Path:
    """The local folder of a path; of a hub id what the hub holds, fetched once (config.json and .safetensors only). Raises ConfigError."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists() or str(path).count("/") != 1 or str(path).startswith((".", "/", "~")):
        raise ConfigError(str(path), None, "is neither a folder nor a hub id", "a hub id is written owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(str(path), None, "is no local folder, and there is no huggingface_hub", "pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(PATTERNS)))
    except (OSError, ValueError) as error:  # what the hub's errors are: no such repository, no network, no such name
        why = str(error).splitlines()[0]
        raise ConfigError(str(path), None, f"is no local folder and can't be fetched from the hub: {why}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), None, "there is no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), None, f"can't be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(str(path), None, "must be a mapping of keys to values")
    return values


def _copy_companions(source: Path, out: Path) -> None:
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
