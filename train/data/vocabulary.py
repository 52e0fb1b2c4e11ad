"""Whether a model has an id for everything that its data may hold."""

from __future__ import annotations

from blocks.errors import require
from train.data.sources import Source


def check_vocabulary(source: Source, vocab_size: int, place: str, remedy: str) -> None:
    """Raise ConfigError unless a model of `vocab_size` ids covers the ids of the data. place: of the model's vocab_size."""
    needed = source.vocab_size
    require(needed <= vocab_size, place, vocab_size, f"the data has ids up to {needed - 1}", remedy)
