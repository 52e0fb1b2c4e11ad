"""Options that make a recurrence forget more: the mitigations of state collapse (arXiv:2410.07145), off by default.

    retention, insertion    S_t = c_a diag(exp g_t) S_{t-1} + c_b k_t v_t^T      forget more, remember less; there .9999 and .75
    state_window            the state is that of the last r tokens alone        a sliding window by state difference
    state_norm              a head's state that is longer than p becomes p long (Frobenius norm), after every token

They add no parameter, so that they can also be set on a trained model. Only the memory is changed: what a token gives to its own
output past it (Mamba's D, RWKV's bonus) stays. With a delta rule the write is what brings v in; what it takes out is not scaled.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.parts import mask
from kernels import decay
from kernels.decay.limited import limited
from kernels.decay.window import window
from kernels.dtypes import wide


@dataclass(frozen=True, kw_only=True)
class Forgetting(base.Config):
    """Options of every recurrence with a decay and a write."""

    retention: float | None = None  # factor of every decay, in (0, 1] (arXiv:2410.07145: .9999); null: 1, the decay as it is
    insertion: float | None = None  # factor of everything that is written into the state (arXiv:2410.07145: .75); null: 1

    def check(self, d_model: int) -> None:
        super().check(d_model)
        require(self.retention is None or 0 < self.retention <= 1, "retention", self.retention, "must be in (0, 1]", "or null for none")
        require(self.insertion is None or self.insertion > 0, "insertion", self.insertion, "must be above 0", "or null for none")

    def retained(self, g: Tensor, ctx: Context) -> Tensor:
        """The log decay g (b, t, ...) with `retention`; 0 at padding, as g is."""
        return g if self.retention is None else g + mask(torch.full_like(g, math.log(self.retention)), ctx)

    def retention_alone(self, x: Tensor, heads: int, ctx: Context) -> Tensor | None:
        """The log decay (b, t, heads) of a block that has none of its own; None = 0. x (b, t, ...) gives length and device."""
        if self.retention is None:
            return None
        return self.retained(wide(x).new_zeros(*x.shape[:2], heads), ctx)

    def inserted(self, x: Tensor) -> Tensor:
        """x, a factor of what is written, times `insertion`."""
        return x if self.insertion is None else x * self.insertion


@dataclass(frozen=True, kw_only=True)
class Bounded(Forgetting):
    """Options of the recurrences S_t = diag(exp g_t) S_{t-1} + k_t v_t^T (kernels/decay)."""

    state_window: int | None = None  # latest tokens that the state is made of, all older ones are taken out again; null: no limit
    state_norm: float | None = None  # Frobenius norm of a head's state that is not exceeded (token by token: slow); null: no limit

    def check(self, d_model: int) -> None:
        super().check(d_model)
        require(self.state_window is None or self.state_window >= 1, "state_window", self.state_window, "must be at least 1 token")
        require(self.state_norm is None or self.state_norm > 0, "state_norm", self.state_norm, "must be above 0")
        both = self.state_window is not None and self.state_norm is not None
        rule = "can't go with state_window: a state that was scaled is no sum over tokens"
        require(not both, "state_norm", self.state_norm, rule, "give one of them")

    def recall(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        memory: Tensor | None,
        recent: Tensor | None,
        ctx: Context,
        *,
        bonus: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The memory's answers o (b, t, h, v), the memory and the recent tokens after them; g has its `retention` already."""
        if self.insertion is not None:
            k, bonus = self.inserted(k), None if bonus is None else bonus / self.insertion
        if self.state_window is not None:
            return window(q, k, v, g, memory, recent, size=self.state_window, bonus=bonus, reset=ctx.reset, pads=ctx.pads)
        if self.state_norm is not None:
            return *limited(q, k, v, g, memory, limit=self.state_norm, bonus=bonus, reset=ctx.reset), None
        return *decay.decay(q, k, v, g, memory, bonus=bonus, reset=ctx.reset), None

    def recall_cost(
        self, length: int, heads: int, k: int, v: int, *, gate: decay.Gate, groups: int | None = None, queries: int | None = None
    ) -> Cost:
        """FLOPs and state of `recall`, without parameters; gate as the block has it, without `retention`; queries of all heads
        together, None = one a head or group."""
        gate = "scalar" if gate == "none" and self.retention is not None else gate
        flops, numbers = decay.flops(length, heads, k, v, queries=queries), heads * k * v
        executed = decay.executed_flops(length, queries or heads, k, v, gate=gate, groups=groups)
        if self.state_norm is not None:
            executed = flops
        if self.state_window is not None:
            flops, executed = 2 * flops, 2 * executed
            gates = {"none": 0, "scalar": heads, "vector": heads * k}[gate]
            numbers += self.state_window * ((groups or heads) * k + heads * v + gates)
        return Cost(flops=flops, executed_flops=executed, state_bytes=4 * numbers)
