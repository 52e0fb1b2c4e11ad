"""One training run of an experiment as its plan has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from train.config.run import RunConfig
from zoo.ledger.ledger import Ledger
from zoo.weights.transfer import Transfer


@dataclass(frozen=True)
class PlannedRun:
    """One training run, fully decided."""

    part: str
    model: str
    config: RunConfig
    ledger: Ledger  # of the model at the length of a training sequence
    tokens: int  # read in training
    flops_train: int  # of the whole run
    sizes: dict[str, int]  # what the match changed
    mismatch: float  # on the match's axis
    measures: dict[str, tuple[str, Any]]  # name -> (type, Config)
    transfer: Transfer | None = None  # what is taken over from `init`; None: all weights are new

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def params(self) -> int:
        return self.ledger.params

    @property
    def state_bytes(self) -> int:
        """After one training sequence."""
        return self.ledger.state_bytes

    def as_dict(self, data: str) -> dict[str, Any]:
        """One entry of plan.json's runs. data: the label of its source."""
        train, transfer = self.config.train, self.transfer
        return {
            "part": self.part,
            "model": self.model,
            "seed": self.seed,
            "params": self.params,
            "params_non_embedding": self.ledger.params_non_embedding,
            "flops_train": self.flops_train,
            "flops_sequence": self.ledger.flops_train,
            "state_bytes": self.state_bytes,
            "tokens": self.tokens,
            "steps": self.config.steps,
            "lr": train.lr,
            "batch_size": train.sequences_per_step,
            "sizes": self.sizes,
            "mismatch": self.mismatch,
            "data": data,
            "start": None if transfer is None else {"init": self.config.init, "fresh": transfer.fresh, "left": transfer.left},
            "ledger": self.ledger.as_dict(),
        }
