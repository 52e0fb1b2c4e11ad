"""Folders as files: shards, numbers as they are stored, and that what goes wrong leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from blocks.errors import ConfigError
from train.cli.command_line import run
from zoo.convert import hf_folder
from zoo.convert.checkpoint import export_folder, import_folder, import_to
from zoo.convert.hf_folder import read_shards, resolve, staged
from zoo.weights.safetensors_io import weights_of

VALUES: dict[str, Any] = {
    "d_model": 16,
    "vocab_size": 20,
    "blocks": {"A": {"type": "gqa", "n_heads": 4, "n_kv_heads": 2}, "F": {"type": "swiglu"}},
    "pattern": "2*(A F)",
}
MIXED: dict[str, Any] = {
    "d_model": 16,
    "vocab_size": 20,
    "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}},
    "pattern": "2*M",
}


def stored(path: Path) -> dict[str, torch.Tensor]:
    return dict(read_shards(path))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Names, dtypes and bytes."""
    bits = {name: t.contiguous().view(torch.uint8) for name, t in b.items()}
    kinds = {name: t.dtype for name, t in a.items()} == {name: t.dtype for name, t in b.items()}
    return kinds and all(torch.equal(t.contiguous().view(torch.uint8), bits[name]) for name, t in a.items())


@pytest.mark.parametrize(("values", "family"), [(VALUES, "llama"), (VALUES | {"tie_embeddings": False}, "qwen3"), (MIXED, "mamba2")])
def test_numbers_stay_as_they_are_stored(tmp_path: Path, values: dict[str, Any], family: str) -> None:
    """Half of them in bfloat16, half in float32: in, and out again, the same bytes; computed in float32."""
    if family == "qwen3":
        values = values | {"blocks": {**values["blocks"], "A": {**values["blocks"]["A"], "qk_norm": "head", "norm_eps": 1e-5}}}
    export_folder(zoo.build(values, seed=3), tmp_path / "hf", family)
    path = tmp_path / "hf" / "model.safetensors"
    hf = {name: t if "norm" in name or "A_log" in name else t.bfloat16() for name, t in load_file(path).items()}
    save_file(hf, path)
    assert run(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "zoo")]) == 0
    assert {t.dtype for t in load_file(tmp_path / "zoo" / "model.safetensors").values()} == {torch.bfloat16, torch.float32}
    assert run(["export", str(tmp_path / "zoo"), "--family", family, "--out", str(tmp_path / "back")]) == 0
    assert equal(stored(tmp_path / "back"), hf)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "bfloat16"
    model = zoo.load(tmp_path / "zoo")
    assert {t.dtype for t in weights_of(model).values()} == {torch.float32}
    assert torch.equal(model.embedding.weight, zoo.load(tmp_path / "hf").embedding.weight)
    assert zoo.load(tmp_path / "zoo", dtype=torch.bfloat16).embedding.weight.dtype == torch.bfloat16


def test_another_dtype_if_asked(tmp_path: Path) -> None:
    model = zoo.build(VALUES, seed=3)
    export_folder(model, tmp_path / "hf", "llama")
    assert run(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "zoo"), "--dtype", "bfloat16"]) == 0
    tensors = load_file(tmp_path / "zoo" / "model.safetensors")
    assert equal(tensors, {name: t.bfloat16() for name, t in weights_of(model).items()})
    assert run(["export", str(tmp_path / "zoo"), "--out", str(tmp_path / "back"), "--dtype", "float16"]) == 0
    assert {t.dtype for t in stored(tmp_path / "back").values()} == {torch.float16}


def test_shards_and_their_index(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = zoo.build(VALUES, seed=3)
    export_folder(model, tmp_path / "whole", "llama")
    export_folder(model, tmp_path / "hf", "llama", shard_size="8KB")
    shards = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(path.stat().st_size < 10_000 for path in (tmp_path / "hf").glob("*.safetensors"))
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == shards
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in stored(tmp_path / "whole").values())
    assert equal(stored(tmp_path / "hf"), stored(tmp_path / "whole"))
    assert "lm_head.weight" not in index["weight_map"]  # tied: stored once
    assert torch.equal(import_folder(tmp_path / "hf").embedding.weight, model.embedding.weight)
    tokens = torch.arange(8)[None]
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("hf", "whole")]
    with torch.no_grad():
        assert torch.equal(models[0](tokens).logits, models[1](tokens).logits)


@pytest.mark.parametrize("size", ["5 apples", "0GB", "GB", ""])
def test_a_shard_size_that_is_none(tmp_path: Path, size: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        export_folder(zoo.build(VALUES), tmp_path / "hf", shard_size=size)
    assert not list(tmp_path.iterdir())


def remove_layer(path: Path) -> None:
    save_file({name: t for name, t in load_file(path).items() if "layers.0" not in name}, path)


def add_some(path: Path) -> None:
    save_file(load_file(path) | {f"x{i:03}": torch.zeros(1) for i in range(120)}, path)


def whole_numbers(path: Path) -> None:
    save_file({name: t.int() for name, t in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove_layer, r"lacks model\.layers\.0\.input_layernorm\.weight, (\S+, ){7}\S+$"),
        (add_some, r"holds what the model has no place for x000, .*, x099 and 20 more"),
        (whole_numbers, "is int32: quantized weights are not read"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "can't be read"),
        (lambda path: path.write_bytes(b""), "can't be read"),
        (lambda path: path.unlink(), r"holds no model\.safetensors"),
        (lambda path: (path.parent / "config.json").unlink(), r"holds no config\.json"),
        (lambda path: (path.parent / "config.json").write_text("[" * 100_000), "can't be read as JSON"),
    ],
)
def test_one_message_and_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any], said: str) -> None:
    export_folder(zoo.build(VALUES), tmp_path / "hf", "llama")
    spoil(tmp_path / "hf" / "model.safetensors")
    assert run(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "zoo")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(ConfigError, match=said):
        import_to(tmp_path / "hf", tmp_path / "zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_folder(zoo.build(VALUES), tmp_path / "hf", "llama")
    before = {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()}
    for command in ("import", "export"):
        assert run([command, str(tmp_path / "hf"), "--out", str(tmp_path / "hf")]) == 2
        assert "is there and not empty" in capsys.readouterr().err
        assert run([command, str(tmp_path / "hf"), "--out", str(tmp_path / "hf" / "config.json" / "x")]) == 2
        assert "can't be written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert run(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "empty")]) == 0
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["config.yaml", "model.safetensors"]
    assert not (tmp_path / ".empty.unfinished").exists()


def test_interrupted_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "out") as fresh:  # noqa: PT012
        (fresh / "half").write_text("x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "said"), [("lama", "is not one of the choices"), ("mamba2", "mamba2 has layers of mamba2; sub-layer 0")]
)
def test_a_family_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str, said: str) -> None:
    export_folder(zoo.build(VALUES), tmp_path / "hf", "llama")
    assert run(["export", str(tmp_path / "hf"), "--family", family, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_ends_a_text_comes_along_from_an_older_config(tmp_path: Path) -> None:
    export_folder(zoo.build(VALUES), tmp_path / "hf", "llama", extra={"eos_token_id": [3, 4], "bos_token_id": 1})
    import_to(tmp_path / "hf", tmp_path / "zoo")
    assert json.loads((tmp_path / "zoo" / "generation_config.json").read_text()) == {"bos_token_id": 1, "eos_token_id": [3, 4]}


def test_a_path_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """owner/name is looked up on the hub unless a folder `owner` is here: then it is a name misspelt."""
    import huggingface_hub

    asked: list[tuple[Any, Any]] = []

    def fetch(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name") == tmp_path
    assert asked == [("owner/name", {"allow_patterns": list(hf_folder.FETCHED), "ignore_patterns": ["*/*"]})]
    (tmp_path / "owner").mkdir()
    with pytest.raises(ConfigError, match="no such folder or file"):
        resolve("owner/name")
    assert len(asked) == 1
