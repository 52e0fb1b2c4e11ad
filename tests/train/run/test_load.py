"""A trained model from its folder; every wrong folder is one clear error."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from blocks.errors import ConfigError
from tests.train.fakes import FakeSource, fake_run, model_config
from train.run.single_run import train_run
from zoo.config.model import model_mapping
from zoo.convert.model_folder import load
from zoo.model.model import build
from zoo.weights.safetensors_io import save_weights, weights_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_run(fake_run(4, model_config(dropout=0.1)), folder, source=FakeSource())
    return folder


def test_run_checkpoint_and_file_are_the_same_model(trained: Path) -> None:
    saved = load_file(trained / "checkpoint" / "model.safetensors")
    for path in (trained, trained / "checkpoint", trained / "checkpoint" / "model.safetensors", str(trained)):
        model = load(path)
        assert not model.training
        assert {name: torch.equal(tensor, saved[name]) for name, tensor in weights_of(model).items()} == dict.fromkeys(saved, True)
    fresh = build(model.config)
    assert not torch.equal(fresh.embedding.weight, model.embedding.weight)


@pytest.mark.parametrize("overrides", [{"blocks.L.decay": 0.25}, {"blocks": {"L": {"decay": 0.25}}}, {"blocks.L": {"decay": 0.25}}])
def test_a_trained_model_with_another_key(trained: Path, overrides: dict[str, Any]) -> None:
    """Dotted or nested; the same weights in a block that now does something else."""
    plain, changed = load(trained), load(trained, overrides)
    assert changed.config.named["L"].config.decay == 0.25
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), changed.parameters(), strict=True))
    tokens = torch.arange(10)[None]
    assert not torch.allclose(plain(tokens)[0], changed(tokens)[0])


def test_an_override_must_leave_the_parameters_as_they_are(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"blocks\.L\.decoy: tests\.train\.fakes\.Leaky has no such key"):
        load(trained, {"blocks.L.decoy": 0.25})
    with pytest.raises(ConfigError, match="the model's is"):
        load(trained, {"d_model": 8})


def test_while_checkpoints_are_exchanged(trained: Path, tmp_path: Path) -> None:
    (trained / "checkpoint").rename(tmp_path / "aside")
    (tmp_path / "checkpoint.next").mkdir()
    (tmp_path / "checkpoint.next" / "model.safetensors").write_bytes((tmp_path / "aside" / "model.safetensors").read_bytes())
    (tmp_path / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    (tmp_path / "aside").rename(trained / "checkpoint")
    assert torch.equal(load(tmp_path).embedding.weight, load(trained).embedding.weight)


def export(folder: Path) -> Path:
    """A plain model config beside its weights."""
    model = build(model_config())
    save_weights(model, folder / "model.safetensors")
    config = {"d_model": 16, "vocab_size": 24, "pattern": "L F L", "plugins": ["tests"]}
    blocks = {"L": {"type": "tests.train.fakes.Leaky"}, "F": {"type": "swiglu", "hidden": 16}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "blocks": blocks}))
    return folder


def test_a_models_own_config_will_do(tmp_path: Path) -> None:
    assert torch.equal(load(export(tmp_path)).embedding.weight, build(model_config()).embedding.weight)


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    blocks: dict[str, Any] = model_mapping(model_config("L F L"))["blocks"]
    blocks["L"]["share"] = True
    model = build(model_config(blocks=blocks))
    save_weights(model, tmp_path / "w.safetensors")
    assert sum(t.numel() for t in load_file(tmp_path / "w.safetensors").values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, r"lacks norm\.weight"),
        ({"extra": torch.zeros(1)}, "holds what the model has not: extra"),
        ({"norm.weight": torch.zeros(3)}, r"norm\.weight is \[3\], the model's is \[16\]"),
    ],
)
def test_wrong_tensors_are_named(tmp_path: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    path = export(tmp_path) / "model.safetensors"
    tensors = {**load_file(path), **change}
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_wrong_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder or file"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors and no checkpoint"):
        load(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is not a \.safetensors file"):
        load(tmp_path / "x.pt")
    (tmp_path / "model.safetensors").write_bytes(b"not this")
    with pytest.raises(ConfigError, match=r"there is no config\.yaml"):
        load(tmp_path)
    (export(tmp_path) / "model.safetensors").write_bytes(b"not this")
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {d_model: 16, vocab: 3}")
    with pytest.raises(ConfigError, match=r"config\.yaml: model\.vocab: ModelConfig has no such key"):
        load(tmp_path)
