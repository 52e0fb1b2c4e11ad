"""The samplers: pure functions of the step, inside their documents, and every token in its place."""

import numpy as np
import pytest
import torch

from blocks.errors import ConfigError
from train.data import Split, TextStream, long_documents, validation_windows
from train.data.corpus import Document, byte_corpus
from zoo.tasks import IGNORE

SIZES = (5, 30, 41, 17, 64, 9, 28)
MODES = ("window", "packed", "stream")


def split_of(sizes: tuple[int, ...] = SIZES) -> Split:
    """Document i holds the bytes 32*(i+1) + (0, 1, 2, ...) mod 29: any two neighbouring bytes name their document and place."""
    documents = [Document(f"d{i}", bytes(32 * (i + 1) + j % 29 for j in range(n))) for i, n in enumerate(sizes)]
    return byte_corpus("t", "", documents, lambda _: "train").train


def check_labels(inputs: torch.Tensor, labels: torch.Tensor, documents: torch.Tensor | None) -> None:
    """Each label is the input to its right, or the separator where the document ends there."""
    following = inputs[:, 1:]
    assert torch.equal(labels[:, :-1], following)
    if documents is not None:  # a document's last label is the separator, which is the next document's first token
        starts = documents[:, 1:] != documents[:, :-1]
        assert torch.equal(following == 0, starts)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_needs_none_before_it(mode: str) -> None:
    def fresh() -> TextStream:
        return TextStream(split_of(), 12, seed=7, mode=mode)

    stream = fresh()
    drawn = [stream.batch(i, 3) for i in range(12)]
    for i in (11, 5, 0):
        alone = fresh().batch(i, 3)
        assert torch.equal(alone.inputs, drawn[i].inputs)
        assert torch.equal(alone.labels, drawn[i].labels)
        assert (alone.documents is None) == (mode == "window")
        if alone.documents is not None:
            assert torch.equal(alone.documents, drawn[i].documents)
    other = TextStream(split_of(), 12, seed=8, mode=mode)
    assert any(not torch.equal(other.batch(i, 3).inputs, drawn[i].inputs) for i in range(3))


@pytest.mark.parametrize("mode", MODES)
def test_labels_are_the_next_tokens(mode: str) -> None:
    stream = TextStream(split_of(), 12, mode=mode)
    for i in range(20):
        batch = stream.batch(i, 3)
        assert batch.inputs.shape == batch.labels.shape == (3, 12)
        assert batch.inputs.dtype == batch.labels.dtype == torch.int64
        check_labels(batch.inputs, batch.labels, batch.documents)


def test_windows_stay_inside_one_document_drawn_in_proportion_to_its_length() -> None:
    split = split_of()
    stream = TextStream(split, 12, mode="window")
    batch = stream.batch(0, 4000)
    assert not (batch.inputs[:, 1:] == 0).any()
    assert not (batch.labels == 0).any()
    document = batch.labels[:, 0] // 32 - 1
    assert (batch.labels // 32 - 1 == document[:, None]).all()
    long = np.array([n + 1 if n + 1 > 12 else 0 for n in SIZES])
    share = np.bincount(document.numpy(), minlength=len(SIZES)) / 4000
    assert np.abs(share - long / long.sum()).max() < 0.03
    assert stream.coverage == pytest.approx(long.sum() / (sum(SIZES) + len(SIZES)))
    starts = set(batch.labels[document == 3][:, 0].tolist())
    assert starts == {32 * 4 + j for j in range(17 + 1 - 12)}  # every place of the 17 bytes and their separator


def test_windows_do_not_depend_on_how_rows_are_batched() -> None:
    stream = TextStream(split_of(), 12)
    assert torch.equal(stream.batch(0, 6).inputs, torch.cat([stream.batch(0, 3).inputs, stream.batch(1, 3).inputs]))


def test_packed_reads_every_piece_once_an_epoch() -> None:
    split, length = split_of(), 10
    pieces = split.n_tokens // length
    stream = TextStream(split, length, mode="packed")
    rows = torch.cat([stream.batch(i, 4).inputs for i in range(-(-2 * pieces // 4))])[: 2 * pieces]
    everything = np.bincount(split.tokens, minlength=256)
    for epoch in (rows[:pieces], rows[pieces:]):
        counts = np.bincount(epoch.flatten().numpy(), minlength=256)
        assert (counts <= everything).all()
        assert counts.sum() == pieces * length > everything.sum() - length
    assert not torch.equal(rows[:pieces], rows[pieces:])


def test_stream_rows_go_on_where_they_stopped() -> None:
    split, length, rows = split_of(), 7, 3
    lane = split.n_tokens // rows
    steps = lane // length
    stream = TextStream(split, length, mode="stream")
    epochs = []
    for epoch in range(2):
        batches = [stream.batch(epoch * steps + i, rows) for i in range(steps)]
        inputs, labels = torch.cat([b.inputs for b in batches], 1), torch.cat([b.labels for b in batches], 1)
        documents = torch.cat([b.documents for b in batches if b.documents is not None], 1)
        check_labels(inputs, labels, documents)
        epochs.append((inputs, documents))
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert (epochs[1][1][:, 0] != epochs[0][1][:, -1]).all()  # a lane's end is a document's end for the carried state
    assert not set(epochs[0][1].flatten().tolist()) & set(epochs[1][1].flatten().tolist())


def test_documents_without_a_separator_end_unscored() -> None:
    tokens = np.arange(20, dtype=np.uint16)
    split = Split(tokens, np.array([0, 8, 15]), np.array([8, 15, 20]))
    batch = TextStream(split, 19, mode="stream").batch(0, 1)
    ends = (batch.inputs == 7) | (batch.inputs == 14) | (batch.inputs == 19)
    assert (batch.labels[ends] == IGNORE).all()
    assert torch.equal(batch.labels[~ends], batch.inputs[~ends] + 1)


def test_a_document_cut_short_is_not_said_to_end() -> None:
    tokens = np.array([9, 1, 2, 3, 9, 4, 5, 6], dtype=np.uint8)
    split = Split(tokens, np.array([0, 5]), np.array([2, 8]), separator=9)
    assert split.closes.tolist() == [IGNORE, 9]


def test_validation_windows_are_fixed_spread_and_paired_with_documents() -> None:
    split = split_of()
    first, again = validation_windows(split, 12, 50), validation_windows(split, 12, 50)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.document, again.document)
    check_labels(first.inputs, first.labels, None)
    assert (first.labels // 32 - 1 == first.document[:, None]).all()
    assert torch.equal(first.document, first.document.sort().values)
    assert set(first.document.tolist()) == {i for i, n in enumerate(SIZES) if n + 1 > 12}
    assert not torch.equal(validation_windows(split, 12, 50, seed=1).inputs, first.inputs)


def test_long_documents_predict_every_byte_once() -> None:
    split = split_of()
    long_ones = long_documents(split, 31)
    assert [d.name for d in long_ones] == ["d1", "d2", "d4"]
    for document, n in zip(long_ones, (30, 41, 64), strict=True):
        assert len(document.inputs) == len(document.labels) == n
        assert document.inputs[0] == 0
        assert torch.equal(document.labels[:-1], document.inputs[1:])


@pytest.mark.parametrize(
    ("make", "place", "words"),
    [
        (lambda: TextStream(split_of(), 65), "length", "at most 64"),
        (lambda: TextStream(split_of(()), 4), "length", "empty"),
        (lambda: TextStream(split_of(), 500, mode="packed"), "length", "201 tokens"),
        (lambda: TextStream(split_of(), 0), "length", "positive"),
        (lambda: TextStream(split_of(), 4, mode="windows"), "mode", "window, packed, stream"),
        (lambda: TextStream(split_of(), 4, seed=-1), "seed", "0 or more"),
        (lambda: TextStream(split_of(), 40, mode="stream").batch(0, 6), "batch_size", "at most 5"),
        (lambda: TextStream(split_of(), 4).batch(-1, 6), "step", "0 or more"),
        (lambda: TextStream(split_of(), 4).batch(0, 0), "batch_size", "positive"),
        (lambda: validation_windows(split_of(), 65, 4), "length", "at most 64"),
        (lambda: validation_windows(split_of(), 6, 0), "count", "positive"),
        (lambda: long_documents(split_of(), 66), "min_length", "65 tokens"),
    ],
)
def test_what_can_not_be_drawn_says_so(make: object, place: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()  # type: ignore[operator]
    assert caught.value.place == place


def test_the_longest_window_is_the_longest_document() -> None:
    assert TextStream(split_of(), 64).batch(0, 1).labels[0].tolist() == split_of().document(4)[1:].tolist()
