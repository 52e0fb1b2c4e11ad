"""The training step of Zoology (arXiv:2312.04927) in its own formulation: the peer of ours on associative recall.

Softmax attention is written out over a dense matrix, with dropout on it; all positions get all logits; the loss ignores what has no
label; every step takes the arg max of all logits; AdamW is torch's default. Zoology itself has to have a GPU.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.bench import peers

DROPOUT = 0.1  # of its basic recall experiment, on the embeddings and on the attention
WEIGHT_DECAY = 0.1


class Attention(nn.Module):
    """Multi-head attention over a materialised softmax. x, y (b, t, d)."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        scores = torch.einsum("bthd,bshd->bhts", q, k / math.sqrt(k.shape[-1]))
        scores = scores + torch.full((t, t), -10000.0).triu(1)
        seen = F.dropout(scores.softmax(-1), DROPOUT, self.training)
        return self.out(torch.einsum("bhts,bshd->bthd", seen, v).flatten(2))


def attention(d_model: int, heads: int) -> Callable[[int], nn.Module]:
    """A maker of attention layers."""
    return lambda layer: Attention(d_model, heads)


def mamba2(d_model: int, state: int, head_dim: int) -> Callable[[int], nn.Module]:
    """A maker of Hugging Face's Mamba-2 mixers with their default chunk."""
    config = peers.hugging_face("mamba2.configuration_mamba2").Mamba2Config(
        hidden_size=d_model, state_size=state, num_heads=2 * d_model // head_dim, head_dim=head_dim, n_groups=1, num_hidden_layers=2
    )
    mixer = peers.hugging_face("mamba2.modeling_mamba2").Mamba2Mixer
    return lambda layer: mixer(config, layer)


class LanguageModel(nn.Module):
    """Embedding and learned positions, pre-norm mixers each with the norm of an absent channel mixer, a tied head on every token."""

    def __init__(self, vocab_size: int, d_model: int, length: int, mixers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocab_size, d_model), nn.Embedding(length, d_model)
        self.mixers = nn.ModuleList(mixers)
        self.norms, self.channel_norms = (nn.ModuleList(nn.LayerNorm(d_model) for _ in mixers) for _ in range(2))
        self.norm = nn.LayerNorm(d_model)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (b, t, vocab)."""
        hidden = F.dropout(self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1])), DROPOUT, self.training)
        residual = torch.zeros_like(hidden)
        for norm, mixer, channel_norm in zip(self.norms, self.mixers, self.channel_norms, strict=True):
            residual = hidden + residual
            residual = mixer(norm(residual)) + residual
            hidden = channel_norm(residual)
        return F.linear(self.norm(hidden + residual), self.embedding.weight)


def training_step(model: LanguageModel, tokens: Tensor, labels: Tensor) -> Callable[[], Any]:
    """One step of the optimiser; labels (b, t), -100 = not scored."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY)
    model.train()

    def step() -> object:
        optimiser.zero_grad()
        logits = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        guesses = logits.argmax(-1)
        loss.backward()
        optimiser.step()
        return loss.item(), guesses

    return step
