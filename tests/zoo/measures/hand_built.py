"""Attention models whose weights are set by hand, so that what a measure must find is known."""

from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.model.model import Model

SHARP = 400.0  # a score so far above the others that a softmax is one-hot to rounding
LOUD = 20.0  # an output that decides the logits


def finder(vocab: int, taps: int = 2) -> Model:
    """One layer. Head 0 finds what followed the query's token before and says it, the other three are even and silent.

    A convolution brings the token `taps - 1` before into a key, and the one after that into its value: with 2 taps a key holds the
    token before its own, and a value its own.
    """
    block = {"type": "gqa", "n_heads": 4, "head_dim": vocab, "rope": None, "conv": taps, "conv_silu": False}
    model = zoo.build({"d_model": vocab, "vocab_size": vocab, "blocks": {"A": block}, "pattern": "A"}).double()
    attention: Any = model.stack.blocks["00_A"]
    with torch.no_grad():
        model.embedding.weight.copy_(torch.eye(vocab))
        q, k, v = _by_head(attention, vocab)
        q[0], k[0], v[0] = SHARP * torch.eye(vocab), torch.eye(vocab), torch.eye(vocab)
        delays = attention.conv.weight.zero_().chunk(3)  # (channels, taps) of q, k and v, the last tap the token's own
        delays[0][:, -1] = delays[1][:, 0] = delays[2][:, 1] = 1
        attention.out.weight.zero_()[:, :vocab] = LOUD * torch.eye(vocab)
    return model


def two_layers(vocab: int) -> Model:
    """Layer 0 looks one token back (head 0) and writes what it sees into a room of its own; layer 1 finds a key that holds the
    query's token there and says the key's own token (head 0), its other head is even and silent. The first token holds itself."""
    d = 2 * vocab + 1
    blocks = {
        "P": {"type": "gqa", "n_heads": 2, "head_dim": vocab, "window": 2, "rope": {"base": 1e12}},
        "I": {"type": "gqa", "n_heads": 2, "head_dim": vocab, "rope": None},
    }
    model = zoo.build({"d_model": d, "vocab_size": vocab, "blocks": blocks, "pattern": "P I"}).double()
    own, room, one = torch.eye(d, dtype=torch.float64).split([vocab, vocab, 1])  # rows that read these parts of the stream
    built: Any = model.stack.blocks
    back, find = built["00_P"], built["01_I"]
    with torch.no_grad():
        model.embedding.weight.copy_(own + one)
        q, k, v = _by_head(back, vocab)
        q[0, 0], q[0, vocab // 2] = SHARP * torch.cos(torch.tensor(1.0)) * one[0], -SHARP * torch.sin(torch.tensor(1.0)) * one[0]
        k[0, 0] = one[0]  # their score at distance m is SHARP cos(m - 1)
        v[0] = own
        back.out.weight.zero_()[:, :vocab] = room.T
        q, k, v = _by_head(find, vocab)
        q[0], k[0], v[0] = SHARP * own, room, own
        find.out.weight.zero_()[:, :vocab] = LOUD * own.T
    return model


def even(vocab: int = 11, *, tokens: dict[str, Any] | None = None, **changes: Any) -> Model:
    """One layer of heads without queries: they attend to all that they see alike."""
    blocks = {"A": {"type": "gqa", "n_heads": 2, **changes}}
    model = zoo.build({"d_model": 8, "vocab_size": vocab, "blocks": blocks, "pattern": "A", "tokens": tokens or {}}).double()
    attention: Any = model.stack.blocks["00_A"]
    with torch.no_grad():
        attention.qkv.weight[: attention.sizes[0]] = 0
    return model


def _by_head(block: Any, width: int) -> list[Tensor]:
    """The rows of q, k and v (heads, width, d), all zero."""
    return [w.unflatten(0, (-1, width)) for w in block.qkv.weight.zero_().chunk(3)]
