"""The learning rate: a pure function of the config and the step, so that a resumed run needs no memory of it."""

from __future__ import annotations

import math

from train.config.run import TrainConfig


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
