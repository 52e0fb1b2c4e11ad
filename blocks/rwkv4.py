"""RWKV-4's time mixer: a decaying average of values, weighted by exponentials of the keys (Peng et al., arXiv:2305.13048).

    x_s = m_s x_t + (1 - m_s) x_{t-1};  s in r, k, v = W_s x_s;  w = exp(decay), u = bonus, a channel each
    wkv_t = (N_{t-1} + exp(u + k_t) v_t) / (D_{t-1} + exp(u + k_t))
    N_t = exp(-w) N_{t-1} + exp(k_t) v_t;  D_t = exp(-w) D_{t-1} + exp(k_t)
    out = W_o (sigmoid(r) wkv)

N and D are held as multiples of exp(p), p_t = max(p_{t-1} - w, k_t), so that nothing overflows; p cancels and has no gradient.
Parameters for c channels: 4 c d + 3 d + 2 c. State: 3 c numbers and the last input.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import require
from blocks.parts import linear_flops, mask, shift
from kernels.dtypes import wide
from kernels.linear_scan import linear_scan
from kernels.running_max import running_max

NOTHING = -1e30  # p of an empty past: exp of it is 0 beside any key


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "RWKV-4, arXiv:2305.13048"

    width: int | None = None  # c, channels of r, k and v; null: d_model

    def check(self, d_model: int) -> None:
        require(self.width is None or self.width >= 1, "width", self.width, "must be at least 1")

    def channels(self, d_model: int) -> int:
        """c, the channels of r, k and v."""
        return d_model if self.width is None else self.width

    def resolved(self, d_model: int) -> "Config":
        return replace(self, width=self.channels(d_model))

    def cost(self, d_model: int, length: int) -> Cost:
        c = self.channels(d_model)
        flops = linear_flops(length, d_model, 4 * c)
        return Cost(params=4 * c * d_model + 3 * d_model + 2 * c, flops=flops, executed_flops=flops, state_bytes=4 * (d_model + 3 * c))

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    shift: Tensor  # (b, 1, d) float32: the last input
    sums: Tensor  # (b, 2 c) float32: N and D over exp(peak)
    peak: Tensor  # (b, c) float32: p


class Block(nn.Module):
    """See the file's docstring. Initially W_o = 0, and with it the output, and W_k = 0, so that all tokens weigh the same."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        c = config.channels(d_model)
        depth, late = layer / max(1, n_layers - 1), 1 - layer / n_layers  # 0 .. 1, 1 .. almost 0
        at = torch.arange(d_model) / d_model
        self.mix_key = nn.Parameter(at**late)  # of the token itself: deeper layers look back less
        self.mix_value = nn.Parameter(at**late + 0.3 * depth)
        self.mix_receptance = nn.Parameter(at ** (0.5 * late))
        self.decay = nn.Parameter(-5 + 8 * (torch.arange(c) / max(1, c - 1)) ** (0.7 + 1.3 * depth))
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(c) + 1) % 3 - 1))
        self.key = nn.Linear(d_model, c, bias=False)
        self.value = nn.Linear(d_model, c, bias=False)
        self.receptance = nn.Linear(d_model, c, bias=False)
        self.output = nn.Linear(c, d_model, bias=False)
        nn.init.orthogonal_(self.value.weight)
        for linear in (self.key, self.receptance, self.output):
            nn.init.zeros_(linear.weight)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        past, sums, peak = (None, None, None) if state is None else state
        before, last = shift(x, past, ctx)
        k, v, r = (
            linear(x * mix + before * (1 - mix))
            for linear, mix in (
                (self.key, self.mix_key),
                (self.value, self.mix_value),
                (self.receptance, self.mix_receptance),
            )
        )
        wkv, sums, peak = self.average(wide(k), wide(v), sums, peak, ctx)
        return self.output(torch.sigmoid(r) * wkv.to(x.dtype)), State(last, sums, peak)

    def average(
        self, k: Float[Tensor, "b t c"], v: Float[Tensor, "b t c"], sums: Tensor | None, peak: Tensor | None, ctx: Context
    ) -> tuple[Float[Tensor, "b t c"], Tensor, Tensor]:
        """wkv, and the state's sums and peak after it."""
        log_decay = mask(-wide(self.decay).exp().expand_as(k), ctx)
        real = k if ctx.padding is None else k.masked_fill(ctx.padding[..., None], NOTHING)
        with torch.no_grad():
            earlier, peaks = running_max(log_decay, real, peak, start=NOTHING, reset=ctx.reset)
        kept, written = log_decay + (earlier - peaks), mask((k - peaks).exp(), ctx)
        inputs = torch.cat([written * v, written], -1)
        after, last = linear_scan(torch.cat([kept, kept], -1), inputs, sums, reset=ctx.reset)
        start = torch.zeros_like(last) if sums is None else sums
        seen = torch.cat([start[:, None].to(after.dtype), after[:, :-1]], 1)
        seen = seen if ctx.reset is None else seen.masked_fill(ctx.reset[..., None], 0)
        now = k + wide(self.bonus)
        highest = torch.maximum(earlier, now).detach()
        old, new = (earlier - highest).exp(), (now - highest).exp()
        n, d = seen.chunk(2, -1)
        return (old * n + new * v) / (old * d + new), last, peaks[:, -1].clone()
