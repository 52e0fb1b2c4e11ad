"""What the steps of a run cost, exactly, where rows of several lengths take turns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from train.config.run import BudgetConfig
from zoo.config.model import ModelConfig
from zoo.ledger.ledger import ledger


class Spending:
    """Tokens and training FLOPs of whole steps: step i reads `sequences` rows of lengths[i % len(lengths)] tokens."""

    def __init__(self, model: ModelConfig, lengths: Sequence[int], sequences: int) -> None:
        self.sequences = sequences
        self.lengths = tuple(lengths)
        self.sequence_flops = tuple(ledger(model, length).flops_train for length in self.lengths)

    def steps(self, budget: BudgetConfig) -> int:
        """The steps that a budget buys."""
        return budget.steps_for(fmean(self.sequence_flops), fmean(self.lengths), self.sequences)

    def tokens(self, steps: int) -> int:
        """Tokens read by the first `steps` steps."""
        return self.sequences * _sum(self.lengths, steps)

    def flops(self, steps: int) -> int:
        """Forward and backward FLOPs of the first `steps` steps, the ledger's."""
        return self.sequences * _sum(self.sequence_flops, steps)


def _sum(cycle: tuple[int, ...], n: int) -> int:
    rounds, rest = divmod(n, len(cycle))
    return rounds * sum(cycle) + sum(cycle[:rest])
