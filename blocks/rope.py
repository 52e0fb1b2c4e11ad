"""Rotary position embedding (RoFormer, arXiv:2104.09864), and its forms for texts longer than those of the training.

pair i turns by position * f_i          f_i = base^(-2i / rotary)
linear    f_i / factor                                              (arXiv:2306.15595)
llama3    f_i / factor where a pair turns fewer than low_freq_factor times in `original_length` tokens, f_i where it turns more
          than high_freq_factor times, between them a mix of both   (Llama 3.1, arXiv:2407.21783)
yarn      f_i / factor below beta_slow turns, f_i above beta_fast turns, a ramp over i between them; queries and keys grow by
          attention_factor                                          (arXiv:2309.00071)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.errors import one_of, require
from kernels.dtypes import wide


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How the frequencies are changed for texts `factor` times longer than `original_length` tokens."""

    kind: str  # linear | llama3 | yarn
    factor: float = 8.0  # how many times longer the texts are
    original_length: int = 8192  # llama3, yarn: tokens of the texts before
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn: factor of cosine and sine; none: 0.1 ln(factor) + 1
    truncate: bool = True  # yarn: the ramp's ends are whole numbers

    def check(self) -> None:
        one_of("rope.scaling.kind", self.kind, ("linear", "llama3", "yarn"))
        require(self.factor >= 1, "rope.scaling.factor", self.factor, "must be at least 1")
        require(self.original_length >= 1, "rope.scaling.original_length", self.original_length, "must be at least 1")
        low, high = self.low_freq_factor, self.high_freq_factor
        require(0 < low <= high, "rope.scaling.high_freq_factor", high, f"must be at least low_freq_factor = {low}, and that above 0")
        require(self.beta_slow < self.beta_fast, "rope.scaling.beta_fast", self.beta_fast, f"must be above beta_slow = {self.beta_slow}")

    @property
    def amplitude(self) -> float:
        """The factor of cosine and sine."""
        if self.kind != "yarn":
            return 1.0
        return 0.1 * math.log(self.factor) + 1 if self.attention_factor is None else self.attention_factor


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary position embedding of the first `partial` share of each head's dimensions."""

    base: float = 10000.0  # theta
    partial: float = 1.0  # share of the head's dimensions that rotate
    pairs: str = "halves"  # halves: (c, c + rotary/2) as in Llama | adjacent: (2c, 2c + 1) as in GPT-J and Cohere
    scaling: Scaling | None = None  # for texts longer than those of the training; null: none

    def rotary(self, head_dim: int) -> int:
        """The number of dimensions that rotate, even."""
        return int(head_dim * self.partial) // 2 * 2

    def check(self, head_dim: int) -> None:
        require(self.base > 1, "rope.base", self.base, "must be above 1")
        require(0 < self.partial <= 1, "rope.partial", self.partial, "must be in (0, 1]")
        require(self.rotary(head_dim) >= 2, "rope.partial", self.partial, f"leaves no pair to rotate in heads of {head_dim}")
        one_of("rope.pairs", self.pairs, ("halves", "adjacent"))
        if self.scaling is not None:
            self.scaling.check()


def rotate(x: Tensor, positions: Tensor, rope: Rope) -> Tensor:
    """x (b, t, h, e) turned by its positions (b, t), angles in float32."""
    n = rope.rotary(x.shape[-1])
    angle = positions[..., None].float() * frequencies(rope, n, x.device)  # (b, t, n/2)
    cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
    if rope.scaling is not None:
        cos, sin = cos * rope.scaling.amplitude, sin * rope.scaling.amplitude
    if rope.pairs == "halves":
        a, b = wide(x[..., : n // 2]), wide(x[..., n // 2 : n])
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)
    else:
        a, b = wide(x[..., 0:n:2]), wide(x[..., 1:n:2])
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(x.dtype)
    return turned if n == x.shape[-1] else torch.cat([turned, x[..., n:]], -1)


def frequencies(rope: Rope, rotary: int, device: torch.device | None = None) -> Tensor:
    """(rotary / 2,) float32: the angle by which each pair turns from one token to the next."""
    periods = rope.base ** (torch.arange(0, rotary, 2, device=device, dtype=torch.float32) / rotary)
    plain = 1.0 / periods
    scaling = rope.scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "llama3":
        return _llama3(plain, scaling)
    slowed, ramp = 1.0 / (scaling.factor * periods), _ramp(rope.base, rotary, scaling).to(plain.device)
    return slowed * (1 - ramp) + plain * ramp


def _llama3(plain: Tensor, scaling: Scaling) -> Tensor:
    wavelength = 2 * math.pi / plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    if low == high:  # a step, no ramp
        return torch.where(wavelength > scaling.original_length / low, plain / scaling.factor, plain)
    mix = (scaling.original_length / wavelength - low) / (high - low)
    between = (1 - mix) * plain / scaling.factor + mix * plain
    long, short = wavelength > scaling.original_length / low, wavelength < scaling.original_length / high
    return torch.where(long, plain / scaling.factor, torch.where(short, plain, between))


def _ramp(base: float, rotary: int, scaling: Scaling) -> Tensor:
    """(rotary / 2,): the share of each pair that keeps its frequency, 1 at the fast ones."""

    def pair(turns: float) -> float:
        """The (fractional) dimension that turns so many times in the original length."""
        return rotary * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary - 1)
    width = high - low if high != low else 0.001
    return 1 - ((torch.arange(rotary // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
