"""The weight map: both directions to the bit, and every tensor accounted for on both sides."""

from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.errors import ConfigError
from zoo.convert.weight_map import Either, Entry, LeftOut, NotAWeight, Rule, Tied, Trunk, Within, to_hf, to_zoo
from zoo.convert.weight_ops import Concat, Heads, Permute, Split, Squeeze, Stack, Step, Transpose


def tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STEPS: dict[str, tuple[tuple[Step, ...], list[Tensor], list[Tensor]]] = {
    "concat": ((Concat((2, 3)),), [tensor(2, 4), tensor(3, 4, seed=1)], [torch.cat([tensor(2, 4), tensor(3, 4, seed=1)])]),
    "concat, other dim": ((Concat((1, 2), dim=1),), [tensor(2, 1), tensor(2, 2)], [torch.cat([tensor(2, 1), tensor(2, 2)], 1)]),
    "split": ((Split((1, 3)),), [tensor(4, 2)], [tensor(4, 2)[:1], tensor(4, 2)[1:]]),
    "stack": ((Stack(),), [tensor(2, 3), tensor(2, 3, seed=1)], [torch.stack([tensor(2, 3), tensor(2, 3, seed=1)])]),
    "transpose": ((Transpose(),), [tensor(2, 3)], [tensor(2, 3).T]),
    "transpose of a bias": ((Transpose(),), [tensor(3)], [tensor(3)]),
    "permute": ((Permute((2, 0, 1)),), [tensor(3, 2)], [tensor(3, 2)[[2, 0, 1]]]),
    "squeeze": ((Squeeze(),), [tensor(3, 1, 4)], [tensor(3, 1, 4)[:, 0]]),
    "heads": ((Heads(2),), [tensor(2, 3, 4)], [tensor(2, 3, 4).reshape(6, 4)]),
    "heads of a bias": ((Heads(3),), [tensor(3, 2)], [tensor(3, 2).reshape(6)]),
    "two steps": ((Concat((1, 2)), Permute((1, 2, 0))), [tensor(1, 2), tensor(2, 2)], [torch.cat([tensor(1, 2), tensor(2, 2)])[[1, 2, 0]]]),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_go_both_ways_to_the_bit(name: str) -> None:
    steps, hf, zoo = STEPS[name]
    rule = Rule([f"z{i}" for i in range(len(zoo))], [f"h{i}" for i in range(len(hf))], *steps)
    there, here = {f"h{i}": t for i, t in enumerate(hf)}, {f"z{i}": t for i, t in enumerate(zoo)}
    read, written = to_zoo([rule], there, here, "place"), to_hf([rule], here, "place")
    assert read.keys() == here.keys()
    assert written.keys() == there.keys()
    assert all(torch.equal(read[n], here[n]) for n in here)
    assert all(torch.equal(written[n], there[n]) for n in there)


OWN = {"a": tensor(2, 2), "b": tensor(3)}
HF = {"x.a": tensor(2, 2), "x.b": tensor(3)}
RULES = [Rule("a", "x.a"), Rule("b", "x.b"), Rule("absent.bias", "x.c")]


def test_a_rule_about_what_the_model_has_not_is_passed_over() -> None:
    assert to_zoo(RULES, HF, OWN, "place").keys() == OWN.keys()
    assert to_hf(RULES, OWN, "place").keys() == HF.keys()


@pytest.mark.parametrize(
    ("rules", "hf", "said"),
    [
        (RULES, {"x.a": HF["x.a"]}, "lacks x.b"),
        (RULES, HF | {"x.c": tensor(1), "y": tensor(1)}, "has no place for x.c, y"),
        (RULES[:1], HF, "no rule makes b"),
        ([*RULES, Rule("a", "x.b")], HF, "rules make twice a"),
        ([Rule(("a", "z"), "x.a", Split((1, 1))), RULES[1]], HF, "what is not there: z"),
        (RULES, HF | {"x.b": tensor(4)}, r"b \[4\] instead of \[3\]"),
    ],
)
def test_everything_that_does_not_fit_is_one_error(rules: list[Any], hf: dict[str, Tensor], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        to_zoo(rules, hf, OWN, "folder")
    assert caught.value.place == "folder"


def test_what_the_rules_leave_behind_is_not_written() -> None:
    with pytest.raises(ConfigError, match="no rule makes b"):
        to_hf(RULES[:1], OWN, "family")


def test_a_tied_copy_must_be_a_copy() -> None:
    rules: list[Entry] = [*RULES, Tied("head", "x.a")]
    assert to_zoo(rules, HF | {"head": HF["x.a"].clone()}, OWN, "place").keys() == OWN.keys()
    with pytest.raises(ConfigError, match="no place for head"):
        to_zoo(rules, HF | {"head": HF["x.a"] + 1}, OWN, "place")


def test_buffers_are_named_and_a_trunk_may_come_without_its_prefix() -> None:
    rules: list[Entry] = [Trunk("x."), *RULES, NotAWeight("x.*.inv_freq")]
    bare = {name.removeprefix("x."): t for name, t in (HF | {"x.1.inv_freq": tensor(2)}).items()}
    assert to_zoo(rules, bare, OWN, "place").keys() == OWN.keys()


def test_a_part_of_a_larger_model_is_read_and_the_rest_is_named() -> None:
    whole = {f"y.{name}": t for name, t in HF.items()} | {"sight.1": tensor(3)}
    rules: list[Entry] = [*RULES, Within("", "y.")]
    assert to_zoo([*rules, LeftOut("sight.*")], whole, OWN, "place").keys() == OWN.keys()
    with pytest.raises(ConfigError, match=r"no place for sight\.1"):
        to_zoo(rules, whole, OWN, "place")


def test_either_form_is_read_and_the_first_is_written() -> None:
    forms = [Either(Rule("a", ("x", "y"), Concat((2, 1))), Rule("a", "whole"))]
    own = {"a": tensor(3)}
    apart = to_hf(forms, own, "family")
    assert apart.keys() == {"x", "y"}
    assert all(torch.equal(to_zoo(forms, hf, own, "place")["a"], own["a"]) for hf in (apart, {"whole": own["a"]}))
    with pytest.raises(ConfigError, match="lacks y"):
        to_zoo(forms, {"x": apart["x"]}, own, "place")
