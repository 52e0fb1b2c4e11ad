"""Drawing tokens: greedy is argmax over the text read anew, draws are the seed's, and the nucleus is transformers'."""

from typing import Any

import pytest
import torch
from transformers.generation import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import zoo
from blocks.errors import ConfigError
from zoo.model.generate import generate, probabilities

VALUES: dict[str, Any] = {
    "d_model": 16,
    "vocab_size": 12,
    "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}, "A": {"type": "gqa", "n_heads": 2, "window": 4}},
    "pattern": "M A",
    "dropout": 0.5,
}
PROMPT = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def model() -> zoo.Model:
    made = zoo.build(VALUES, seed=2)
    with torch.no_grad():
        made.head_weight.mul_(3)
    return made


def sampled(**options: Any) -> torch.Tensor:
    return torch.stack(list(generate(model(), PROMPT, **options)), 1)


def test_greedy_is_the_likeliest_of_the_whole_text_read_anew() -> None:
    reader, text = model().eval(), PROMPT
    for _ in range(6):
        text = torch.cat([text, reader(text)[0][:, -1].argmax(-1)[:, None]], 1)
    assert torch.equal(sampled(steps=6, temperature=0), text[:, 5:])
    assert torch.equal(sampled(steps=6, top_k=1), text[:, 5:])
    assert torch.equal(sampled(steps=6, top_p=1e-9), text[:, 5:])


def test_draws_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = sampled(steps=8, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first, sampled(steps=8, seed=5))
    assert torch.equal(first[:, :3], sampled(steps=3, seed=5))
    assert not torch.equal(first, sampled(steps=8, seed=6))


def test_draws_follow_the_probabilities() -> None:
    rows = 4000
    tokens = next(generate(model(), PROMPT[:1].expand(rows, -1), steps=1, temperature=0.7, top_k=5, seed=0))
    wanted = probabilities(model().eval()(PROMPT[:1])[0][:, -1], 0.7, 5)[0].detach()
    counts = torch.bincount(tokens, minlength=12)
    assert int(counts[wanted == 0].sum()) == 0
    kept = wanted > 0
    chi = ((counts - rows * wanted)[kept] ** 2 / (rows * wanted[kept])).sum()
    assert float(chi) < 18.5  # chi-square, 4 degrees of freedom, one seed in a thousand


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, None, None), (0.5, 4, None), (2.0, None, 0.6), (1.3, 6, 0.8)])
def test_probabilities_are_those_of_transformers(temperature: float, top_k: int | None, top_p: float | None) -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * 3
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p else []
    wanted = warpers(torch.zeros(50, 1, dtype=torch.int64), logits).softmax(-1)
    torch.testing.assert_close(probabilities(logits, temperature, top_k, top_p), wanted)


def test_the_mode_is_put_back_and_no_graph_is_kept() -> None:
    made = model().train()
    for token in generate(made, PROMPT, steps=3):
        assert not made.training
        assert not token.requires_grad
        break
    assert made.training


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_numbers_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        generate(model(), PROMPT, **{"steps": 1, **wrong})
