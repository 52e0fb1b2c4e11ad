"""What the README shows, run: its pattern builds, its Python works, its tree is the repository's; every config has a true ledger."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import zoo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_pattern_of_the_readme_builds() -> None:
    config = zoo.load_model(yaml.safe_load(blocks("yaml")[0]))
    assert len(config.layers) == 18
    zoo.build(config)


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    source = next(text for text in blocks("python") if text.startswith("import zoo"))
    tokens, more = torch.randint(256, (2, 20)), torch.randint(256, (2, 3))
    names: dict[str, object] = {"tokens": tokens, "more": more}
    exec(source, names)
    assert isinstance(names["model"], zoo.Model)


def test_every_model_config_of_the_zoo_builds_and_its_ledger_is_true() -> None:
    for path in sorted((ROOT / "configs" / "models").rglob("*.yaml")):
        config = zoo.load_model(path)
        with torch.device("meta"):
            model = zoo.Model(config)
        assert model.ledger(64).params == sum(p.numel() for p in model.parameters()), path.name


def test_the_tree_of_the_readme_is_the_repositorys() -> None:
    tree = README.split("## The folders\n")[1].split("\n\nImports run one way")[0]
    shown, house = set(), ""
    for line in tree.strip("\n").splitlines():
        folders = re.findall(r"(\w+)/", line.split("->")[0])
        if not line.startswith("      "):
            (house,) = folders
        shown |= {house} if not line.startswith("      ") else {f"{house}/{folder}" for folder in folders}
    there = {folder for house in ("zoo", "train") for folder in (ROOT / house).iterdir() if folder.is_dir() and folder.name[0] != "_"}
    assert {name for name in shown if "/" in name} == {str(folder.relative_to(ROOT)) for folder in there}
    assert all((ROOT / name).is_dir() for name in shown)
