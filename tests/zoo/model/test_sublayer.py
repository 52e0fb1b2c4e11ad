"""A sub-layer finds its modules in the stack: one that was wrapped or exchanged there is used, and a copy of a model has its own."""

import copy

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.model.model import Model

TOKENS = torch.arange(10)[None]


class Wrapped(nn.Module):
    """A module of which each call is counted, as by a profiler or an adapter."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *args: object) -> object:
        self.calls += 1
        return self.inner(*args)


def model(dropout: float = 0.0) -> Model:
    blocks = {"A": {"type": "gqa", "n_heads": 2}, "F": {"type": "swiglu", "hidden": 8}}
    surroundings = {"norm_place": "sandwich", "parallel": "mean_norm", "dropout": dropout}
    return zoo.build({"d_model": 8, "vocab_size": 16, "blocks": blocks, "pattern": "A|F F"} | surroundings, seed=3).eval()


def logits(of: Model) -> Tensor:
    return of(TOKENS)[0]


@pytest.mark.parametrize(("place", "name"), [("blocks", "00_A"), ("blocks", "01_F"), ("norms", "1"), ("post_norms", "0")])
def test_a_wrapped_module_is_called(place: str, name: str) -> None:
    wrapped = model()
    modules: nn.ModuleDict = getattr(wrapped.stack, place)
    wrapper = Wrapped(modules[name])
    modules[name] = wrapper
    assert torch.equal(logits(wrapped), logits(model()))
    assert wrapper.calls == 1


def test_a_copy_has_modules_of_its_own() -> None:
    first = model()
    before, second = logits(first), copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.stack.parameters():
            parameter.mul_(1.5)
    assert torch.equal(logits(first), before)
    assert not torch.equal(logits(second), before)


def test_dropout_is_of_training_alone() -> None:
    plain, dropping = model(), model(dropout=0.5)
    assert torch.equal(logits(dropping), logits(plain))
    assert not torch.equal(logits(dropping.train()), logits(plain))
