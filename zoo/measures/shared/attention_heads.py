"""The weights of every attention head while a model reads, and heads that are zeroed while it reads.

    with watching(model, show, wanted):     # show(seen) for every attention layer and every few queries
        for _ in stream(model, tokens, ...): ...
    with ablated(model, heads):             # their outputs are 0 before the output projection, from the first token on
        ...

A head is known by the place of its block's call in the stack: layer, block and head number, shared weights as often as they run.
Which key is which token follows from how caches are kept: the first `sink_tokens` keys and the latest ones, in the order of the
text. Rows of a batch are read alike, from the start, without packing or padding, as measures read.

Heads of `attention`, `differential attention` (the difference of its maps), `landmark` and `core_context` are seen. Meta attention is left
out: none of its queries and keys is a token of the text. Under segment memory (tokens.memory) layers begin anew at every
segment, and no head is followed through the text: such a model counts as one without heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import core_context, gqa, landmark
from blocks.context import TEXT, Context
from kernels.attention.visible import Sight
from kernels.attention.weights import attention_weights, differential_weights, pair_scores
from kernels.backends import edited, observed
from kernels.core_context.sight import Sight as CoreSight
from kernels.landmark import chunked as landmark_chunked
from zoo.measures.shared.streaming import evaluating
from zoo.model.model import Model

ELEMENTS = 1 << 20  # weights that are held at once
NO_TOKEN = -1  # a key or query that is no token of the text: an inserted one, or a core that stands for several


class Head(NamedTuple):
    """One head of a model. slot: the place of its block's call among all calls of a pass through the stack."""

    slot: int
    layer: int
    block: str
    head: int

    @property
    def where(self) -> dict[str, Any]:
        """Its condition in a row."""
        return {"layer": self.layer, "block": self.block, "head": self.head}


class Seen(NamedTuple):
    """What the h heads of one layer gave n of the queries of a piece. b rows, s keys."""

    slot: int
    weights: Tensor  # (b, h, n, s), at least float32
    queries: Tensor  # (n,) int64: which token of the text each query is, NO_TOKEN = inserted
    keys: Tensor  # (s,) int64: the same of each key


class Call(NamedTuple):
    """One call of an attention operation. Its keys: `pooled` that stand for several tokens, `sinks` of the first, then the latest."""

    weights: Callable[[Tensor], Tensor]  # which of the queries (n,) -> (b, h, n, pooled + s)
    heads: int
    keys: int  # s, without the pooled ones
    sinks: int = 0
    pooled: int = 0


class Running:
    """Which block of the stack runs, on which piece; hooks tell it. The stack calls its blocks in one order."""

    def __init__(self, model: Model) -> None:
        self.names = [(layer, name) for layer, names in enumerate(model.config.layers) for name in names]
        self.slot = len(self.names) - 1
        self.context = Context(torch.zeros(1, 0, dtype=torch.int64))
        self.text = torch.zeros(0, dtype=torch.int64)  # the token of the text at every position so far, NO_TOKEN = inserted

    def start(self, block: nn.Module, args: tuple[Tensor, Any, Context]) -> None:
        """A forward pre-hook."""
        self.slot, self.context = (self.slot + 1) % len(self.names), args[2]
        if self.slot == 0:
            self._read(self.context)

    def _read(self, ctx: Context) -> None:
        if ctx.documents is not None or bool((ctx.positions != ctx.positions[:1]).any()):
            raise ValueError("heads are watched in rows that are read alike, without packing or padding")
        start = int(ctx.positions[0, 0])
        if start not in (0, len(self.text)):
            raise ValueError("heads are watched from the start of a text on")
        before = self.text[:start]
        real = torch.ones(ctx.positions.shape[1], dtype=torch.bool) if ctx.kinds is None else ctx.kinds[0].cpu() == TEXT
        index = int((before != NO_TOKEN).sum()) - 1 + real.cumsum(0)
        self.text = torch.cat([before, index.where(real, NO_TOKEN)])

    def call(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """What runs, if it is attention among the tokens of the text."""
        known = CALLS.get(operation)
        if known is None or args[0].shape[1] != self.context.positions.shape[1]:
            return None
        return known(*args, **kwargs)

    def queries(self) -> Tensor:
        """(t,): which token of the text each query of the piece is."""
        return self.text[len(self.text) - self.context.positions.shape[1] :]

    def keys(self, call: Call) -> Tensor:
        """(pooled + s,): which token of the text each key is."""
        index = torch.arange(call.keys)
        position = index.where(index < call.sinks, len(self.text) - call.keys + index)
        return F.pad(self.text[position], (call.pooled, 0), value=NO_TOKEN)


@contextmanager
def following(model: Model) -> Iterator[Running]:
    """Know which block runs inside this `with`."""
    running = Running(model)
    blocks: list[nn.Module] = [model.stack.blocks[key] for keys in model.stack.layers for key in keys]
    hooks = [block.register_forward_pre_hook(running.start) for block in dict.fromkeys(blocks)]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watching(model: Model, show: Callable[[Seen], None], wanted: Tensor | None = None) -> Iterator[None]:
    """Show the weights of every attention layer inside this `with`, at most ELEMENTS at once.

    wanted (k,): the tokens of the text whose queries are shown; None = all of them. Inserted tokens' queries are not.
    """

    def look(operation: str, _backend: str, _backends: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = running.call(operation, args, kwargs)
        if call is None:
            return
        queries, keys, device = running.queries(), running.keys(call), args[0].device
        chosen = (queries != NO_TOKEN) if wanted is None else torch.isin(queries, wanted)
        most = max(1, ELEMENTS // (args[0].shape[0] * call.heads * len(keys)))
        for rows in chosen.nonzero().squeeze(1).split(most):
            if len(rows):
                show(Seen(running.slot, call.weights(rows.to(device)), queries[rows].to(device), keys.to(device)))

    with following(model) as running, observed(look):
        yield


@contextmanager
def ablated(model: Model, heads: Iterable[Head]) -> Iterator[None]:
    """Zero the outputs of these heads inside this `with`, before their block's output projection."""
    chosen: dict[int, list[int]] = {}
    for head in heads:
        chosen.setdefault(head.slot, []).append(head.head)

    def zero(operation: str, result: Any) -> Any:
        if operation not in CALLS or running.slot not in chosen:
            return result
        return result.index_fill(2, torch.tensor(chosen[running.slot], device=result.device), 0)

    with following(model) as running, edited(zero):
        yield


def heads_of(model: Model) -> list[Head]:
    """All heads that can be watched, in the order of the stack: found by reading one token. None under segment memory."""
    counts: dict[int, int] = {}
    if model.segments is not None:
        return []

    def look(operation: str, _backend: str, _backends: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = running.call(operation, args, kwargs)
        if call is not None:
            counts[running.slot] = call.heads

    with evaluating(model), following(model) as running, observed(look):
        model.hidden(torch.zeros(1, 1, dtype=torch.int64, device=model.embedding.weight.device))
    return [Head(slot, *running.names[slot], head) for slot, count in counts.items() for head in range(count)]


def held_before(model: Model, head: Head) -> int:
    """How many tokens before its own a short convolution brings into a key."""
    match model.config.named[head.block].config:
        case gqa.Config(conv=taps) | landmark.Config(conv=taps) | core_context.Config(conv=taps):
            return max(taps - 1, 0)
    return 0


def _attention(q: Tensor, k: Tensor, _v: Tensor, view: Sight, **options: Any) -> Call:
    return Call(lambda rows: attention_weights(q, k, view, rows, **options), q.shape[2], k.shape[1], view.sink_tokens)


def _differential(q: Tensor, k: Tensor, _v: Tensor, mix: Tensor, view: Sight, *, scale: float | None) -> Call:
    return Call(lambda rows: differential_weights(q, k, mix, view, rows, scale=scale), q.shape[3], k.shape[1], view.sink_tokens)


def _core_context(q: Tensor, k: Tensor, _v: Tensor, cores: Tensor, _w: Tensor, view: CoreSight, *, scale: float | None) -> Call:
    def weights(rows: Tensor) -> Tensor:
        first, stop, low, high = (x[:, rows, None] for x in view)
        core, key = (torch.arange(x.shape[1], device=x.device) for x in (cores, k))
        visible = torch.cat([(core >= first) & (core < stop), (key >= low) & (key < high)], -1)[:, None]
        scores = torch.cat([pair_scores(q[:, rows], x, scale) for x in (cores, k)], -1)
        return scores.masked_fill(~visible, -torch.inf).softmax(-1)

    return Call(weights, q.shape[2], k.shape[1], pooled=cores.shape[1])


def _landmark(q: Tensor, k: Tensor, _v: Tensor, marks: Tensor, **options: Any) -> Call:
    """Outputs are linear in the values: those of one-hot values are the weights."""
    past = k.shape[1] - q.shape[1]

    def row(index: int) -> Tensor:
        n = past + index + 1
        values = torch.eye(n, dtype=k.dtype, device=k.device)[None, :, None].expand(*k.shape[:1], -1, k.shape[2], -1)
        o = landmark_chunked.landmark(q[:, index : index + 1], k[:, :n], values, marks[:, :n], **options)
        return F.pad(o, (0, k.shape[1] - n))

    return Call(lambda rows: torch.cat([row(i) for i in rows.tolist()], 1).transpose(1, 2), q.shape[2], k.shape[1])


CALLS: dict[str, Callable[..., Call]] = {
    "attention": _attention,
    "differential attention": _differential,
    "core_context": _core_context,
    "landmark": _landmark,
}
