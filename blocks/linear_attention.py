"""Linear attention: softmax's exp(q . k) replaced by a product of feature maps, so that the past is one matrix (arXiv:2006.16236).

    q, k, v = W x                  optionally silu(conv(.)), then q and k turned by RoPE
    S_t = S_{t-1} + phi(k_t) v_t^T;  z_t = z_{t-1} + phi(k_t);  o_t = S_t^T phi(q_t)
    normalise: sum: o_t / (z_t . phi(q_t));  rms: RMSNorm of o_t in each head;  none: o_t as it is
    out = W_o o

phi is elu(x) + 1; or the identity; or Based's map (arXiv:2402.18668), for which phi(q) . phi(k) = 1 + s + s^2 / 2 with
s = q . k / sqrt(e), the Taylor series of exp(s), exactly and without repeated products: phi(x) = [1, y_i, y_i^2 / sqrt 2,
y_i y_j (i < j)], y = x / e^(1/4). For elu and the identity q is scaled by e^(-1/2).

Parameters: d (2 h e + 2 d) + conv (2 h e + d) + d / h with normalise: rms; 4 d^2 with heads of e = d / h, Based's (h = 16,
e = 16 at d = 1024) 2.5 d^2. State: h phi (d / h + 1) numbers, phi = e, or 153 for the Taylor map of e = 16.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.forgetting import Bounded
from blocks.parts import RMSNorm, ShortConv, linear_flops, mask, residual_linear
from blocks.rope import Rope, rotate
from kernels.conv import flops as conv_flops
from kernels.dtypes import wide

FEATURES = ("elu", "identity", "taylor")
NORMALISE = ("sum", "rms", "none")
TAYLOR_DIM = 16  # Based's


@dataclass(frozen=True, kw_only=True)
class Config(Bounded):
    paper: ClassVar[str] = "Linear attention, arXiv:2006.16236; Based, arXiv:2402.18668"

    n_heads: int = 4  # heads
    feature: str = "elu"  # feature map phi: elu (elu(x) + 1) | identity | taylor (Based's)
    feature_dim: int | None = None  # e, channels of a head's q and k before phi; null: d_model / n_heads, 16 for taylor
    normalise: str = "sum"  # the output: sum (divided by z . phi(q)) | rms (RMS norm of each head) | none
    rope: Rope | None = None  # rotary positions of queries and keys, before phi (see Rope); null: no positions
    conv: int = 0  # taps of a short causal convolution with a SiLU over q, k and v; 0: no convolution
    eps: float = 1e-6  # added to the divisor, or to the mean square under the root of the norm

    def check(self, d_model: int) -> None:
        super().check(d_model)
        require(
            self.n_heads >= 1 and d_model % self.n_heads == 0, "n_heads", self.n_heads, f"must divide d_model {d_model}", divisors(d_model)
        )
        one_of("feature", self.feature, FEATURES)
        require(self.feature_dim is None or self.feature_dim >= 1, "feature_dim", self.feature_dim, "must be at least 1")
        one_of("normalise", self.normalise, NORMALISE)
        unsigned = self.feature == "identity" and self.normalise == "sum"
        require(
            not unsigned, "normalise", self.normalise, "divides by 0 with feature: identity, whose sum has no sign", "choices: rms, none"
        )
        vain = self.insertion is not None and self.normalise == "sum"
        require(not vain, "insertion", self.insertion, "cancels in the division of normalise: sum", "normalise: rms or none, or retention")
        require(self.conv >= 0 and self.conv != 1, "conv", self.conv, "must be 0 (none) or at least 2 taps")
        require(self.eps > 0, "eps", self.eps, "must be above 0")
        if self.rope is not None:
            self.rope.check(self.width(d_model))

    def width(self, d_model: int) -> int:
        """e, q's and k's width in a head before phi."""
        if self.feature_dim is not None:
            return self.feature_dim
        return TAYLOR_DIM if self.feature == "taylor" else d_model // self.n_heads

    def features(self, d_model: int) -> int:
        """The width of phi."""
        e = self.width(d_model)
        return 1 + e + e * (e + 1) // 2 if self.feature == "taylor" else e

    def cost(self, d_model: int, length: int) -> Cost:
        h, phi, value = self.n_heads, self.features(d_model), d_model // self.n_heads
        channels = 2 * h * self.width(d_model) + d_model
        columns = value + (self.normalise == "sum")
        linear = linear_flops(length, d_model, channels + d_model)
        return self.recall_cost(length, h, phi, columns, gate="none") + Cost(
            params=d_model * (channels + d_model) + self.conv * channels + (value if self.normalise == "rms" else 0),
            flops=linear + conv_flops(length, channels, self.conv),
            executed_flops=linear,
            state_bytes=4 * max(self.conv - 1, 0) * channels,
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    conv: Tensor | None  # (b, conv - 1, 2 h e + d) float32: the last inputs of the convolution; None = without one
    memory: Tensor  # (b, h, phi, d / h [+ 1]) float32; the last column is z where the output is divided by the sum
    recent: Tensor | None = (
        None  # (b, r, h phi + values + h with retention) float32: the last r keys, values and log decays; None = without state_window
    )


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width(d_model)
        self.sizes = [config.n_heads * self.width] * 2 + [d_model]
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=False)  # q, k, v
        self.conv = ShortConv(sum(self.sizes), config.conv) if config.conv else None
        self.norm = RMSNorm(d_model // config.n_heads, eps=config.eps) if config.normalise == "rms" else None
        self.out_proj = residual_linear(d_model, d_model, n_layers)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        conv, memory, recent = (None, None, None) if state is None else state
        mixed = self.in_proj(x)
        if self.conv is not None:
            mixed, conv = self.conv(mixed, conv, ctx)
        q, k, v = (i.unflatten(-1, (self.config.n_heads, -1)) for i in mixed.split(self.sizes, -1))
        if self.config.rope is not None:
            q, k = rotate(q, ctx.positions, self.config.rope), rotate(k, ctx.positions, self.config.rope)
        with torch.autocast(x.device.type, enabled=False):  # a long sum in bfloat16 would stop growing
            o, memory, recent = self._read(q, k, v, memory, recent, ctx)
        return self.out_proj(o.flatten(2).to(x.dtype)), State(conv, memory, recent)

    def _read(
        self, q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None, recent: Tensor | None, ctx: Context
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The memory's answers (b, t, h, d / h), normalised, and the memory and the recent tokens after them."""
        q, k, v = self.features(q, scale=True), mask(self.features(k), ctx), wide(v)
        if self.config.normalise == "sum":
            v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        g = self.config.retention_alone(v, self.config.n_heads, ctx)
        o, memory, recent = self.config.recall(q, k, v, g, memory, recent, ctx)
        if self.config.normalise == "sum":
            o = o[..., :-1] / (o[..., -1:] + self.config.eps)
        return (o if self.norm is None else self.norm(o)), memory, recent

    def features(self, x: Float[Tensor, "b t h e"], *, scale: bool = False) -> Float[Tensor, "b t h phi"]:
        """phi(x), at least in float32; of q (scale) times e^(-1/2) where phi is not the Taylor map."""
        x = wide(x)
        if self.config.feature == "taylor":
            return taylor(x)
        x = F.elu(x) + 1 if self.config.feature == "elu" else x
        return x * self.width**-0.5 if scale else x


def taylor(x: Float[Tensor, "*b e"]) -> Float[Tensor, "*b phi"]:
    """The map with taylor(q) . taylor(k) = 1 + s + s^2 / 2, s = q . k / sqrt(e); phi = 1 + e + e (e + 1) / 2."""
    e = x.shape[-1]
    y = x * e**-0.25
    rows, columns = torch.triu_indices(e, e, device=x.device)
    weight = torch.where(rows == columns, 0.5**0.5, 1.0).to(x.dtype)
    pairs = y.index_select(-1, rows) * y.index_select(-1, columns) * weight
    return torch.cat([torch.ones_like(y[..., :1]), y, pairs], -1)
