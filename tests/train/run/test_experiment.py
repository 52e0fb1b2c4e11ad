"""An experiment from its YAML to its report: the plan's numbers, what is refused and how, results.csv and report.html."""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.train.experiments import experiment, finished, write_experiment, write_text_folder
from train.cli.command_line import run
from train.data import open_source
from train.measure.results import ALL, COLUMNS, read
from train.report.page import build_report
from zoo.config.model import load_model
from zoo.ledger.ledger import ledger

RUN_KEYS = {"model", "seed", "params", "flops_train", "tokens", "steps", "part", "state_bytes", "sizes", "mismatch"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_folder(tmp_path_factory.mktemp("data") / "text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment of two seeds."""
    place = tmp_path_factory.mktemp("finished")
    short = {part: {"budget": {"steps": 7}, "train": {"checkpoint_every": 7}} for part in ("recall", "text")}
    out = finished(write_experiment(place, seeds=[0, 1], parts=short), place / "out")
    build_report(out)
    return out


def planned(values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    """What `zoo plan --json` prints."""
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    assert run(["plan", str(path), *overrides, "--json"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.strip().splitlines()) == 1
    found: dict[str, Any] = json.loads(printed)
    return found


# ---- the plan


def test_the_plan_has_the_agreed_keys(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(experiment(text, seeds=[3, 5]), tmp_path, capsys)
    assert [(r["part"], r["model"], r["seed"]) for r in plan["runs"]] == [
        (part, model, seed) for part in ("recall", "text") for model in ("attention", "recurrent") for seed in (3, 5)
    ]
    assert all(r.keys() >= RUN_KEYS for r in plan["runs"])
    assert all(type(r[key]) is int for r in plan["runs"] for key in ("params", "flops_train", "tokens", "steps"))
    assert plan["match"].keys() == {"axis", "reference", "tolerance", "worst"}
    assert 0 < plan["match"]["worst"] <= plan["match"]["tolerance"]
    assert plan["match"]["worst"] == max(abs(r["mismatch"]) for r in plan["runs"])


def test_flops_are_the_ledgers(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batches of 4 rows; recall alternates between rows of 32 and of 16 tokens, text has 24 in each."""
    values = experiment(text)
    for planned_run in planned(values, tmp_path, capsys)["runs"]:
        part = values["parts"][planned_run["part"]]
        hidden = {"hidden": planned_run["sizes"].get("blocks.F.hidden", 32)}
        model = load_model(values["models"][planned_run["model"]]["model"], part.get("set", {}) | {"blocks": {"F": hidden}})
        lengths = [32, 16] if planned_run["part"] == "recall" else [24]
        steps = part["budget"]["steps"]
        read_lengths = [lengths[i % len(lengths)] for i in range(steps)]
        assert planned_run["steps"] == steps
        assert planned_run["tokens"] == 4 * sum(read_lengths)
        assert planned_run["flops_train"] == 4 * sum(ledger(model, n).flops_train for n in read_lengths)
        assert planned_run["params"] == ledger(model, 32).params
        assert planned_run["state_bytes"] == ledger(model, max(lengths)).state_bytes


def test_budgets_become_steps(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of budget on the text part: rows of 24 tokens, 4 a step, 8 with accumulation."""
    values = experiment(text)
    values["parts"] = {"text": values["parts"]["text"]}
    one = planned(values, tmp_path, capsys)["runs"]

    def with_budget(budget: dict[str, float], **train: Any) -> list[dict[str, Any]]:
        part = values["parts"]["text"] | {"budget": budget, "train": values["parts"]["text"]["train"] | train}
        return planned(values | {"parts": {"text": part}}, tmp_path, capsys)["runs"]

    assert [r["steps"] for r in with_budget({"tokens": 960})] == [10, 10]
    assert [r["steps"] for r in with_budget({"tokens": 1000})] == [10, 10]  # the nearest
    assert [r["steps"] for r in with_budget({"tokens": 960}, accumulate=2)] == [5, 5]
    assert [r["steps"] for r in with_budget({"tokens": 1})] == [1, 1]
    budget = 7.3 * 4 * one[0]["flops_sequence"]
    for got, base in zip(with_budget({"flops": budget}), one, strict=True):
        assert got["steps"] == round(budget / (4 * base["flops_sequence"]))
        assert got["flops_train"] == got["steps"] * 4 * base["flops_sequence"]
        assert abs(got["flops_train"] - budget) <= 2 * base["flops_sequence"]


def test_overrides_and_members(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = experiment(text, parts={"text": {"members": ["attention"]}})
    values["models"]["attention"]["train"] = {"text": {"lr": 0.01}}
    plan = planned(values, tmp_path, capsys, "parts.recall.budget.steps=6", "seeds=[2]")
    assert [(r["part"], r["model"]) for r in plan["runs"]] == [("recall", "attention"), ("recall", "recurrent"), ("text", "attention")]
    assert [r["steps"] for r in plan["runs"]] == [6, 6, 20]
    assert [r["lr"] for r in plan["runs"]] == [0.003, 0.003, 0.01]
    assert {r["seed"] for r in plan["runs"]} == {2}


def test_a_plan_trains_nothing(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned(experiment(text), tmp_path, capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["experiment.yaml"]


# ---- what is refused

Change = Callable[[dict[str, Any]], Any]


def put(place: str, value: Any) -> Change:
    """Set a key of the experiment."""

    def change(values: dict[str, Any]) -> None:
        *path, last = place.split("/")
        for key in path:
            values = values[key]
        values[last] = value

    return change


RECALL, READING, RECURRENT = "parts/recall/", "parts/text/", "models/recurrent/"

# what is wrong -> (change, what the message must say: place, value, rule or alternatives)
WRONG: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (put("sedes", [0]), ["sedes:", "did you mean seeds?"]),
    "unknown key of a part": (put(RECALL + "messures", {}), ["parts.recall.messures:", "did you mean measures?"]),
    "unknown key of a model": (put(RECURRENT + "varry", []), ["models.recurrent.varry:", "did you mean vary?"]),
    "unknown key of the training": (put(READING + "train/momentum", 0.9), ["parts.text.train.momentum:", "Keys:"]),
    "unknown key of the data": (put(READING + "data/lenght", 9), ["parts.text.data.lenght:", "did you mean length?"]),
    "unknown key of a measure": (put(RECALL + "measures/recall/pairs", 4), ["parts.recall.measures.recall.pairs:", "Keys:"]),
    "unknown measure": (put(RECALL + "measures", {"recal": {}}), ["parts.recall.measures.recal.measure = 'recal'", "Measures:", "recall"]),
    "unknown model path": (put(RECURRENT + "model", "nowhere.yaml"), ["models.recurrent.model = 'nowhere.yaml'", "no such file"]),
    "unknown block": (put(RECURRENT + "model/blocks/R", {"type": "linear_attn"}), ["models.recurrent.blocks.R.type", "did you mean"]),
    "unknown data kind": (put(READING + "data", {"kind": "txt"}), ["parts.text.data.kind = 'txt'", "kinds: text"]),
    "unknown axis": (put("match/axis", "time"), ["match.axis = 'time'", "flops, params, state"]),
    "unknown reference": (put("match/reference", "transformer"), ["match.reference = 'transformer'", "attention"]),
    "reference takes no part": (put(READING + "members", ["recurrent"]), ["match.reference = 'attention'", "none of the models"]),
    "unknown member": (put(READING + "members", ["mamba"]), ["parts.text.members = 'mamba'", "Models: attention, recurrent"]),
    "training of an unknown part": (put(RECURRENT + "train", {"texts": {}}), ["models.recurrent.train = 'texts'", "Parts: recall, text"]),
    "budget with two keys": (put(RECALL + "budget", {"steps": 5, "tokens": 99}), ["parts.recall.budget", "exactly one of"]),
    "budget without keys": (put(RECALL + "budget", {}), ["parts.recall.budget", "exactly one of"]),
    "budget of nothing": (put(RECALL + "budget", {"flops": 0}), ["parts.recall.budget.flops", "above 0"]),
    "repeated seeds": (put("seeds", [1, 2, 1]), ["seeds = [1, 2, 1]", "different"]),
    "no seeds": (put("seeds", []), ["seeds = []"]),
    "no models": (put("models", {}), ["models = {}", "at least one"]),
    "no parts": (put("parts", {}), ["parts = {}", "at least one"]),
    "a name that is no folder": (put("name", "../other"), ["name = '../other'", "names a folder"]),
    "negative seed": (put("seeds", [-1]), ["seed = -1"]),
    "small vocabulary": (put(RECALL + "set", {"vocab_size": 32}), ["models.attention.vocab_size = 32", "ids up to 63", "vocab_size: 64"]),
    "measure needs documents": (put(RECALL + "measures", {"loss": {}}), ["parts.recall.measures.loss.measure = 'loss'", "generated task"]),
    "documents too short": (put(READING + "measures/collapse/times", 99), ["parts.text.measures.collapse", "longest document has"]),
    "passkey in too few ids": (put(RECALL + "measures", {"passkey": {}}), ["parts.recall.measures.passkey.form", "needs a model of bytes"]),
    "impossible recall": (put(RECALL + "measures/recall/sizes", [[16, 60]]), ["parts.recall.measures.recall.pairs = 60"]),
    "text that is not there": (put(READING + "data/path", "nowhere"), ["parts.text.data.path = 'nowhere'", "no such file or folder"]),
    "no match with that key": (put(RECURRENT + "vary", ["blocks.G.hidden"]), ["match.vary.recurrent", "no block 'G'"]),
    "no match possible": (put("match/tolerance", 1e-6), ["match.vary.recurrent", "can't bring flops within", "nearest:"]),
}


def assert_one_message(printed: Any, words: list[str]) -> None:
    assert printed.out == ""
    assert printed.err.startswith("zoo: ")
    assert len(printed.err.strip().splitlines()) == 1
    assert [w for w in words if w not in printed.err] == [], printed.err


@pytest.mark.parametrize("case", WRONG)
def test_one_message_and_nothing_begun(case: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, (change, words) = experiment(text), WRONG[case]
    change(values)
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    for command in (["plan", str(path)], ["run", str(path), "--out", str(tmp_path / "out")]):
        assert run(command) == 2
        assert_one_message(capsys.readouterr(), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeds", ["seeds:", "key=value"]),
        ("partz.text.budget.steps=3", ["partz:", "did you mean parts?"]),
        ("parts.text.budget.steps=many", ["parts.text.budget.steps = 'many'", "a whole number"]),
        ("match.tolerance=[", ["match.tolerance = '['", "not valid YAML"]),
        ("parts.text.train.lr=-1", ["parts.text.train.lr = -1", "above 0"]),
    ],
)
def test_wrong_overrides(override: str, words: list[str], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment(text)))
    assert run(["plan", str(path), override]) == 2
    assert_one_message(capsys.readouterr(), words)


def test_what_is_finished_survives_a_wrong_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong YAML beside a finished folder, and one that is right but another experiment: nothing that was there is lost."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yaml_path = folder.parent / "tiny.yaml"
    assert run(["run", str(yaml_path), "seeds=[0,0]", "--out", str(folder)]) == 2
    assert_one_message(capsys.readouterr(), ["seeds = [0, 0]"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# ---- results and report


def test_results_are_tidy_and_complete(folder: Path) -> None:
    with (folder / "results.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0][:10] == ["experiment", "model", "seed", "measure", "condition", "metric", "value", "low", "high", "n"]
    assert lines[0] == list(COLUMNS)
    records = read(folder / "results.csv")
    assert {r.seed for r in records} == {"0", "1", ALL}
    assert {(r.part, r.measure) for r in records} == {
        (part, measure)
        for part, measures in (("recall", ["recall"]), ("text", ["loss", "collapse"]))
        for measure in [*measures, "training"]
    }
    keys = [(r.part, r.model, r.seed, r.measure, r.condition, r.metric) for r in records]
    assert len(set(keys)) == len(keys)
    for r in records:
        if r.seed == ALL:
            mine = [o.value for o in records if o.seed != ALL and (o.part, *o[1:2], *o[3:6]) == (r.part, *r[1:2], *r[3:6])]
            assert r.n == len(mine)
            if all(abs(v) < float("inf") for v in mine):
                assert r.value == pytest.approx(sum(mine) / len(mine))


def test_results_hold_no_timings(folder: Path) -> None:
    words = (folder / "results.csv").read_text().lower()
    assert not [w for w in ("second", "tokens_per_s", "gflops", "time=") if w in words]


class Loads(HTMLParser):
    """Everything that a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object", "embed", "img", "video", "audio", "base"):
            self.found.append(tag)
        for name, value in attrs:
            local = value is None or value.startswith(("#", "data:"))
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster") and not local:
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_report_is_one_file_that_loads_nothing(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    parser = Loads()
    parser.feed(page)
    assert parser.found == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page)
    assert page.count("<svg") == 4  # recall, loss by position, and the training of each part
    assert "Which of the two recalls?" in page


def test_the_reports_numbers_are_in_results(folder: Path) -> None:
    parser = Loads()
    parser.feed((folder / "report.html").read_text())
    shown = {word.strip() for word in parser.words}
    for record in read(folder / "results.csv"):
        if record.seed == ALL and record.metric == "accuracy" and record.measure == "recall":
            half = (record.high - record.low) / 2 * 100
            assert f"{record.value * 100:.3g} ±{half:.3g}" in shown
        if record.seed == ALL and record.measure == "loss" and record.metric == "bits_per_byte":
            assert f"{record.value:.3g} ±{(record.high - record.low) / 2:.3g}" in shown


def test_the_report_follows_results_and_is_rebuilt_alike(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, table = folder / "report.html", folder / "results.csv"
    page, rows = report.read_bytes(), table.read_bytes()
    report.unlink()
    assert run(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(report)
    assert report.read_bytes() == page
    value = next(r.value for r in read(table) if r.seed == ALL and r.measure == "loss" and r.metric == "bits_per_byte")
    table.write_bytes(rows.replace(repr(value).encode(), b"123.0"))
    try:
        build_report(folder)
        assert "123 ±" in report.read_text()
    finally:
        table.write_bytes(rows)
        report.write_bytes(page)


def test_a_folder_without_results_has_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert_one_message(capsys.readouterr(), ["plan.json", "no such file"])


def test_a_mismatched_folder_is_no_comparison(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "plan.json"
    kept = path.read_bytes()
    plan = json.loads(kept)
    plan["match"]["worst"] = 2 * plan["match"]["tolerance"]
    path.write_text(json.dumps(plan))
    try:
        assert run(["report", str(folder)]) == 2
        assert_one_message(capsys.readouterr(), ["not a comparison"])
    finally:
        path.write_bytes(kept)


def test_every_run_folder_tells_what_it_is(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    for planned_run in plan["runs"]:
        own = folder / planned_run["part"] / f"{planned_run['model']}-seed{planned_run['seed']}"
        summary = json.loads((own / "summary.json").read_text())
        assert summary["status"] == "done"
        assert (summary["steps"], summary["tokens"], summary["flops"], summary["params"]) == tuple(
            planned_run[key] for key in ("steps", "tokens", "flops_train", "params")
        )
        data = yaml.safe_load((own / "config.yaml").read_text())["data"]
        assert open_source(data).fingerprint == plan["data"][planned_run["part"]]["fingerprint"]
