"""A long stream in the memory of a short one: what a state holds, what tensors are alive, what the process occupies."""

import gc
from typing import Any

import psutil
import pytest
import torch

import zoo
from zoo.measures import collapse, state

MIXERS = {
    "mamba2": {"type": "mamba2", "d_state": 4, "head_dim": 8},
    "gated_delta": {"type": "gated_delta"},
    "linear_attention": {"type": "linear_attention"},
    "mamba1": {"type": "mamba1", "d_state": 4},
}


def model(mixer: str) -> zoo.Model:
    return zoo.build({"d_model": 8, "vocab_size": 16, "blocks": {"M": MIXERS[mixer]}, "pattern": "M"})


class Watch:
    """Looks at the process when a tenth and when the end of a stream of `total` tokens is reached."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.rss: dict[int, int] = {}
        self.alive: dict[int, int] = {}

    def __call__(self, done: int, total: int) -> None:
        for percent in (10, 100):
            if percent not in self.rss and 100 * done >= percent * self.total:
                gc.collect()
                self.rss[percent] = psutil.Process().memory_info().rss
                self.alive[percent] = sum(x.numel() * x.element_size() for x in gc.get_objects() if type(x) is torch.Tensor)

    def assert_flat(self) -> None:
        assert self.rss[100] == pytest.approx(self.rss[10], rel=0.05)
        assert self.alive[100] <= self.alive[10] + 4096


def stream(kind: str, mixer: str, length: int) -> Any:
    """One text of newlines, the windows of collapse left out."""
    watch = Watch(length)
    if kind == "state":
        config = state.Config(prompt="newlines", length=length, every=length // 4, horizons=())
        found = state.run(model(mixer), config, 0, progress=watch)
        assert len({r.value for _, r in found.curve("state_bytes", "token")}) == 1
        assert len(found.curve("state_bytes", "token")) == 4
    else:
        sizes = {"train_length": 256, "times": length // 256, "windows": 0}
        found = collapse.run(model(mixer), collapse.Config(prompt="newlines", **sizes), 0, progress=watch)
        assert len(found.curve("nll_stream", "position")) > 20
    return watch


@pytest.mark.parametrize("kind", ["collapse", "state"])
def test_a_hundred_thousand_tokens(kind: str) -> None:
    stream(kind, "mamba2", 102_400).assert_flat()


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("kind", ["collapse", "state"])
def test_a_million_tokens(kind: str, mixer: str) -> None:
    stream(kind, mixer, 1_024_000).assert_flat()


@pytest.mark.slow
def test_a_million_tokens_against_windows() -> None:
    """Of documents joined, some windows in each bucket: less work than half of the stream."""
    documents = [torch.randint(0, 16, (5000,), generator=torch.Generator().manual_seed(i)) for i in range(420)]
    config = collapse.Config(prompt="joined", documents=2, train_length=256, times=4000, windows=16)
    assert len(collapse.windows(config)) * 256 < config.length / 2
    found = collapse.run(model("mamba2"), config, 0, data=documents)
    assert all(r.n == 2 for r in found.rows)
    assert len(found.curve("excess", "position")) == len(config.edges) - 1
