"""Folders in and out: shards, the command line, and everything that is wrong said in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from blocks.errors import ConfigError
from train.cli.command_line import run
from zoo.convert.checkpoint import export_folder, family_of, import_folder
from zoo.weights.safetensors_io import weights_of

ATTENTION: dict[str, Any] = {"type": "gqa", "n_heads": 4, "n_kv_heads": 2}
VALUES: dict[str, Any] = {"d_model": 16, "vocab_size": 20, "blocks": {"A": ATTENTION, "F": {"type": "swiglu"}}, "pattern": "2*(A F)"}


def folder(path: Path, **changes: Any) -> zoo.Model:
    """A small Llama, written as a Hugging Face folder."""
    model = zoo.build(VALUES | changes, seed=3)
    export_folder(model, path, "llama")
    return model


def edit(path: Path, **changes: Any) -> None:
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({k: v for k, v in (values | changes).items() if v != "drop"}))


def same(a: zoo.Model, b: zoo.Model) -> bool:
    first, second = weights_of(a), weights_of(b)
    return first.keys() == second.keys() and all(torch.equal(t, second[name]) for name, t in first.items())


def shard(path: Path) -> None:
    """The same weights in two files and an index."""
    tensors = load_file(path / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, path / file)
    listed = {name: file for file, part in parts.items() for name in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    (path / "model.safetensors").unlink()


def test_whole_and_in_shards(tmp_path: Path) -> None:
    model = folder(tmp_path)
    assert same(import_folder(tmp_path), model)
    shard(tmp_path)
    assert same(import_folder(tmp_path), model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "lama"}, "did you mean llama"),
        ({"model_type": "drop"}, "has no model_type"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish'"),
        ({"num_hidden_layers": 3}, "lacks model.layers.2"),
        ({"num_hidden_layers": 1}, "no place for model.layers.1"),
        ({"intermediate_size": 8}, "has other sizes than its config says"),
        ({"attention_bias": True}, "q_proj.bias"),
        ({"num_hidden_layers": 1.5}, "config.json: holds a value that no llama has"),
        ({"rope_parameters": "x"}, "config.json: holds a value that no llama has"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ],
)
def test_a_config_that_is_not_of_these_weights(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ConfigError, match=said):
        import_folder(tmp_path)


def test_a_damaged_folder(tmp_path: Path) -> None:
    folder(tmp_path)
    shard(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": listed | {"more": "a.safetensors"}}))
    with pytest.raises(ConfigError, match="no shard holds: more"):
        import_folder(tmp_path)
    index.write_text(json.dumps({"weight_map": listed | {"more": "../x.safetensors"}}))
    with pytest.raises(ConfigError, match="not a file of the folder"):
        import_folder(tmp_path)
    index.unlink()
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors and no model\.safetensors\.index\.json$"):
        import_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin: pickled weights are never read"):
        import_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="as JSON"):
        import_folder(tmp_path)


def test_neither_folder_nor_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such folder or file, and it is no hub id"):
        import_folder(tmp_path / "none")
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ConfigError, match="can't be fetched from the hub: no network here"):
        import_folder("owner/name")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks": {"A": ATTENTION | {"sink_logit": True}, "F": {"type": "swiglu"}}}, "blocks.A.sink_logit = True"),
        ({"blocks": {"A": ATTENTION | {"share": True}, "F": {"type": "swiglu"}}}, "blocks.A.share = True"),
        ({"pattern": "A F A"}, "3 sub-layers"),
        ({"pattern": "A F F A"}, "sub-layer 2 is swiglu"),
        ({"tokens": {"meta": {"every": 4}}}, "tokens = "),
        ({"norm": "layernorm"}, "norm = 'layernorm'"),
    ],
)
def test_what_llama_can_not_say(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        family_of(zoo.load_model(VALUES | changes), "llama")


def test_the_plainest_family_that_takes_a_model(tmp_path: Path) -> None:
    assert family_of(zoo.load_model(VALUES))[0] == "llama"
    assert family_of(zoo.load_model(VALUES, {"blocks": {"A": {"window": 4}}}))[0] == "mistral"
    assert family_of(zoo.load_model(VALUES, {"residual_scale": 0.5}))[0] == "granite"
    assert family_of(zoo.load_model(VALUES, {"parallel": "mean_norm"}))[0] == "zoo"


def test_in_and_out_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    assert run(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "zoo")]) == 0
    assert same(zoo.load(tmp_path / "zoo"), model)
    assert run(["export", str(tmp_path / "zoo"), "bos_token_id=7", "--to", "hf", "--out", str(tmp_path / "back")]) == 0
    assert "llama" in capsys.readouterr().out
    assert same(import_folder(tmp_path / "back"), model)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["bos_token_id"] == 7
    assert (tmp_path / "back" / "tokenizer.json").is_file()
    assert run(["import", str(tmp_path / "nothing"), "--out", str(tmp_path / "zoo")]) == 2
