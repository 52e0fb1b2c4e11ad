"""What the README shows, run: its own block passes the contract, its pattern builds, its Python works."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import zoo
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
