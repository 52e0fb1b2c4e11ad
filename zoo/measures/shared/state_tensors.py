"""The tensors that a model's state is made of, with names that stay the same while it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from blocks.keys import Keys
from blocks.state import state_bytes
from zoo.measures.shared.statistics import Array
from zoo.model.model import Model, ModelState
from zoo.model.segment_memory import SegmentState

MATRIX = 4  # dimensions of a matrix state (b, h, k, v)

Name = tuple[int | None, str, str]  # (layer, block, tensor); a segment memory belongs to no layer


class Held(NamedTuple):
    """One tensor of a state, or the whole cache of an attention block."""

    name: Name
    value: Tensor | Keys

    @property
    def bytes(self) -> int:
        """Of one row of the batch."""
        first = pytree.tree_leaves(self.value)[0]
        return state_bytes(self.value) // int(first.shape[0])


def held(model: Model, state: Any) -> list[Held]:
    """Everything that `state` (of this model) holds but its cursor, layer by layer."""
    if isinstance(state, SegmentState):  # inside a segment layers begin anew: what is carried is the memory
        return [Held((None, "segment", "memory"), group.memory) for group in state.groups]
    assert isinstance(state, ModelState)
    tensors = []
    for layer, (names, branches) in enumerate(zip(model.config.layers, state.layers, strict=True)):
        for block, inner in zip(names, branches, strict=True):
            tensors += [Held((layer, block, path), value) for path, value in leaves(inner)]
    return tensors


def leaves(state: Any) -> list[tuple[str, Tensor | Keys]]:
    """(path, value) of each tensor of a block's state, an attention cache as one."""
    flat, _ = pytree.tree_flatten_with_path(state, is_leaf=_is_cache)
    return [("_".join(_step(key) for key in path) or "state", leaf) for path, leaf in flat if isinstance(leaf, (Tensor, Keys))]


def place(name: Name) -> dict[str, Any]:
    """A tensor's name as the keys of a condition."""
    layer, block, tensor = name
    return ({} if layer is None else {"layer": layer}) | {"block": block, "tensor": tensor}


def zeroed(state: Any, path: str) -> Any:
    """The same state with the tensor at `path` set to zero."""
    flat, spec = pytree.tree_flatten_with_path(state, is_leaf=_is_cache)
    names = ["_".join(_step(key) for key in keys) or "state" for keys, _ in flat]
    changed = [leaf.new_zeros(leaf.shape) if name == path else leaf for name, (_, leaf) in zip(names, flat, strict=True)]
    return pytree.tree_unflatten(changed, spec)


def _is_cache(value: Any) -> bool:
    return isinstance(value, Keys)


def _step(key: Any) -> str:
    """One step of a path as text: a NamedTuple's field, a place in a tuple, a key of a dict."""
    match key:
        case pytree.GetAttrKey(name):
            return str(name)
        case pytree.SequenceKey(index):
            return str(index)
        case pytree.MappingKey(name):
            return str(name)
    raise TypeError(f"a state holds tensors in NamedTuples, tuples and dicts, not under {key!r}")


def heads(x: Tensor) -> Tensor:
    """(b, h, rest...), float64: a matrix state (b, h, k, v) has heads, any other tensor is one."""
    x = x.double().cpu()
    return x if x.ndim == MATRIX else x[:, None]


def by_head(x: Tensor, values: Tensor) -> Array:
    """Values (b, h) found from heads(x): (b, h), or (b,) where x has no heads."""
    return (values if x.ndim == MATRIX else values[:, 0]).numpy()
