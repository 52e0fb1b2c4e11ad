"""First states that are drawn: their distributions, which rows and which tensors get them, from when on; and resuming them."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from blocks.context import Cursor
from blocks.errors import ConfigError
from blocks.state import detach, state_tensors
from tests.train.fakes import FakeSource, fake_run, model_config
from tests.train.run.test_resume import Died, Scythe, assert_same_run, spec_with_everything, train_in
from tests.train.trainer.test_training import rows
from train.config.run import TrainConfig
from train.run.single_run import train_run
from train.trainer.initial_state import InitialStates
from train.trainer.state_distribution import FITTED, Normal, fitted, fixed, sample
from train.trainer.step import gradients
from zoo.config.model import load_model
from zoo.model.model import ModelState, build


class Memory(NamedTuple):
    conv: Tensor  # (b, 3, 5)
    matrix: Tensor  # (b, h, k, v)


def final_states(rows: int, seed: int) -> Any:
    """Two heads with far-apart means and spreads."""
    generator = torch.Generator().manual_seed(seed)
    matrix = (
        torch.randn(rows, 2, 3, 4, generator=generator) * torch.tensor([0.5, 2.0])[:, None, None] + torch.tensor([-3.0, 3.0])[:, None, None]
    )
    return ((Memory(torch.randn(rows, 3, 5, generator=generator), matrix), None),)


def test_noise_is_of_one_size_everywhere() -> None:
    distribution = fixed(final_states(4, 0), 0.3)
    memory = sample(distribution, 5000, torch.Generator().manual_seed(0))[0][0]
    assert memory.conv.shape == (5000, 3, 5)
    for x in memory:
        assert abs(float(x.mean())) < 0.005
        assert float(x.std()) == pytest.approx(0.3, rel=0.02)


def test_fitted_is_the_mean_and_variance_of_each_head_and_tensor() -> None:
    """Over several batches of several steps: those of all of them together."""
    steps = [[final_states(4, 2 * step), final_states(4, 2 * step + 1)] for step in range(5)]
    distribution = None
    for batches in steps:
        distribution = fitted(distribution, batches)
    assert distribution is not None
    assert distribution.steps == 5
    conv, matrix = distribution.layers[0][0]
    joined = torch.cat([batch[0][0].matrix for batches in steps for batch in batches])
    assert matrix.mean.shape == (1, 2, 3, 4)
    torch.testing.assert_close(matrix.mean[0, :, 0, 0], joined.mean((0, 2, 3)))
    torch.testing.assert_close(matrix.var[0, :, 0, 0], joined.var((0, 2, 3), correction=0))
    joined = torch.cat([batch[0][0].conv for batches in steps for batch in batches])
    torch.testing.assert_close(conv.var, joined.var(correction=0).expand(1, 3, 5))
    assert distribution.layers[0][1] is None
    drawn = sample(distribution, 5000, torch.Generator().manual_seed(0))[0][0].matrix
    torch.testing.assert_close(drawn.mean((0, 2, 3)), matrix.mean[0, :, 0, 0], rtol=0.02, atol=0)
    torch.testing.assert_close(drawn.std((0, 2, 3)), matrix.var[0, :, 0, 0].sqrt(), rtol=0.02, atol=0)


def test_an_old_step_is_forgotten() -> None:
    distribution = fitted(None, [final_states(4, 0)])
    for _ in range(8 * FITTED):
        distribution = fitted(distribution, [((Memory(torch.full((4, 3, 5), 7.0), torch.zeros(4, 2, 3, 4)), None),)])
    conv, matrix = distribution.layers[0][0]
    torch.testing.assert_close(conv.mean, torch.full((1, 3, 5), 7.0), rtol=0, atol=0.01)
    assert float(matrix.var.max()) < 0.01


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("state", ["noise", "fitted"])
def test_drawn_rows_go_on_from_their_state_and_the_others_begin(state: str, share: float, packed: bool) -> None:
    """Each row alone: read from its drawn state, or from nothing, which is not a state of zeros here."""
    model = build(model_config()).double().eval()
    train = TrainConfig(batch_size=8, state=state, state_share=share, state_noise=0.5 if state == "noise" else None)
    now, initial = rows(step=1, packed=packed), InitialStates(train, model.config, 0)
    initial.keep([model.hidden(rows().inputs)[1]])
    (start, documents), *_ = initial.of_step(1, [now.documents])
    documents = None if documents is None else documents.expand_as(now.inputs)
    got = model.hidden(now.inputs, start, documents=documents)[0]
    fresh = model.hidden(now.inputs, documents=now.documents)[0]
    chosen = [row for row in range(8) if not torch.allclose(got[row], fresh[row], atol=1e-12)]
    assert len(chosen) == {0.0: 0, 1.0: 8}.get(share, len(chosen))
    assert share != 0.5 or 0 < len(chosen) < 8
    for row in chosen:
        own = torch.utils._pytree.tree_map_only(Tensor, lambda x, row=row: x[row : row + 1], start.layers)
        ids = None if now.documents is None else now.documents[row : row + 1]
        begun = ModelState(Cursor(torch.zeros(1, dtype=torch.int64), None, None), own)
        alone = model.hidden(now.inputs[row : row + 1], begun, documents=ids)[0][0]
        torch.testing.assert_close(got[row], alone, rtol=1e-9, atol=1e-12)


def test_attention_starts_from_nothing_beside_a_drawn_memory() -> None:
    blocks = {
        "M": {"type": "mamba2", "d_state": 4, "head_dim": 8},
        "W": {"type": "gqa", "n_heads": 2, "window": 4},
        "A": {"type": "gqa", "n_heads": 2},
    }
    model = build(load_model({"d_model": 16, "vocab_size": 24, "blocks": blocks, "pattern": "M W A"}))
    initial = InitialStates(TrainConfig(batch_size=8, state="fitted"), model.config, 0)
    state = detach(model.hidden(rows().inputs)[1])
    initial.keep([state, state])
    (start, documents), *_ = initial.of_step(1, [None])
    assert documents is None
    assert [[inner is None for inner in layer] for layer in start.layers] == [[False], [True], [True]]
    assert [x.shape for x in start.layers[0][0] if x is not None] == [x.shape for x in state.layers[0][0] if x is not None]
    assert bool((start.cursor.position == 0).all())
    assert len(state_tensors(initial.states)) == 4  # two distributions, of the convolution and the memory
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(*(normals(initial) for _ in range(2)), strict=True))


def normals(initial: InitialStates) -> list[Normal]:
    leaves = torch.utils._pytree.tree_leaves(initial.states, is_leaf=lambda x: isinstance(x, Normal))
    return [x for x in leaves if isinstance(x, Normal)]


@pytest.mark.parametrize("state", ["pass", "tbptt", "noise", "fitted"])
def test_states_are_carried_from_their_step_on(state: str) -> None:
    model = build(model_config())
    train = TrainConfig(batch_size=4, accumulate=2, state=state, state_from=0.7, state_noise=0.1 if state == "noise" else None)
    initial, given = InitialStates(train, model.config, 0, steps=10), []
    for step in range(10):
        given.append([start is not None for start, _ in initial.of_step(step, [None, None])])
        _, states, _ = gradients(model, rows(step=step), initial, train, 0, step)
        initial.keep(states)
    assert given == [[False, False]] * 7 + [[True, True]] * 3


def losses(tmp_path: Path, **train: Any) -> list[bytes]:
    folder = tmp_path / "_".join(map(str, train.values()))
    train_run(fake_run(10, log_every=1, **train), folder, source=FakeSource())
    return (folder / "metrics.csv").read_bytes().splitlines()[1:]


def test_until_then_a_run_is_one_without_states(tmp_path: Path) -> None:
    plain = losses(tmp_path, state="none")
    late = losses(tmp_path, state="pass", state_from=0.8)
    assert late[:8] == plain[:8]
    assert late[8] != plain[8]
    assert losses(tmp_path, state="pass", state_from=1.0) == plain


@pytest.mark.parametrize("change", [{"state": "noise", "state_noise": 0.2}, {"state": "fitted", "state_from": 0.5}])
def test_stopped_and_gone_on_ends_alike(tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.trainer.metrics_callback.BAR_SECONDS", -1.0)
    spec = spec_with_everything(steps=11, **change)
    train_in(tmp_path / "whole", spec)
    for step in (2, 5, 8):
        with pytest.raises(Died):
            train_in(tmp_path / "broken", spec, Scythe(step))
    train_in(tmp_path / "broken", spec)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"state": "noise"}, r"state_noise: is needed by state: noise"),
        ({"state": "noise", "state_noise": 0.0}, r"state_noise = 0.0: must be above 0"),
        ({"state": "fitted", "state_noise": 0.1}, r"state_noise = 0.1: is only of state: noise, not of fitted"),
        ({"state_from": 0.9}, r"state_from = 0.9: means nothing with state: none. state: pass, tbptt, noise, fitted"),
        ({"state": "pass", "state_from": 1.5}, r"state_from = 1.5: is a share"),
        ({"state": "nois"}, r"state = 'nois': is not one of the choices. choices: none, pass, tbptt, noise, fitted"),
    ],
)
def test_settings_that_do_not_fit(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**train)


def test_what_cannot_be_drawn_is_refused() -> None:
    windowed = {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8, "state_window": 4}}
    config = load_model({"d_model": 16, "vocab_size": 24, "blocks": windowed, "pattern": "M"})
    with pytest.raises(ConfigError, match=r"train\.state = 'fitted': M has a state_window.*choices: none, pass, tbptt"):
        InitialStates(TrainConfig(state="fitted"), config, 0)
    InitialStates(TrainConfig(state="pass"), config, 0)
    with pytest.raises(ConfigError, match=r"train\.growing_state = 'keep': with state: fitted there is no cache to keep"):
        InitialStates(TrainConfig(state="fitted", growing_state="keep"), model_config("L G F"), 0)
    with pytest.raises(ConfigError, match=r"train\.state = 'fitted': can't mix the sequences of a segment memory"):
        InitialStates(TrainConfig(state="fitted"), model_config(tokens={"memory": {"count": 2, "segment": 5}}), 0)
    attention = load_model({"d_model": 16, "vocab_size": 24, "blocks": {"A": {"type": "gqa", "n_heads": 2}}, "pattern": "A"})
    with pytest.raises(ConfigError, match=r"train\.state = 'fitted': this model has no recurrent state"):
        InitialStates(TrainConfig(state="fitted"), attention, 0).keep([build(attention).hidden(rows().inputs)[1]])
