"""`zoo list models`: what the ledger says of every model, at any length, without building one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from train.cli import configs, models
from train.cli.command_line import run
from zoo.config.model import load_model
from zoo.convert import families
from zoo.ledger.ledger import ledger

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "configs" / "models" / "published"


def test_every_model_has_its_parameters_and_its_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "__init__", lambda self: pytest.fail("a module was built"))
    rows = models.rows()
    folders = [ROOT / "configs" / "models", PUBLISHED]
    assert [row["path"] for row in rows] == [str(p.relative_to(ROOT)) for folder in folders for p in sorted(folder.glob("*.yaml"))]
    parameters = {Path(row["path"]).stem: row["parameters"] for row in rows}
    assert (parameters["llama3_8b"], parameters["mamba2_2b7"], parameters["gpt2_small"]) == (8_030_261_248, 2_702_599_680, 124_439_808)
    assert {Path(row["path"]).stem: row["oracle"] for row in rows if row["oracle"]} == families.of_models()


def test_published_counts_stand_beside_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "{d_model: 24, vocab_size: 64, blocks: {A: {type: gqa, n_heads: 4}}, pattern: A"
    counts = {"exact": 3888, "rounded": "3.9K", "apart": 4000, "other": "4.0K", "none": None}
    folder = tmp_path / "models"
    folder.mkdir()
    for name, count in counts.items():
        apart = ", apart: {mtp: 112}" if name == "apart" else ""
        known = "" if count is None else f", published: {{parameters: {count}, source: here{apart}}}"
        (folder / f"{name}.yaml").write_text(f"{model}{known}}}\n")
    monkeypatch.setattr(configs, "CONFIGS", tmp_path)
    published = {Path(row["path"]).stem: row["published"] for row in models.rows()}
    assert {name: row["agrees"] for name, row in published.items() if row} == {
        "exact": True,
        "rounded": True,
        "apart": True,
        "other": False,
    }
    assert published["none"] is None
    assert published["apart"] == {
        "parameters": 4000,
        "source": "here",
        "config": None,
        "apart": {"mtp": 112},
        "differs": None,
        "agrees": True,
    }
    models.show(models.rows(), None)
    words = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    shown = {"exact": ["exact"], "rounded": ["=", "3.9K"], "apart": ["exact"], "other": ["not", "4.0K"], "none": []}
    assert {name: words[name] for name in counts} == {name: ["3.89K", *cells] for name, cells in shown.items()}


def test_costs_are_the_ledgers() -> None:
    llama = load_model(PUBLISHED / "llama3_8b.yaml")
    at = ledger(llama, 4096)
    cache = 2 * 32 * 8 * 128 * 4  # keys and values, layers, key heads, their width, float32
    assert models._costs(llama, 4096) == {
        "flops_per_token": round(at.flops / 4096),
        "state_bytes": at.state_bytes,
        "state_bytes_per_token": cache,
    }
    assert at.state_bytes == 4096 * cache + 8  # and the position


def test_a_recurrence_costs_the_same_at_every_length_and_holds_the_same() -> None:
    mamba = load_model(PUBLISHED / "mamba2_2b7.yaml")
    short, long = models._costs(mamba, 1024), models._costs(mamba, 131072)
    assert (short["flops_per_token"], short["state_bytes"]) == (long["flops_per_token"], long["state_bytes"])


def test_learned_positions_end() -> None:
    gpt2 = load_model(PUBLISHED / "gpt2_small.yaml")
    assert models._costs(gpt2, 1024)["state_bytes"] == ledger(gpt2, 1024).state_bytes
    assert set(models._costs(gpt2, 1025).values()) == {None}


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"), (8_654_517_248, "8.65 GB")],
)
def test_sizes_read_well(number: int | None, text: str) -> None:
    assert models._short(number, "B") == text


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "models" / "published"
    folder.mkdir(parents=True)
    for name in ("mamba2_2b7", "samba_421m"):
        (folder / f"{name}.yaml").write_text((PUBLISHED / f"{name}.yaml").read_text())
    monkeypatch.setattr(configs, "CONFIGS", tmp_path / "configs")
    assert run(["list", "models", "--length", "64", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert [(row["oracle"], row["parameters"]) for row in rows] == [("mamba2", 2_702_599_680), (None, 421_793_280)]
    assert rows[1]["state_bytes"] == ledger(load_model(PUBLISHED / "samba_421m.yaml"), 64).state_bytes
    assert run(["list", "models", "--length", "64"]) == 0
    assert "float32" in capsys.readouterr().out
    assert run(["list", "models", "--json"]) == 0
    keys = {"path", "parameters", "active_parameters", "published", "oracle", "summary"}
    assert set(json.loads(capsys.readouterr().out)["models"][0]) == keys


@pytest.mark.parametrize("argv", [["list", "models", "--length", "0"], ["list", "blocks", "--length", "8"]])
def test_a_wrong_length(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 2
    assert "--length" in capsys.readouterr().err


def test_no_compiler_is_imported() -> None:
    """It takes as long as torch itself."""
    program = "import sys; from train.cli import models; models.rows(); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
