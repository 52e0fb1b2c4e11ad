"""`zoo bench`: both sides of a comparison, its ratio and verdict, and what a user sees."""

import json
from pathlib import Path

import pytest
import torch

from train.bench import show
from train.bench.case import Case, Target, leaf, training
from train.bench.catalogue import all_cases, chosen
from train.bench.measure import Times, alternate, gemm_rate
from train.bench.run import _result
from train.cli.command_line import run


def case(target: Target, flops: int | None = None) -> Case:
    return Case(
        "sum", "B4", "itself", lambda: training(torch.cumsum, leaf(9), 0), lambda: training(torch.cumsum, leaf(9), 0), target, flops
    )


def test_a_training_step_gives_the_gradients_of_what_asks_for_one() -> None:
    x, y = leaf(3, 4), torch.randn(3, 4)
    torch.manual_seed(1)
    step = training(lambda a, b: (a * b, None), x, y)
    torch.manual_seed(1)
    cotangent = torch.randn(3, 4)
    for _ in range(2):
        (grad,) = step()
        assert torch.equal(grad, cotangent * y)
    assert x.grad is None
    assert torch.equal(leaf(5), leaf(5))


def test_alternating_runs_each_side_as_often() -> None:
    times = alternate(case(Target()), rounds=4)
    assert len(times.ours) == len(times.theirs) == 4
    assert Times([1.0, 2.0, 9.0], [4.0, 6.0, 5.0]).ratio == 2.5
    assert gemm_rate("cpu", 64, 3) > 0


@pytest.mark.parametrize(
    ("target", "kind", "ratio", "met"),
    [
        (Target(equal=2.0), "equal", 2.0, True),
        (Target(equal=2.1), "equal", 2.0, False),
        (Target(limit=0.5), "limit", 0.5, True),
        (Target(limit=0.4), "limit", 0.5, False),
        (Target(), "equal", 2.0, None),
    ],
)
def test_ratio_and_verdict(target: Target, kind: str, ratio: float, met: bool | None) -> None:
    result = _result(case(target, flops=10), [0.1, 0.2, 0.3], [0.4, 0.4, 0.4], kind, 100.0)
    assert (result.ratio, result.met, result.gemm_share) == (pytest.approx(ratio), met, pytest.approx(0.5))


def test_every_case_has_its_own_name_and_a_peer() -> None:
    cases = list(all_cases())
    assert len({c.name for c in cases}) == len(cases)
    assert all(c.peer and c.shape for c in cases)


def test_a_word_that_is_in_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "atention"]) == 2
    assert "atention" in capsys.readouterr().err
    assert [c.name for c in chosen([])] == [c.name for c in all_cases()]
    assert {c.operation for c in chosen(["rms"])} == {"rms norm"}


def test_wrong_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "--clock", "cpu", "--threads", "2"]) == 2
    assert "--threads 1" in capsys.readouterr().err
    assert run(["bench", "--rounds", "1"]) == 2


def test_a_real_comparison_in_its_own_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = next(c.name for c in all_cases() if c.operation == "rms norm" and c.target.equal)
    assert run(["bench", name, "--rounds", "3", "--threads", "1", "--json", "--save", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    (row,) = printed["results"]
    assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ours_ms"])
    assert printed["machine"]["threads"] == 1
    assert (tmp_path / "bench.png").stat().st_size > 5000


def test_lines_say_what_was_missed() -> None:
    result = _result(case(Target(equal=3.0)), [0.1] * 3, [0.2] * 3, "equal", None)
    assert "3x MISSED itself" in show.line(result)
