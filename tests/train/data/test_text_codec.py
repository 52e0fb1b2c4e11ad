"""The tokenizer that belongs to a model: in its folder, named by its run's data, or bytes; and a checkpoint of others as it is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import yaml

import zoo
from blocks.errors import ConfigError
from tests.train.experiments import write_text_folder
from train.cli.command_line import run
from train.data.text_codec import coder_of, companions
from train.measure import target
from zoo.convert.checkpoint import export_folder
from zoo.weights.safetensors_io import save_weights

WORDS = ["<end>", "the", "gate", "of", "state", "keeps"]
VALUES: dict[str, Any] = {
    "d_model": 16,
    "vocab_size": 8,
    "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}},
    "pattern": "M",
}


def write_tokenizer(path: Path, words: list[str] = WORDS) -> Path:
    coder = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<end>"))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.add_special_tokens(["<end>"])
    path.mkdir(exist_ok=True)
    coder.save(str(path / "tokenizer.json"))
    return path / "tokenizer.json"


def trained(path: Path, **data: Any) -> Path:
    """A run's folder, with the config that training writes."""
    (path / "checkpoint").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"name": "one", "model": VALUES, "data": {"kind": "text", "path": "text", **data}}))
    save_weights(zoo.build(VALUES, seed=3), path / "checkpoint" / "model.safetensors")
    return path


@pytest.mark.parametrize("inside", [".", "checkpoint", "checkpoint/model.safetensors"])
def test_of_a_runs_data(tmp_path: Path, inside: str) -> None:
    """As its documents were read: the separator before them, and no special tokens of the tokenizer's own."""
    tokenizer = str(write_tokenizer(tmp_path / "words"))
    coder = coder_of(trained(tmp_path / "a", tokenizer=tokenizer, separator="<end>") / inside, 8)
    assert coder.ids("state keeps") == [0, 4, 5]
    assert coder.ends == {0}
    coder = coder_of(trained(tmp_path / "b", tokenizer=tokenizer) / inside, 8)
    assert coder.ids("state keeps") == [4, 5]
    assert coder.ends == frozenset()
    with pytest.raises(ConfigError, match="more tokens than the model"):
        coder_of(tmp_path / "b", 3)


def test_it_goes_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = write_tokenizer(tmp_path / "words")
    folder = trained(tmp_path / "run", tokenizer=str(tokenizer), separator="<end>")
    assert run(["export", str(folder), "--out", str(tmp_path / "hf")]) == 0
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    read = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert read("state keeps")["input_ids"] == [4, 5]
    assert (read.eos_token_id, read.bos_token_id) == (0, 0)
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_text()) == {"bos_token_id": 0, "eos_token_id": 0}
    asked = ["--prompt", "the gate", "--max-tokens", "4", "--temperature", "0"]
    capsys.readouterr()
    assert run(["generate", str(folder), *asked]) == 0
    first = capsys.readouterr().out
    assert first.startswith("the gate")
    assert set(first.split()) <= set(WORDS)


def test_one_beside_the_run_comes_first(tmp_path: Path) -> None:
    """The remedy where the training's own has gone."""
    folder = trained(tmp_path / "run", tokenizer=str(tmp_path / "gone" / "tokenizer.json"))
    for attempt in (lambda: coder_of(folder, 8), lambda: companions(folder).__enter__()):
        with pytest.raises(ConfigError, match="can't be loaded"):
            attempt()
    write_tokenizer(folder)
    assert coder_of(folder, 8).ids("gate") == [2]
    with companions(folder) as files:
        assert files == folder


def foreign(path: Path, words: list[str], **extra: Any) -> Path:
    """As a checkpoint of the hub: config.json, .safetensors, a tokenizer.json of its own."""
    export_folder(zoo.build(VALUES | {"vocab_size": len(words)}, seed=3), path, "mamba2", extra=extra)
    write_tokenizer(path, words)
    return path


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of a small corpus that stands for the house's own."""
    text = write_text_folder(tmp_path / "text")
    monkeypatch.setattr(target, "CORPUS", {"kind": "text", "path": str(text)})
    monkeypatch.chdir(tmp_path)
    parts = {w for path in text.rglob("*") if path.is_file() for w in path.read_text(errors="ignore").replace("_", " ").split()}
    split = tokenizers.pre_tokenizers.Whitespace()
    return ["<end>", *sorted({piece for word in parts for piece, _ in split.pre_tokenize_str(word)})]


def test_measured_as_it_is(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody says data or training length: they are assumed, and told; nothing is written into its folder."""
    folder = foreign(tmp_path / "mamba2-130m", words)
    before = sorted(os.listdir(folder))
    sizes = ["recall.sizes=[[16,2]]", "recall.examples=4", "train_length=24", "collapse.times=4", "collapse.documents=2"]
    assert run(["measure", "./mamba2-130m", "recall", "collapse", *sizes]) == 0
    out = capsys.readouterr().out
    assert f"data.tokenizer={folder.name}/tokenizer.json" in out
    assert "of collapse: prompt=joined documents=4 (KEY=VALUE)" in out
    assert sorted(os.listdir(folder)) == before
    kept = tmp_path / "runs" / "mamba2-130m" / "measures"
    assert {path.name for path in kept.iterdir()} == {"recall.json", "collapse.json", "measures.html"}
    rows = json.loads((kept / "collapse.json").read_text())
    assert rows["of"]["config"]["prompt"] == "joined"
    assert rows["of"]["changes"]["weights"]["place"] == str(folder)
    assert run(["import", "mamba2-130m", "--out", "imported"]) == 0
    assert run(["measure", "imported", "recall", "collapse", *sizes]) == 0
    assert json.loads((tmp_path / "imported" / "measures" / "collapse.json").read_text())["rows"] == rows["rows"]


def test_rows_of_other_weights_are_not_taken(tmp_path: Path, words: list[str]) -> None:
    sizes = ["recall.sizes=[[16,2]]", "recall.examples=8"]
    for seed, name in ((3, "a"), (4, "b")):
        export_folder(zoo.build(VALUES | {"vocab_size": 20}, seed=seed), tmp_path / name, "mamba2")
        assert run(["measure", name, "recall", *sizes, "--out", "rows"]) == 0
        rows = json.loads((tmp_path / "rows" / "measures" / "recall.json").read_text())
        assert rows["of"]["changes"]["weights"]["place"] == str(tmp_path / name)


def test_a_length_is_assumed(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(target, "LENGTH", 24)
    foreign(tmp_path / "hf", words)
    assert run(["measure", "hf", "collapse", "times=4", "documents=2", "--out", "rows"]) == 0
    assert "assumed: training sequences of 24 tokens (train_length=N)" in capsys.readouterr().out
    kept = json.loads((tmp_path / "rows" / "measures" / "collapse.json").read_text())["of"]
    assert (kept["config"]["train_length"], kept["changes"]["data"]["length"]) == (24, 24)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["collapse"], "holds no tokenizer.json, and 20 ids are no bytes"),
        (["collapse", "data.kind=text", "data.path=text"], "holds no tokenizer.json, and 20 ids are no bytes"),
        (["recall", "recall.sizes=[[16,2]]", "--out", "hf/config.json/x"], "rows can't be written here"),
    ],
)
def test_where_it_can_not(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    export_folder(zoo.build(VALUES | {"vocab_size": 20}), tmp_path / "hf", "mamba2")
    assert run(["measure", "hf", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_generated_as_it_is(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From the folder, from a hub id, and from what was imported: the same text. config.json alone says what ends it."""
    folder = foreign(tmp_path / "hf", words, eos_token_id=0)
    assert coder_of(folder, len(words)).ends == {0}
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    assert run(["import", "owner/name", "--out", "imported"]) == 0
    capsys.readouterr()
    said = []
    for path in ("hf", "owner/name", "imported"):
        assert run(["generate", path, "--prompt", words[3], "--max-tokens", "6", "--seed", "2"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0].startswith(words[3])
    assert len(set(said)) == 1


def test_a_users_own_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Out as the zoo's own class; in again only where the user names the plugin: a file has nothing imported."""
    import sys

    source = "from tests.train import fakes\nclass Leaky(fakes.Leaky):\n    pass\n"
    (tmp_path / "my_own_blocks.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    values = {
        "d_model": 16,
        "vocab_size": 24,
        "plugins": ["my_own_blocks"],
        "blocks": {"L": {"type": "my_own_blocks.Leaky"}},
        "pattern": "L",
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(values))
    model = zoo.build(values, seed=3).eval()
    save_weights(model, tmp_path / "run" / "model.safetensors")
    assert run(["export", "run", "--out", "hf"]) == 0
    assert "import zoo.hf" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_own_blocks")
    assert run(["import", "hf", "--out", "again"]) == 2
    assert "--plugin my_own_blocks" in capsys.readouterr().err
    assert "my_own_blocks" not in sys.modules
    assert run(["measure", "hf", "recall", "--plugin", "nowhere_at_all"]) == 2
    assert "can't be imported" in capsys.readouterr().err
    assert run(["import", "hf", "--out", "again", "--plugin", "my_own_blocks"]) == 0
    tokens = torch.arange(10)[None]
    assert torch.equal(zoo.load("again")(tokens)[0], model(tokens)[0])
    assert torch.equal(zoo.load("hf")(tokens)[0], model(tokens)[0])
    monkeypatch.delitem(sys.modules, "my_own_blocks")
