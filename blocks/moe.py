"""A mixture of experts as a channel mixer: a router sends each token to its top_k of n_experts small networks (arXiv:1701.06538).

    r = W_r x (+ b_r)                         the router's logits, in float32
    p = softmax(r)  or  sigmoid(r)            the scores
    chosen = the top_k experts by p, or by p + b where there is a selection bias, of the best top_groups of the groups
    w = p[chosen], divided by their sum if normalize, times routed_scale
    y = sum over the chosen of w_e f_e(x) + shared(x)          weigh input: f_e(w_e x)

f_e is a SwiGLU, a clamped one or a squared ReLU; shared, if any, has the same form and meets every token, under a sigmoid of its own
with shared_gate. Normalised weights of a softmax are the softmax over the chosen logits alone. Nothing depends on other tokens: no
capacity, nothing dropped. The selection bias b gets no gradient: it is a buffer.

Training adds to the loss, if asked, the mean over all mixtures of a model of

    balance n sum_e f_e P_e           f_e: chosen by a token on average, P_e: the mean of p_e / sum p    arXiv:2101.03961, eq. 4-6
  + z_loss mean (logsumexp r)^2                                                                          arXiv:2202.08906, eq. 5

over the tokens of a batch, padding left out (even experts: balance top_k); and moves b after each step, without a gradient, by
bias_rate sign(mean load - load), the load of an expert being the tokens that chose it in that step (arXiv:2408.15664).

The published routers: Mixtral arXiv:2401.04088, Qwen3 arXiv:2505.09388 and gpt-oss arXiv:2508.10925 normalise a softmax (gpt-oss with a
router bias), Jamba arXiv:2403.19887 and DeepSeek-V2 arXiv:2405.04434 don't (V2 with group_score max); DeepSeek-V3 arXiv:2412.19437, Kimi
Linear and Nemotron-H normalise a sigmoid chosen with a selection bias (group_score top2); Llama 4 weighs the input by a sigmoid.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks import base
from blocks.base import Cost, no_decay
from blocks.context import Context, Routed
from blocks.errors import divisors, one_of, require
from blocks.parts import hidden_width, linear_flops, residual_linear
from kernels.dtypes import wide
from kernels.experts import ACTIVATIONS, WEIGH, Activation, experts, flops, width


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    kind: ClassVar[str] = "channel"
    paper: ClassVar[str] = "Sparsely-gated mixture of experts, arXiv:1701.06538"

    n_experts: int = 8  # experts that the router chooses from
    top_k: int = 2  # experts that a token is sent to
    expand: float = 4 / 3  # hidden channels of an expert, in multiples of d_model
    multiple_of: int = 16  # the hidden channels of expand are rounded up to a multiple of this
    hidden: int | None = None  # hidden channels of an expert themselves; null: from expand and multiple_of
    activation: str = "swiglu"  # form of all experts: swiglu | clamped_swiglu (gpt-oss) | relu2 (squared ReLU, without a gate)
    alpha: float = 1.702  # steepness of the sigmoid of clamped_swiglu
    limit: float = 7.0  # bound of gate and up of clamped_swiglu
    bias: bool = False  # biases in the projections of all experts
    scores: str = "softmax"  # scores from the router's logits: softmax | sigmoid
    normalize: bool = True  # whether the weights of the chosen experts are made to sum to 1 (before routed_scale)
    normalize_eps: float = 1e-20  # added to their sum before the division
    routed_scale: float = 1.0  # factor of the chosen experts' weights
    router_bias: bool = False  # a bias in the router's logits (gpt-oss)
    selection_bias: bool = False  # a bias that only chooses, without a gradient (DeepSeek-V3's e_score_correction_bias)
    groups: int = 1  # equal groups of experts (DeepSeek-V2)
    top_groups: int = 1  # groups that a token may choose from
    group_score: str = "top2"  # value of a group: top2 (the sum of its two best scores) | max (its best score)
    weigh: str = "output"  # what the weights multiply: output | input (of the experts; Llama 4)
    n_shared: int = 0  # experts that every token meets, together one network of n_shared times an expert's hidden channels
    shared_hidden: int | None = None  # hidden channels of that shared network themselves; null: from n_shared
    shared_gate: bool = False  # the shared network's output times a sigmoid of the token (Qwen2-MoE)
    balance: float = 0.0  # training: weight of the load-balance loss (Mixtral 0.02, Qwen3 0.001); 0: no such loss
    z_loss: float = 0.0  # training: weight of the router's z-loss (ST-MoE 0.001); 0: no such loss
    bias_rate: float = 0.0  # training: how far a step moves the selection bias (DeepSeek-V3 0.001); 0: not at all

    def check(self, d_model: int) -> None:
        require(self.n_experts >= 1, "n_experts", self.n_experts, "must be at least 1")
        require(self.multiple_of >= 1, "multiple_of", self.multiple_of, "must be at least 1")
        require(self.hidden is None or self.hidden >= 1, "hidden", self.hidden, "must be at least 1")
        require(self.hidden is not None or self.expand > 0, "expand", self.expand, "must be above 0")
        one_of("activation", self.activation, ACTIVATIONS)
        require(self.limit > 0, "limit", self.limit, "must be above 0")
        one_of("scores", self.scores, ("softmax", "sigmoid"))
        n, g = self.n_experts, self.groups
        require(g >= 1 and n % g == 0, "groups", g, f"must divide n_experts = {n}", divisors(n))
        require(1 <= self.top_groups <= g, "top_groups", self.top_groups, f"must be in [1, groups = {g}]")
        one_of("group_score", self.group_score, ("top2", "max"))
        most = n // g * self.top_groups
        require(1 <= self.top_k <= most, "top_k", self.top_k, f"must be in [1, {most}], the experts that a token may choose from")
        one_of("weigh", self.weigh, WEIGH)
        for name in ("balance", "z_loss", "bias_rate"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "can't be negative")
        rule = "moves the selection bias, and there is none"
        require(self.bias_rate == 0 or self.selection_bias, "bias_rate", self.bias_rate, rule, "selection_bias: true")
        require(self.n_shared >= 0, "n_shared", self.n_shared, "can't be negative")
        require(self.shared_hidden is None or self.shared_hidden >= 0, "shared_hidden", self.shared_hidden, "can't be negative")
        shared = self.shared_width(d_model)
        require(not self.shared_gate or shared > 0, "shared_gate", self.shared_gate, "has nothing to gate without a shared expert")

    def width(self, d_model: int) -> int:
        """The hidden width of an expert."""
        if self.hidden is not None:
            return self.hidden
        return hidden_width(d_model, self.expand, self.multiple_of)

    def shared_width(self, d_model: int) -> int:
        """The hidden width of the shared network, 0 = there is none."""
        return self.n_shared * self.width(d_model) if self.shared_hidden is None else self.shared_hidden

    def resolved(self, d_model: int) -> "Config":
        names = ["expand", "multiple_of", *(() if self.activation == "clamped_swiglu" else ("alpha", "limit"))]
        names += [] if self.normalize else ["normalize_eps"]
        names += [] if self.groups > self.top_groups else ["groups", "top_groups", "group_score"]
        names += ["balance", "z_loss", "bias_rate"]  # of training, not of what is computed
        plain = {name: getattr(Config, name) for name in names} | {"n_shared": 0}
        return replace(self, hidden=self.width(d_model), shared_hidden=self.shared_width(d_model), **plain)

    def cost(self, d_model: int, length: int) -> Cost:
        f, s = self.width(d_model), self.shared_width(d_model)
        spent = linear_flops(length, d_model, self.n_experts + self.shared_gate) + flops(length, self.top_k, d_model, f, self.activation)
        spent += flops(length, 1, d_model, s, self.activation)
        params = self._params(d_model, self.n_experts)
        return Cost(params, spent, spent, idle_params=params - self._params(d_model, self.top_k))

    def _params(self, d_model: int, n: int) -> int:
        """The parameters with n of the routed experts."""
        router = (d_model + self.router_bias) * self.n_experts + self.shared_gate * d_model
        shared = self.shared_width(d_model)
        return router + n * self._expert(d_model, self.width(d_model)) + (self._expert(d_model, shared) if shared else 0)

    def _expert(self, d_model: int, hidden: int) -> int:
        up = width(self.activation, hidden)
        return d_model * (up + hidden) + self.bias * (up + d_model)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> "Block":
        return Block(self, d_model, layer, n_layers)


class State(NamedTuple):
    """A channel mixer remembers nothing."""


class Block(nn.Module):
    """See the file's docstring."""

    def __init__(self, config: Config, d_model: int, layer: int, n_layers: int) -> None:
        super().__init__()
        self.config = config
        self.activation = Activation(config.activation, config.alpha, config.limit)
        n, f, s = config.n_experts, config.width(d_model), config.shared_width(d_model)
        u = width(config.activation, f)
        self.router = nn.Linear(d_model, n, bias=config.router_bias)
        self.selection_bias = nn.Buffer(torch.zeros(n)) if config.selection_bias else None
        self.up = _uniform(n, u, d_model, fan_in=d_model)
        self.down = _uniform(n, d_model, f, fan_in=f * n_layers)
        self.up_bias = no_decay(_uniform(n, u, fan_in=d_model)) if config.bias else None
        self.down_bias = no_decay(_uniform(n, d_model, fan_in=f)) if config.bias else None
        self.shared_up = nn.Linear(d_model, width(config.activation, s), bias=config.bias) if s else None
        self.shared_down = residual_linear(s, d_model, n_layers, bias=config.bias) if s else None
        self.shared_gate = nn.Linear(d_model, 1, bias=False) if config.shared_gate else None

    def forward(self, x: Float[Tensor, "b t d"], state: State | None, ctx: Context) -> tuple[Float[Tensor, "b t d"], State]:
        logits = self.logits(x)
        chosen, weights = self.route(logits)
        if ctx.routed is not None:
            ctx.routed.append(self._routed(logits, chosen, ctx.keep))
        biases = {"up_bias": self.up_bias, "down_bias": self.down_bias}
        y = experts(x, chosen, weights, self.up, self.down, **biases, activation=self.activation, weigh=self.config.weigh)
        if self.shared_up is not None and self.shared_down is not None:
            shared = self.shared_down(self.activation(self.shared_up(x)))
            y = y + (shared if self.shared_gate is None else self.shared_gate(x).sigmoid() * shared)
        return y, State()

    def logits(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t n"]:
        """The router's logits, at least in float32."""
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.router.bias is None else wide(self.router.bias)
            return F.linear(wide(x), wide(self.router.weight), bias)

    def route(self, logits: Float[Tensor, "b t n"]) -> tuple[Tensor, Tensor]:
        """The experts (b, t, top_k) int64 of each token, best first, and their weights in the logits' dtype."""
        c, p = self.config, self._scores(logits)
        ranks = p.detach() if self.selection_bias is None else p.detach() + self.selection_bias
        chosen = (ranks if c.top_groups == c.groups else self._within_groups(ranks)).topk(c.top_k, -1).indices
        weights = p.gather(-1, chosen)
        if c.normalize:
            weights = weights / (weights.sum(-1, keepdim=True) + c.normalize_eps)
        return chosen, weights * c.routed_scale

    @torch.no_grad()
    def rebalance(self, load: Float[Tensor, " n"]) -> None:
        """Move the selection bias after a training step in which the experts had this load."""
        if self.selection_bias is not None and self.config.bias_rate:
            self.selection_bias.add_((load.mean() - load).sign(), alpha=self.config.bias_rate)

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1) if self.config.scores == "softmax" else logits.sigmoid()

    def _routed(self, logits: Tensor, chosen: Tensor, keep: Tensor | None) -> Routed:
        c = self.config
        counted = logits.new_ones(logits.shape[:2]) if keep is None else keep.to(logits.dtype)
        tokens = counted.sum().clamp(min=1)
        load = logits.new_zeros(c.n_experts).scatter_add(0, chosen.flatten(), counted.repeat_interleave(c.top_k))
        loss = logits.new_zeros(())
        if c.balance:
            p = self._scores(logits)
            mean = (p / p.sum(-1, keepdim=True) * counted[..., None]).sum((0, 1)) / tokens
            loss = loss + c.balance * c.n_experts * (load / tokens * mean).sum()
        if c.z_loss:
            loss = loss + c.z_loss * (logits.logsumexp(-1).square() * counted).sum() / tokens
        return Routed(load, loss)

    def _within_groups(self, ranks: Tensor) -> Tensor:
        """ranks (b, t, n), below all others outside of each token's best groups."""
        c = self.config
        grouped = ranks.unflatten(-1, (c.groups, -1))
        best = grouped.amax(-1) if c.group_score == "max" else grouped.topk(min(2, grouped.shape[-1]), -1).values.sum(-1)
        allowed = torch.zeros_like(best, dtype=torch.bool).scatter(-1, best.topk(c.top_groups, -1).indices, True)
        return grouped.masked_fill(~allowed[..., None], -math.inf).flatten(-2)


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Initialise as nn.Linear does."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
