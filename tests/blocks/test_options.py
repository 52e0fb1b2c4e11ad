"""The contract again, on options that the defaults leave out; and the frequencies of rotary positions."""

from typing import Any

import pytest
import torch

from blocks import gla, gqa, mamba2, mlp, swiglu
from blocks.base import Config
from blocks.errors import ConfigError
from blocks.rope import Rope, Scaling, frequencies, rotate
from zoo.check.contract import CHECKS, check_block

YARN = Scaling(kind="yarn", factor=16.0, original_length=4096)
OPTIONS: dict[str, Config] = {
    "centred norms of heads": gqa.Config(n_heads=4, n_kv_heads=2, qk_norm="head", qk_norm_kind="rmsnorm_centred", softcap=3.0),
    "plain norms after the rotation": gqa.Config(n_heads=4, qk_norm="head", qk_norm_kind="rmsnorm_plain", qk_norm_after_rope=True),
    "layer norms of all heads": gqa.Config(n_heads=4, qk_norm="full", qk_norm_kind="layernorm", output_bias=True, window=5),
    "adjacent pairs, stretched": gqa.Config(n_heads=4, rope=Rope(pairs="adjacent", partial=0.5, scaling=YARN)),
    "a memory for two queries": gla.Config(n_heads=4, n_kv_heads=2, gate="scalar", bias=True),
    "geglu": swiglu.Config(activation="gelu_tanh", bias=True),
    "a scaled gate": swiglu.Config(gate_scale=0.5),
    "squared relu": mlp.Config(activation="relu2"),
    "heads and factors of a state space": mamba2.Config(d_state=6, n_heads=3, head_dim=7, norm="none", scales=(0.5, 0.25, 2.0, 1.5, 0.75)),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_contract(option: str) -> None:
    assert [r.check for r in check_block(OPTIONS[option], d_model=32)] == list(CHECKS)


# (pair, angle a token) of heads of 128, base 10000 unless told: published values of each form
PUBLISHED: dict[str, tuple[Rope, dict[int, float]]] = {
    "linear": (Rope(scaling=Scaling(kind="linear", factor=4.0)), {0: 0.25, 1: 0.2164911, 31: 2.886955e-3, 63: 2.886955e-5}),
    "yarn": (Rope(scaling=YARN), {0: 1.0, 1: 0.8659644, 16: 0.1, 31: 6.967554e-3, 32: 5.673077e-3, 63: 7.217387e-6}),
    "llama3": (
        Rope(base=5e5, scaling=Scaling(kind="llama3")),
        {0: 1.0, 1: 0.8146172, 16: 3.760603e-2, 31: 8.567515e-4, 32: 5.248460e-4, 63: 3.068926e-7},
    ),
    "llama3 without a ramp": (  # pair 34 turns 1.22 times in 8192 tokens, pair 35 less than once
        Rope(base=5e5, scaling=Scaling(kind="llama3", factor=16.0, high_freq_factor=1.0)),
        {0: 1.0, 1: 0.8146172, 34: 9.384739e-4, 35: 4.778106e-5, 63: 1.534463e-7},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_frequencies(name: str) -> None:
    rope, expected = PUBLISHED[name]
    values = frequencies(rope, 128)
    for pair, value in expected.items():
        assert float(values[pair]) == pytest.approx(value, rel=1e-6)


def test_yarn_grows_queries_and_keys() -> None:
    assert YARN.amplitude == pytest.approx(1.2772589, rel=1e-7)
    assert Scaling(kind="yarn", attention_factor=2.0).amplitude == 2.0
    assert Scaling(kind="linear").amplitude == 1.0
    x, positions = torch.randn(1, 3, 2, 8), torch.arange(3)[None]
    norms = rotate(x, positions, Rope(scaling=YARN)).norm(dim=-1) / x.norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, 1.2772589))


def test_adjacent_pairs_are_halves_in_another_order() -> None:
    x, positions = torch.randn(2, 5, 3, 12), torch.arange(5).expand(2, 5)
    order = [*range(0, 8, 2), *range(1, 8, 2), *range(8, 12)]
    halves, adjacent = (
        rotate(x[..., order] if p == "halves" else x, positions, Rope(partial=0.7, pairs=p)) for p in ("halves", "adjacent")
    )
    torch.testing.assert_close(adjacent[..., order], halves)


@pytest.mark.parametrize(
    ("place", "config"),
    [
        ("qk_norm_kind", gqa.Config(qk_norm="head", qk_norm_kind="norm")),
        ("qk_norm_after_rope", gqa.Config(qk_norm="full", qk_norm_after_rope=True)),
        ("rope.pairs", gqa.Config(rope=Rope(pairs="thirds"))),
        ("rope.scaling.kind", gqa.Config(rope=Rope(scaling=Scaling(kind="ntk")))),
        ("rope.scaling.factor", gqa.Config(rope=Rope(scaling=Scaling(kind="linear", factor=0.5)))),
        ("rope.scaling.high_freq_factor", gqa.Config(rope=Rope(scaling=Scaling(kind="llama3", high_freq_factor=0.5)))),
        ("rope.scaling.high_freq_factor", gqa.Config(rope=Rope(scaling=Scaling(kind="llama3", low_freq_factor=0.0)))),
        ("rope.scaling.beta_fast", gqa.Config(rope=Rope(scaling=Scaling(kind="yarn", beta_fast=0.5)))),
        ("activation", swiglu.Config(activation="sigmoid")),
        ("n_heads", mamba2.Config(n_heads=0)),
    ],
)
def test_wrong_values_are_named(place: str, config: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(32)
    assert caught.value.place == place


@pytest.mark.parametrize("config", [gqa.Config(n_heads=4, head_dim=None), gla.Config(), swiglu.Config(), mlp.Config(), *OPTIONS.values()])
def test_resolved_is_the_same_block(config: Config) -> None:
    resolved = config.resolved(32)
    assert resolved.resolved(64) == resolved
    assert resolved.cost(32, 9) == config.cost(32, 9)
