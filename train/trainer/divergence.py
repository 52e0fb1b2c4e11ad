"""Stop a run that went wrong: a loss or gradient that is not finite, or a diverging loss; and name the first layer that shows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from train.trainer.checkpoint import Progress

SMOOTHING = 0.95  # of the loss: about the last 20 steps


class TrainingFailed(RuntimeError):
    """A run was stopped because it went wrong. step: the step that did, 0-based; layer: the first module that shows it, if any."""

    def __init__(self, step: int, reason: str, layer: str | None, advice: str) -> None:
        self.step, self.reason, self.layer, self.advice = step, reason, layer, advice
        where = f"; first in {layer}" if layer else ""
        super().__init__(f"step {step}: {reason}{where}. {advice}")


def smooth(progress: Progress, loss: float) -> None:
    """Take in the loss of a step."""
    before = loss if progress.smoothed is None else progress.smoothed
    progress.smoothed = SMOOTHING * before + (1 - SMOOTHING) * loss
    progress.best = progress.smoothed if progress.best is None else min(progress.best, progress.smoothed)


def has_diverged(progress: Progress, multiple: float | None, vocab_size: int) -> bool:
    """Whether the smoothed loss is `multiple` times its best and worse than a uniform guess over the vocabulary, ln(vocab_size)."""
    if multiple is None or progress.smoothed is None or progress.best is None:
        return False
    return progress.smoothed > multiple * progress.best and progress.smoothed > math.log(vocab_size)


def first_bad_layer(model: nn.Module, replay: Callable[[], Any]) -> str | None:
    """The module whose output, or else whose gradient, is the first that is not finite when the step is run again; None if all are.

    A path as in `stack.blocks.03_M.in_proj (output)`. Gradients are searched from the end, the way they are computed.
    """
    bad: list[str] = []
    order: list[tuple[str, nn.Module]] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            order.append((name, module))
            if not _finite(_first_tensor(output)):
                bad.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    model.zero_grad(set_to_none=True)
    try:
        with torch.compiler.set_stance("force_eager"):
            replay()
    finally:
        for handle in handles:
            handle.remove()
    if bad:
        return f"{bad[0]} (output)"
    for name, module in reversed(order):
        if not all(_finite(p.grad) for p in module.parameters(recurse=False)):
            return f"{name} (gradient)"
    return None


def _first_tensor(output: Any) -> Tensor | None:
    """What a module computes: y of (y, state)."""
    return next((leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)), None)


def _finite(x: Tensor | None) -> bool:
    return x is None or not x.is_floating_point() or bool(torch.isfinite(x).all())
