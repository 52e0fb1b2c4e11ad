"""The language model: embedding, inserted tokens, positions, the stack of sub-layers, the head. Tokens in, logits and a state out.

    logits, state = model(tokens, state)

Whole sequences, pieces with the state carried and single tokens give the same logits; the state is differentiable.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blocks.context import LANDMARK, META, PREFIX, Context, Cursor, Routed, advance
from blocks.errors import ConfigError
from kernels.cross_entropy import cross_entropy_by_row, logits_of, summed_cross_entropy
from zoo.config.inserted_tokens import insert
from zoo.config.model import ModelConfig
from zoo.ledger.ledger import Ledger, ledger
from zoo.model.padding import leading, restore
from zoo.model.segment_memory import Segments, SegmentState
from zoo.model.stack import LayerStates, Stack
from zoo.model.sublayer import make_norm

IGNORE = -100  # a label that is not scored


class ModelState(NamedTuple):
    """Everything a model carries from one piece of text to the next."""

    cursor: Cursor
    layers: LayerStates


class Model(nn.Module):
    """A language model from a ModelConfig."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.embedding = nn.Embedding(config.vocab_size, d)
        nn.init.normal_(self.embedding.weight, std=d**-0.5)  # logits of a tied head begin with a variance of one
        self.inserted = nn.ParameterDict({str(kind): nn.Parameter(0.02 * torch.randn(count, d)) for kind, count in _counts(config).items()})
        self.positions = nn.Embedding(config.positions, d) if config.positions is not None else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.01)  # GPT-2's
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.stack = Stack(config)
        self.segments = Segments(config.tokens.memory, d) if config.tokens.memory is not None else None
        self.norm = make_norm(config)
        self.head = None if config.tie_embeddings else nn.Linear(d, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """(vocab, d): the embedding's own weight if tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(
        self, tokens: Tensor, state: Any = None, *, documents: Tensor | None = None, padding: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """tokens (b, t) integers -> logits (b, t, vocab) float32, and the state after them.

        documents: (b, t) ids, a new document where the id changes. padding: (b, t) bool, anywhere; logits there are meaningless.
        """
        hidden, state = self.hidden(tokens, state, documents=documents, padding=padding)
        return logits_of(hidden, self.head_weight, self.config.logit_softcap), state

    def hidden(
        self,
        tokens: Tensor,
        state: Any = None,
        *,
        documents: Tensor | None = None,
        padding: Tensor | None = None,
        embeddings: Tensor | None = None,
        routed: list[Routed] | None = None,
    ) -> tuple[Tensor, Any]:
        """The normed (and scaled, logit_scale) hidden states (b, t, d) that the head reads, and the state after the piece.

        embeddings: (b, t, d), read in place of the tokens' own; blocks that need ids (Config.needs_tokens) still read the tokens.
        routed: each mixture of experts appends its load and auxiliary loss, in the order of the stack.
        """
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ConfigError("tokens", list(tokens.shape), "must be (batch, length) with a length of at least 1")
        order = leading(padding)
        if order is not None:
            tokens = tokens.gather(1, order)
            padding = padding.gather(1, order) if padding is not None else None
            documents = documents.gather(1, order) if documents is not None else None
            embeddings = embeddings.gather(1, order[..., None].expand_as(embeddings)) if embeddings is not None else None
        x = self._embedded(tokens, embeddings)
        if self.segments is not None:
            hidden, state = self.segments.run(x, state, partial(self._run_segment, routed=routed), documents, padding)
        else:
            hidden, state = self._run(tokens, x, state, documents, padding, routed)
        return (hidden if order is None else restore(hidden, order)), state

    def _run(
        self,
        tokens: Tensor,
        x: Tensor,
        state: ModelState | None,
        documents: Tensor | None,
        padding: Tensor | None,
        routed: list[Routed] | None,
    ) -> tuple[Tensor, ModelState]:
        cursor, layers = (None, None) if state is None else state
        ctx, cursor = advance(cursor, *tokens.shape, documents=documents, padding=padding, tokens=tokens, device=tokens.device)
        text = None
        if self.config.tokens.kinds:
            layout = insert(self.config.tokens, ctx)
            x, ctx, text = self._with_inserted(x, layout.ctx, layout.source, layout.order), layout.ctx, layout.text
        x, layers = self._stacked(x, layers, ctx, routed)
        if text is not None:
            x = x.gather(1, text[..., None].expand(*text.shape, x.shape[-1]))
        return self._normed(x), ModelState(cursor, layers)

    def _embedded(self, tokens: Tensor, embeddings: Tensor | None) -> Tensor:
        x = self.embedding(tokens) if embeddings is None else embeddings
        return x if self.config.embedding_scale == 1 else x * self.config.embedding_scale

    def _stacked(self, x: Tensor, states: LayerStates | None, ctx: Context, routed: list[Routed] | None) -> tuple[Tensor, LayerStates]:
        """The stack, with learned positions and the embedding norm before it."""
        if self.positions is not None:
            longest = int(ctx.positions.max()) + 1
            if longest > self.positions.num_embeddings:
                raise ConfigError("positions", self.positions.num_embeddings, f"a document of {longest} tokens is longer")
            x = x + self.positions(ctx.positions)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if routed is None:
            return self.stack(x, states, ctx)
        own: list[Routed] = []  # an empty list, so that a compiled stack is not compiled again
        x, states = self.stack(x, states, replace(ctx, routed=own))
        routed += own
        return x, states

    def _normed(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x if self.config.logit_scale == 1 else x * self.config.logit_scale

    def _with_inserted(self, x: Tensor, ctx: Context, source: Tensor, order: Tensor) -> Tensor:
        expanded = x.gather(1, source[..., None].expand(*source.shape, x.shape[-1]))
        assert ctx.kinds is not None
        for kind, table in self.inserted.items():
            here = torch.eq(ctx.kinds, int(kind))
            expanded = torch.where(here[..., None], table[order.masked_fill(~here, 0)].to(expanded.dtype), expanded)
        return expanded

    def _run_segment(self, x: Tensor, state: ModelState | None, routed: list[Routed] | None) -> tuple[Tensor, ModelState]:
        cursor, layers = (None, None) if state is None else state
        ctx, cursor = advance(cursor, x.shape[0], x.shape[1], device=x.device)
        x, layers = self._stacked(x, layers, ctx, routed)
        return self._normed(x), ModelState(cursor, layers)

    def loss(
        self,
        tokens: Tensor,
        labels: Tensor | None = None,
        state: Any = None,
        *,
        documents: Tensor | None = None,
        padding: Tensor | None = None,
        routed: list[Routed] | None = None,
    ) -> tuple[Tensor, Any]:
        """The mean cross-entropy (nats) over labelled positions, and the state after the piece.

        labels: (b, t), what each position must predict, -100 = not scored; None = the next token of the same document.
        Only labelled rows meet the head, in chunks. routed: see hidden; their auxiliary losses are not added to this one.
        """
        labels = next_tokens(tokens, documents, padding) if labels is None else labels
        hidden, state = self.hidden(tokens, state, documents=documents, padding=padding, routed=routed)
        rows = (labels != IGNORE).flatten().nonzero().squeeze(1)
        scored, labels = hidden.flatten(0, 1).index_select(0, rows), labels.flatten().index_select(0, rows)
        return summed_cross_entropy(scored, self.head_weight, labels, self.config.logit_softcap) / max(len(rows), 1), state

    @torch.no_grad()
    def nll(
        self, tokens: Tensor, labels: Tensor, state: Any = None, *, documents: Tensor | None = None, padding: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """The cross-entropy (nats) of each label, (b, t), 0 where the label is -100; and the state after the piece."""
        hidden, state = self.hidden(tokens, state, documents=documents, padding=padding)
        scored = labels != IGNORE
        out = hidden.new_zeros(labels.shape, dtype=torch.float32)
        out[scored] = cross_entropy_by_row(hidden[scored], self.head_weight, labels[scored], self.config.logit_softcap).float()
        return out, state

    def ledger(self, length: int) -> Ledger:
        """Parameters, FLOPs and state bytes for one sequence of `length` tokens."""
        return ledger(self.config, length)


State = ModelState | SegmentState


def next_tokens(tokens: Tensor, documents: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
    """Labels (b, t): the next token, -100 at the end, across documents and at padding."""
    labels = torch.full_like(tokens, IGNORE)
    labels[:, :-1] = tokens[:, 1:]
    if documents is not None:
        labels[:, :-1] = labels[:, :-1].masked_fill(documents[:, 1:] != documents[:, :-1], IGNORE)
    if padding is not None:
        labels[:, :-1] = labels[:, :-1].masked_fill(padding[:, 1:], IGNORE)
        labels = labels.masked_fill(padding, IGNORE)
    return labels


def build(config: ModelConfig, seed: int = 0) -> Model:
    """The model with the initial weights of `seed`; the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model(config)


def _counts(config: ModelConfig) -> dict[int, int]:
    """How many different embeddings each kind of inserted token has."""
    plan = config.tokens
    counts = {PREFIX: plan.prefix.count if plan.prefix else 0, META: int(plan.meta is not None), LANDMARK: int(plan.landmark is not None)}
    return {kind: count for kind, count in counts.items() if count}
