"""What defines one run: the model, the data, how it is trained, the budget and the seed. Read strictly from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from blocks.errors import ConfigError, one_of, require
from kernels import BACKENDS
from zoo.config.model import ModelConfig, model_mapping, validate
from zoo.config.schema import Prepared, parse, plain

SCHEDULES = ("cosine", "wsd", "constant")
STATES = ("none", "pass", "tbptt", "noise", "fitted")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained."""

    batch_size: int = 32  # sequences read at once
    accumulate: int = 1  # batches a step of the optimiser
    lr: float = 3e-3  # the highest learning rate of the schedule
    betas: tuple[float, float] = (0.9, 0.95)  # of AdamW: decay rates, per step, of the first and second moment
    eps: float = 1e-8  # of AdamW: added to the root of the second moment
    weight_decay: float = 0.1  # of AdamW, times the learning rate; on matrices only: no embeddings, nothing that a block marks no_decay
    warmup: float = 0.05  # share of the steps in which the learning rate rises to lr, 0 to 1
    schedule: str = "cosine"  # cosine | wsd | constant
    decay_share: float = 0.2  # share of the steps in which wsd decays
    final_lr: float = 0.1  # share of lr that is left at the end
    clip: float | None = 1.0  # largest norm of the gradient; null = any
    precision: str = "fp32"  # fp32 | bf16 (autocast; weights, states and optimiser stay float32)
    compile: bool = False  # torch.compile the stack
    device: str = "auto"  # auto | cpu | cuda
    state: str = "none"  # initial state of a sequence: none (empty) | pass (another's final state) | tbptt (the one before it goes on) |
    # noise (h ~ N(0, state_noise^2), everywhere alike) | fitted (h ~ N(mu, sigma^2) of each head's or tensor's final states so far)
    state_share: float = 1.0  # pass, noise, fitted: the share of sequences with such an initial state; the others start empty
    state_noise: float | None = None  # noise: the standard deviation
    state_from: float = 0.0  # share of the steps before the first with initial states; 0.9 = only in the last tenth
    growing_state: str = "refuse"  # of full attention, with pass and tbptt: refuse | restart (anew in every step) | keep
    diverged: float | None = 3.0  # stop when the smoothed loss is this many times its best and above a uniform guess; null = never
    log_every: int = 10  # steps a row of metrics.csv
    checkpoint_every: int = 500  # steps from one checkpoint to the next
    validate_every: int | None = None  # steps from one validation to the next; null = never
    validate_rows: int = 64  # held-out sequences a condition, always the same
    loggers: tuple[Any, ...] = (
        "csv",
        "tensorboard",
    )  # csv = metrics.csv, always there; {class: package.Logger, its arguments}

    @property
    def sequences_per_step(self) -> int:
        return self.batch_size * self.accumulate

    def __post_init__(self) -> None:
        _check_numbers(self)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("precision", self.precision, ("fp32", "bf16"))
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("state", self.state, STATES)
        one_of("growing_state", self.growing_state, ("refuse", "restart", "keep"))
        _check_states(self)
        require(self.diverged is None or self.diverged > 1, "diverged", self.diverged, "must be above 1, or null for never")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "must be above 0, or null for no clipping")
        for entry in self.loggers:
            named = isinstance(entry, str) or (isinstance(entry, Mapping) and isinstance(entry.get("class"), str))
            require(named, "loggers", entry, "must be csv, tensorboard, a class's dotted name, or {class: its name, arguments}")


def _check_numbers(config: TrainConfig) -> None:
    for name in ("batch_size", "accumulate", "log_every", "checkpoint_every", "validate_rows"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "must be at least 1")
    for name in ("warmup", "decay_share", "final_lr", "state_share", "state_from"):
        require(0 <= getattr(config, name) <= 1, name, getattr(config, name), "is a share: 0 to 1")
    for name in ("lr", "eps"):
        require(getattr(config, name) > 0, name, getattr(config, name), "must be above 0")
    require(config.weight_decay >= 0, "weight_decay", config.weight_decay, "must be at least 0")
    require(all(0 <= b < 1 for b in config.betas), "betas", config.betas, "must lie in [0, 1)")
    every = config.validate_every
    require(every is None or every >= 1, "validate_every", every, "must be at least 1, or null for never")


def _check_states(config: TrainConfig) -> None:
    noisy, sigma = config.state == "noise", config.state_noise
    require(noisy or sigma is None, "state_noise", sigma, f"is only of state: noise, not of {config.state}", "null, or state: noise")
    require(not noisy or sigma is not None, "state_noise", sigma, "is needed by state: noise", "for example 0.1; fitted finds its own")
    require(sigma is None or sigma > 0, "state_noise", sigma, "must be above 0", "state: none adds no noise")
    carries, others = config.state != "none", ", ".join(s for s in STATES if s != "none")
    require(carries or config.state_from == 0, "state_from", config.state_from, "means nothing with state: none", f"state: {others}")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """How long a run trains: exactly one of these."""

    flops: float | None = None  # forward and backward, the ledger's
    tokens: float | None = None  # read in training
    steps: int | None = None  # of the optimiser

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        require(len(given) == 1, "", given or None, "needs exactly one of flops, tokens, steps", "for example {flops: 1e15}")
        (name, value), *_ = given.items()
        require(0 < value < float("inf"), name, value, "must be above 0")

    def steps_for(self, flops_train: float, length: float, sequences: int) -> int:
        """The whole number of steps nearest to the budget, at least 1.

        flops_train: forward and backward of one sequence of `length` tokens (means, where lengths are mixed); sequences: a step.
        """
        if self.steps is not None:
            return self.steps
        if self.tokens is not None:
            return max(1, round(self.tokens / (sequences * length)))
        require(flops_train > 0, "flops", self.flops, "this model costs no FLOPs", "use tokens or steps")
        return max(1, round((self.flops or 0) / (sequences * flops_train)))


@dataclass(frozen=True, kw_only=True)
class KernelsConfig:
    """Who computes the operations."""

    backend: str = "auto"  # auto (the fastest that fits) | reference | chunked | triton | fla | mamba_ssm | causal_conv1d
    verify: bool = False  # compare each operation of the first step with its reference, values and gradients; stop if one differs

    def __post_init__(self) -> None:
        one_of("backend", self.backend, BACKENDS)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Prepared):
    """One run, fully decided."""

    name: str  # what reports call it
    model: ModelConfig
    data: dict[str, Any]  # read by train.data
    train: TrainConfig
    budget: BudgetConfig  # what was asked for; what it came to is `steps`, which alone counts
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    seed: int = 0  # of the weights, of dropout, and of the data's order
    steps: int  # of the optimiser; may be left out in YAML where the budget is in steps
    init: str | None = (
        None  # start from these weights, see zoo.weights.transfer: a run, a checkpoint, an imported folder; null = from the seed
    )
    fresh: tuple[str, ...] | None = None  # with init: blocks whose weights come from the seed all the same; null = those that init lacks

    @classmethod
    def prepare(cls, values: Any, place: str) -> Any:
        budget = values.get("budget") if isinstance(values, Mapping) else None
        steps = budget.get("steps") if isinstance(budget, Mapping) else None
        return values if steps is None or values.get("steps") is not None else {**values, "steps": steps}

    def __post_init__(self) -> None:
        require(bool(self.name), "name", self.name, "must not be empty")
        require(0 <= self.seed < 2**31, "seed", self.seed, "must be in [0, 2^31)")
        require(self.steps >= 1, "steps", self.steps, "must be at least 1")
        require(self.fresh is None or self.init is not None, "fresh", self.fresh, "means nothing without init", "init: FOLDER")
        try:
            validate(self.model)
        except ConfigError as error:
            raise error.within("model") from None

    def as_dict(self) -> dict[str, Any]:
        """config.yaml as a plain mapping: every default written out."""
        return {
            "name": self.name,
            "model": model_mapping(self.model),
            "data": plain(self.data),
            "train": plain(asdict(self.train)),
            "kernels": asdict(self.kernels),
            "budget": {key: value for key, value in asdict(self.budget).items() if value is not None},
            "seed": self.seed,
            "steps": self.steps,
            **({"init": self.init, "fresh": plain(self.fresh)} if self.init is not None else {}),
        }


def parse_run(values: Mapping[str, Any]) -> RunConfig:
    """A checked RunConfig from a mapping; a run's config.yaml is one. Raises ConfigError."""
    return parse(RunConfig, values)


def first_difference(old: Any, new: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """The first key, in the old's order, at which two plain mappings differ: (dotted key, old value, new value)."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return None if old == new else (place, old, new)
    for key in [*old, *(k for k in new if k not in old)]:
        inner = f"{place}.{key}" if place else str(key)
        difference = first_difference(old.get(key), new.get(key), inner)
        if difference is not None:
            return difference
    return None
