"""State statistics against known matrices, retention against known decays."""

import math
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from blocks.base import Config as BlockConfig
from blocks.context import Context
from blocks.state import map_state
from zoo.measures import state
from zoo.measures.shared.condition import Condition
from zoo.measures.shared.exploding_channels import _growth
from zoo.measures.shared.state_statistics import describe
from zoo.measures.shared.state_tensors import held, leaves, zeroed
from zoo.measures.shared.statistics import mean_interval
from zoo.measures.state import Config

DECAYS = (0.9, 0.99, 1.0)
CONFIG = Config(length=60, every=20, documents=2, horizons=(4, 25), retention_from=20, call_tokens=26)


class State(NamedTuple):
    memory: Tensor  # (b, h, k, v)
    counts: Tensor  # (b, 1) int64


class Decay(nn.Module):
    """S <- a_h S + x x^T in three heads; y = the last head's S x."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(DECAYS)[:, None, None].repeat(1, 1, d_model))

    def forward(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, State]:
        b, t, d = x.shape
        memory, counts = (x.new_zeros(b, 3, d, d), torch.zeros(b, 1).long()) if state is None else state
        outputs = []
        for token in x.unbind(1):
            memory = self.decay * memory + (token[:, :, None] * token[:, None, :])[:, None]
            outputs.append((memory[:, 2] @ token[:, :, None])[..., 0] / d)
        ctx.shared["seen"] = ctx.shared.get("seen", x.new_zeros(())) + 1
        assert int(ctx.shared["seen"]) <= 2, "a twin's call left its mark"
        return torch.stack(outputs, 1), State(memory, counts + t)


@dataclass(frozen=True, kw_only=True)
class DecayConfig(BlockConfig):
    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        return Decay(d_model)


@pytest.fixture
def decay(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("decaying")
    module.Config = DecayConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "decaying", module)


def model(pattern: str = "X X", **blocks: Any) -> zoo.Model:
    names = {"X": {"type": "decaying.Config"}} if "X" in pattern else {}
    config = {"d_model": 8, "vocab_size": 20, "blocks": names | blocks, "pattern": pattern, "plugins": ["decaying"]}
    made = zoo.build(config).double()
    with torch.no_grad():
        made.embedding.weight *= 50
    return made


def documents(count: int = 2) -> list[Tensor]:
    return [torch.randint(0, 20, (60,), generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_retention_is_the_product_of_decays(decay: None) -> None:
    """In every layer: the state below changes no twin, and the layers of one forward share what they should."""
    found = state.run(model(), CONFIG, 0, data=documents())
    for layer in (0, 1):
        for head, a in enumerate(DECAYS):
            for horizon in CONFIG.horizons:
                where = f"layer={layer};block=X;tensor=memory;head={head};horizon={horizon}"
                float32_a = float(torch.tensor(a))  # the parameter was made in float32
                assert found.row("retention", where)[2:5] == pytest.approx((float32_a**horizon,) * 3, rel=1e-9)


def test_retention_leaves_the_model_as_it_was(decay: None) -> None:
    subject = model()
    before, _ = subject(documents()[0][None])
    state.run(subject, CONFIG, 0, data=documents())
    assert torch.equal(subject(documents()[0][None])[0], before)
    assert all(not module._forward_pre_hooks for module in subject.modules())


def test_a_shared_block_has_a_state_a_layer(decay: None) -> None:
    found = state.run(model("X X", X={"type": "decaying.Config", "share": True}), CONFIG, 0, data=documents())
    one, two = (found.row("norm", f"layer={layer};block=X;tensor=memory;head=0;token=60").value for layer in (0, 1))
    assert one != two
    assert found.row("retention", "layer=1;block=X;tensor=memory;head=0;horizon=4").value == pytest.approx(0.9**4, rel=1e-6)


def test_statistics_are_those_of_the_state(decay: None) -> None:
    subject, data = model(), documents()
    found = state.run(subject, CONFIG, 0, data=data)
    with torch.no_grad():
        _, after = subject(torch.stack(data)[:, :40])
    memory = after.layers[1][0].memory[:, 2]
    where = "layer=1;block=X;tensor=memory;head=2;token=40"
    assert found.row("norm", where).value == pytest.approx(float(memory.norm(dim=(1, 2)).mean()))
    assert found.row("mean", where).value == pytest.approx(float(memory.mean()))
    assert found.row("variance", where).value == pytest.approx(float(memory.flatten(1).var(1, unbiased=False).mean()))
    energy = memory.square().sum(1)
    assert found.row("peak_share", where).value == pytest.approx(float((energy.amax(1) / energy.sum(1)).mean()))
    assert found.row("peak_channel", where).value == int(energy.sum(0).argmax())
    assert found.row("norm", where).n == 2
    assert found.row("bytes", "layer=0;block=X;tensor=counts;token=40").value == 8
    assert found.row("state_bytes", "token=40").value == 2 * (3 * 64 * 8 + 8) + 8  # two layers, the cursor


def test_effective_rank_of_known_matrices() -> None:
    orthogonal = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    rank_one = torch.randn(6, 1, dtype=torch.float64) @ torch.randn(1, 6, dtype=torch.float64)
    mixed = orthogonal @ torch.diag(torch.tensor([3.0, 1, 0, 0, 0, 0]).double())
    x = torch.stack([orthogonal, rank_one, mixed, torch.zeros(6, 6)])[None]
    assert describe(x)["effective_rank"][0] == pytest.approx([6, 1, 16 / 10, 0], abs=1e-9)


def test_broken_states_are_shown_as_such() -> None:
    x = torch.ones(2, 1, 3, 3)
    x[0, 0, 0, 0] = math.nan
    found = describe(x)
    assert math.isnan(found["norm"][0, 0])
    assert math.isnan(found["effective_rank"][0, 0])
    assert found["effective_rank"][1, 0] == pytest.approx(1)


def test_tensors_without_heads_and_caches() -> None:
    subject = model("M|A", M={"type": "mamba1", "d_state": 4}, A={"type": "gqa", "n_heads": 2})
    found = state.run(subject, CONFIG, 0, data=documents())
    norm = found.row("norm", "layer=0;block=M;tensor=ssm;token=60")
    assert norm.value > 0
    sizes = [r.value for _, r in found.curve("bytes", "token")]
    assert sizes == [2 * read * 8 * 8 for read in (20, 40, 60)]  # keys and values, float64
    assert found.curve("bytes", "token")[0][1].condition == Condition.parse("layer=0;block=A;tensor=cache;token=20")
    assert found.row("retention", "layer=0;block=M;tensor=conv;horizon=4").value == 0
    assert 0 < found.row("retention", "layer=0;block=M;tensor=ssm;horizon=4").value < 1
    assert not any("block=A" in str(r.condition) for r in found.rows if r.metric == "retention")


def test_names_of_what_is_held() -> None:
    class Inner(NamedTuple):
        a: Tensor
        b: tuple[Tensor, None]

    nested = {"x": Inner(torch.ones(2), (torch.ones(3), None)), "y": torch.ones(1)}
    assert [path for path, _ in leaves(nested)] == ["x_a", "x_b_0", "y"]
    assert [path for path, _ in leaves(torch.ones(1))] == ["state"]
    changed = zeroed(nested, "x_b_0")
    assert [float(x.sum()) for _, x in leaves(changed)] == [2.0, 0.0, 1.0]
    subject = model("F", F={"type": "swiglu"})
    assert held(subject, subject(documents()[0][None])[1]) == []
    assert map_state(lambda t: t, changed) is not None


@pytest.mark.parametrize("every", [7, 60])
def test_looks_are_at_their_marks(decay: None, every: int) -> None:
    config = Config(length=60, every=every, documents=2, horizons=())
    found = state.run(model("X"), config, 0, data=documents())
    assert [token for token, _ in found.curve("state_bytes", "token")] == list(range(every, 61, every))


def test_a_cache_that_begins_to_grow_late_is_a_cache() -> None:
    """Core-context attention has no cores yet when the first looks are taken."""
    found = state.run(model("A", A={"type": "core_context"}), CONFIG, 0, data=documents())
    assert {r.metric for r in found.rows} == {"bytes", "state_bytes"}


def test_a_planted_channel_is_named(decay: None) -> None:
    """One channel of one head that grows without bound, among channels that forget."""
    subject, data = model(), documents(4)
    with torch.no_grad():
        subject.stack.blocks[subject.stack.layers[1][0]].decay.fill_(0.9)
        subject.stack.blocks[subject.stack.layers[0][0]].decay.fill_(0.9)
        subject.stack.blocks[subject.stack.layers[1][0]].decay[1, 0, 5] = 1.1
        energies = [subject(torch.stack(data)[:, :t])[1].layers[1][0].memory.square().sum(2) for t in (20, 60)]
    found = state.run(subject, Config(length=60, every=20, documents=4, horizons=(), train_length=20, channels=2), 0, data=data)
    span = "train_length=20;length=60"
    flagged = [str(r.condition) for r in found.rows if r.metric == "exploding" and r.value == 1]
    assert flagged == [f"layer=1;block=X;tensor=memory;head=1;channel=5;{span}"]
    growth = (energies[1] / energies[0]).log().mean(0).exp()
    assert found.row("growth", flagged[0]).value == pytest.approx(float(growth[1, 5]), rel=1e-9)
    runner_up = int(growth[1].argsort(descending=True)[1])
    where = f"layer=1;block=X;tensor=memory;head=1;channel={runner_up};{span}"
    assert found.row("growth", where).value == pytest.approx(float(growth[1, runner_up]), rel=1e-9)
    assert found.row("exploding", where).value == 0
    assert (found.row("exploding_heads", span).value, found.row("exploding_channels", span).value) == (1, 1)
    head = f"layer=1;block=X;tensor=memory;head=1;{span}"
    assert found.row("exploding_share", head).value == 1 / 8
    assert found.row("variance_growth", head).low > 10 > found.row("variance_growth", head.replace("head=1", "head=0")).value
    rms = found.row("channel_rms", "layer=1;block=X;tensor=memory;head=1;channel=5;token=60").value
    assert rms == pytest.approx(float((energies[1][:, 1, 5] / 8).sqrt().mean()), rel=1e-9)
    assert {str(r.condition).split(";channel")[0] for r in found.rows if r.metric == "channel_rms"} == {
        "layer=1;block=X;tensor=memory;head=1"
    }


def test_heads_that_do_not_forget(decay: None) -> None:
    config = Config(length=60, every=20, documents=2, horizons=(4,), retention_from=20, train_length=25)
    found = state.run(model(), config, 0, data=documents())
    kept = [a**25 for a in DECAYS]
    for threshold in (0.5, 0.997):
        expected = sum(k > threshold for k in kept) / 3
        row = found.row("non_forgetting", f"block=X;tensor=memory;horizon=25;threshold={threshold}")
        assert row[2:] == pytest.approx((expected, expected, expected, 2))


def test_a_state_that_is_no_number_has_grown_without_bound() -> None:
    before, after = np.ones(3), np.array([2.0, math.inf, math.nan])
    assert _growth(before, after, mean_interval) == (math.inf, 2.0, math.inf, 3)
    assert _growth(before, before * 4, mean_interval)[:3] == pytest.approx((4, 4, 4))
    assert _growth(before * 0, before * 0, mean_interval)[:3] == (1, 1, 1)


def test_spectrum_of_known_matrices() -> None:
    x = torch.stack([torch.diag(torch.tensor(d).double()) for d in ([2.0, 2, 2], [5.0, 0, 0], [2.0, 1, 1], [0.0, 0, 0])])[None]
    found = describe(x)
    assert found["max"][0] == pytest.approx([2, 5, 2, 0])
    assert found["stable_rank"][0] == pytest.approx([3, 1, 6 / 4, 0])
    assert found["utilisation"][0] == pytest.approx([1, 1 / 3, 16 / 6 / 3, 0])
    half, sixth = 4 / 6, 1 / 6
    entropy = -(half * math.log(half) + 2 * sixth * math.log(sixth)) / math.log(3)
    assert found["spectrum_entropy"][0] == pytest.approx([1, 0, entropy, 0], abs=1e-12)


def test_cosine_with_the_look_before(decay: None) -> None:
    subject, data = model(), documents()
    found = state.run(subject, CONFIG, 0, data=data)
    with torch.no_grad():
        now, then = (subject(torch.stack(data)[:, :t])[1].layers[1][0].memory[:, 0].flatten(1) for t in (40, 20))
    expected = float(torch.cosine_similarity(now, then).mean())
    assert found.row("cosine", "layer=1;block=X;tensor=memory;head=0;token=40").value == pytest.approx(expected)
    with pytest.raises(KeyError):
        found.row("cosine", "layer=1;block=X;tensor=memory;head=0;token=20")
