"""Softmax attention with grouped heads: MHA, GQA and MQA, sliding windows, sinks, norms and gates (arXiv:1706.03762, 2305.13245).

    q, k, v = W_q x, W_k x, W_v x               optionally silu(conv(.)), then a norm of q and k, then rotary positions
    s_ij = scale q_i k_j                        optionally softcap tanh(s / softcap)
    o_i = sum_j exp(s_ij) v_j / (exp(sink) + sum_j exp(s_ij))     over the tokens j that i sees; without a sink logit no exp(sink)
    y = W_o (sigmoid(W_g x) * o)                without an output gate y = W_o o

Query head i reads key head i // (n_heads / n_kv_heads). Sources of the options: window, Mistral arXiv:2310.06825; sink_tokens,
StreamingLLM arXiv:2309.17453; sink_logit, gpt-oss; qk_norm head, Qwen3 arXiv:2505.09388, full, OLMo 2 arXiv:2501.00656;
qk_norm_after_rope, nanochat and Llama 4; chunk and temperature, Llama 4; output_gate, arXiv:2505.06708; softcap, Gemma 2 arXiv:2408.00118.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost
from blocks.context import Context
from blocks.errors import divisors, one_of, require
from blocks.keys import Keys, append, attend, cache_bytes, located, trim
from blocks.parts import NORMS, ShortConv, linear_flops, make_norm, norm_params, residual_linear
from blocks.rope import Rope, rotate
from kernels import attention
from kernels.conv import flops as conv_flops


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Queries grow with their position p by 1 + scale ln(1 + floor((p + 1) / every)), so that long texts stay as sharp."""

    scale: float = 0.1  # of the logarithm
    every: int = 8192  # tokens


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    paper: ClassVar[str] = "Grouped-query attention, arXiv:2305.13245"

    n_heads: int = 4  # query heads
    n_kv_heads: int | None = None  # key and value heads; none: n_heads (MHA); 1: MQA
    head_dim: int | None = None  # width of a head; none: d_model / n_heads
    rope: Rope | None = field(default_factory=Rope)  # rotary positions; null: none
    window: int | None = None  # keys that a token sees, itself included; null: all
    chunk: int | None = None  # a token sees only the tokens of its own chunk: positions of a document in runs of so many; null: all
    sink_tokens: int = 0  # first tokens of a document that stay visible behind the window
    sink_logit: bool = False  # a learned logit a head in the softmax's denominator
    qk_norm: str = "none"  # none | head (each head on its own, one weight for all) | full (all heads together)
    qk_norm_kind: str = "rmsnorm"  # rmsnorm | rmsnorm_centred (1 + weight) | rmsnorm_plain (no weight) | layernorm | layernorm_unbiased
    qk_norm_after_rope: bool = False  # the norm of q and k comes after rotary positions (qk_norm: head)
    norm_eps: float = 1e-6  # of qk_norm
    output_gate: str = "none"  # none | head (a sigmoid a head) | element (a sigmoid a channel)
    softcap: float | None = None  # scores become softcap tanh(score / softcap)
    scale: float | None = None  # factor of the scores; none: head_dim^-1/2
    temperature: Temperature | None = None  # queries that grow with their position; null: none
    bias: bool = False  # biases in the projections to q, k and v
    output_bias: bool = False  # a bias in the output projection
    conv: int = 0  # taps of a short causal convolution over q, k and v; 0: no convolution
    conv_silu: bool = True  # a SiLU after the convolution

    def check(self, d_model: int) -> None:
        require(self.n_heads >= 1, "n_heads", self.n_heads, "must be at least 1")
        whole = self.head_dim is not None or d_model % self.n_heads == 0
        require(whole, "n_heads", self.n_heads, f"must divide d_model = {d_model}", f"or set head_dim; {divisors(d_model)}")
        require(self.head_dim is None or self.head_dim >= 1, "head_dim", self.head_dim, "must be at least 1")
        m = self.kv_heads
        require(m >= 1 and self.n_heads % m == 0, "n_kv_heads", m, f"must divide n_heads = {self.n_heads}", divisors(self.n_heads))
        if self.rope is not None:
            self.rope.check(self.width(d_model))
        require(self.window is None or self.window >= 1, "window", self.window, "must be at least 1: a token sees itself")
        require(self.chunk is None or self.chunk >= 1, "chunk", self.chunk, "must be at least 1: a token sees itself")
        require(self.chunk is None or self.window is None, "chunk", self.chunk, "can't be used with a window")
        require(self.temperature is None or self.temperature.every >= 1, "temperature.every", self.temperature, "must be at least 1")
        require(self.sink_tokens >= 0, "sink_tokens", self.sink_tokens, "can't be negative")
        require(self.sink_tokens == 0 or self.window is not None, "sink_tokens", self.sink_tokens, "has no effect without a window")
        one_of("qk_norm", self.qk_norm, ("none", "head", "full"))
        one_of("qk_norm_kind", self.qk_norm_kind, NORMS)
        late = self.qk_norm_after_rope
        require(not late or self.qk_norm == "head", "qk_norm_after_rope", late, "needs qk_norm: head")
        one_of("output_gate", self.output_gate, ("none", "head", "element"))
        require(self.softcap is None or self.softcap > 0, "softcap", self.softcap, "must be above 0")
        require(self.conv != 1 and self.conv >= 0, "conv", self.conv, "must be 0 (none) or at least 2 taps")

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def span(self) -> int | None:
        """Keys from the first that a token may see to itself, sinks aside."""
        return self.window if self.chunk is None else self.chunk

    def width(self, d_model: int) -> int:
        """The width of a head."""
        return d_model // self.n_heads if self.head_dim is None else self.head_dim

    def resolved(self, d_model: int) -> "Config":
        sized = replace(self, n_kv_heads=self.kv_heads, head_dim=self.width(d_model), scale=self.factor(d_model))
        sized = sized if self.conv else replace(sized, conv_silu=Config.conv_silu)
        return sized if self.qk_norm != "none" else replace(sized, qk_norm_kind=Config.qk_norm_kind, norm_eps=Config.norm_eps)

    def factor(self, d_model: int) -> float:
        """The factor of the scores."""
        return float(self.width(d_model)) ** -0.5 if self.scale is None else self.scale

    def gates(self, d_model: int) -> int:
        """The number of output gates a token."""
        return {"none": 0, "head": self.n_heads, "element": self.n_heads * self.width(d_model)}[self.output_gate]

    def cost(self, d_model: int, length: int) -> Cost:
        h, m, e = self.n_heads, self.kv_heads, self.width(d_model)
        qkv, out, gates = (h + 2 * m) * e, h * e, self.gates(d_model)
        normed = {"none": 0, "head": 2 * e, "full": (h + m) * e}[self.qk_norm]
        norm = norm_params(self.qk_norm_kind, normed)
        params = d_model * (qkv + gates + out) + norm + self.bias * qkv + self.output_bias * d_model + self.sink_logit * h + self.conv * qkv
        linear = linear_flops(length, d_model, qkv + gates + out)
        span: dict[str, Any] = {"window": self.span, "sink_tokens": self.sink_tokens}
        packed, softcap = self.chunk is not None, self.softcap is not None
        executed = attention.executed_flops(length, h, e, e, **span, softcap=softcap, sink_logits=self.sink_logit, packed=packed)
        return Cost(
            params=params,
            flops=linear + conv_flops(length, qkv, self.conv) + self._attention_flops(length, e),
            executed_flops=linear + executed,
            state_bytes=cache_bytes(length, m, e, e, **span, located=packed) + 4 * max(self.conv - 1, 0) * qkv,
        )

    def _attention_flops(self, length: int, e: int) -> int:
        """Of the pairs that see one another: every chunk is a text of its own."""
        if self.chunk is None:
            return attention.flops(length, self.n_heads, e, e, window=self.window, sink_tokens=self.sink_tokens)
        whole, rest = divmod(length, self.chunk)
        return whole * attention.flops(self.chunk, self.n_heads, e, e) + attention.flops(rest, self.n_heads, e, e)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """The tokens read so far."""

    cache: Keys  # (b, s, n_kv_heads, head_dim) keys and values; s stays below sink_tokens + window, or chunk
    conv: Tensor | None  # (b, conv - 1, channels of q, k, v) float32: the last inputs of the convolution


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        h, m, e = config.n_heads, config.kv_heads, config.width(d_model)
        self.sizes = [h * e, m * e, m * e]
        self.qkv = nn.Linear(d_model, sum(self.sizes), bias=config.bias)
        self.conv = ShortConv(sum(self.sizes), config.conv, silu=config.conv_silu) if config.conv else None
        full, kind, eps = config.qk_norm == "full", config.qk_norm_kind, config.norm_eps
        self.q_norm = make_norm(kind, h * e if full else e, eps) if config.qk_norm != "none" else None
        self.k_norm = make_norm(kind, m * e if full else e, eps) if config.qk_norm != "none" else None
        self.sinks = nn.Parameter(0.02 * torch.randn(h)) if config.sink_logit else None
        self.gate = nn.Linear(d_model, config.gates(d_model), bias=False) if config.output_gate != "none" else None
        self.out = residual_linear(h * e, d_model, n_layers, bias=config.output_bias)

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        c = self.config
        q, k, v, conv = self._project(x, state, ctx)
        past = None if state is None else state.cache
        ctx = ctx if c.chunk is None else located(past, ctx)
        cache = append(past, k, v, ctx)
        mask: dict[str, Any] = {"window": c.span, "sink_tokens": c.sink_tokens, "chunk": c.chunk}
        o = attend(q, cache, ctx, **mask, softcap=c.softcap, sink_logits=self.sinks, scale=c.scale)
        if self.gate is not None:
            gate = self.gate(x).sigmoid()
            o = o * (gate[..., None] if c.output_gate == "head" else gate.view_as(o))
        return self.out(o.flatten(2)), State(trim(cache, c.span, c.sink_tokens), conv)

    def _project(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q, k, v (b, t, heads, e), ready to meet, and the convolution's state."""
        qkv, conv = self.qkv(x), None
        if self.conv is not None:
            qkv, conv = self.conv(qkv, None if state is None else state.conv, ctx)
        q, k, v = qkv.split(self.sizes, -1)
        if self.config.qk_norm == "full":
            q, k = self._norm(q, k)
        e = q.shape[-1] // self.config.n_heads
        q, k, v = (y.unflatten(-1, (-1, e)) for y in (q, k, v))
        late = self.config.qk_norm_after_rope
        if self.config.qk_norm == "head" and not late:
            q, k = self._norm(q, k)
        if self.config.rope is not None:
            q, k = rotate(q, ctx.positions, self.config.rope), rotate(k, ctx.positions, self.config.rope)
        if late:
            q, k = self._norm(q, k)
        if self.config.temperature is not None:
            q = _grown(q, ctx.positions, self.config.temperature)
        return q, k, v, conv

    def _norm(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        assert self.q_norm is not None
        assert self.k_norm is not None
        return self.q_norm(q), self.k_norm(k)


def _grown(q: Tensor, positions: Tensor, temperature: Temperature) -> Tensor:
    """Queries (b, t, h, e) at positions (b, t), the growth in float32 as angles are. See Temperature."""
    runs = ((positions + 1) // temperature.every).float()
    return q * (1 + temperature.scale * runs.log1p())[..., None, None].to(q.dtype)
