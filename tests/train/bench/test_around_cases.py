"""The cases around the mixers: both sides compute the same numbers."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from train.bench import peers_zoology
from train.bench.cases import around, steps


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def test_convolution_norm_and_loss() -> None:
    x, weight, bias = torch.randn(2, 9, 5), torch.randn(5, 4), torch.randn(5)
    assert error(around.conv_ours(x, weight, bias), around.conv_torch(x, weight, bias)) < 1e-6
    x, weight = torch.randn(7, 12), torch.randn(12)
    assert error(around.norm_ours(x, weight), around.norm_torch(x, weight)) < 1e-6
    hidden, weight, labels = torch.randn(around.TOKENS, 8), torch.randn(around.VOCAB, 8), around.labels_of(0.01)
    assert error(around.loss_ours(hidden, weight, labels), around.loss_torch(hidden, weight, labels)) < 1e-5


def test_the_recall_batch_has_a_quarter_of_labels() -> None:
    tokens, labels = steps.recall_batch()
    assert tokens.shape == labels.shape == (64, 256)
    assert float((labels >= 0).float().mean()) == 0.25


def test_both_sides_of_recall_have_the_same_matrices() -> None:
    """Only a table of positions is more on their side."""
    for mixer, maker in (("attention", peers_zoology.attention(128, 2)), ("mamba2", peers_zoology.mamba2(128, 128, 64))):
        ours = steps.model(mixer, 2, 128)
        theirs = peers_zoology.LanguageModel(steps.VOCAB, 128, 256, [maker(layer) for layer in range(2)])
        sizes = [sum(p.numel() for p in m.parameters() if p.ndim > 1) for m in (ours, theirs)]
        assert sizes[1] - sizes[0] == 256 * 128


def test_decoding_models_have_the_same_parameters() -> None:
    ours, theirs = steps.model("mamba2", 4, 256), steps.hugging_face_mamba2(4, 256)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
