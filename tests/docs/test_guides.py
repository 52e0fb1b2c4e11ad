"""Each guide, run: its files are written as they are shown (but for fewer steps and seeds), its commands are given in their order."""

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
from train.reference.api import EXAMPLE

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"


def fenced(guide: str, language: str) -> list[str]:
    """The blocks of a guide in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (GUIDES / f"{guide}.md").read_text(), flags=re.DOTALL | re.MULTILINE)


def write_files(guide: str) -> None:
    """Every block that begins with a file's name, in the working directory, with 2 steps and one seed."""
    for text in [*fenced(guide, "yaml"), *fenced(guide, "python")]:
        named = re.match(r"# (\w+\.\w+)", text)
        if named:
            Path(named[1]).write_text(re.sub(r"seeds: .*", "seeds: [0]", re.sub(r"steps: \d+", "steps: 2", text)))


def run_commands(guide: str) -> None:
    """Every zoo and python command of a guide."""
    for line in "".join(fenced(guide, "sh")).splitlines():
        command, *arguments = shlex.split(line, comments=True)
        if command == "zoo":
            assert run(arguments) == 0, line
        elif command == "python":
            runpy.run_path(arguments[0])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_write_an_experiment_and_read_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    write_files("experiment")
    run_commands("experiment")
    assert len(zoo.load_model("pattern.yaml").layers) == 18
    write_files("report")
    run_commands("report")
    assert "hybrid" in capsys.readouterr().out
    folder = Path("runs/mine")
    tree = (GUIDES / "report.md").read_text().split("    runs/mine/\n")[1].split("\n\n")[0]
    names = re.findall(r"^\s+(\w+\.\w+)", tree, flags=re.MULTILINE)
    assert len(names) == 6
    assert all((folder / name).is_file() or (folder / "recall" / "hybrid-seed0" / name).is_file() for name in names)


def test_your_own_text_tokens_and_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    write_text_folder(Path("my_folder"))
    write_files("data")
    run_commands("data")
    assert "ids.bin" in capsys.readouterr().out


def test_add_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write_files("block")
    run_commands("block")
    assert capsys.readouterr().out.count("holds") == 8
    values = {"d_model": 16, "vocab_size": 8, "plugins": ["my_blocks"], "blocks": {"L": {"type": "my_blocks.Leaky"}}, "pattern": "2*L"}
    logits, _ = zoo.build(values)(torch.zeros(1, 5, dtype=torch.int64))
    assert logits.shape == (1, 5, 8)


def test_import_a_checkpoint(capfd: pytest.CaptureFixture[str]) -> None:
    """With a smaller text."""
    write_text_folder(Path("text"))
    write_files("checkpoint")
    values = yaml.safe_load(Path("hybrid.yaml").read_text())
    part = values["parts"]["text"]
    part["data"] = {"path": "text", **{key: value for key, value in part["data"].items() if key != "corpus"}}
    Path("hybrid.yaml").write_text(yaml.safe_dump(values))
    run_commands("checkpoint")
    said = capfd.readouterr()
    assert "new: 02_G; left: 02_A" in said.err
    assert re.search(r"^The state of.*^\['The state of.*', 'We", said.out, flags=re.DOTALL | re.MULTILINE)


def test_use_a_gpu_as_far_as_it_goes_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ["zoo env --fast", "zoo check mamba2 --backend chunked"]:
        assert line in "".join(fenced("gpu", "sh"))
        assert run(shlex.split(line)[1:]) == 0
    assert "holds  chunked" in capsys.readouterr().out
    (keys,) = fenced("gpu", "yaml")
    assert yaml.safe_load(keys) == {"kernels": {"backend": "auto", "verify": True}}


def test_the_python_of_the_api_page_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    exec(EXAMPLE, {})
    assert "did you mean d_state?" in capsys.readouterr().out


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"
