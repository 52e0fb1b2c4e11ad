"""transformers' generate on zoo models: the same text with any cache, for every block and every way to generate."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo.hf
from blocks.catalogue import block_types
from blocks.errors import ConfigError
from tests.zoo.hf.models import MODELS, padded, shared, text

STEPS = 5
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 8},
    "beams": {"num_beams": 3},
    "beam sampling": {"num_beams": 2, "do_sample": True},
    "two of each": {"num_return_sequences": 2, "do_sample": True},
    "beams returned": {"num_beams": 3, "num_return_sequences": 2},
}


def generated(model: Any, ids: Tensor, **options: Any) -> Tensor:
    torch.manual_seed(7)
    return model.generate(ids, max_new_tokens=STEPS, **options)[:, ids.shape[1] :]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_the_state_carried_says_what_reading_all_again_says(name: str, way: str) -> None:
    model, ids = shared(name), text(2, 9)
    assert torch.equal(generated(model, ids, **WAYS[way]), generated(model, ids, use_cache=False, **WAYS[way]))


@pytest.mark.parametrize("name", [*MODELS, *block_types()])
def test_a_padded_batch_read_in_pieces_says_what_each_prompt_read_again_and_again_does(name: str) -> None:
    """The state of every block: carried over pieces and steps, beside padding, in the order of the beams."""
    model, prompts = shared(name), [text(1, n) for n in (9, 4)]
    ids, mask = padded(prompts, "left")
    together = generated(model, ids, attention_mask=mask, prefill_chunk_size=4, num_beams=3)
    for i, prompt in enumerate(prompts):
        assert torch.equal(together[i : i + 1], generated(model, prompt, use_cache=False, num_beams=3)), i


def test_beams_that_keep_their_own_state_are_another_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparisons above can fail: without the reordering they do."""
    model, ids = shared("hybrid"), text(8, 9)
    right = generated(model, ids, num_beams=3)
    monkeypatch.setattr(zoo.hf.ZooCache, "reorder_cache", lambda self, beam_idx: None)
    assert not torch.equal(right, generated(model, ids, num_beams=3))


def test_a_cache_of_the_user_goes_on() -> None:
    model, ids = shared("hybrid"), text(2, 9)
    whole = generated(model, ids)
    cache = zoo.hf.ZooCache()
    model(ids[:, :5], past_key_values=cache)
    assert cache.get_seq_length() == 5
    assert torch.equal(generated(model, ids, past_key_values=deepcopy(cache)), whole)
    assert cache.get_seq_length() == 5
    cache.batch_repeat_interleave(3)
    three = generated(model, ids.repeat_interleave(3, 0), past_key_values=cache)
    assert torch.equal(three, whole.repeat_interleave(3, 0))


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_that_generate_returns_goes_on(name: str) -> None:
    """A turn of a conversation: what was read and written is not read again, the padding of the first turn included."""
    model = shared(name)
    ids, mask = padded([text(1, 7), text(1, 3)], "left")
    first = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    asked = torch.cat([first.sequences, text(2, 3)], 1)
    seen = torch.cat([mask, mask.new_ones(2, 4 + 3)], 1)
    cache = first.past_key_values
    assert cache.get_seq_length() == 7 + 4 - 1  # what was written last has not been read
    again = generated(model, asked, attention_mask=seen)
    assert torch.equal(generated(model, asked, attention_mask=seen, past_key_values=cache), again)


def test_generating_from_embeddings() -> None:
    model, ids = shared("hybrid"), text(2, 9)
    output = model.generate(inputs_embeds=model.get_input_embeddings()(ids), max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(output, generated(model, ids))


def test_the_end_of_a_text_ends_its_row_alone() -> None:
    model, ids = shared("hybrid"), text(4, 9)
    free = generated(model, ids)
    end = int(free[0, 1])
    output = generated(model, ids, attention_mask=torch.ones_like(ids), eos_token_id=end, pad_token_id=3)
    for row, whole in zip(output.tolist(), free.tolist(), strict=True):
        kept = whole.index(end) + 1 if end in whole else STEPS
        assert row[:kept] == whole[:kept]
        assert set(row[kept:]) <= {3}
    assert output[0, 2:].tolist() == [3] * (output.shape[1] - 2)


def test_what_a_state_can_not_do_is_refused() -> None:
    model, ids = shared("hybrid"), text(1, 5)
    with pytest.raises(ValueError, match="stateful"):
        model.generate(ids, max_new_tokens=2, prompt_lookup_num_tokens=2)
    for name in ("static", "offloaded", "quantized"):
        with pytest.raises(ConfigError, match="cache_implementation"):
            model.generate(ids, max_new_tokens=2, cache_implementation=name)
    from transformers import DynamicCache

    with pytest.raises(ConfigError, match="past_key_values"):
        model.generate(ids, max_new_tokens=2, past_key_values=DynamicCache())
    cache = zoo.hf.ZooCache()
    model(text(2, 3), past_key_values=cache)
    with pytest.raises(ConfigError, match="past_key_values"):
        model(ids, past_key_values=cache)
