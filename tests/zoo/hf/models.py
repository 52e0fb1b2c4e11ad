"""Small zoo models in transformers: their mappings, and each of them loaded once."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import zoo
import zoo.hf
from blocks.catalogue import block_types, config_class
from blocks.context import LANDMARK, META
from zoo.convert.checkpoint import export_folder

M = {"type": "mamba2", "d_state": 4, "head_dim": 8}
A = {"type": "gqa", "n_heads": 2, "n_kv_heads": 1}
F = {"type": "swiglu"}
BASE: dict[str, Any] = {"d_model": 16, "vocab_size": 20, "tie_embeddings": False}
MODELS: dict[str, dict[str, Any]] = {
    "hybrid": BASE | {"blocks": {"M": M, "W": A | {"window": 4, "sink_tokens": 1}, "F": F}, "pattern": "M F W|M F"},
    "delta": BASE
    | {"blocks": {"G": {"type": "gated_delta", "n_heads": 2, "head_dim": 4}, "F": F}, "pattern": "2*(G F)", "tie_embeddings": True},
    "shared": BASE | {"blocks": {"A": A | {"share": True}, "M": M}, "pattern": "A M A", "logit_softcap": 5.0},
    "prefix": BASE | {"blocks": {"A": A, "F": F}, "pattern": "A F", "tokens": {"prefix": {"count": 2}}},
    "memory": BASE | {"blocks": {"A": A, "F": F}, "pattern": "A F", "tokens": {"memory": {"count": 2, "segment": 4}}},
}
SIZES: dict[str, dict[str, Any]] = {"mamba2": {"d_state": 4, "head_dim": 8}, "core_context": {"group": 4, "local": 8}}
PLANS = {META: {"meta": {"every": 5}}, LANDMARK: {"landmark": {"every": 6}}}


def of_block(block_type: str) -> dict[str, Any]:
    """The mapping of a model that has this type of block, and attention behind it."""
    plans: dict[str, Any] = {}
    for needed in config_class(block_type).needs_kinds:
        plans |= PLANS[needed]
    blocks = {"X": {"type": block_type, **SIZES.get(block_type, {})}, "A": A | {"rope": {}}}
    return BASE | {"d_model": 32, "blocks": blocks, "pattern": "X A", "tokens": plans}


def values_of(name: str) -> dict[str, Any]:
    """Of a name in MODELS, or of a type of block."""
    return of_block(name) if name in block_types() else MODELS[name]


def sharp(name: str) -> zoo.Model:
    """Weights that make some tokens much likelier than others and the past matter: no ties, and beams that change places."""
    model = zoo.build(values_of(name), seed=1)
    with torch.no_grad():
        for parameter in model.stack.parameters():
            parameter.mul_(2 if parameter.ndim > 1 else 1)
        model.head_weight.mul_(4)
    return model.eval()


def loaded(model: zoo.Model, folder: Path) -> Any:
    assert export_folder(model, folder, "zoo") == "zoo"
    return AutoModelForCausalLM.from_pretrained(folder)


@cache
def shared(name: str) -> Any:
    """The same model for every test that does not change it."""
    with TemporaryDirectory() as folder:
        return loaded(sharp(name), Path(folder))


def text(rows: int, length: int) -> Tensor:
    return torch.randint(20, (rows, length), generator=torch.Generator().manual_seed(0))


def padded(prompts: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Prompts (1, t) of any lengths as one batch: ids (b, t) and their attention_mask."""
    longest = max(prompt.shape[1] for prompt in prompts)
    ids, mask = torch.full((len(prompts), longest), 13), torch.zeros(len(prompts), longest, dtype=torch.int64)
    for i, prompt in enumerate(prompts):
        here = slice(longest - prompt.shape[1], None) if side == "left" else slice(prompt.shape[1])
        ids[i, here], mask[i, here] = prompt[0], 1
    return ids, mask
