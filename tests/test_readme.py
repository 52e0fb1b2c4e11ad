"""What the README shows, run: its own block passes the contract, its pattern builds, its Python works."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from tests.train.experiments import write_text_folder
from train.cli import run

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_block_of_the_readme_passes_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(text for text in blocks("python") if text.startswith("# my_blocks.py"))
    (tmp_path / "my_blocks.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["check", "my_blocks.Leaky", "--plugin", "my_blocks"]) == 0
    assert capsys.readouterr().out.count("holds") == 8
    values = {"d_model": 16, "vocab_size": 8, "plugins": ["my_blocks"], "blocks": {"L": {"type": "my_blocks.Leaky"}}, "pattern": "2*L"}
    logits, _ = zoo.build(values)(torch.zeros(1, 5, dtype=torch.int64))
    assert logits.shape == (1, 5, 8)


def test_the_pattern_of_the_readme_builds() -> None:
    config = zoo.load_model(yaml.safe_load(blocks("yaml")[0]))
    assert len(config.layers) == 18
    zoo.build(config)


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    source = next(text for text in blocks("python") if text.startswith("import zoo"))
    tokens, more = torch.randint(256, (2, 20)), torch.randint(256, (2, 3))
    names: dict[str, object] = {"tokens": tokens, "more": more}
    exec(source, names)
    assert isinstance(names["model"], zoo.Model)


def test_every_model_config_of_the_house_builds_and_its_ledger_is_true() -> None:
    for path in sorted((Path(__file__).parent.parent / "configs" / "models").rglob("*.yaml")):
        config = zoo.load_model(path)
        with torch.device("meta"):
            model = zoo.Model(config)
        assert model.ledger(64).params == sum(p.numel() for p in model.parameters()), path.name


def test_the_way_from_hugging_face_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    import zoo.hf
    from zoo.interop.byte_tokenizer import write_byte_tokenizer

    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 256}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained("checkpoint")
    write_byte_tokenizer(Path("checkpoint"))
    write_text_folder(Path("text"))
    section = README.split("## From Hugging Face and back")[1].split("\n## ")[0]
    values = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)[0])
    part = values["parts"]["text"]
    part["data"] = {"path": "text", **{key: value for key, value in part["data"].items() if key != "corpus"}}
    part["budget"]["steps"] = 2
    Path("hybrid.yaml").write_text(yaml.safe_dump(values))
    lines = [shlex.split(line, comments=True)[1:] for line in section.splitlines() if line.startswith("    zoo ")]
    for line in lines:
        assert run(line) == 0, line
    said = capsys.readouterr()
    assert "new: 02_G; left: 02_A" in said.err
    assert "The state of" in said.out
    assert isinstance(AutoModelForCausalLM.from_pretrained("hf"), zoo.hf.ZooForCausalLM)
