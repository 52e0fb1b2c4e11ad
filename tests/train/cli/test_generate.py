"""`zoo generate`: text as it is drawn, bytes or a tokenizer's, and where it ends."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import yaml

import zoo
from blocks.errors import ConfigError
from train.cli import generate as writing
from train.cli.command_line import run
from zoo.convert.byte_tokenizer import byte_tokenizer
from zoo.convert.checkpoint import export_folder
from zoo.weights.safetensors_io import save_weights

VALUES: dict[str, Any] = {
    "d_model": 16,
    "vocab_size": 256,
    "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}},
    "pattern": "M",
}
WORDS = ["<end>", "the", "gate", "of", "state", "keeps"]


def folder(path: Path, **changes: Any) -> Path:
    model = zoo.build(VALUES | changes)
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(VALUES | changes))
    save_weights(model, path / "model.safetensors")
    return path


def write_tokenizer(path: Path) -> None:
    coder = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.add_special_tokens(["<end>"])
    coder.save(str(path / "tokenizer.json"))


def says(monkeypatch: pytest.MonkeyPatch, tokens: list[int]) -> list[torch.Tensor]:
    """The model says these tokens; what it was asked with is kept."""
    asked: list[torch.Tensor] = []

    def generate(model: zoo.Model, prompt: torch.Tensor, **_: Any) -> Iterator[torch.Tensor]:
        asked.append(prompt)
        return iter(torch.tensor([t]) for t in tokens)

    monkeypatch.setattr(writing, "generate", generate)
    return asked


def written(path: Path, prompt: str) -> tuple[list[str], int]:
    shown: list[str] = []
    count = writing.write(path, prompt, shown.append).written
    assert shown.pop(0) == prompt
    return shown, count


def test_bytes_are_shown_as_soon_as_a_character_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = says(monkeypatch, [*"aé".encode(), 0xC3, 0, 65])
    assert written(folder(tmp_path), "ß") == (["a", "", "é", "", "\N{REPLACEMENT CHARACTER}"], 5)  # byte 0 ends the text
    assert asked[0].tolist() == [[0, 0xC3, 0x9F]]


def test_a_tokenizer_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, vocab_size=8)
    write_tokenizer(tmp_path)
    asked = says(monkeypatch, [1, 2, 0, 3])
    assert written(tmp_path, "state keeps")[0] == [" the", " gate", "", " of", ""]
    assert asked[0].tolist() == [[4, 5]]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0]}))
    assert "".join(written(tmp_path, "state keeps")[0]) == " the gate"


def test_a_character_of_several_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a byte-level tokenizer: shown when it is whole, and what is left of one at the end."""
    folder(tmp_path, vocab_size=257)
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_tokenizer() | {"truncation": None}))
    says(monkeypatch, [*"é".encode(), 0xF0, 0x9F])
    shown, _ = written(tmp_path, "a ")
    assert shown[:2] == ["", "é"]
    assert "".join(shown) == "é\N{REPLACEMENT CHARACTER}"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "generate",
        str(folder(tmp_path / "a")),
        "--prompt",
        "The ",
        "--max-tokens",
        "12",
        "--top-k",
        "9",
        "--top-p",
        "0.9",
        "--seed",
        "3",
    ]
    assert run(asked) == 0
    first = capsys.readouterr()
    assert first.out.startswith("The ")
    assert re.fullmatch(r"read 5 tokens, [\d,.]+ a second; wrote \d+ tokens(, [\d,.]+ a second)?\n", first.err)
    assert run(asked) == 0
    assert capsys.readouterr().out == first.out
    export_folder(zoo.load(tmp_path / "a"), tmp_path / "hf")
    assert run(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    assert run(["generate", str(tmp_path / "b"), *asked[2:]]) == 0
    assert capsys.readouterr().out == first.out
    monkeypatch.setattr("sys.stdin", io.StringIO("The "))
    assert run([*asked[:3], "-", *asked[4:]]) == 0
    assert capsys.readouterr().out == first.out
    assert run([*asked, "--temperature", "-1"]) == 2


@pytest.mark.parametrize("tokenizer", [False, True])
def test_greedy_is_what_transformers_generates_from_the_exported_folder(
    tokenizer: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own, out = folder(tmp_path / "own", vocab_size=6 if tokenizer else 256, tie_embeddings=False), tmp_path / "out"
    prompt = "state keeps" if tokenizer else "The é"
    if tokenizer:
        write_tokenizer(own)
        (own / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}))
        (own / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    assert run(["export", str(own), "--out", str(out)]) == 0
    capsys.readouterr()
    assert run(["generate", str(own), "--prompt", prompt, "--temperature", "0", "--max-tokens", "9"]) == 0
    coder: Any = AutoTokenizer.from_pretrained(out)
    model: Any = AutoModelForCausalLM.from_pretrained(out)
    asked = coder(prompt if tokenizer else coder.bos_token + prompt, return_tensors="pt")
    ids = model.generate(asked.input_ids, attention_mask=asked.attention_mask, max_new_tokens=9, do_sample=False)
    assert capsys.readouterr().out == coder.decode(ids[0], skip_special_tokens=True) + "\n"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, vocab_size=8)
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        writing.write(tmp_path, "the", print)
    write_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="holds no token"):
        writing.write(tmp_path, "", print)
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "tokenizers", None)
        with pytest.raises(ConfigError, match="pip install"):
            writing.write(tmp_path, "the", print)
    folder(tmp_path, vocab_size=3)
    with pytest.raises(ConfigError, match="more tokens than the model"):
        writing.write(tmp_path, "the", print)
