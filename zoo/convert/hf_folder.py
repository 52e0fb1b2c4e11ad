"""Folders of Hugging Face as files: config.json, .safetensors whole or in shards, the tokenizer. Nothing is executed or unpickled."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from blocks.errors import ConfigError, require
from zoo.convert.byte_tokenizer import GENERATION, TOKENIZER, TOKENIZER_CONFIG
from zoo.weights.safetensors_io import CONFIG, WEIGHTS, Tensors, listed

HF_CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
COMPANIONS = (TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", GENERATION, "chat_template.jinja")
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
FETCHED = ("*.json", "*.jinja", "model*.safetensors")  # all that is taken from the hub, at the top of a repository
PICKLED = ("*.bin", "*.pt", "*.pth")
SHARD_SIZE = "5GB"  # what the hub's own tools write at most


def resolve(path: str | Path) -> Path:
    """A local folder or file as it is; of a hub id the folder that the hub's files were fetched to, once. Raises ConfigError."""
    local = Path(path)
    if local.exists():
        return local
    if str(path).count("/") != 1 or str(path).startswith((".", "/", "~")) or local.parent.is_dir():
        raise ConfigError(str(path), None, "there is no such folder or file, and it is no hub id", "a hub id is written owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(str(path), None, "is no local folder, and there is no huggingface_hub", "pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(str(path), allow_patterns=list(FETCHED), ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:  # what the hub's errors are: no such repository, no network, no such name
        why = str(error).splitlines()[0]
        raise ConfigError(str(path), None, f"is no local folder and can't be fetched from the hub: {why}") from None


def is_foreign(path: Path) -> bool:
    """Whether this is a folder of Hugging Face and not one of the zoo."""
    return (path / HF_CONFIG).is_file() and not (path / CONFIG).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a plain mapping. Raises ConfigError."""
    if not (folder / HF_CONFIG).is_file():
        more = f"it has a {CONFIG}: every command reads it as it is" if (folder / CONFIG).is_file() else ""
        raise ConfigError(str(folder), None, f"holds no {HF_CONFIG}", more)
    values = read_json(folder / HF_CONFIG)
    require(isinstance(values.get("model_type"), str), str(folder / HF_CONFIG), None, "has no model_type")
    return values


def read_shards(folder: Path) -> Tensors:
    """All tensors of a folder: of model.safetensors, or of the shards that its index names. Raises ConfigError."""
    if (folder / WEIGHTS).is_file():
        return Tensors([folder / WEIGHTS])
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
        more = f"; {listed(pickled)}: pickled weights are never read" if pickled else ""
        remedy = "save_pretrained of transformers writes .safetensors" if pickled else ""
        raise ConfigError(str(folder), None, f"holds no {WEIGHTS} and no {INDEX}{more}", remedy)
    names = read_json(folder / INDEX).get("weight_map")
    require(isinstance(names, Mapping), str(folder / INDEX), None, "has no weight_map")
    assert isinstance(names, Mapping)
    shards = sorted({str(shard) for shard in names.values()})
    for shard in shards:
        require(Path(shard).name == shard, str(folder / INDEX), shard, "is not a file of the folder")
    tensors = Tensors([folder / shard for shard in shards])
    absent = sorted(set(names) - set(tensors))
    require(not absent, str(folder / INDEX), None, f"names tensors that no shard holds: {listed(absent)}")
    return tensors


def read_headers(folder: Path) -> dict[str, Tensor]:
    """What `read_shards` would read, as tensors without numbers (device meta). Raises ConfigError."""
    return read_shards(folder).shapes()


def write_shards(tensors: Mapping[str, Tensor], folder: Path, size: str = SHARD_SIZE) -> None:
    """model.safetensors, or shards of at most `size` ("5GB", "200MB") with their index. Raises ConfigError."""
    most = _bytes(size)
    if sum(tensor.nbytes for tensor in tensors.values()) <= most:
        _save(tensors, folder / WEIGHTS)
        return
    try:
        from huggingface_hub import split_torch_state_dict_into_shards
    except ImportError:
        raise ConfigError(
            "shard size", size, "is less than the weights; needs the package huggingface_hub", "pip install huggingface_hub"
        ) from None
    apart = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}  # views of one memory would count once
    split = split_torch_state_dict_into_shards(apart, max_shard_size=most)
    for file, names in split.filename_to_tensors.items():
        _save({name: tensors[name] for name in names}, folder / file)
    write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def _bytes(size: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KMGT]?)B", size.upper())
    require(match is not None and int(match[1]) > 0, "shard size", size, "is no size", "for example 5GB or 200MB")
    assert match is not None
    return int(match[1]) * 1000 ** " KMGT".index(match[2] or " ")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), None, "there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(path), None, f"can't be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(str(path), None, "must be a mapping of keys to values")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def copy_companions(source: Path, out: Path) -> None:
    """The tokenizer's files, as far as there are any; the ids that begin and end texts also where config.json alone says them."""
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    ids = special_ids(source)
    if ids and not (out / GENERATION).is_file():
        write_json(out / GENERATION, ids)


def special_ids(folder: Path) -> dict[str, Any]:
    """bos_token_id, eos_token_id and pad_token_id, as far as generation_config.json (without it config.json) says them."""
    place = next((folder / name for name in (GENERATION, HF_CONFIG) if (folder / name).is_file()), None)
    values = {} if place is None else read_json(place)
    return {key: values[key] for key in SPECIAL if values.get(key) is not None}


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to write in, beside `out`, which becomes `out` once all is written. Raises ConfigError where `out` holds anything."""
    out = out.resolve()
    fresh = out.with_name(f".{out.name}.unfinished")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(str(out), None, "is there and not empty: nothing is overwritten", "another --out, or remove it")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        if out.exists():  # and empty; it may be the folder that a shell stands in
            for path in fresh.iterdir():
                path.rename(out / path.name)
        else:
            fresh.rename(out)
    except (OSError, SafetensorError) as error:
        raise ConfigError(str(out), None, f"can't be written: {error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
