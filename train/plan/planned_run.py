"""One training run of an experiment as its plan has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from train.config.run import RunConfig
from zoo.weights.transfer import Transfer


@dataclass(frozen=True)
class PlannedRun:
    """One training run, fully decided."""

    part: str
    model: str
    spec: RunConfig
    tokens: int  # read in training
    params: int
    params_non_embedding: int
    flops_train: int  # of the whole run
    flops_sequence: int  # forward and backward of one sequence
    state_bytes: int  # after one training sequence
    sizes: dict[str, int]  # what the match changed
    mismatch: float  # on the match's axis
    measures: dict[str, tuple[str, Any]]  # name -> (type, Config)
    start: Transfer | None = None  # what is taken over from `init`; None: all weights are new

    @property
    def seed(self) -> int:
        return self.spec.seed

    def as_dict(self, data: str) -> dict[str, Any]:
        """One entry of plan.json's runs."""
        train = self.spec.train
        return {
            "part": self.part,
            "model": self.model,
            "seed": self.seed,
            "params": self.params,
            "params_non_embedding": self.params_non_embedding,
            "flops_train": self.flops_train,
            "flops_sequence": self.flops_sequence,
            "state_bytes": self.state_bytes,
            "tokens": self.tokens,
            "steps": self.spec.steps,
            "lr": train.lr,
            "batch_size": train.sequences_per_step,
            "sizes": self.sizes,
            "mismatch": self.mismatch,
            "data": data,
            "start": None if self.start is None else {"init": self.spec.init, "fresh": self.start.fresh, "left": self.start.left},
        }
