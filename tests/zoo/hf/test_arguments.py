"""Arguments of transformers' models that trainers and tools use: each has its documented effect, or is refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from blocks.context import Context
from blocks.errors import ConfigError
from tests.zoo.hf.models import MODELS, loaded, of_block, padded, shared, sharp, text
from zoo.convert.checkpoint import import_folder


def shifted(labels: Tensor) -> Tensor:
    """Labels of transformers (logits at t are scored by labels at t + 1) as zoo.Model takes them."""
    out = torch.full_like(labels, -100)
    out[:, :-1] = labels[:, 1:]
    return out


def test_the_loss_is_that_of_the_model_and_every_parameter_learns(tmp_path: Path) -> None:
    model, ids = sharp("hybrid"), text(2, 9)
    hf, labels = loaded(model, tmp_path), ids.clone()
    labels[0, 3] = -100
    output = hf(ids, labels=labels)
    torch.testing.assert_close(output.loss, model.loss(ids, shifted(labels))[0])
    torch.testing.assert_close(hf(ids, labels=labels, num_items_in_batch=30).loss, output.loss * 15 / 30)
    output.loss.backward()
    assert all(p.grad is not None for p in hf.parameters())


def test_what_comes_back() -> None:
    model, ids = shared("hybrid"), text(2, 9)
    whole = model(ids)
    assert (whole.loss, whole.past_key_values, whole.hidden_states) == (None, None, None)
    assert torch.equal(model(ids, logits_to_keep=2).logits, whole.logits[:, -2:])
    assert torch.equal(model(ids, labels=ids, logits_to_keep=2).logits, whole.logits[:, -2:])
    assert torch.equal(model(ids, logits_to_keep=torch.tensor([1, 4])).logits, whole.logits[:, [1, 4]])
    logits, cache = model(ids, use_cache=True, return_dict=False)
    assert torch.equal(logits, whole.logits)
    assert (cache.seen, cache.lengths.tolist()) == (9, [9, 9])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_padding_on_either_side_changes_nothing(name: str, side: str) -> None:
    model, prompts = shared(name), [text(1, n) for n in (9, 4, 1)]
    ids, mask = padded(prompts, side)
    out = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=True)
    assert out.past_key_values.lengths.tolist() == [9, 4, 1]
    more = text(3, 2)
    seen = torch.cat([mask, mask.new_ones(3, 2)], 1)
    after = model(more, attention_mask=seen, position_ids=seen.cumsum(1) - 1, past_key_values=out.past_key_values).logits
    for i, prompt in enumerate(prompts):
        alone = model(torch.cat([prompt, more[i : i + 1]], 1)).logits[0]
        together = torch.cat([out.logits[i][mask[i] == 1], after[i]])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_packed_positions_keep_the_texts_apart(name: str) -> None:
    """As DataCollatorWithFlattening packs them: one row, positions that begin again at 0."""
    model, texts = shared(name), [text(1, n) for n in (5, 1, 7)]
    positions = torch.cat([torch.arange(t.shape[1]) for t in texts])[None]
    logits = model(torch.cat(texts, 1), position_ids=positions).logits
    torch.testing.assert_close(logits, torch.cat([model(t).logits for t in texts], 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_in_place_of_ids(name: str) -> None:
    model = shared(name)
    ids, mask = padded([text(1, 6), text(1, 3)], "right")
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    loss = model(inputs_embeds=embeddings, attention_mask=mask, labels=ids).loss
    assert torch.equal(loss, model(ids, attention_mask=mask, labels=ids).loss)
    loss.backward()
    assert embeddings.grad is not None
    assert bool(embeddings.grad.any())


@pytest.mark.parametrize("side", ["left", "right"])
def test_hidden_states_are_the_stream_around_every_sub_layer(side: str) -> None:
    model = shared("hybrid")
    ids, mask = padded([text(1, 6), text(1, 3)], side)
    out = model(ids, attention_mask=mask, output_hidden_states=True)
    inner, streams, here = model.model, out.hidden_states, mask == 1
    assert len(streams) == len(inner.config.layers) + 1
    assert torch.equal(streams[0][here], inner.embedding(ids)[here])
    assert torch.equal((streams[-1] @ inner.head_weight.T)[here], out.logits[here])
    fed = inner.stack.blocks["01_F"](inner.stack.norms["1"](streams[1]), None, Context(torch.zeros_like(ids)))[0]
    torch.testing.assert_close((streams[1] + fed)[here], streams[2][here])


def test_what_is_refused() -> None:
    model, ids = shared("hybrid"), text(2, 5)
    mask = torch.ones_like(ids)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("either they or inputs_embeds", {}),
        ("either they or inputs_embeds", {"input_ids": ids, "inputs_embeds": model.get_input_embeddings()(ids)}),
        ("attention_mask", {"input_ids": ids, "attention_mask": mask[:, :3]}),
        ("attention_mask", {"input_ids": ids, "attention_mask": mask[:, None, None]}),
        ("position_ids", {"input_ids": ids, "position_ids": torch.arange(5)[None] + 1}),
        ("position_ids", {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 1, 2, 3]])}),
        ("output_attentions", {"input_ids": ids, "output_attentions": True}),
    ]
    for said, arguments in wrong:
        with pytest.raises(ConfigError, match=said):
            model(**arguments)
    with pytest.raises(ConfigError, match="inserts tokens"):
        shared("prefix")(ids, output_hidden_states=True)
    n_grams = shared("ngram")
    with pytest.raises(ConfigError, match=r"inputs_embeds.*ngram.*reads token ids"):
        n_grams(inputs_embeds=n_grams.get_input_embeddings()(ids))
    with pytest.raises(ValueError, match="does not support activation checkpointing"):
        model.activation_checkpointing_enable()


@pytest.mark.parametrize("name", ["hybrid", "delta"])  # a head of its own, a tied one
def test_more_tokens_and_fewer(name: str, tmp_path: Path) -> None:
    model, ids = loaded(sharp(name), tmp_path / "a"), text(2, 5)
    before = model(ids).logits
    model.resize_token_embeddings(24)
    assert torch.equal(model(ids).logits[..., :20], before)
    assert model(ids + 4).logits.shape == (2, 5, 24)
    assert model.model.ledger(1).params == sum(p.numel() for p in model.parameters())
    model.save_pretrained(tmp_path / "b")
    assert torch.equal(import_folder(tmp_path / "b")(ids)[0], model(ids).logits)
    model.resize_token_embeddings(20)
    assert torch.equal(model(ids).logits, before)
    with pytest.raises(ConfigError, match="mean_resizing"):
        model.resize_token_embeddings(21, mean_resizing=False)


def test_trainer_takes_the_steps_that_one_takes_by_hand(tmp_path: Path) -> None:
    """Three steps of two micro-batches with unequal numbers of labels: the mean over all labelled tokens of a step."""
    from transformers import Trainer, TrainingArguments

    values = of_block("mamba2")
    plain, hf = zoo.build(values, seed=1), loaded(zoo.build(values, seed=1), tmp_path / "a")
    ids = text(4, 8)
    labels = ids.clone()
    labels[0, :5], labels[3, 2:4] = -100, -100
    rows = [{"input_ids": i, "labels": label, "attention_mask": torch.ones_like(i)} for i, label in zip(ids, labels, strict=True)]
    dataset: Any = rows  # Trainer takes any list
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trained = Trainer(model=hf, args=arguments, train_dataset=dataset)
    assert trained.train().global_step == 3
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        plain.loss(ids, shifted(labels))[0].backward()
        optimiser.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(hf.model.get_parameter(name), parameter, rtol=1e-5, atol=1e-6)
    trained.save_model(str(tmp_path / "b"))
    assert torch.equal(import_folder(tmp_path / "b")(ids)[0], hf.eval()(ids).logits)
    assert trained.evaluate(dataset)["eval_loss"] > 0
