"""Zoo models as folders of transformers: the same logits and weights after any round trip, whole or in shards, float32 or bfloat16."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import zoo
import zoo.hf
from blocks.catalogue import block_types
from blocks.errors import ConfigError
from tests.zoo.hf.models import BASE, MODELS, A, F, loaded, sharp, text
from train.cli.command_line import run
from zoo.config.model import model_mapping
from zoo.convert.checkpoint import export_folder, import_folder
from zoo.weights.safetensors_io import weights_of


@pytest.mark.parametrize("name", [*MODELS, *block_types()])
def test_the_same_logits_and_weights_after_every_round_trip(name: str, tmp_path: Path) -> None:
    model, ids = sharp(name), text(2, 7)
    hf = loaded(model, tmp_path / "a")
    hf.save_pretrained(tmp_path / "b", max_shard_size="4KB")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 1
    back, again = import_folder(tmp_path / "b"), AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    for other in (hf.model, back, again.model):
        assert model_mapping(other.config) == model_mapping(model.config)
        expected, weights = weights_of(model), weights_of(other)
        assert expected.keys() == weights.keys()
        assert all(torch.equal(t, weights[n]) for n, t in expected.items())
    for parameter in hf.parameters():  # where transformers maps weights into memory some BLAS sum in another order
        parameter.data = parameter.data.clone()
    assert torch.equal(hf(ids).logits, model(ids)[0])


@pytest.mark.parametrize("name", [*MODELS, *block_types()])
def test_half_the_bytes_are_the_same_model_in_bfloat16(name: str, tmp_path: Path) -> None:
    model, ids = sharp(name), text(2, 7)
    loaded(model, tmp_path / "a")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "a", dtype=torch.bfloat16)
    logits = half(ids).logits
    assert logits.dtype == torch.float32
    assert torch.equal(logits, deepcopy(model).bfloat16()(ids)[0])
    half.save_pretrained(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "b")  # as it was saved
    assert again.dtype == torch.bfloat16
    assert torch.equal(again(ids).logits, logits)


def test_the_config_says_what_tools_ask(tmp_path: Path) -> None:
    loaded(sharp("hybrid"), tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, zoo.hf.ZooConfig)
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (20, 16, 4)
    made = AutoModelForCausalLM.from_config(config)
    assert made.num_parameters() == made.model.ledger(1).params


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
    assert coder(coder.bos_token + said)["input_ids"] == [0, *said.encode()]  # as a document begins
    assert coder.decode(list(said.encode())) == said
    assert (len(coder), coder.eos_token_id) == (256, 0)


def test_the_command_line_says_which_class_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values, said in (
        ("llama", {"blocks": {"A": A, "F": F}, "pattern": "A F"}, "llama"),
        ("zoo", MODELS["hybrid"], "import zoo.hf"),
    ):
        export_folder(zoo.build(BASE | values), tmp_path / name, "zoo")
        assert run(["import", str(tmp_path / name), "--out", str(tmp_path / f"{name} own")]) == 0
        capsys.readouterr()
        out = tmp_path / f"{name} out"
        assert run(["export", str(tmp_path / f"{name} own"), "--to", "hf", "--out", str(out)]) == 0
        assert said in capsys.readouterr().out
        assert json.loads((out / "config.json").read_text())["model_type"] == name
        assert isinstance(AutoModelForCausalLM.from_pretrained(out).config, zoo.hf.ZooConfig) == (name == "zoo")
