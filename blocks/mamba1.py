"""Mamba: a selective state space, one small state vector a channel (Gu & Dao, arXiv:2312.00752).

    x, z = W_in u;  x = silu(conv(x));  dt', B, C = W_x x;  dt = softplus(W_dt dt' + b_dt);  A = -exp(A_log)
    h_t[c] = exp(dt_c A_c) h_{t-1}[c] + dt_c x_c B;  y_c = C . h_t[c] + D_c x_c;  out = W_out (y silu(z))

Falcon-Mamba (arXiv:2410.05355) and Jamba (arXiv:2403.19887) put an RMS norm on each of dt', B and C: see `norm_bcdt`. Zamba
(arXiv:2405.16712) cuts the channels into `n_heads`, each with W_x, W_dt, B and C of its own.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost, no_decay
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.forgetting import Forgetting
from blocks.parts import RMSNorm, ShortConv, linear_flops, mask, residual_linear, step_bias
from kernels import linear_scan as scan
from kernels.conv import flops as conv_flops
from kernels.dtypes import wide


@dataclass(frozen=True, kw_only=True)
class Config(Forgetting):
    paper: ClassVar[str] = "Mamba, arXiv:2312.00752"

    d_state: int = 16  # state entries a channel
    conv: int = 4  # taps of the short convolution: tokens that it reads, the current one included
    expand: float = 2.0  # channels of the state space, in multiples of d_model
    n_heads: int = 1  # heads of channels, each with a dt', B and C of its own (Zamba: 2)
    dt_rank: int | None = None  # width of dt' (of a head); null: d_model / 16, rounded up
    conv_bias: bool = True  # a bias in the convolution
    bias: bool = False  # biases in W_in and W_out
    dt_min: float = 1e-3  # lower end of the range in which the step sizes dt begin, log-uniformly
    dt_max: float = 1e-1  # upper end of that range
    dt_floor: float = 1e-4  # no dt begins below this
    norm_bcdt: str = "none"  # RMS norm of dt', B and C: none | plain (no weight: Falcon-Mamba) | weighted (Jamba)
    norm_eps: float = 1e-6  # added to the mean square under the root of norm_bcdt

    def check(self, d_model: int) -> None:
        super().check(d_model)
        require(self.d_state >= 1, "d_state", self.d_state, "must be at least 1")
        require(self.conv >= 2, "conv", self.conv, "must be at least 2 taps")
        require(self.inner(d_model) >= 1, "expand", self.expand, f"must give at least one channel at d_model {d_model}")
        c = self.inner(d_model)
        require(self.n_heads >= 1 and c % self.n_heads == 0, "n_heads", self.n_heads, f"must divide the {c} channels", divisors(c))
        require(self.rank(d_model) >= 1, "dt_rank", self.dt_rank, "must be at least 1")
        require(0 < self.dt_min <= self.dt_max, "dt_min", self.dt_min, f"must be above 0 and at most dt_max = {self.dt_max}")
        require(self.dt_floor > 0, "dt_floor", self.dt_floor, "must be above 0")
        one_of("norm_bcdt", self.norm_bcdt, ("none", "plain", "weighted"))

    def inner(self, d_model: int) -> int:
        """Channels of the state space."""
        return int(self.expand * d_model)

    def rank(self, d_model: int) -> int:
        """Width of dt'."""
        return -(-d_model // 16) if self.dt_rank is None else self.dt_rank

    def resolved(self, d_model: int) -> "Config":
        start = Config()  # where training starts says nothing of what is computed
        plain = replace(self, dt_rank=self.rank(d_model), dt_min=start.dt_min, dt_max=start.dt_max, dt_floor=start.dt_floor)
        return plain if self.norm_bcdt != "none" else replace(plain, norm_eps=start.norm_eps)

    def cost(self, d_model: int, length: int) -> Cost:
        c, n, r, w = self.inner(d_model), self.d_state, self.rank(d_model), self.conv
        matrices = 3 * d_model * c + c * (r + 2 * n) + r * c
        vectors = (w + self.conv_bias) * c + c + c * n + c + self.bias * (2 * c + d_model)
        norms = r + 2 * n if self.norm_bcdt == "weighted" else 0
        linear = linear_flops(length, 1, matrices)
        return Cost(
            params=matrices + vectors + norms,
            flops=linear + conv_flops(length, c, w) + scan.flops(length, c, n),
            executed_flops=linear + scan.executed_flops(length, c, n),
            state_bytes=4 * ((w - 1) * c + c * n),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor  # (b, taps - 1, c) float32: the last inputs of the convolution
    ssm: Tensor  # (b, c, n) float32


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        c, n, r = config.inner(d_model), config.d_state, config.rank(d_model)
        self.config, self.sizes = config, [r, n, n]
        self.in_proj = nn.Linear(d_model, 2 * c, bias=config.bias)
        self.conv = ShortConv(c, config.conv, bias=config.conv_bias)
        self.x_proj = nn.Linear(c // config.n_heads, config.n_heads * (r + 2 * n), bias=False)  # head after head
        self.dt_proj = nn.Linear(r, c)
        self.A_log = no_decay(nn.Parameter(torch.arange(1.0, n + 1).log().repeat(c, 1)))  # S4D-real
        self.D = nn.Parameter(torch.ones(c))
        self.out_proj = residual_linear(c, d_model, n_layers, bias=config.bias)
        self.norms = nn.ModuleList(_norms(config, self.sizes))
        with torch.no_grad():
            if config.bias:
                self.in_proj.bias.zero_()
                self.out_proj.bias.zero_()
            self.dt_proj.weight.uniform_(-(r**-0.5), r**-0.5)
            self.dt_proj.bias.copy_(step_bias(c, config.dt_min, config.dt_max, config.dt_floor))

    def forward(self, u: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        x, z = self.in_proj(u).chunk(2, -1)
        x, conv = self.conv(x, None if state is None else state.conv, ctx)
        low, B, C = self._by_head(x, self.x_proj.weight).split(self.sizes, -1)
        if self.norms:
            low, B, C = (norm(i) for norm, i in zip(self.norms, (low, B, C), strict=True))
        dt = F.softplus(wide(self._by_head(low.flatten(2), self.dt_proj.weight).flatten(2)) + self.dt_proj.bias)
        y, ssm = self._scan(x, mask(dt, ctx), self.config.inserted(B), C, None if state is None else state.ssm, ctx)
        return self.out_proj((y + self.D * x) * F.silu(z)), State(conv, ssm)

    def _by_head(self, x: Float[Tensor, "b t hi"], weight: Float[Tensor, "ho i"]) -> Float[Tensor, "b t *h o"]:
        """Each head of x through its own rows of the weight; one head has no dimension of its own."""
        h = self.config.n_heads
        if h == 1:
            return F.linear(x, weight)
        return (x.unflatten(-1, (h, -1)).transpose(1, 2) @ weight.unflatten(0, (h, -1)).mT).transpose(1, 2)

    def _scan(
        self,
        x: Float[Tensor, "b t c"],
        dt: Float[Tensor, "b t c"],
        B: Float[Tensor, "b t *h n"],
        C: Float[Tensor, "b t *h n"],
        past: Float[Tensor, "b c n"] | None,
        ctx: Context,
    ) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b c n"]]:
        """The selective scan, head by head."""
        h, A = self.config.n_heads, -wide(self.A_log).exp()
        more = self.config.retention_alone(x, 1, ctx)
        options: dict[str, Any] = {"more": None if more is None else more[..., 0], "reset": ctx.reset}
        if h == 1:
            return scan.selective_scan(x, dt, A, B, C, past, **options)
        pasts = [None] * h if past is None else past.chunk(h, 1)
        heads = zip(x.chunk(h, -1), dt.chunk(h, -1), A.chunk(h), B.unbind(2), C.unbind(2), pasts, strict=True)
        y, ssm = zip(*(scan.selective_scan(*head, **options) for head in heads), strict=True)
        return torch.cat(y, -1), torch.cat(ssm, 1)


def _norms(config: Config, widths: list[int]) -> list[RMSNorm]:
    if config.norm_bcdt == "none":
        return []
    return [RMSNorm(width, eps=config.norm_eps, affine=config.norm_bcdt == "weighted") for width in widths]
