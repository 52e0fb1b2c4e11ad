"""A measure that is interrupted anywhere and goes on gives the rows of one that was not."""

from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import zoo
from zoo.measures import MEASURES, collapse, state

MIXERS = {
    "gated_delta": {"type": "gated_delta"},
    "mamba2": {"type": "mamba2", "d_state": 4, "head_dim": 8},
    "window": {"type": "gqa", "n_heads": 2, "window": 7},
}
CONFIGS: dict[str, Any] = {
    "collapse": collapse.Config(train_length=16, times=4, documents=2, call_tokens=20),
    "state": state.Config(length=60, every=20, documents=2, horizons=(5,), retention_from=10, train_length=8, call_tokens=20),
}


class Killed(Exception):
    """What ends a run in these tests."""


class Memory:
    """Keeps everything that is offered, and kills the run after so many offers."""

    def __init__(self, patience: int | None = None) -> None:
        self.patience, self.offers = patience, 0
        self.tree: Any = None
        self.copy: Any = None

    def load(self) -> Any:
        return self.copy

    def save(self, tree: Any) -> None:
        self.offers += 1
        self.tree, self.copy = tree, pytree.tree_map_only(torch.Tensor, torch.clone, tree)
        if self.offers == self.patience:
            raise Killed


def model(mixer: str) -> zoo.Model:
    return zoo.build({"d_model": 16, "vocab_size": 30, "blocks": {"M": MIXERS[mixer]}, "pattern": "M M"})


def documents() -> list[torch.Tensor]:
    return [torch.randint(0, 30, (64,), generator=torch.Generator().manual_seed(i)) for i in range(2)]


@pytest.mark.parametrize("name", [name for name in MEASURES if MEASURES[name].RESUMABLE])
@pytest.mark.parametrize("mixer", MIXERS)
def test_killed_and_resumed(name: str, mixer: str) -> None:
    subject, run = model(mixer), MEASURES[name].run
    whole = Memory()
    expected = run(subject, CONFIGS[name], 0, data=documents(), keep=whole)
    assert run(subject, CONFIGS[name], 0, data=documents()) == expected
    assert whole.offers > 6
    for patience in (1, whole.offers // 2, whole.offers):
        keeper = Memory(patience)
        with pytest.raises(Killed):
            run(subject, CONFIGS[name], 0, data=documents(), keep=keeper)
        told: list[tuple[int, int]] = []
        again = run(subject, CONFIGS[name], 0, data=documents(), keep=keeper, progress=lambda a, b, told=told: told.append((a, b)))
        assert repr(again) == repr(expected), "bit for bit"
        assert keeper.offers == whole.offers, "nothing is read twice"
        assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("name", [name for name in MEASURES if MEASURES[name].RESUMABLE])
def test_what_was_offered_is_never_changed(name: str) -> None:
    class Checked(Memory):
        def save(self, tree: Any) -> None:
            if self.tree is not None:
                now, then = pytree.tree_leaves(self.tree), pytree.tree_leaves(self.copy)
                assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(now, then, strict=True))
            super().save(tree)

    MEASURES[name].run(model("mamba2"), CONFIGS[name], 0, data=documents(), keep=Checked())
