"""Learning rates and budgets: pure functions with known values."""

import pytest

from blocks.errors import ConfigError
from tests.train.fakes import model_config
from train.config.run import BudgetConfig, TrainConfig
from train.plan.budget import Spending
from train.trainer.lr_schedule import learning_rate
from zoo.config.schema import parse
from zoo.ledger.ledger import ledger


def rates(steps: int, **train: object) -> list[float]:
    config = parse(TrainConfig, {"lr": 1.0, **train})
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_warmup_is_linear_and_never_zero() -> None:
    assert rates(20, warmup=0.2, schedule="constant")[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_no_warmup() -> None:
    assert rates(10, warmup=0.0, schedule="constant") == [1.0] * 10


def test_cosine_starts_at_lr_and_nears_its_end() -> None:
    values = rates(100, warmup=0.0, final_lr=0.1)
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert values == sorted(values, reverse=True)


def test_wsd_is_flat_then_linear() -> None:
    values = rates(10, warmup=0.0, schedule="wsd", decay_share=0.5, final_lr=0.0)
    assert values == pytest.approx([1.0] * 5 + [1.0, 0.8, 0.6, 0.4, 0.2])


def test_all_warmup() -> None:
    assert rates(4, warmup=1.0) == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"steps": 7}, 7), ({"tokens": 1000}, 10), ({"tokens": "1e3"}, 10), ({"tokens": 1}, 1), ({"flops": 5400}, 5), ({"flops": 5600.0}, 6)],
)
def test_budget_buys_the_nearest_steps(budget: dict[str, object], steps: int) -> None:
    assert parse(BudgetConfig, budget).steps_for(flops_train=100, length=10, sequences=10) == steps


@pytest.mark.parametrize("budget", [{}, {"steps": 3, "tokens": 9}, {"steps": 0}, {"flops": -1.0}, {"flops": float("inf")}])
def test_budget_is_exactly_one_positive_number(budget: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="budget"):
        parse(BudgetConfig, budget, "budget")


def test_spending_is_the_ledgers_over_mixed_lengths() -> None:
    model = model_config()
    spending = Spending(model, (8, 20), sequences=3)
    assert [spending.tokens(n) for n in range(4)] == [0, 24, 84, 108]
    assert spending.flops(3) == 3 * (2 * ledger(model, 8).flops_train + ledger(model, 20).flops_train)
    assert spending.steps(BudgetConfig(flops=float(spending.flops(10)))) == 10


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"lr": 0}, "train.lr"),
        ({"warmup": 1.5}, "train.warmup"),
        ({"schedule": "cosin"}, "train.schedule"),
        ({"batch_siz": 3}, "train.batch_siz"),
        ({"betas": [0.9]}, "train.betas"),
        ({"betas": [0.9, 1.0]}, "train.betas"),
        ({"precision": "fp16"}, "train.precision"),
        ({"state": "keep"}, "train.state"),
        ({"accumulate": 0}, "train.accumulate"),
        ({"diverged": 1.0}, "train.diverged"),
        ({"loggers": [3]}, "train.loggers"),
        ({"validate_every": 0}, "train.validate_every"),
    ],
)
def test_wrong_training_names_its_place(change: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TrainConfig, change, "train")
    assert caught.value.place == place
