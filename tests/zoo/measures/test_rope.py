"""Rotary positions: first negative distances, failure probabilities with known values, and a model's own queries and keys."""

import math
from typing import Any

import pytest
import torch

import zoo
from blocks.rope import Rope, Scaling, rotate
from zoo.measures import rope
from zoo.measures.shared.rotary_scores import first_negative, gaussian, halves, locality_lost, order_lost, similarity, stable_length
from zoo.measures.shared.statistics import wilson

FIRST_NEGATIVE = {  # computed in float64 by others than this code
    64: {1e2: 46, 5e2: 154, 1e3: 197, 1e4: 725, 5e4: 1932, 1e5: 3616, 5e5: 9937, 1e6: 6235, 5e6: 31099, 1e7: 45826},
    128: {1e2: 59, 5e2: 171, 1e3: 361, 1e4: 1707, 5e4: 5306, 1e5: 7757, 5e5: 18438, 1e6: 27115, 5e6: 82999, 1e7: 144660},
}


@pytest.mark.parametrize("head_dim", FIRST_NEGATIVE)
def test_first_negative_distance(head_dim: int) -> None:
    for base, expected in FIRST_NEGATIVE[head_dim].items():
        assert first_negative(Rope(base=base), head_dim, 2 * expected) == expected
        assert first_negative(Rope(base=base), head_dim, expected - 1) == math.inf


def test_half_without_rotation_is_never_negative() -> None:
    still = Rope(base=100.0, partial=0.5)
    assert first_negative(still, 64, 20_000) == math.inf
    assert similarity(still, 64, torch.tensor([0])).item() == 32
    assert similarity(Rope(base=100.0, scaling=Scaling(kind="linear", factor=2.0)), 64, torch.tensor([92])).item() == pytest.approx(
        similarity(Rope(base=100.0), 64, torch.tensor([46])).item()
    )


def test_one_pair_loses_order_as_its_angle_says() -> None:
    """Turning a random direction by a <= pi flips its sign against another with probability a / pi; 1 radian a token."""
    for length in (1, 2, 3):
        _, lost = gaussian(Rope(), 2, length, 4000, 0)
        assert wilson(float(lost.sum()), 4000, 0.999).low < length / math.pi < wilson(float(lost.sum()), 4000, 0.999).high


def test_one_pair_loses_locality_as_its_cosine_says() -> None:
    length = 7
    pairs = [(near, far) for near in range(3) for far in range(3, 7)]
    exact = sum(math.cos(near) < math.cos(far) for near, far in pairs) / len(pairs)
    lost, _ = gaussian(Rope(), 2, length, 4000, 1)
    assert exact == 3 / 12
    assert wilson(float(lost.sum()), 4000, 0.999).low < exact < wilson(float(lost.sum()), 4000, 0.999).high


def test_what_does_not_rotate_ties() -> None:
    q = torch.zeros(5, 4)
    q[:, 3] = 1.0
    near, far = halves(torch.linspace(0, 0.99, 10).view(5, 2), 10)
    assert bool((near < 5).all() and (far >= 5).all() and (far < 10).all())
    assert locality_lost(q, q, near, far, Rope(partial=0.5)).tolist() == [0.5] * 5
    assert order_lost(q, q, 0.5 * q, far, Rope(partial=0.5)).tolist() == [0] * 5


def test_bounds() -> None:
    assert stable_length(Rope(base=1e4), 0.95, 1) == pytest.approx(1e4 * math.acos(0.95))
    assert 4096 / math.acos(0.95) == pytest.approx(1.3e4, rel=0.02)  # the base that 4096 tokens need


def model(**changes: Any) -> zoo.Model:
    blocks = {"A": {"type": "gqa", "n_heads": 4, "n_kv_heads": 2, "rope": {"base": 50}}, "D": {"type": "differential", "n_heads": 2}}
    config = {"d_model": 16, "vocab_size": 11, "blocks": blocks | {"N": {"like": "A", "rope": None}}, "pattern": "A N D", **changes}
    return zoo.build(config, seed=2).double()


def test_a_row_a_layer_base_and_length() -> None:
    found = rope.run(model(), rope.Config(lengths=(8, 64), bases=(50.0, 1e3), samples=100), 0)
    where = [str(r.condition) for r in found.rows if r.metric == "locality_lost"]
    assert where == [
        f"{layer};base={base};length={length}"
        for layer, bases in (("layer=0;block=A", (50, 1000)), ("layer=2;block=D", (10000, 50, 1000)))
        for base in bases
        for length in (8, 64)
    ]
    lost, order = gaussian(Rope(base=1e3), 4, 64, 100, 0)
    assert found.row("locality_lost", "layer=2;block=D;base=1000;length=64")[2:] == tuple(wilson(float(lost.sum()), 100))
    assert found.row("order_lost", "layer=2;block=D;base=1000;length=64").value == order.mean().item()
    assert found.row("first_negative", "layer=0;block=A;base=50").value == first_negative(Rope(base=50.0), 4, 64)
    assert found.row("aliasing_length", "layer=0;block=A;base=50").value == pytest.approx(100 * math.pi)
    assert found.row("stable_length", "layer=0;block=A;base=50").value == stable_length(Rope(base=50.0), 0.95, 2)


@pytest.mark.parametrize("tokens", [{}, {"prefix": {"count": 3}}])
def test_a_models_own_queries_and_keys_whatever_the_pieces(tokens: dict[str, Any]) -> None:
    subject = model(tokens=tokens)
    documents = [torch.randint(11, (12,), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    values: dict[str, Any] = {"source": "model", "lengths": (8,), "samples": 20, "documents": 3, "read": 12}
    found = [rope.run(subject, rope.Config(**values, call_tokens=n), 0, data=documents) for n in (1, 15, 1000)]
    for other in found[1:]:
        assert [r[:2] for r in other.rows] == [r[:2] for r in found[0].rows]
        for a, b in zip(found[0].rows, other.rows, strict=True):
            assert a[2:5] == pytest.approx(b[2:5], abs=1e-6)
    heads = [str(r.condition) for r in found[0].rows if r.metric == "order_lost"]
    assert heads[:4] == [f"layer=0;block=A;head={h};base=50;length=8" for h in range(4)]
    assert heads[4:] == [f"layer=2;block=D;head={h};map={m};base=10000;length=8" for m in (0, 1) for h in (0, 1)]
    assert len({found[0].row("order_lost", h).value for h in heads}) > 4


def test_queries_are_turned_back_to_what_they_were() -> None:
    x, at = torch.randn(3, 6, 1, 8), torch.arange(6).expand(3, 6)
    for pairs in ("halves", "adjacent"):
        how = Rope(base=50.0, pairs=pairs)
        torch.testing.assert_close(rotate(rotate(x, at, how), -at, how), x)
