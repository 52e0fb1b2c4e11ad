"""Queries, keys and values of the attention blocks that have the same options: their config, cost and projections.

q, k, v = W_qkv x      then a short convolution, a norm of q and k and rotary positions, where asked for
y = W_out o
"""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import one_of, require
from blocks.parts import RMSNorm, ShortConv, check_heads, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels.conv import flops as conv_flops


@dataclass(frozen=True, kw_only=True)
class QKV(base.Config):
    """Options of the queries, keys and values."""

    n_heads: int = 4  # query heads
    n_kv_heads: int | None = None  # key and value heads, a divisor of n_heads; null: as many as n_heads
    head_dim: int | None = None  # channels of a head; null: d_model / n_heads
    rope: Rope | None = field(default_factory=Rope)  # rotary positions of queries and keys (see Rope); null: no positions
    qk_norm: str = "none"  # norm of queries and keys: none | head (RMS norm of each head, one weight for all heads)
    norm_eps: float = 1e-6  # added to the mean square under the root of qk_norm
    conv: int = 0  # taps of a short causal convolution over q, k and v (tokens, the current one included); 0: no convolution
    conv_silu: bool = True  # a SiLU after the convolution

    def check(self, d_model: int) -> None:
        check_heads(self.n_heads, self.kv_heads, self.head_dim, d_model)
        one_of("qk_norm", self.qk_norm, ("none", "head"))
        require(self.conv >= 0 and self.conv != 1, "conv", self.conv, "must be 0 (none) or at least 2 taps")
        if self.rope is not None:
            self.rope.check(self.width(d_model))

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    def width(self, d_model: int) -> int:
        """Channels of a head."""
        return d_model // self.n_heads if self.head_dim is None else self.head_dim

    def projections_cost(self, d_model: int, length: int) -> Cost:
        """Of `Projected`: parameters, FLOPs and the convolution's state."""
        e = self.width(d_model)
        inner, channels = self.n_heads * e, (self.n_heads + 2 * self.kv_heads) * e
        linear = linear_flops(length, d_model, channels) + linear_flops(length, inner, d_model)
        return Cost(
            params=d_model * (channels + inner) + (self.qk_norm == "head") * 2 * e + self.conv * channels,
            flops=linear + conv_flops(length, channels, self.conv),
            executed_flops=linear,
            state_bytes=4 * max(self.conv - 1, 0) * channels,
        )


class Projected(nn.Module):
    """The projections of a block: to its queries, keys and values, and `out` behind the attention."""

    def __init__(self, config: QKV, d_model: int, n_layers: int) -> None:
        super().__init__()
        h, m, e = config.n_heads, config.kv_heads, config.width(d_model)
        self.sizes, self.e, self.rope = [h * e, m * e, m * e], e, config.rope
        self.qkv = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConv(sum(self.sizes), config.conv, silu=config.conv_silu) if config.conv else None
        self.q_norm = RMSNorm(e, eps=config.norm_eps) if config.qk_norm == "head" else None
        self.k_norm = RMSNorm(e, eps=config.norm_eps) if config.qk_norm == "head" else None
        self.out = residual_linear(h * e, d_model, n_layers)

    def heads(
        self, x: Float[Tensor, "b t d"], conv: Tensor | None, ctx: Context
    ) -> tuple[Float[Tensor, "b t h e"], Float[Tensor, "b t m e"], Float[Tensor, "b t m e"], Tensor | None]:
        """q, k, v, and the convolution's state (b, taps - 1, channels) float32 after x; conv: that before x."""
        qkv = self.qkv(x)
        if self.conv is not None:
            qkv, conv = self.conv(qkv, conv, ctx)
        q, k, v = (part.unflatten(-1, (-1, self.e)) for part in qkv.split(self.sizes, -1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            q, k = rotate(q, ctx.positions, self.rope), rotate(k, ctx.positions, self.rope)
        return q, k, v, conv
