"""The six tasks of MAD (Poli et al., arXiv:2403.17844) as conditions of the zoo's tasks.

    MAD                          here
    in-context recall            in_context_recall
    noisy in-context recall      in_context_recall, noise and noise_ids
    fuzzy in-context recall      in_context_recall, key_motif and value_motif; keys of one to three ids in training, of three in tests
    selective copying            selective_copying
    memorization                 memorization
    compression                  compression (asked for by place: a language model has no decoder)

MAD's score of a task is the mean of its accuracies under the baseline and each change, the best of learning rates 1e-4, 5e-4, 1e-3 and
weight decays 0, 0.1 each; it also varies the number of training examples (12 800; 6400, 3200, 1600, 800), which is not the
task's affair. Its vocabularies count special tokens otherwise by one or two ids, its recall tests score an average over
the different values, not over the answers, and its recall trains on every token, ours on the answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from zoo.tasks import compression, in_context_recall, memorization, selective_copying

LENGTHS = (255, 511, 1023)  # read of 256, 512, 1024: the last answer is not
MOTIF = (1, 3)


class Condition(NamedTuple):
    """One setting of a MAD task."""

    task: str  # the name in zoo.tasks.TASKS
    train: Any  # the task's Config
    test: Any  # the task's Config; another one for fuzzy recall only


def _same(task: str, configs: list[Any]) -> tuple[Condition, ...]:
    return tuple(Condition(task, config, config) for config in configs)


def _recall(*, vocab_size: int = 16, length: int = 127) -> in_context_recall.Config:
    return in_context_recall.Config(vocab_size=vocab_size, length=length)


def _noisy(*, vocab_size: int = 32, noise: float = 0.2, length: int = 127) -> in_context_recall.Config:
    return in_context_recall.Config(vocab_size=vocab_size, noise=noise, noise_ids=16, length=length)


def _fuzzy(*, vocab_size: int = 16, length: int = 127) -> Condition:
    train = in_context_recall.Config(vocab_size=vocab_size, length=length, key_motif=MOTIF, value_motif=MOTIF)
    return Condition("in_context_recall", train, replace(train, key_motif=(3, 3)))


def _copying(*, vocab_size: int = 16, length: int = 256, data: int = 16) -> selective_copying.Config:
    return selective_copying.Config(vocab_size=vocab_size, length=length, data=data)


def _compression(*, symbols: int = 15, tokens: int = 32) -> compression.Config:
    return compression.Config(vocab_size=symbols + tokens, symbols=symbols, length=2 * tokens - 1)


# Each task's baseline, then its changes one at a time.
SUITE: dict[str, tuple[Condition, ...]] = {
    "in_context_recall": _same(
        "in_context_recall", [_recall(), *(_recall(vocab_size=v) for v in (32, 64, 128)), *(_recall(length=t) for t in LENGTHS)]
    ),
    "noisy_in_context_recall": _same(
        "in_context_recall",
        [
            _noisy(),
            *(_noisy(vocab_size=v) for v in (48, 80, 144)),
            *(_noisy(length=t) for t in LENGTHS),
            *(_noisy(noise=share) for share in (0.4, 0.6, 0.8)),
        ],
    ),
    "fuzzy_in_context_recall": (
        _fuzzy(),
        *(_fuzzy(vocab_size=v) for v in (32, 64, 128)),
        *(_fuzzy(length=t) for t in LENGTHS),
    ),
    "selective_copying": _same(
        "selective_copying",
        [
            _copying(),
            *(_copying(vocab_size=v) for v in (32, 64, 128)),
            *(_copying(length=t) for t in (512, 1024)),
            *(_copying(data=m) for m in (32, 64, 96)),
        ],
    ),
    "memorization": _same("memorization", [memorization.Config(vocab_size=v) for v in (256, 512, 1024, 2048, 4096, 8192)]),
    "compression": _same(
        "compression",
        [_compression(), *(_compression(symbols=v - 1) for v in (32, 64, 128)), *(_compression(tokens=t) for t in (64, 128, 256))],
    ),
}
