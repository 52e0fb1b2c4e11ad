"""The mitigations of state collapse on every block that has them: the contract, what they mean, and where they must not be."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.base import Config
from blocks.catalogue import block_types, config_class
from blocks.context import advance
from blocks.errors import ConfigError
from blocks.forgetting import Bounded, Forgetting
from zoo.check.contract import CHECKS, check_block
from zoo.config.model import load_model

SCALED = ("gated_delta", "gla", "linear_attention", "mamba1", "mamba2", "rwkv6", "rwkv7")
BOUNDED = ("gla", "linear_attention", "mamba2", "rwkv6")
D_MODEL = 16
SMALL: dict[str, dict[str, Any]] = {
    "gated_delta": {"n_heads": 2},
    "gla": {"n_heads": 2, "gate_rank": 4},
    "linear_attention": {"n_heads": 2, "normalise": "rms"},
    "mamba1": {"d_state": 4},
    "mamba2": {"d_state": 6, "head_dim": 4, "n_groups": 2},
    "rwkv6": {"head_dim": 4, "mix_rank": 4, "decay_rank": 4},
    "rwkv7": {"head_dim": 4},
}
VARIANTS = [
    ("gla", {"gate": "scalar", "conv": 2}),
    ("gla", {"gate": "retnet"}),
    ("gla", {"gate": "none"}),
    ("gla", {"n_heads": 4, "n_kv_heads": 2}),
    ("gated_delta", {"gate": "none"}),
    ("linear_attention", {"feature": "taylor", "feature_dim": 2, "normalise": "sum"}),
]
VECTOR_DELTA = ("gated_delta", {"gate": "vector"})  # its executed FLOPs are those of mild decays: no contract for drawn ones
ALL = [*((name, {}) for name in SCALED), *VARIANTS]


def make(block: str, **changes: Any) -> Config:
    return config_class(block)(**{**SMALL[block], **changes})


def test_who_has_them() -> None:
    assert [name for name in block_types() if issubclass(config_class(name), Forgetting)] == list(SCALED)
    assert [name for name in block_types() if issubclass(config_class(name), Bounded)] == list(BOUNDED)


@pytest.mark.parametrize(("block", "variant"), ALL)
def test_the_contract_with_scaling_and_a_window(block: str, variant: dict[str, Any]) -> None:
    """Scaling everywhere, with a window where there can be one; without the insertion that a division would undo."""
    insertion = None if variant.get("normalise") == "sum" else 0.6
    window = {"state_window": 5} if block in BOUNDED else {}
    config = make(block, **variant, **window, retention=0.98, insertion=insertion)
    assert [r.check for r in check_block(config, D_MODEL)] == list(CHECKS)


@pytest.mark.parametrize(("block", "variant"), [*((name, {}) for name in BOUNDED), VARIANTS[3], VARIANTS[-1]])
def test_the_contract_with_a_norm(block: str, variant: dict[str, Any]) -> None:
    assert [r.check for r in check_block(make(block, **variant, state_norm=0.05), D_MODEL)] == list(CHECKS)


def read(config: Config, x: Tensor, seed: int = 0) -> tuple[Tensor, Any]:
    """Outputs and the state of a block with weights of this seed, the final projection's zeros replaced."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        block = config.build(D_MODEL, 1, 3).double()
        for parameter in block.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        return block(x, None, advance(None, *x.shape[:2])[0])


def memory(state: Any) -> Tensor:
    named = state._asdict()
    return named["ssm"] if "ssm" in named else named["memory"]


def text(length: int) -> Tensor:
    return torch.randn(2, length, D_MODEL, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("block", "variant"), [*ALL, VECTOR_DELTA])
def test_off_is_as_before_and_one_is_off(block: str, variant: dict[str, Any]) -> None:
    x = text(9)
    config = make(block, **variant)
    plain, _ = read(config, x)
    insertion = None if variant.get("normalise") == "sum" else 1.0
    torch.testing.assert_close(read(replace(config, retention=1.0, insertion=insertion), x)[0], plain, rtol=1e-12, atol=1e-12)
    if isinstance(config, Bounded):
        for bound in ({"state_window": 9}, {"state_norm": 1e9}):
            torch.testing.assert_close(read(replace(config, **bound), x)[0], plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("block", "variant"), [*ALL, VECTOR_DELTA])
def test_the_first_write_is_scaled_by_insertion_alone(block: str, variant: dict[str, Any]) -> None:
    if variant.get("normalise") == "sum":
        return
    plain, scaled = (memory(read(make(block, **variant, **changes), text(1))[1]) for changes in ({}, {"insertion": 0.6, "retention": 0.7}))
    torch.testing.assert_close(scaled, 0.6 * plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("block", "variant"), [(name, variant) for name, variant in ALL if name not in ("gated_delta", "rwkv7")])
def test_retention_is_a_factor_of_the_decay(block: str, variant: dict[str, Any]) -> None:
    """With almost no retention the state is the last write alone; the rest is what a retention of one has kept."""
    written, less, plain = (memory(read(make(block, **variant, retention=c), text(2))[1]) for c in (1e-30, 0.8, 1.0))
    torch.testing.assert_close(less, written + 0.8 * (plain - written), rtol=1e-9, atol=1e-12)
    if block == "linear_attention":
        torch.testing.assert_close(plain - written, memory(read(make(block, **variant), text(2)[:, :1])[1]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("block", BOUNDED)
def test_only_the_window_is_seen(block: str) -> None:
    """State and output after many tokens are those of a text whose older tokens were others, as far as the inputs are the same."""
    config = make(block, state_window=4, **({} if block in ("mamba2", "rwkv6") else {"conv": 0}))
    x = text(20)
    other = torch.cat([x[:, :10].flip(1), x[:, 10:]], 1)
    (a, state), (b, changed) = read(config, x), read(config, other)
    torch.testing.assert_close(a[:, -3:], b[:, -3:], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(memory(state), memory(changed), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(a[:, 11], b[:, 11], atol=1e-6)


@pytest.mark.parametrize("block", BOUNDED)
def test_no_head_is_longer_than_the_norm(block: str) -> None:
    x = text(30)
    longest = memory(read(make(block), x)[1]).norm(dim=(2, 3)).max()
    limit = 0.5 * float(longest)
    norms = memory(read(make(block, state_norm=limit), x)[1]).norm(dim=(2, 3))
    assert float(norms.max()) == pytest.approx(limit, rel=1e-9)


def model(block: str, **changes: Any) -> dict[str, Any]:
    return {"d_model": D_MODEL, "vocab_size": 10, "blocks": {"M": {"type": block, **SMALL[block], **changes}}, "pattern": "M"}


@pytest.mark.parametrize("block", ["gated_delta", "rwkv7", "mamba1"])
@pytest.mark.parametrize("key", ["state_window", "state_norm"])
def test_a_delta_rule_has_no_window(block: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"blocks\.M\.{key}: {block} has no such key"):
        load_model(model(block, **{key: 4}))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"retention": 0.0}, "retention = 0.0: must be in"),
        ({"retention": 1.1}, "retention = 1.1: must be in"),
        ({"insertion": -0.5}, "insertion = -0.5: must be above 0"),
        ({"state_window": 0}, "state_window = 0: must be at least 1 token"),
        ({"state_window": 1.5}, "state_window = 1.5: must be a whole number"),
        ({"state_norm": 0.0}, "state_norm = 0.0: must be above 0"),
        ({"state_norm": 1.0, "state_window": 4}, "state_norm = 1.0: can't go with state_window"),
        ({"insertion": 0.5, "normalise": "sum"}, "insertion = 0.5: cancels in the division"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError, match=rf"blocks\.M\.{place}"):
        load_model(model("linear_attention", **changes))


def test_a_window_holds_its_last_inputs_and_no_more() -> None:
    _, state = read(make("mamba2", state_window=6), text(11))
    heads, entries = 2 * D_MODEL // 4, 6
    assert state.recent.shape == (2, 6, 2 * entries + 2 * D_MODEL + heads)  # B of two groups, dt x, the log decays
    assert read(make("mamba2", state_norm=2.0), text(11))[1].recent is None
