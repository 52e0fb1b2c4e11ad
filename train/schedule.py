"""Learning rate and number of steps: pure functions of the config and the step, so that a resumed run needs no memory of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blocks.base import require
from train.config import Budget, TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of step 0 <= step < steps.

    Linear warm-up over the first `warmup` share (never 0), then constant, or a cosine down to final_lr * lr (SGDR,
    arXiv:1608.03983), or wsd: constant, and linear down to final_lr * lr over the last `decay_share` (MiniCPM, arXiv:2404.06395).
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return config.lr * _between(config.final_lr, 0.5 + 0.5 * math.cos(math.pi * _progress(step, warm, steps)))
    start = max(warm, steps - round(config.decay_share * steps))
    return config.lr * _between(config.final_lr, 1 - _progress(step, start, steps))


def _progress(step: int, start: int, stop: int) -> float:
    return max(0, step - start) / max(1, stop - start)


def _between(low: float, share: float) -> float:
    return low + (1 - low) * share


@dataclass(frozen=True)
class Plan:
    """What a budget buys."""

    steps: int
    tokens: int  # of the whole run
    flops: int  # of the whole run, forward and backward
    tokens_per_step: int
    flops_per_step: int


def plan(budget: Budget, batch_size: int, length: int, flops_train: int) -> Plan:
    """The whole number of steps nearest to the budget, at least 1. flops_train: of one sequence of `length` tokens (the ledger's)."""
    tokens, flops = batch_size * length, batch_size * flops_train
    require(budget.flops is None or flops > 0, "budget.flops", budget.flops, "this model costs no FLOPs", "use tokens or steps")
    if budget.flops is not None:
        steps = round(budget.flops / flops)
    elif budget.tokens is not None:
        steps = round(budget.tokens / tokens)
    else:
        steps = budget.steps or 1
    steps = max(1, steps)
    return Plan(steps, steps * tokens, steps * flops, tokens, flops)
