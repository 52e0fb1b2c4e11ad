"""Mamba-2: a selective state space with one decay a head, so that it is a matrix memory (Dao & Gu, arXiv:2405.21060).

    z, x, B, C, dt = W_in u;  x, B, C = silu(conv([x, B, C]))
    dt = clamp(softplus(dt + dt_bias), dt_limit);  a = -dt exp(A_log)
    S_t = exp(a_t) S_{t-1} + B_t (dt_t x_t)^T;  y_t = S_t^T C_t + D x_t
    out = W_out RMSNorm(y silu(z))

c = expand d channels in h = c / head_dim heads; B and C of n = d_state entries are shared by the heads of a group. The
norm is over the channels of a group. `scales` multiply z, x, B, C and dt as projected (Falcon-H1, arXiv:2507.22448).
Parameters: (2 c + 2 groups n + h) d + (conv + 1) (c + 2 groups n) + 3 h + c + c d, 6.29 d^2 with the defaults at
d = 1024. State: c n numbers and the convolution's last inputs.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.forgetting import Bounded
from blocks.parts import RMSNorm, ShortConv, linear_flops, mask, residual_linear, step_bias
from kernels.conv import flops as conv_flops
from kernels.dtypes import wide


@dataclass(frozen=True, kw_only=True)
class Config(Bounded):
    paper: ClassVar[str] = "Mamba-2, arXiv:2405.21060"

    d_state: int = 128  # entries of B and C, rows of a head's state
    head_dim: int = 64  # channels of a head
    expand: float = 2.0  # channels of all heads, in multiples of d_model
    n_heads: int | None = None  # heads; null: expand d_model / head_dim
    n_groups: int = 1  # groups of heads, each with a B and C of its own
    conv: int = 4  # taps of the short convolution of x, B and C: tokens that it reads, the current one included
    conv_bias: bool = True  # a bias in the convolution
    bias: bool = False  # biases in W_in and W_out
    dt_min: float = 1e-3  # lower end of the range in which the step sizes dt begin, log-uniformly
    dt_max: float = 1e-1  # upper end of that range
    dt_floor: float = 1e-4  # no dt begins below this
    dt_limit: tuple[float, float] = (0.0, math.inf)  # smallest and largest dt, at any time
    a_range: tuple[float, float] = (1.0, 16.0)  # range in which exp(A_log), the decay rate, begins, uniformly
    norm: str = "after_gate"  # place of the RMS norm: after_gate | before_gate | none (Falcon-H1, arXiv:2507.22448)
    norm_eps: float = 1e-5  # added to the mean square under the root of the norm
    scales: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)  # factors of z, x, B, C and dt as projected (Falcon-H1)

    def check(self, d_model: int) -> None:
        super().check(d_model)
        c = self.inner(d_model)
        require(self.d_state >= 1, "d_state", self.d_state, "must be at least 1")
        require(self.n_heads is None or self.n_heads >= 1, "n_heads", self.n_heads, "must be at least 1")
        require(c >= 1, "expand", self.expand, f"must give at least one channel at d_model {d_model}")
        require(
            self.head_dim >= 1 and c % self.head_dim == 0, "head_dim", self.head_dim, f"must divide expand * d_model = {c}", divisors(c)
        )
        heads = c // self.head_dim
        require(
            self.n_groups >= 1 and heads % self.n_groups == 0, "n_groups", self.n_groups, f"must divide the {heads} heads", divisors(heads)
        )
        require(self.conv >= 2, "conv", self.conv, "must be at least 2 taps")
        require(0 < self.dt_min <= self.dt_max, "dt_min", self.dt_min, f"must be above 0 and at most dt_max = {self.dt_max}")
        require(self.dt_floor > 0, "dt_floor", self.dt_floor, "must be above 0")
        require(0 <= self.dt_limit[0] < self.dt_limit[1], "dt_limit", self.dt_limit, "must be an interval of numbers >= 0")
        require(0 < self.a_range[0] <= self.a_range[1], "a_range", self.a_range, "must be an interval of numbers above 0")
        one_of("norm", self.norm, ("after_gate", "before_gate", "none"))
        require(self.norm_eps > 0, "norm_eps", self.norm_eps, "must be above 0")

    def inner(self, d_model: int) -> int:
        """c, the channels of all heads."""
        return int(self.expand * d_model) if self.n_heads is None else self.n_heads * self.head_dim

    def resolved(self, d_model: int) -> "Config":
        start = Config()  # where training starts says nothing of what is computed
        plain = replace(self, dt_min=start.dt_min, dt_max=start.dt_max, dt_floor=start.dt_floor, a_range=start.a_range)
        plain = replace(plain, n_heads=self.inner(d_model) // self.head_dim, expand=start.expand)
        return plain if self.norm != "none" else replace(plain, norm_eps=start.norm_eps)

    def cost(self, d_model: int, length: int) -> Cost:
        c, n, groups, p = self.inner(d_model), self.d_state, self.n_groups, self.head_dim
        h, channels = c // p, c + 2 * groups * n
        matrices = d_model * (c + channels + h) + c * d_model
        linear = linear_flops(length, 1, matrices)
        biases = self.conv_bias * channels + self.bias * (c + channels + h + d_model)
        return self.recall_cost(length, h, n, p, gate="scalar", groups=groups) + Cost(
            params=matrices + self.conv * channels + biases + 3 * h + (0 if self.norm == "none" else c),
            flops=linear + conv_flops(length, channels, self.conv),
            executed_flops=linear,
            state_bytes=4 * (self.conv - 1) * channels,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor  # (b, conv - 1, c + 2 groups n) float32: the last inputs of the convolution
    ssm: Tensor  # (b, h, n, head_dim) float32
    recent: Tensor | None = None  # (b, r, groups n + c + h) float32: the last r keys, values and log decays; None = without state_window


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        c, channels = config.inner(d_model), config.inner(d_model) + 2 * config.n_groups * config.d_state
        h = c // config.head_dim
        self.sizes = [c, channels, h]
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=config.bias)  # z, x, B, C, dt
        self.conv = ShortConv(channels, config.conv, bias=config.conv_bias)
        self.dt_bias = nn.Parameter(step_bias(h, config.dt_min, config.dt_max, config.dt_floor))
        self.A_log = nn.Parameter(torch.empty(h).uniform_(*config.a_range).log())
        self.D = nn.Parameter(torch.ones(h))
        self.norm = RMSNorm(c, eps=config.norm_eps, groups=config.n_groups) if config.norm != "none" else None
        self.out_proj = residual_linear(c, d_model, n_layers, bias=config.bias)
        if config.bias:
            nn.init.zeros_(self.in_proj.bias)
            nn.init.zeros_(self.out_proj.bias)

    def forward(self, u: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        z, mixed, dt = self._projected(u).split(self.sizes, -1)
        conv, ssm, recent = (None, None, None) if state is None else state
        mixed, conv = self.conv(mixed, conv, ctx)
        groups, n = self.config.n_groups, self.config.d_state
        x, B, C = mixed.split([z.shape[-1], groups * n, groups * n], -1)
        x, B, C = x.unflatten(-1, (-1, self.config.head_dim)), B.unflatten(-1, (groups, n)), C.unflatten(-1, (groups, n))
        dt, a = self.gates(dt, ctx)
        y, ssm, recent = self.config.recall(C, B, dt[..., None] * x, a, ssm, recent, ctx)
        y = (y + self.D[:, None] * x).flatten(2)
        return self.out_proj(self._gated(y, z).to(u.dtype)), State(conv, ssm, recent)

    def _projected(self, u: Tensor) -> Tensor:
        """z, x, B, C and dt, scaled."""
        projected, config = self.in_proj(u), self.config
        if config.scales == Config.scales:
            return projected
        c, _, h = self.sizes
        parts = projected.split([c, c, config.n_groups * config.d_state, config.n_groups * config.d_state, h], -1)
        return torch.cat([part * scale for part, scale in zip(parts, config.scales, strict=True)], -1)

    def gates(self, dt: Float[Tensor, "b t h"], ctx: Context) -> tuple[Float[Tensor, "b t h"], Float[Tensor, "b t h"]]:
        """From dt as projected: the write strength dt and the log decay a, both 0 at padding."""
        dt = F.softplus(wide(dt) + self.dt_bias).clamp(*self.config.dt_limit)
        dt = mask(dt, ctx)
        return dt, self.config.retained(-dt * wide(self.A_log).exp(), ctx)

    def _gated(self, y: Tensor, z: Tensor) -> Tensor:
        """y silu(z), with the norm where the config wants it."""
        gate = F.silu(wide(z))
        if self.norm is None:
            return y * gate
        return self.norm(y * gate) if self.config.norm == "after_gate" else self.norm(y) * gate
