"""Weights read from and written to .safetensors files. Nothing is unpickled, and no tensor is held in memory twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from blocks.errors import ConfigError
from zoo.config.model import ModelConfig
from zoo.model.model import Model, build

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
DTYPES = {  # as the header of a .safetensors file names them
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
CHECKPOINTS = ("checkpoint", "checkpoint.next")  # the second holds the newer one while the two are exchanged


class Tensors(Mapping[str, Tensor]):
    """The tensors of .safetensors files by name, each read from the file when it is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises ConfigError if one is damaged."""
        self.files: dict[str, Path] = {}
        for path in files:
            with _opened(path) as file:
                self.files |= dict.fromkeys(file.keys(), path)

    def __getitem__(self, name: str) -> Tensor:
        with _opened(self.files[name]) as file:
            mapped: Tensor = file.get_tensor(name)
            return mapped.clone()  # the tensor was a map of the file, which would stay open and change with it

    def __contains__(self, name: object) -> bool:
        return name in self.files  # what Mapping does instead reads the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def shapes(self) -> dict[str, Tensor]:
        """The tensors with shape and dtype but without numbers (device meta): only the files' headers are read. Raises ConfigError."""
        shapes: dict[str, Tensor] = {}
        for path in dict.fromkeys(self.files.values()):
            with _opened(path) as file:
                shapes |= {name: _shape(file.get_slice(name), path) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {name: shapes[name] for name in self.files}


def _shape(view: Any, path: Path) -> Tensor:
    dtype = DTYPES.get(view.get_dtype())
    if dtype is None:
        raise ConfigError(str(path), view.get_dtype(), "is not a type of number that is read", f"types: {', '.join(DTYPES)}")
    return torch.empty(view.get_shape(), dtype=dtype, device="meta")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ConfigError(str(path), None, f"can't be read: {error}") from None


def find_weights(path: Path) -> Path:
    """The .safetensors file of a run folder, a checkpoint folder or a file's own path. Raises ConfigError."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ConfigError(str(path), None, "is not a .safetensors file", "a run folder, a checkpoint folder, or a .safetensors file")
        return path
    for folder in (path, *(path / name for name in CHECKPOINTS)):
        if (folder / WEIGHTS).is_file():
            return folder / WEIGHTS
    if not path.exists():
        raise ConfigError(str(path), None, "there is no such folder or file")
    raise ConfigError(str(path), None, f"holds no {WEIGHTS} and no checkpoint", "has this run been trained?")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file. Raises ConfigError if it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(str(path), None, f"can't be read: {error}") from None


def weights_of(model: Model) -> dict[str, Tensor]:
    """The parameters and buffers by name; one that several modules share stands once."""
    return {name: tensor.detach() for name, tensor in _held(model).items()}


def save_weights(model: Model, path: Path) -> None:
    """Write the model's weights as .safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in weights_of(model).items()}, path)


def put_weights(model: Model, tensors: Mapping[str, Tensor], place: str) -> None:
    """Copy tensors into the model. Raises ConfigError (place = the file) at a missing, unknown or differently shaped one."""
    own = weights_of(model)
    check_weights(own, tensors, place)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def skeleton(config: ModelConfig) -> Model:
    """The model without values for its weights, on device meta: nothing is initialised or allocated.

    A plugin's block may compute what no checkpoint holds, or do what the meta device can't: with plugins the model is built in full.
    """
    with torch.device("meta") if not config.plugins else nullcontext():
        return build(config) if config.plugins else Model(config)


def assemble(config: ModelConfig, tensors: dict[str, Tensor], place: str, dtype: torch.dtype | None = torch.float32) -> Model:
    """The model with these tensors as its weights, which are taken out of the dict; on the CPU, in eval mode.

    dtype: of all its weights; None: each as it is. Raises ConfigError as put_weights does.
    """
    model = skeleton(config)
    own = _held(model)
    check_weights(own, tensors, place)
    placed = {id(old): _as_parameter(old, owned(tensors.pop(name), dtype)) for name, old in own.items()}
    for module in model.modules():
        here = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for key, old in here:
            if id(old) in placed:
                setattr(module, key, placed[id(old)])
    return model.eval()


def check_weights(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], place: str) -> None:
    """Raise ConfigError (place) unless tensors have the names, shapes and type of number (floating-point or not) of `own`, a model's."""
    missing, unknown = [n for n in own if n not in tensors], [n for n in tensors if n not in own]
    if missing:
        raise ConfigError(place, None, f"lacks {listed(missing)}", f"it has besides: {listed(unknown)}" if unknown else "")
    if unknown:
        raise ConfigError(place, None, f"holds what the model has not: {listed(unknown)}")
    for name, tensor in own.items():
        given = tensors[name]
        if tensor.shape != given.shape:
            raise ConfigError(place, None, f"{name} is {list(given.shape)}, the model's is {list(tensor.shape)}")
        if tensor.is_floating_point() and not given.is_floating_point():
            raise ConfigError(place, None, f"{name} is {str(given.dtype).removeprefix('torch.')}: quantized weights are not read")


def owned(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor, contiguous and alone in its memory; floating-point numbers in this dtype (None: as they are)."""
    tensor = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _held(model: Model) -> dict[str, Tensor]:
    """The tensors of weights_of, not detached."""
    shared = {id(t) for t in (*model.parameters(), *model.buffers())}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in shared:
            shared.discard(id(tensor))
            tensors[name] = tensor
    return tensors


def _as_parameter(old: Tensor, new: Tensor) -> Tensor:
    """`new`, as a parameter if `old` is one, with the attributes that blocks set on it (no_decay)."""
    if not isinstance(old, nn.Parameter):
        return new
    parameter = nn.Parameter(new, requires_grad=old.requires_grad)
    vars(parameter).update(vars(old))
    return parameter
