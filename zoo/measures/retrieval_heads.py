"""Retrieval heads: which attention heads copy the needle into the answer, and what becomes of the answer without them.

Detection (Wu et al., arXiv:2404.15574), over passkeys of all lengths and depths, teacher-forced on the right answer: where answer
token w is to be said next, a head copies it if its most attended key lies in the needle and is w. The score of a head is the
share of the answer's tokens that it copies, mean over trials: all trials, also those that the model answers wrong. Where a
short convolution of c taps stands before a block's keys and values, a key holds its token and the c - 1 before it: w may be any
of them that is in the needle.

Ablation, on other examples: the task's accuracy with the outputs of the k heads of highest score zeroed from the first token on,
with those of k of the other heads, drawn at random `draws` times, and with none. A k above half of the heads is left out; a
model without attention, or with segment memory, has neither heads nor ablations.

    condition  layer=3;block=A;head=0
    metrics    score (clustered Wilson over trials)
    condition  threshold=0.1
    metrics    share (of the heads whose score is above the threshold)
    condition  ablated=top;heads=2     and ablated=random;heads=2, ablated=none;heads=0
    metrics    accuracy (exact match; Wilson over examples, of random t over draws), drop (accuracy lost, t over paired examples)
    condition  heads=2
    metrics    gap (accuracy without random heads less accuracy without the top ones, t over paired examples, mean over draws)
    condition  (none)
    metrics    chance
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blocks.errors import require
from zoo.measures import passkey
from zoo.measures.passkey import Draw, Task, drawn
from zoo.measures.shared.attention_heads import Head, Seen, ablated, heads_of, held_before, watching
from zoo.measures.shared.base import Documents, Headline, Progress, Result, Row, exact_row, row
from zoo.measures.shared.statistics import Array, clustered_proportion, mean_interval, paired_difference, wilson
from zoo.measures.shared.streaming import Counter, ask, evaluating, shape_of_call, spans, stream
from zoo.model.model import IGNORE, Model
from zoo.tasks import passkey as passkey_bytes
from zoo.tasks import passkey_tokens
from zoo.tasks.shared.base import HELD_OUT, Batch, distinct, uniforms

SUMMARY = "retrieval heads: which attention heads copy a passkey, and accuracy with them or others zeroed"
METRICS = ("score", "share", "accuracy", "drop", "gap", "chance")
HEADLINE = (Headline("share", "% of heads", 100.0, key="threshold"), Headline("gap", "points", 100.0, key="heads"))
RESUMABLE = False


@dataclass(frozen=True, kw_only=True)
class Config(passkey.Config):
    """Sizes of the measure: those of the passkey measure (`examples` to detect with, a length and depth), and of the ablation."""

    ablation_examples: int = 16  # held-out examples of each length and depth, asked with heads zeroed
    heads: tuple[int, ...] = (1, 2, 4)  # how many are zeroed
    draws: int = 5  # random sets of heads to compare with
    thresholds: tuple[float, ...] = (0.1, 0.5)  # scores above which a head counts as a retrieval head
    reach: int | None = None  # tokens before a key's own that it holds, too; null: what the block's own convolution brings it

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ablation_examples >= 2, "ablation_examples", self.ablation_examples, "must be at least 2")
        require(all(k >= 1 for k in self.heads), "heads", self.heads, "must be positive")
        require(self.draws >= 2, "draws", self.draws, "must be at least 2")
        require(all(0 <= x < 1 for x in self.thresholds), "thresholds", self.thresholds, "are shares, 0 to 1")
        require(self.reach is None or self.reach >= 0, "reach", self.reach, "can't be negative")


class Cell(NamedTuple):
    """One length and depth. Detection takes its first examples, ablation the next ones."""

    task: Task
    generate: Draw
    first: int


def run(model: Model, config: Config, seed: int, *, data: Documents | None = None, progress: Progress | None = None) -> Result:
    """See the module. `data` is read only for `filler: text`: its bytes are the haystack."""
    known = heads_of(model)
    counts = [k for k in config.heads if 2 * k <= len(known)]
    cells, chance = _cells(config, model, data)
    detecting = config.examples if known else 0
    asked = detecting + config.ablation_examples * (1 + len(counts) * (1 + config.draws))
    counter = Counter(asked * sum(cell.task.length for cell in cells), progress)
    with evaluating(model):
        shares = _copied(model, config, seed, cells, known, counter) if known else np.zeros((0, 0))
        rows = _head_rows(known, shares, config, _answer_tokens(config))
        ranked = [known[i] for i in np.argsort(-shares.mean(1), kind="stable")] if known else []
        rows += _ablations(partial(_right, model, config, seed, cells, counter), ranked, counts, config.draws, seed)
    return Result((*rows, exact_row({}, "chance", chance, len(known))))


def _cells(config: Config, model: Model, data: Documents | None) -> tuple[list[Cell], float]:
    """The cells, other examples at every depth, and the chance level."""
    tasks = config.tasks(model.config.vocab_size)
    each = config.examples + config.ablation_examples
    sources = [drawn(task, data) for task in tasks]
    cells = [
        Cell(task, generate, i % len(config.depths) * each) for i, (task, (generate, _)) in enumerate(zip(tasks, sources, strict=True))
    ]
    return cells, sources[0][1]


def _answer_tokens(config: Config) -> int:
    return config.digits if config.form == "bytes" else 1


def _copied(model: Model, config: Config, seed: int, cells: Sequence[Cell], known: Sequence[Head], counter: Counter) -> Array:
    """(heads, trials): the share of its answer's tokens that each head copies in each trial."""
    copied = []
    for task, generate, first in cells:
        beside, piece = shape_of_call(config.examples, task.length, config.call_tokens)
        for start in range(0, config.examples, beside):
            trials = generate(seed, HELD_OUT + first + start, min(beside, config.examples - start))
            copied.append(_trials(model, task, trials, piece, known, config.reach))
            counter.add(trials.inputs.numel())
    return np.concatenate(copied, 1)


def _trials(model: Model, task: Task, trials: Batch, piece: int, known: Sequence[Head], reach: int | None) -> Array:
    """(heads, b)"""
    inputs, labels, _ = trials
    answer = (labels[0] != IGNORE).nonzero().squeeze(1)
    low, high = _needle(task, trials, int(answer[0]))
    first = {head.slot: i for i, head in reversed(list(enumerate(known)))}
    copied = torch.zeros(len(known), len(inputs), dtype=torch.float64)

    def show(seen: Seen) -> None:
        slot = first[seen.slot]
        key = seen.keys[seen.weights.argmax(-1)].cpu()  # (b, h, n): the token of the text that is attended most
        wanted = labels[:, None, seen.queries.cpu()]
        hits = torch.zeros_like(key, dtype=torch.bool)
        for back in range(1 + (held_before(model, known[slot]) if reach is None else reach)):
            token = key - back
            said = inputs.gather(1, token.clamp(min=0).flatten(1)).view_as(key)
            hits |= (token >= low[:, None, None]) & (token < high[:, None, None]) & (said == wanted)
        copied[slot : slot + hits.shape[1]] += hits.sum(2).T / len(answer)

    with watching(model, show, answer):
        for _ in stream(model, inputs, None, spans(inputs.shape[1], piece)):
            pass
    return copied.numpy()


def _needle(task: Task, trials: Batch, answer: int) -> tuple[Tensor, Tensor]:
    """Where the needle of each trial begins and ends, (b,) each. answer: the first position that is scored."""
    start = answer - torch.from_numpy(trials.info["distance"])  # of the key, or of the number's first digit
    if isinstance(task, passkey_tokens.Config):
        return start, start + 2
    start = start - passkey_bytes.NEEDLE.index("{")
    return start, start + len(passkey_bytes.NEEDLE.format("0" * task.digits))


def _right(model: Model, config: Config, seed: int, cells: Sequence[Cell], counter: Counter, heads: Sequence[Head]) -> Array:
    """(examples,) 1 or 0: which of all cells' examples are answered right with `heads` zeroed."""
    with ablated(model, heads):
        answers = [
            ask(model, partial(generate, seed), first + config.examples, config.ablation_examples, task.length, config.call_tokens, counter)
            for task, generate, first in cells
        ]
    return np.concatenate([a.exact for a in answers]).astype(np.float64)


def _head_rows(known: Sequence[Head], shares: Array, config: Config, tokens: int) -> list[Row]:
    rows = [row(head.where, "score", clustered_proportion(shares[i], tokens)) for i, head in enumerate(known)]
    if known:
        rows += [exact_row({"threshold": t}, "share", float((shares.mean(1) > t).mean()), len(known)) for t in config.thresholds]
    return rows


def _ablations(right: Any, ranked: Sequence[Head], counts: Sequence[int], draws: int, seed: int) -> list[Row]:
    """right(heads) -> (examples,); ranked: heads by falling score."""
    intact = right(())
    rows = [row({"ablated": "none", "heads": 0}, "accuracy", wilson(intact.sum(), len(intact)))]
    for k in counts:
        top = right(ranked[:k])
        others = np.stack([right([ranked[k + i] for i in chosen]) for chosen in _draws(seed, k, len(ranked) - k, draws)])
        rows += [
            row({"ablated": "top", "heads": k}, "accuracy", wilson(top.sum(), len(top))),
            row({"ablated": "top", "heads": k}, "drop", paired_difference(intact, top)),
            row({"ablated": "random", "heads": k}, "accuracy", mean_interval(others.mean(1))),
            row({"ablated": "random", "heads": k}, "drop", paired_difference(intact, others.mean(0))),
            row({"heads": k}, "gap", paired_difference(others.mean(0), top)),
        ]
    return rows


def _draws(seed: int, k: int, among: int, draws: int) -> list[list[int]]:
    """`draws` random sets of k numbers below `among`."""
    return distinct(uniforms(("retrieval_heads", seed, k), 0, draws, k), among).tolist()
