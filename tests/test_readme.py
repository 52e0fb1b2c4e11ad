"""What the README shows, run: its own block passes the contract, its pattern builds, its Python works."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from tests.train.experiments import write_text_folder
from train.cli.command_line import run

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


def test_the_way_from_hugging_face_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Each file as it is shown but for a smaller text and fewer steps, each command as it is printed."""
    monkeypatch.chdir(tmp_path)
    write_text_folder(Path("text"))
    section = README.split("## From Hugging Face and back")[1].split("\n## ")[0]
    for source in re.findall(r"```(?:yaml|python)\n(.*?)```", section, flags=re.DOTALL):
        Path(re.match(r"# (\w+\.\w+)", source)[1]).write_text(source)  # type: ignore[index]
    values = yaml.safe_load(Path("hybrid.yaml").read_text())
    part = values["parts"]["text"]
    part["data"] = {"path": "text", **{key: value for key, value in part["data"].items() if key != "corpus"}}
    part["budget"]["steps"] = 2
    Path("hybrid.yaml").write_text(yaml.safe_dump(values))
    for line in re.findall(r"^    ((?:zoo|python) .*)", section, flags=re.MULTILINE):
        command, *arguments = shlex.split(line, comments=True)
        if command == "zoo":
            assert run(arguments) == 0, line
        else:
            runpy.run_path(arguments[0])
    said = capfd.readouterr()
    assert "new: 02_G; left: 02_A" in said.err
    assert re.search(r"^The state of.*^\['The state of.*', 'We", said.out, flags=re.DOTALL | re.MULTILINE)
