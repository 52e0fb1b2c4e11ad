"""Every block trains beside every other: any two make a hybrid whose loss falls and whose every parameter learns.

By default each block meets two others; all pairs are a long proof.
"""

from itertools import combinations_with_replacement
from typing import Any

import pytest
import torch

import zoo
from blocks.catalogue import block_types, config_class
from blocks.context import LANDMARK, META

VOCAB, LENGTH, STEPS = 24, 20, 3  # the third gradient has passed every weight that starts at 0
PLANS = {META: {"meta": {"every": 5}}, LANDMARK: {"landmark": {"every": 6}}}
SIZES: dict[str, dict[str, Any]] = {"mamba2": {"d_state": 8, "head_dim": 16}, "core_context": {"group": 4, "local": 8}}
PARTNERS = (4,)  # steps along the list of types, taken round


def pairs() -> list[Any]:
    """All unordered pairs, those beyond the partners marked slow."""
    types, parameters = block_types(), []
    for i, j in combinations_with_replacement(range(len(types)), 2):
        near = j - i in PARTNERS or len(types) + i - j in PARTNERS
        parameters.append(pytest.param(f"{types[i]} {types[j]}", marks=() if near else pytest.mark.slow))
    return parameters


def hybrid(pair: str) -> zoo.Model:
    """The two blocks in turn, with the tokens that they need."""
    first, second = pair.split()
    blocks = {"X": {"type": first, **SIZES.get(first, {})}, "Y": {"type": second, **SIZES.get(second, {})}}
    plans: dict[str, Any] = {}
    for kind in {*config_class(first).needs_kinds, *config_class(second).needs_kinds}:
        plans |= PLANS[kind]
    return zoo.build({"d_model": 32, "vocab_size": VOCAB, "blocks": blocks, "pattern": pattern(pair), "tokens": plans}, seed=0)


def pattern(pair: str) -> str:
    """A meta token's answer reaches the text only through a later layer that reads it."""
    return "Y X" if pair.endswith(" meta_attention") else "X Y"


def silent(model: zoo.Model) -> set[str]:
    """Parameters whose gradient is zero everywhere."""
    return {name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.any())}


def asleep(model: zoo.Model, pair: str) -> set[str]:
    """Parameters that nothing reads: the mix with the first RWKV-7 layer's values in that layer itself, and meta attention where no
    later layer looks at other tokens."""
    first_rwkv7 = next((key for key in model.stack.blocks if model.config.named[key[3:]].type == "rwkv7"), None)
    names = {name for name, _ in model.named_parameters() if name.startswith(f"stack.blocks.{first_rwkv7}.value_mix.")}
    if "meta_attention" in pair and set(pair.split()) <= {"meta_attention", "mlp", "moe", "swiglu"}:
        metas = [i for i, key in enumerate(model.stack.blocks) if model.config.named[key[3:]].type == "meta_attention"]
        names |= {f"stack.norms.{i}.weight" for i in metas} | {f"inserted.{META}"}
        names |= {name for name, _ in model.named_parameters() for i in metas if name.startswith(f"stack.blocks.{i:02d}_")}
    return names


@pytest.mark.parametrize("pair", pairs())
def test_any_two_blocks_train_together(pair: str) -> None:
    model = hybrid(pair).train()
    tokens = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss, _ = model.loss(tokens)
        loss.backward()
        losses.append(float(loss.detach()))
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert bool(torch.isfinite(parameter.grad).all()), f"the gradient of {name} is not finite"
        optimiser.step()
    assert silent(model) == asleep(model, pair)
    with torch.no_grad():
        losses.append(float(model.loss(tokens)[0]))
    assert losses[-1] < losses[0] - 0.1
    assert losses == sorted(losses, reverse=True)
