"""Zoo models through transformers: the same logits, the same texts whatever carries the state, the same weights after any round trip."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import zoo
import zoo.hf
from blocks.base import ConfigError
from train.cli import run
from zoo.config import model_mapping
from zoo.interop.checkpoint import export_folder, import_folder
from zoo.weights import weights_of

M = {"type": "mamba2", "d_state": 4, "head_dim": 8}
A = {"type": "gqa", "n_heads": 2, "n_kv_heads": 1}
F = {"type": "swiglu"}
BASE: dict[str, Any] = {"d_model": 16, "vocab_size": 20, "tie_embeddings": False}
MODELS: dict[str, dict[str, Any]] = {
    "hybrid": BASE | {"blocks": {"M": M, "W": A | {"window": 4}, "F": F}, "pattern": "M F W|M F"},
    "delta": BASE
    | {"blocks": {"G": {"type": "gated_delta", "n_heads": 2, "head_dim": 4}, "F": F}, "pattern": "2*(G F)", "tie_embeddings": True},
    "shared": BASE | {"blocks": {"A": A | {"share": True}, "M": M}, "pattern": "A M A", "logit_softcap": 5.0},
    "prefix": BASE | {"blocks": {"A": A, "F": F}, "pattern": "A F", "tokens": {"prefix": {"count": 2}}},
    "memory": BASE | {"blocks": {"A": A, "F": F}, "pattern": "A F", "tokens": {"memory": {"count": 2, "segment": 4}}},
}
STEPS = 6
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 8},
    "beams": {"num_beams": 3},
    "beam sampling": {"num_beams": 2, "do_sample": True},
    "two of each": {"num_return_sequences": 2, "do_sample": True},
}


def sharp(name: str) -> zoo.Model:
    """Weights that make some tokens much likelier than others and the past matter: no ties, and beams that change places."""
    model = zoo.build(MODELS[name], seed=1)
    with torch.no_grad():
        for parameter in model.stack.parameters():
            parameter.mul_(2 if parameter.ndim > 1 else 1)
        model.head_weight.mul_(4)
    return model.eval()


def loaded(model: zoo.Model, folder: Path) -> Any:
    assert export_folder(model, folder, "zoo") == "zoo"
    return AutoModelForCausalLM.from_pretrained(folder)


@cache
def shared(name: str) -> Any:
    """The same model for every test that does not change it."""
    with TemporaryDirectory() as folder:
        return loaded(sharp(name), Path(folder))


def text(rows: int, length: int) -> Tensor:
    return torch.randint(20, (rows, length), generator=torch.Generator().manual_seed(0))


def generated(model: Any, ids: Tensor, **options: Any) -> Tensor:
    torch.manual_seed(7)
    return model.generate(ids, max_new_tokens=STEPS, **options)[:, ids.shape[1] :]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_logits_and_weights_after_every_round_trip(name: str, tmp_path: Path) -> None:
    model = sharp(name)
    theirs = loaded(model, tmp_path / "a")
    theirs.save_pretrained(tmp_path / "b")
    back, again = import_folder(tmp_path / "b"), AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    for other in (theirs.model, back, again.model):
        assert model_mapping(other.config) == model_mapping(model.config)
        ours, found = weights_of(model), weights_of(other)
        assert ours.keys() == found.keys()
        assert all(torch.equal(t, found[n]) for n, t in ours.items())
    ids = text(2, 7)
    assert torch.equal(theirs(ids).logits, model(ids)[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_the_state_carried_says_what_reading_all_again_says(name: str, way: str) -> None:
    model, ids = shared(name), text(2, 9)
    assert torch.equal(generated(model, ids, **WAYS[way]), generated(model, ids, use_cache=False, **WAYS[way]))


@pytest.mark.parametrize("way", ["greedy", "beams"])
@pytest.mark.parametrize("name", MODELS)
def test_a_padded_batch_says_what_each_prompt_alone_does(name: str, way: str) -> None:
    model, prompts = shared(name), [text(1, n) for n in (9, 4, 1)]
    ids, mask = torch.full((3, 9), 13), torch.zeros(3, 9, dtype=torch.int64)
    for i, prompt in enumerate(prompts):
        ids[i, -prompt.shape[1] :], mask[i, -prompt.shape[1] :] = prompt[0], 1
    together = generated(model, ids, attention_mask=mask, **WAYS[way])
    for i, prompt in enumerate(prompts):
        assert torch.equal(together[i : i + 1], generated(model, prompt, **WAYS[way])), i


def test_beams_that_keep_their_own_state_are_another_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: without the reordering it does."""
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
    assert torch.equal(generated(model, ids, past_key_values=cache), whole)
    assert torch.equal(generated(model, ids, past_key_values=zoo.hf.ZooCache(), prefill_chunk_size=4), whole)


def test_loss_and_arguments(tmp_path: Path) -> None:
    model = sharp("hybrid")
    theirs, ids = loaded(model, tmp_path), text(2, 9)
    labels = ids.clone()
    labels[0, 3] = -100
    shifted = torch.full_like(labels, -100)
    shifted[:, :-1] = labels[:, 1:]
    found = theirs(ids, labels=labels)
    torch.testing.assert_close(found.loss, model.loss(ids, shifted)[0])
    found.loss.backward()
    assert all(p.grad is not None for p in theirs.parameters())
    assert torch.equal(theirs(ids, logits_to_keep=2).logits, found.logits[:, -2:])
    assert found.past_key_values is None
    assert theirs(ids, use_cache=True, return_dict=False)[1].seen == 9
    with pytest.raises(ValueError, match="stateful"):
        theirs.generate(ids[:1], max_new_tokens=2, prompt_lookup_num_tokens=2)


def test_a_folder_that_lacks_or_adds_a_tensor_is_refused(tmp_path: Path) -> None:
    loaded(sharp("hybrid"), tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    norm = "model.norm.weight"
    for tensors, said in (
        ({n: t for n, t in whole.items() if n != norm}, f"lacks {norm}"),
        (whole | {"more": torch.zeros(1)}, "no place for more"),
        (whole | {norm: torch.zeros(3)}, "mismatched_sizes"),  # transformers' own error
    ):
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises((ConfigError, RuntimeError), match=said):
            AutoModelForCausalLM.from_pretrained(tmp_path)


def test_no_file_decides_what_is_imported(tmp_path: Path) -> None:
    loaded(sharp("hybrid"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["plugins"] = ["this"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="import this"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="import this"):
        import_folder(tmp_path)


def test_a_byte_model_takes_its_tokenizer_along(tmp_path: Path) -> None:
    export_folder(zoo.build(MODELS["hybrid"] | {"vocab_size": 256}), tmp_path)
    coder, said = AutoTokenizer.from_pretrained(tmp_path), "Āéß \n\t漢字 a\0b 😀"
    assert coder(said)["input_ids"] == list(said.encode())
    assert coder.decode(list(said.encode())) == said
    assert (len(coder), coder.eos_token_id) == (256, 0)


def test_the_command_line_says_which_class_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values, said in (
        ("llama", {"blocks": {"A": A, "F": F}, "pattern": "A F"}, "llama"),
        ("zoo", MODELS["hybrid"], "import zoo.hf"),
    ):
        export_folder(zoo.build(BASE | values), tmp_path / name, "zoo")
        assert run(["import", str(tmp_path / name), "--out", str(tmp_path / "own")]) == 0
        capsys.readouterr()
        assert run(["export", str(tmp_path / "own"), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
        assert said in capsys.readouterr().out
        assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == name
        assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path / "out").config, zoo.hf.ZooConfig) == (name == "zoo")
