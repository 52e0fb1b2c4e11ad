"""Models of published sizes: counted as the library that published them counts, and run in their tiny form."""

from pathlib import Path

import pytest
import torch

import zoo
from tests.zoo.test_ledger import counted
from zoo.config import load_model
from zoo.interop import families
from zoo.interop.checkpoint import family_of
from zoo.ledger import ledger
from zoo.schema import load_yaml

FOLDER = Path(__file__).parents[2] / "configs" / "models" / "published"
FAMILIES = {
    "bamba_9b": "bamba",
    "command_r7b": "cohere2",
    "deepseek_v2_lite": "deepseek_v2",
    "deepseek_v3": "deepseek_v3",
    "deepseek_v32": "deepseek_v32",
    "falcon_h1_500m": "falcon_h1",
    "falcon_mamba_7b": "falcon_mamba",
    "gemma2_2b": "gemma2",
    "gemma3_1b": "gemma3",
    "glm5": "glm_moe_dsa",
    "gpt2_small": "gpt2",
    "gpt_oss_20b": "gpt_oss",
    "granite4_h_tiny": "granitemoehybrid",
    "granite_2b": "granite",
    "jamba_52b": "jamba",
    "kimi_linear_48b_a3b": "kimi_linear",
    "lfm2_1_2b": "lfm2",
    "llama3_8b": "llama",
    "llama4_scout": "llama4_text",
    "mamba2_2b7": "mamba2",
    "mamba_2b8": "mamba",
    "mistral_7b": "mistral",
    "mixtral_8x7b": "mixtral",
    "nanochat_d20": "nanochat",
    "nemotron_h_8b": "nemotron_h",
    "olmo3_7b": "olmo3",
    "olmo_hybrid_7b": "olmo_hybrid",
    "qwen3_30b_a3b": "qwen3_moe",
    "qwen3_5_35b_a3b": "qwen3_5_moe",
    "qwen3_5_9b": "qwen3_5",
    "qwen3_8b": "qwen3",
    "qwen3_next_80b_a3b": "qwen3_next",
    "recurrentgemma_2b": "recurrent_gemma",
    "rwkv4_169m": "rwkv",
    "smollm3_3b": "smollm3",
    "xlstm_7b": "xlstm",
}
PATHS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_those_of_the_class_in_transformers(name: str) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = load_model(FOLDER / f"{name}.yaml")
    _, hf, family = family_of(config, FAMILIES[name])
    their_config = CONFIG_MAPPING[family.MODEL_TYPES[0]](**{key: value for key, value in hf.items() if key != "model_type"})
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(their_config)
    assert sum(p.numel() for p in theirs.parameters()) == ledger(config, 1).params


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_tiny_forms_run_in_pieces_and_their_ledger_is_true(path: Path) -> None:
    config = load_model(path, tiny=True)
    full = load_model(path)
    assert {b.type for b in config.named.values()} == {b.type for b in full.named.values()}
    model = zoo.build(config, seed=0)
    assert sum(p.numel() for p in model.parameters()) == model.ledger(1).params < 200_000
    flops, state = counted(model, 17, "reference")
    assert (model.ledger(17).flops, model.ledger(17).state_bytes) == (flops, zoo.state_bytes(state))
    model = model.double().eval()
    tokens = torch.randint(config.vocab_size, (2, 17))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :9])
    second, _ = model(tokens[:, 9:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-9, atol=1e-9)


def test_every_published_model_has_a_tiny_form() -> None:
    assert [path.name for path in PATHS if "tiny" not in load_yaml(path)] == []
    assert set(FAMILIES.values()) <= set(families.names())
