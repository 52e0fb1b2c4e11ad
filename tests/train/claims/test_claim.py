"""A claim from its YAML to its verdict: what is refused before the training, verdict.json, the report, the lists and the table."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.errors import ConfigError
from tests.train.experiments import experiment, finished, write_experiment, write_text_folder
from train.claims.config import ClaimConfig, check_claim
from train.claims.scope import Scope, metrics_of
from train.cli import configs
from train.cli.command_line import run
from train.config.experiment import load_experiment
from train.measure.results import ALL, read
from train.plan.claim_scope import attention_share, scope_of
from train.plan.plan import make_plan
from train.report import claims_table
from train.report.claim_text import print_verdict
from train.report.page import build_report
from train.run import experiment as runner
from zoo.config.model import load_model
from zoo.config.schema import parse

CELL = {"part": "recall", "measure": "recall", "metric": "accuracy", "where": {"pairs": 2}}
TRENDED = {"part": "recall", "measure": "recall", "metric": "nll", "where": {"pairs": 2}, "models": ["attention", "recurrent", "small"]}
SMALL = {
    "model": {
        "d_model": 16,
        "vocab_size": 256,
        "blocks": {"R": {"type": "linear_attention", "n_heads": 4}, "F": {"type": "swiglu", "hidden": 32}},
        "pattern": "R F",
    },
    "vary": ["blocks.F.hidden"],
}


def claim() -> dict[str, Any]:
    return {
        "finding": "attention recalls",
        "paper": "arXiv:2312.04927",
        "scaled": "two tiny models",
        "statements": [
            {"text": "attention guesses", "effect": "value", "model": "attention", **CELL, "above": -1},
            {
                "text": "much worse",
                "effect": "difference",
                "of": {"model": "attention", **CELL},
                "minus": {"model": "recurrent"},
                "below": -5,
            },
            {"text": "a trend", "effect": "slope", **TRENDED, "above": -1e6, "below": 1e6},
        ],
    }


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_folder(tmp_path_factory.mktemp("data") / "text")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(YAML, folder) of a trained and measured claim of three models and two seeds, its verdict not yet drawn."""
    place = tmp_path_factory.mktemp("claim")
    parts = {part: {"budget": {"steps": 4}, "train": {"checkpoint_every": 4}, "members": None} for part in ("recall", "text")}
    parts["text"]["members"] = ["attention"]
    path = write_experiment(place, seeds=[0, 1], models={"small": SMALL}, parts=parts, claim=claim())
    return path, finished(path, place / "out")


@pytest.fixture(scope="module")
def folder(done: tuple[Path, Path]) -> Path:
    """The same as `zoo run` leaves it, with all runs done before."""
    path, out = done
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_execute", lambda *_: [])
        runner.run_experiment(load_experiment(path), out)
    build_report(out)
    return out


# ---- what is refused

Change = Callable[[dict[str, Any]], Any]


def put(index: int, **keys: Any) -> Change:
    """Set keys of a statement."""
    return lambda values: values["statements"][index].update(keys)


FIRST, SECOND, THIRD = "claim.statements[0]", "claim.statements[1]", "claim.statements[2]"
LINE = {"text": "t", "effect": "line", "measure": "collapse", "parts": ["text"], "above": 0}
WRONG: dict[str, tuple[Change, list[str]]] = {
    "unknown key of a claim": (lambda c: c.update(findings="x"), ["claim.findings:", "did you mean finding?"]),
    "no statements": (lambda c: c.update(statements=[]), ["claim.statements", "at least one"]),
    "a statement that is no mapping": (lambda c: c.update(statements=["x"]), ["claim.statements"]),
    "no threshold": (lambda c: c["statements"][0].pop("above"), [f"{FIRST}.above", "needs a threshold"]),
    "thresholds the wrong way": (put(0, above=2, below=1), [f"{FIRST}.above = 2", "must be less than below, 1"]),
    "unknown effect": (put(0, effect="mean"), [f"{FIRST}.effect = 'mean'", "Types: value, difference"]),
    "unknown field": (put(0, modle="x"), [f"{FIRST}.modle", "did you mean model?"]),
    "no text": (lambda c: c["statements"][0].pop("text"), [f"{FIRST}.text", "missing"]),
    "unknown part": (put(0, part="recal"), [f"{FIRST}.part = 'recal'", "Parts: recall, text"]),
    "unknown model": (put(0, model="mamba"), [f"{FIRST}.model = 'mamba'", "Models: attention, recurrent"]),
    "unknown measure": (put(0, measure="passkey"), [f"{FIRST}.measure = 'passkey'", "Measures: training, recall"]),
    "unknown metric": (put(0, metric="acc"), [f"{FIRST}.metric = 'acc'", "Metrics: accuracy, exact"]),
    "unknown model of minus": (put(1, minus={"model": "mamba"}), [f"{SECOND}.minus.model = 'mamba'", "Models:"]),
    "unknown key of minus": (put(1, minus={"modle": "mamba"}), [f"{SECOND}.minus.modle", "did you mean model?"]),
    "nothing to subtract": (put(1, minus={}), [f"{SECOND}.minus", "the same cell"]),
    "unknown number": (put(2, over="states"), [f"{THIRD}.over = 'states'", "Numbers: state_bytes, params"]),
    "too few sizes": (put(2, over="d_model"), [f"{THIRD}.over = 'd_model'", "at least 3 different numbers", "[16]"]),
    "unknown model of a trend": (put(2, models=["attention", "x"]), [f"{THIRD}.models[1] = 'x'"]),
    "unknown scale": (put(2, scale="log"), [f"{THIRD}.scale = 'log'", "linear, log2"]),
    "a line of one length": (lambda c: c["statements"].append(LINE), ["claim.statements[3].parts", "different training lengths"]),
    "a line of an unknown part": (lambda c: c["statements"].append({**LINE, "parts": ["x"]}), ["claim.statements[3].parts[0] = 'x'"]),
    "a curve of three sizes": (put(2, effect="fit"), [f"{THIRD}.over", "at least 4"]),
    "unknown parameter": (put(2, effect="fit", curve="line", estimates="b"), [f"{THIRD}.estimates = 'b'", "slope, intercept"]),
}


@pytest.fixture(scope="module")
def names(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Scope:
    """What the claim's experiment has."""
    path = tmp_path_factory.mktemp("names") / "claim.yaml"
    path.write_text(yaml.safe_dump(experiment(text, models={"small": SMALL})))
    plan = make_plan(load_experiment(path))
    return scope_of(plan.runs, {part: source.length for part, source in plan.sources.items()})


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, names: Scope) -> None:
    said, (change, words) = claim(), WRONG[case]
    check_claim(parse(ClaimConfig, said, "claim"), names)
    change(said)
    with pytest.raises(ConfigError) as error:
        check_claim(parse(ClaimConfig, said, "claim"), names)
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_one_message_and_nothing_begun(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = claim()
    put(1, minus={"model": "mamba"})(said)
    path = tmp_path / "claim.yaml"
    path.write_text(yaml.safe_dump(experiment(text, models={"small": SMALL}, claim=said)))
    assert run(["run", str(path), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.strip().splitlines() == [printed.strip()]
    assert f"{SECOND}.minus.model = 'mamba'" in printed
    assert not (tmp_path / "out").exists()


# ---- from the results to the page


def test_the_verdict(folder: Path) -> None:
    verdict = json.loads((folder / "verdict.json").read_text())
    assert (verdict["experiment"], verdict["finding"], verdict["seeds"]) == ("tiny", "attention recalls", [0, 1])
    assert [row["verdict"] for row in verdict["statements"]] == ["holds", "fails", "holds"]
    assert verdict["verdict"] == "fails"
    rows = [r for r in read(folder / "results.csv") if r.model == "attention" and r.metric == "accuracy" and r.condition["pairs"] == 2]
    joined = next(r for r in rows if r.seed == ALL)
    first = verdict["statements"][0]
    assert (first["estimate"], first["low"], first["high"]) == pytest.approx((joined.value, joined.low, joined.high))
    plan = {r["model"]: r["state_bytes"] / 1024 for r in json.loads((folder / "plan.json").read_text())["runs"] if r["part"] == "recall"}
    assert {p["model"]: p["x"] for p in verdict["statements"][2]["picture"]["points"]} == plan
    assert verdict["timing"] == json.loads((folder / "timing.json").read_text())


def test_the_report_begins_with_the_claim(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.index("Claim: fails") < page.index("<h2>recall</h2>")
    assert "attention recalls" in page
    assert page.count("<svg") == 4 + 3  # recall, loss by position, two trainings; and a picture a statement


def test_the_terminal_says_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_verdict(json.loads((folder / "verdict.json").read_text()))
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    for words in ("attention recalls", "arXiv:2312.04927", "above -1", "verdict: fails", "scaled down: two tiny models"):
        assert words in printed


def test_a_second_run_that_trains_nothing_keeps_the_time(folder: Path, done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    timing = folder / "timing.json"
    kept = json.loads(timing.read_text()) | {"seconds": 1234.5}
    timing.write_text(json.dumps(kept))
    monkeypatch.setattr(runner, "_execute", lambda *_: [])
    before = (folder / "results.csv").read_bytes()
    runner.run_experiment(load_experiment(done[0]), folder)
    assert json.loads((folder / "verdict.json").read_text())["timing"]["seconds"] == 1234.5
    assert (folder / "results.csv").read_bytes() == before


def test_the_markdown_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims_table.main([str(folder), "--figures", str(tmp_path / "pictures")]) == 0
    heading, line, row = capsys.readouterr().out.strip().splitlines()
    assert heading.count("|") == line.count("|") == row.count("|")
    assert "**fails**" in row
    assert f"[figure]({tmp_path.as_posix()}/pictures/tiny.png)" in row
    assert (tmp_path / "pictures" / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert claims_table.main([str(tmp_path)]) == 2
    assert "verdict.json" in capsys.readouterr().err


def test_the_list(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths, findings and papers; the verdict of runs/NAME where there is one."""
    monkeypatch.chdir(tmp_path)
    assert run(["list", "claims", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["claims"]
    assert [row["path"] for row in rows] == sorted(f"configs/claims/{path.name}" for path in (configs.CONFIGS / "claims").glob("*.yaml"))
    assert all(row["finding"] and "arXiv:" in row["paper"] for row in rows)
    assert {row["verdict"] for row in rows} == {"not run"}
    ran = tmp_path / "runs" / yaml.safe_load((configs.CONFIGS.parent / rows[0]["path"]).read_text())["name"]
    ran.mkdir(parents=True)
    (ran / "verdict.json").write_bytes((folder / "verdict.json").read_bytes())
    assert next(row["verdict"] for row in configs.claims()) == "fails"


# ---- what the plan knows


def test_the_metrics_that_a_plan_knows_are_those_that_are_measured(folder: Path) -> None:
    """Of the types that this experiment measures; `stale` needs overwritten keys."""
    found: dict[str, set[str]] = {}
    for r in read(folder / "results.csv"):
        found.setdefault(r.measure, set()).add(r.metric)
    assert found["recall"] == set(metrics_of("recall")) - {"stale"}
    assert found["collapse"] == set(metrics_of("collapse"))
    assert found["training"] == set(metrics_of("training"))


def test_attention_share() -> None:
    def share(name: str) -> float:
        return attention_share(load_model(configs.CONFIGS / "models" / f"{name}.yaml"))

    assert (share("transformer"), share("mamba2"), share("sliding_window")) == (1.0, 0.0, 0.0)
    assert 0 < share("mamba2_hybrid") < 1


def test_members_may_share_a_model_and_differ_in_training(text: Path, tmp_path: Path) -> None:
    """Plain and passing: one model, `state: pass` for one of them; their match is trivial and the runs differ in nothing else."""
    values = experiment(text)
    recurrent = values["models"]["recurrent"]["model"]
    passing = {"model": recurrent, "train": {"text": {"state": "pass", "state_share": 0.5}}}
    values |= {"models": {"plain": {"model": recurrent}, "passing": passing}, "parts": {"text": values["parts"]["text"]}}
    values["parts"]["text"] |= {"budget": {"steps": 4}, "measures": {"loss": {"window": 24}}}
    values["match"] = {"axis": "flops", "reference": "plain", "tolerance": 0.01}
    path = tmp_path / "pass.yaml"
    path.write_text(yaml.safe_dump(values))
    plain, passed = sorted(make_plan(load_experiment(path)).runs, key=lambda r: r.model, reverse=True)
    assert (plain.config.train.state, passed.config.train.state, passed.config.train.state_share) == ("none", "pass", 0.5)
    assert plain.config.model == passed.config.model
    assert (passed.mismatch, passed.config.steps, passed.flops_train) == (0.0, plain.config.steps, plain.flops_train)
    out = finished(path, tmp_path / "out")
    losses = {r.model: r.value for r in read(out / "results.csv") if r.measure == "loss" and r.seed == "0" and r.metric == "nll"}
    assert losses["plain"] != losses["passing"]
