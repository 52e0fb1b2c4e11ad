"""The solver: within the tolerance on every axis, refusing with the nearest where it can't."""

from typing import Any

import pytest

from blocks.errors import ConfigError
from zoo.config.model import ModelConfig, load_model
from zoo.ledger.ledger import ledger
from zoo.ledger.match import AXES, match, value


def model(pattern: str, **changes: Any) -> ModelConfig:
    blocks = {
        "A": {"type": "gqa", "n_heads": 4},
        "W": {"type": "gqa", "n_heads": 4, "window": 16},
        "M": {"type": "mamba2", "d_state": 16, "head_dim": 16},
        "F": {"type": "swiglu", "hidden": 160},
    }
    used = {name: spec for name, spec in blocks.items() if name in pattern}
    return load_model({"d_model": 64, "vocab_size": 256, "blocks": used, "pattern": pattern, **changes})


MODELS = {"transformer": model("2*(A F)"), "mamba2": model("2*(M F)"), "hybrid": model("M F A F"), "window": model("2*(W F)")}


@pytest.mark.parametrize("axis", ["flops", "params"])
def test_within_the_tolerance(axis: str) -> None:
    vary = {name: ["width", "blocks.F.hidden"] for name in MODELS}
    found = match(MODELS, reference="transformer", length=128, axis=axis, vary=vary)
    target = value(ledger(MODELS["transformer"], 128), axis)
    for name, member in found.models.items():
        real = value(ledger(member.config, 128), axis)
        assert abs(real - target) <= 0.01 * target
        assert member.mismatch == (real - target) / target
        assert all(size % 8 == 0 for size in member.sizes.values())
        assert found.models["transformer"].config == MODELS["transformer"], name
    assert found.worst <= 0.01


def test_state_by_a_blocks_own_key() -> None:
    models = {"window": model("2*(W F)"), "mamba2": model("2*(M F)")}
    found = match(models, reference="window", length=512, axis="state", vary={"mamba2": ["width", "blocks.M.d_state"]}, tolerance=0.02)
    assert found.models["mamba2"].ledger.state_bytes == pytest.approx(found.models["window"].ledger.state_bytes, rel=0.02)


def test_depth() -> None:
    deep = model("6*(A F)")
    found = match({"deep": deep, "thin": model("2*(A F)")}, reference="deep", length=64, vary={"thin": "depth"})
    assert found.models["thin"].config.pattern == "6*(A F)"
    assert found.models["thin"].mismatch == 0


def test_what_is_alike_already_stays_as_it_is() -> None:
    found = match({"a": model("2*(A F)"), "b": model("2*(A F)")}, reference="a", length=64, vary={"b": ["width", "blocks.F.hidden"]})
    assert found.models["b"].sizes == {"width": 64, "blocks.F.hidden": 160}


def test_an_impossible_target_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"match\.vary\.mamba2 = 'depth': can't bring flops within 1\.0% .* nearest: depth = \d+ gives"):
        match(MODELS, reference="transformer", length=128, vary={"mamba2": "depth", "hybrid": "width", "window": "width"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": "time"}, r"match\.axis = 'time'.*flops, params, state"),
        ({"reference": "nobody"}, r"match\.reference = 'nobody'.*transformer"),
        ({"tolerance": 0.0}, r"match\.tolerance"),
        ({"vary": {"mamba2": "hidden"}}, r"match\.vary\.mamba2 = 'hidden': is not a size"),
        ({"vary": {"mamba2": "blocks.Z.hidden"}}, r"no block 'Z'"),
        ({"vary": {"mamba2": "blocks.F.bias"}}, r"swiglu has no whole number 'bias'"),
        ({"vary": {"hybrid": "depth", "mamba2": ["width", "blocks.F.hidden"]}}, r"needs a pattern that begins with a repeat"),
    ],
)
def test_wrong_questions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        match(MODELS, **{"reference": "transformer", "length": 64, **changes})


def test_every_axis_is_a_number_of_the_ledger() -> None:
    row = ledger(MODELS["hybrid"], 64)
    assert [value(row, axis) for axis in AXES] == [row.flops_train, row.params_non_embedding, row.state_bytes]


def test_a_size_that_varies_varies_in_the_blocks_that_are_like_it() -> None:
    blocks = {"F": {"type": "swiglu", "hidden": 64}, "G": {"like": "F", "output_scale": 0.5}, "H": {"like": "F", "hidden": 40}}
    thin = load_model({"d_model": 64, "vocab_size": 256, "blocks": blocks, "pattern": "F G H"})
    sized = match({"wide": model("F F"), "thin": thin}, reference="wide", length=64, vary={"thin": "blocks.F.hidden"}, tolerance=0.2)
    hidden = {name: block.config.hidden for name, block in sized.models["thin"].config.blocks.items()}  # type: ignore[attr-defined]
    assert hidden["F"] == hidden["G"] == sized.models["thin"].sizes["blocks.F.hidden"] != 64
    assert hidden["H"] == 40
