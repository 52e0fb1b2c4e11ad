"""zoo.load: from any folder, on the meta device first, and the model is the one that is built in full."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import zoo
from blocks.errors import ConfigError
from tests.train.fakes import model_config
from zoo.config.model import ModelConfig
from zoo.convert.checkpoint import export_folder
from zoo.convert.model_folder import load_tensors
from zoo.weights.safetensors_io import assemble, put_weights, save_weights, skeleton, weights_of

MODELS = sorted((Path(__file__).parents[3] / "configs" / "models").rglob("*.yaml"))
MAMBA: dict[str, Any] = {
    "d_model": 16,
    "vocab_size": 20,
    "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}},
    "pattern": "2*M",
}
HASHED: dict[str, Any] = {"d_model": 16, "vocab_size": 20, "blocks": {"H": {"type": "hashed_attention", "n_heads": 2}}, "pattern": "H"}


def tiny(path: Path) -> ModelConfig:
    return zoo.load_model(path, tiny=True)


def noted(model: nn.Module) -> dict[str, tuple[bool, bool]]:
    """What blocks say about their parameters."""
    return {name: (p.requires_grad, bool(vars(p).get("no_decay", False))) for name, p in model.named_parameters()}


def same(a: zoo.Model, b: zoo.Model) -> None:
    """Every parameter and buffer, kept in files or not, what is noted on them, and what is computed."""
    for one, other in ((dict(a.named_parameters()), dict(b.named_parameters())), (dict(a.named_buffers()), dict(b.named_buffers()))):
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert noted(a) == noted(b)
    tokens = torch.arange(12)[None] % a.config.vocab_size
    with torch.no_grad():
        assert torch.equal(a(tokens)[0], b(tokens)[0])


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_of_the_meta_device_and_built_in_full_are_one(path: Path) -> None:
    config = tiny(path)
    if sum(t.numel() for t in weights_of(skeleton(config)).values()) > 3_000_000:
        pytest.skip("too large to be built here")
    given = weights_of(zoo.build(config, seed=5))
    full = zoo.build(config, seed=6).eval()
    put_weights(full, given, "")
    made = assemble(config, dict(given), "")
    assert not made.training
    same(made, full)


def test_nothing_is_drawn_and_nothing_allocated() -> None:
    before = torch.get_rng_state()
    held = weights_of(skeleton(zoo.load_model(HASHED)))
    assert all(tensor.is_meta for tensor in held.values())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_plugin_computes_is_there(tmp_path: Path) -> None:
    """Its blocks may hold what no checkpoint has: they are built in full."""
    config = model_config()
    assert config.plugins
    assert not any(tensor.is_meta for tensor in weights_of(skeleton(config)).values())
    given = weights_of(zoo.build(config, seed=5))
    full = zoo.build(config, seed=6).eval()
    put_weights(full, given, "")
    same(assemble(config, dict(given), ""), full)


def test_the_tensors_are_the_models_own(tmp_path: Path) -> None:
    """Writing over the file that a model came from changes no model."""
    zoo_folder(tmp_path, MAMBA)
    model = zoo.load(tmp_path)
    before = model.embedding.weight.clone()
    save_weights(zoo.build(MAMBA, seed=9), tmp_path / "model.safetensors")
    assert torch.equal(model.embedding.weight, before)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in weights_of(model).values())


def zoo_folder(path: Path, values: dict[str, Any], seed: int = 3) -> zoo.Model:
    path.mkdir(exist_ok=True)
    model = zoo.build(values, seed=seed)
    save_weights(model, path / "model.safetensors")
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    return model.eval()


def test_a_folder_of_hugging_face_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.build(MAMBA, seed=3).eval()
    export_folder(model, tmp_path / "hf", "mamba2")
    same(zoo.load(tmp_path / "hf"), model)
    changed = zoo.load(tmp_path / "hf", {"blocks.M.retention": 0.5})
    assert changed.config.blocks["M"].config.retention == 0.5  # type: ignore[attr-defined]
    assert torch.equal(changed.embedding.weight, model.embedding.weight)
    tokens = torch.arange(12)[None]
    assert not torch.allclose(changed(tokens)[0], model(tokens)[0])
    with pytest.raises(ConfigError, match="the model's is"):
        zoo.load(tmp_path / "hf", {"blocks.M.d_state": 8})
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "hf"))
    same(zoo.load("owner/name"), model)


def test_the_weights_alone(tmp_path: Path) -> None:
    """As `init` takes them: of a folder of the house and of Hugging Face, by our names."""
    model = zoo_folder(tmp_path / "zoo", MAMBA)
    export_folder(model, tmp_path / "hf", "mamba2")
    own = weights_of(model)
    for name in ("zoo", "hf"):
        found = load_tensors(tmp_path / name)
        assert found.keys() == own.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in own.items())


PROBE = """
import resource, sys
from zoo.convert.checkpoint import import_to
import zoo.convert.families.llama, transformers.utils
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import_to(sys.argv[1], sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_importing_needs_the_memory_of_the_checkpoint_once(tmp_path: Path) -> None:
    blocks = {"A": {"type": "gqa", "n_heads": 8}, "F": {"type": "swiglu", "hidden": 2048}}
    model = zoo.build({"d_model": 1024, "vocab_size": 8000, "blocks": blocks, "pattern": "12*(A F)"})
    export_folder(model.bfloat16(), tmp_path / "hf", "llama", shard_size="100MB")
    size = sum(t.nbytes for t in weights_of(model).values())
    command = [sys.executable, "-c", PROBE, str(tmp_path / "hf"), str(tmp_path / "zoo")]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert size > 250e6
    assert peak < 1.25 * size
