"""Transfer of weights: exchanged blocks are new, all else is taken over, and a missing or unused tensor is an error."""

from typing import Any

import pytest
import torch

import zoo
from blocks.errors import ConfigError
from zoo.weights.safetensors_io import weights_of
from zoo.weights.transfer import plan_transfer, transfer

A, F, M = {"type": "gqa", "n_heads": 2}, {"type": "swiglu"}, {"type": "mamba2", "d_state": 4, "head_dim": 8}
OLD: dict[str, Any] = {"d_model": 16, "vocab_size": 20, "blocks": {"A": A, "F": F}, "pattern": "2*(A F)"}
NEW: dict[str, Any] = {**OLD, "blocks": {"A": A, "F": F, "M": M}, "pattern": "A F M F"}


def test_one_layer_of_attention_becomes_mamba2() -> None:
    old, new, untouched = zoo.build(OLD, seed=1), zoo.build(NEW, seed=2), zoo.build(NEW, seed=2)
    plan = plan_transfer(new.config, weights_of(old), "there")
    assert (plan.fresh, plan.left) == (("02_M",), ("02_A",))
    transfer(new, weights_of(old), plan)
    weights, given, random = weights_of(new), weights_of(old), weights_of(untouched)
    for name, tensor in weights.items():
        assert torch.equal(tensor, random[name] if ".02_M." in name else given[name]), name
    assert set(plan.taken) == {name for name in weights if ".02_M." not in name}


def test_the_same_model_takes_all() -> None:
    old = zoo.build(OLD, seed=1)
    plan = plan_transfer(old.config, weights_of(old), "there")
    assert plan == (tuple(weights_of(old)), (), ())


def test_blocks_that_are_there_can_be_new_all_the_same() -> None:
    old = zoo.build(OLD, seed=1)
    plan = plan_transfer(old.config, weights_of(old), "there", ["F"])
    assert (plan.fresh, plan.left) == (("01_F", "03_F"), ("01_F", "03_F"))
    assert not any("_F." in name for name in plan.taken)


@pytest.mark.parametrize(
    ("changes", "fresh", "said"),
    [
        ({"d_model": 32}, None, "differs in embedding.weight .*16.*32"),
        ({"tie_embeddings": False}, None, "lacks head.weight"),
        ({"norm": "rmsnorm_plain"}, None, "no place for: stack.norms.0.weight, .*, norm.weight"),
        ({"blocks": {"A": A | {"bias": True}, "F": F}}, None, "lacks stack.blocks.00_A"),
        ({"blocks": {"A": A, "F": {"type": "swiglu", "hidden": 8}}}, None, "differs in stack.blocks.01_F"),
        (NEW, ["F"], "lacks stack.blocks.02_M"),
        ({"pattern": "3*(A F)"}, None, "lacks stack.norms.4"),
        ({}, ["G"], "fresh = 'G': is no block"),
    ],
)
def test_what_does_not_fit_is_listed(changes: dict[str, Any], fresh: list[str] | None, said: str) -> None:
    tensors = weights_of(zoo.build(OLD))
    with pytest.raises(ConfigError, match=said):
        plan_transfer(zoo.load_model(OLD | changes), tensors, "there", fresh)
