"""A transformer layer (attention, then a gated channel mixer) whose weights a stack uses several times (Zamba, arXiv:2405.16712).

    a = W_o Attention(W_qkv n),  n = RMSNorm([x, e])        e: the embeddings, what the first sub-layer reads
    g, u = W_gu RMSNorm(a);  y = L_i W_down (f(g) * u)      i: which use of these weights this is

No residual is inside. Every use has a linear L_i of its own; in Zamba2 (arXiv:2411.15242) also low-rank adapters B_i A_i (LoRA,
arXiv:2106.09685), added to W_gu and, with `adapt: all`, to the projections to q, k and v. Attention is over twice the width, so that a
score's factor is (head_dim / 2)^-1/2. How often the weights are used the pattern says, where the block has `share: true`. As published:

    S: {type: shared_transformer, share: true, norm_place: none, into: next}      what follows S reads x + y, the stream stays x
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import one_of, require
from blocks.keys import Keys, append, attend, cache_bytes, trim
from blocks.parts import ACTIVATIONS, RMSNorm, check_heads, linear_flops, residual_linear
from blocks.rope import Rope, rotate
from kernels import attention


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Zamba's shared transformer, arXiv:2405.16712"

    n_heads: int = 4  # query heads
    n_kv_heads: int | None = None  # key and value heads, a divisor of n_heads; null: as many as n_heads
    head_dim: int | None = None  # channels of a head; null: 2 d_model / n_heads
    rope: Rope | None = None  # rotary positions of queries and keys (see Rope); null: no positions
    scale: float | None = None  # factor of the scores; null: (head_dim / 2)^-1/2
    hidden: int | None = None  # hidden channels of the channel mixer; null: 4 d_model
    activation: str = "gelu"  # activation of its gate: silu | gelu (exact) | gelu_tanh | relu2 (squared ReLU)
    bias: bool = False  # biases in W_gu and W_down
    norm_eps: float = 1e-5  # added to the mean square under the root of both norms
    adapt: str = "none"  # what has adapters for each use of its own: none | mlp (W_gu) | all (W_gu and each of q, k and v)
    adapter_rank: int = 128  # rank of an adapter
    uses: int | None = None  # how often the weights are used; null: as often as the pattern says

    def check(self, d_model: int) -> None:
        check_heads(self.n_heads, self.kv_heads, self.head_dim, 2 * d_model, name="2 d_model")
        if self.rope is not None:
            self.rope.check(self.width(d_model))
        require(self.hidden is None or self.hidden >= 1, "hidden", self.hidden, "must be at least 1")
        one_of("activation", self.activation, tuple(ACTIVATIONS))
        require(self.norm_eps > 0, "norm_eps", self.norm_eps, "must be above 0")
        one_of("adapt", self.adapt, ("none", "mlp", "all"))
        require(self.adapter_rank >= 1, "adapter_rank", self.adapter_rank, "must be at least 1")
        require(self.uses is None or self.uses >= 1, "uses", self.uses, "must be at least 1")

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    def width(self, d_model: int) -> int:
        """The width of a head."""
        return 2 * d_model // self.n_heads if self.head_dim is None else self.head_dim

    def sizes(self, d_model: int) -> list[int]:
        """Widths of q, k and v, all heads together."""
        e, m = self.width(d_model), self.kv_heads
        return [self.n_heads * e, m * e, m * e]

    def inner(self, d_model: int) -> int:
        """The hidden width of the channel mixer."""
        return 4 * d_model if self.hidden is None else self.hidden

    def factor(self, d_model: int) -> float:
        """The factor of the scores."""
        return (self.width(d_model) / 2) ** -0.5 if self.scale is None else self.scale

    def adapted(self, d_model: int) -> dict[str, list[tuple[int, int]]]:
        """(width in, width out) of the adapters of one use, by what they are added to."""
        to_qkv = [(2 * d_model, size) for size in self.sizes(d_model)] if self.adapt == "all" else []
        return {"qkv": to_qkv, "gate_up": [] if self.adapt == "none" else [(d_model, 2 * self.inner(d_model))]}

    def shared(self, uses: int) -> "Config":
        require(self.uses in (None, uses), "uses", self.uses, f"the pattern uses it {uses} times", "leave it out")
        return replace(self, uses=uses)

    def resolved(self, d_model: int) -> "Config":
        sized = replace(self, n_kv_heads=self.kv_heads, head_dim=self.width(d_model), scale=self.factor(d_model), uses=self.uses or 1)
        sized = replace(sized, hidden=self.inner(d_model))
        return sized if self.adapt != "none" else replace(sized, adapter_rank=Config.adapter_rank)

    def cost(self, d_model: int, length: int) -> Cost:
        """The parameters are those of all uses, everything else is of one."""
        e, f, qkv = self.width(d_model), self.inner(d_model), sum(self.sizes(d_model))
        matrices = 2 * d_model * qkv + self.n_heads * e * d_model + 3 * d_model * f
        own = d_model * d_model + sum(self.adapter_rank * (i + o) for widths in self.adapted(d_model).values() for i, o in widths)
        linear = linear_flops(length, 1, matrices + own)
        return Cost(
            params=matrices + 3 * d_model + self.bias * (2 * f + d_model) + (self.uses or 1) * own,
            flops=linear + attention.flops(length, self.n_heads, e, e),
            executed_flops=linear + attention.executed_flops(length, self.n_heads, e, e),
            state_bytes=cache_bytes(length, self.kv_heads, e, e),
        )

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """The tokens that one use of the weights has read so far."""

    cache: Keys  # (b, s, n_kv_heads, head_dim) keys and values


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.scale = config.sizes(d_model), config.factor(d_model)
        f = config.inner(d_model)
        self.norm = RMSNorm(2 * d_model, eps=config.norm_eps)
        self.qkv = nn.Linear(2 * d_model, sum(self.sizes), bias=False)
        self.out = nn.Linear(self.sizes[0], d_model, bias=False)
        self.mlp_norm = RMSNorm(d_model, eps=config.norm_eps)
        self.gate_up = nn.Linear(d_model, 2 * f, bias=config.bias)
        self.down = nn.Linear(f, d_model, bias=config.bias)
        self.own = nn.ModuleList(Own(config, d_model, n_layers) for _ in range(config.uses or 1))

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        own: Any = self.own[ctx.use]
        read = self.norm(torch.cat([x, x if ctx.embedded is None else ctx.embedded], -1))
        qkv = _added(self.qkv(read), own.qkv, read).split(self.sizes, -1)
        q, k, v = (y.unflatten(-1, (-1, self.sizes[0] // self.config.n_heads)) for y in qkv)
        if self.config.rope is not None:
            q, k = rotate(q, ctx.positions, self.config.rope), rotate(k, ctx.positions, self.config.rope)
        cache = append(None if state is None else state.cache, k, v, ctx)
        a = self.mlp_norm(self.out(attend(q, cache, ctx, scale=self.scale).flatten(2)))
        gate, up = _added(self.gate_up(a), own.gate_up, a).chunk(2, -1)
        return own.linear(self.down(ACTIVATIONS[self.config.activation](gate) * up)), State(trim(cache))


class Own(nn.Module):
    """The weights of one use alone: adapters and L_i."""

    def __init__(self, config: Config, d_model: int, n_layers: int) -> None:
        super().__init__()
        widths, rank = config.adapted(d_model), config.adapter_rank
        self.qkv = nn.ModuleList(Adapter(i, o, rank) for i, o in widths["qkv"])
        self.gate_up = nn.ModuleList(Adapter(i, o, rank) for i, o in widths["gate_up"])
        self.linear = residual_linear(d_model, d_model, n_layers)


class Adapter(nn.Module):
    """x -> B A x of a low rank; initially B = 0."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(d_in, rank, bias=False), nn.Linear(rank, d_out, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "b t i"]) -> Float[Tensor, "b t o"]:
        return self.up(self.down(x))


def _added(y: Tensor, adapters: nn.ModuleList, x: Tensor) -> Tensor:
    """y plus the adapters' outputs for x, concatenated."""
    return y + torch.cat([adapter(x) for adapter in adapters], -1) if len(adapters) else y
