"""Text, token files and generated tasks, behind one protocol: `open_source(data, seed)` gives a `Source` of `Batch`es.

    batch = source.batch(step, batch_size)      # inputs, labels (b, t) int64; documents (b, t) or None

labels[t] is what must be predicted at position t (for text the token t+1), IGNORE (-100) where nothing is scored. Every batch is a
pure function of (seed, step, batch_size). See `configs` for what `data:` may hold.
"""

from train.data.batches import Batch, TextStream, Whole, Windows, long_documents, validation_windows
from train.data.config import KINDS, DataConfig, HubData, TaskData, TextData, TokensData, parse_data
from train.data.corpus import SPLITS, Corpus, ReadingReport, Split
from train.data.packaged import packaged
from train.data.sources import Source, TaskSource, TextSource, load_corpus, open_source, reading_lines

__all__ = [
    "KINDS",
    "SPLITS",
    "Batch",
    "Corpus",
    "DataConfig",
    "HubData",
    "ReadingReport",
    "Source",
    "Split",
    "TaskData",
    "TaskSource",
    "TextData",
    "TextSource",
    "TextStream",
    "TokensData",
    "Whole",
    "Windows",
    "load_corpus",
    "long_documents",
    "open_source",
    "packaged",
    "parse_data",
    "reading_lines",
    "validation_windows",
]
