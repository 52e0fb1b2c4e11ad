"""Latent attention, dense and sparse, against the attention layers of transformers: values, and the gradients of input and weights.

transformers takes its norms in float32 whatever the input, so that is what the numbers are good for.
"""

import importlib
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.mla import Block, Config
from blocks.rope import Rope, Scaling
from blocks.state import state_bytes
from tests.oracle import error
from zoo.check.contract import CHECKS, check_block

transformers = pytest.importorskip("transformers")

D, BATCH, LENGTH, HEADS, NOPE, ROPE, VALUE, KV, Q = 24, 2, 40, 3, 10, 6, 7, 14, 16
SIZES: dict[str, Any] = {
    "hidden_size": D,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "num_hidden_layers": 1,
    "kv_lora_rank": KV,
    "q_lora_rank": Q,
    "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE,
    "v_head_dim": VALUE,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "max_position_embeddings": 64,
    "index_n_heads": 16,
    "index_head_dim": 12,
    "index_topk": 9,
}
ZOO = {"n_heads": HEADS, "kv_rank": KV, "q_rank": Q, "nope_dim": NOPE, "rope_dim": ROPE, "value_dim": VALUE}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale": 0.7,
    "mscale_all_dim": 0.9,
}
INDEXER = {"index_heads": 16, "index_dim": 12, "index_top_k": 9}


def mscale(by: float) -> float:
    """YaRN's growth of the scores' temperature at a factor of 4."""
    return 0.1 * by * math.log(4.0) + 1


ROTATED = Rope(base=500.0, pairs="adjacent")
STRETCHED = Rope(
    base=500.0, pairs="adjacent", scaling=Scaling(kind="yarn", factor=4.0, original_length=16, attention_factor=mscale(0.7) / mscale(0.9))
)


class Case(NamedTuple):
    """A family of transformers', the options of its config, and what we call them."""

    family: str
    hf: dict[str, Any]
    zoo: dict[str, Any]


CASES = {
    "deepseek-v2": Case("deepseek_v2.DeepseekV2", {}, {}),
    "deepseek-v2-lite": Case("deepseek_v2.DeepseekV2", {"q_lora_rank": None}, {"q_rank": None}),
    "deepseek-v3": Case("deepseek_v3.DeepseekV3", {"attention_bias": True}, {"bias": True}),
    "deepseek-v3, halves": Case("deepseek_v3.DeepseekV3", {"rope_interleave": False}, {"rope": Rope(base=500.0)}),
    "deepseek-v3, yarn": Case(
        "deepseek_v3.DeepseekV3", {"rope_parameters": YARN}, {"rope": STRETCHED, "scale": mscale(0.9) ** 2 / math.sqrt(NOPE + ROPE)}
    ),
    "kimi-linear": Case("kimi_linear.KimiLinear", {"q_lora_rank": None}, {"q_rank": None, "rope": None}),
    "deepseek-v3.2": Case("deepseek_v32.DeepseekV32", {}, INDEXER),
    "glm-5": Case("glm_moe_dsa.GlmMoeDsa", {}, INDEXER | {"index_pairs": "adjacent"}),
}
NAMES = {
    "q_a_proj": "q_down",
    "q_a_layernorm": "q_norm",
    "q_b_proj": "q_up",
    "q_proj": "q_up",
    "kv_a_proj_with_mqa": "kv_down",
    "kv_a_layernorm": "kv_norm",
    "kv_b_proj": "kv_up",
    "o_proj": "out",
    "indexer.wq_b": "indexer.q",
    "indexer.wk": "indexer.k",
    "indexer.k_norm": "indexer.k_norm",
    "indexer.weights_proj": "indexer.weights",
}


def zoo_name(hf_name: str) -> str:
    """The block's name of a parameter of transformers."""
    place, _, kind = hf_name.rpartition(".")
    return f"{NAMES[place]}.{kind}"


class HFModel(nn.Module):
    """An attention layer with its rotary embedding and its causal mask."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        folder, name = case.family.split(".")
        models = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
        config = getattr(transformers, f"{name}Config")(**SIZES | case.hf)
        config._attn_implementation = "sdpa"
        self.attention = getattr(models, f"{name}Attention")(config, 0)
        self.rotary = None if name == "KimiLinear" else getattr(models, f"{name}RotaryEmbedding")(config)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        mask = torch.full((t, t), -torch.inf, dtype=x.dtype).triu(1).expand(x.shape[0], 1, t, t)
        turn = {} if self.rotary is None else {"position_embeddings": self.rotary(x, torch.arange(t)[None])}
        y: Tensor = self.attention(x, attention_mask=mask, **turn)[0]
        return y


def pair(case: Case) -> tuple[HFModel, Block]:
    """The model of transformers and the block with the same random weights, in float64."""
    hf = HFModel(case).double().eval()
    config = Config(**ZOO | {"rope": ROTATED} | case.zoo)
    block = config.build(D).double()
    assert isinstance(block, Block)
    with torch.no_grad():
        for p in hf.attention.parameters():
            p.normal_(0, 0.5)
    block.load_state_dict({zoo_name(name): x for name, x in hf.attention.state_dict().items()})
    return hf, block


def measured(case: Case) -> dict[str, float]:
    """The largest relative difference of the output, and of every gradient."""
    hf, block = pair(case)
    x, weight = torch.randn(2, BATCH, LENGTH, D, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    y, state = block(inputs[0], None, advance(None, BATCH, LENGTH)[0])
    expected = hf(inputs[1])
    assert state_bytes(state) == 8 * BATCH * LENGTH * (KV + ROPE + (12 if block.indexer is not None else 0))
    names = dict(block.named_parameters())
    mine = torch.autograd.grad((y * weight).sum(), [inputs[0], *names.values()], allow_unused=True)
    other = dict(hf.attention.named_parameters())
    truth = torch.autograd.grad((expected * weight).sum(), [inputs[1], *other.values()], allow_unused=True)
    gradients = dict(zip(map(zoo_name, other), truth[1:], strict=True))
    assert gradients.keys() == names.keys()
    errors = {"y": error(y, expected), "x": error(mine[0], truth[0])}
    for name, gradient in zip(names, mine[1:], strict=True):
        assert (gradient is None) == name.startswith("indexer.") == (gradients[name] is None)
        if gradient is not None:
            errors[name] = error(gradient, gradients[name])
    return errors


@pytest.mark.parametrize("name", CASES)
def test_mla_is_hugging_faces(name: str) -> None:
    errors = measured(CASES[name])
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("name", ["deepseek-v3", "kimi-linear"])
def test_absorbed_equals_expanded(name: str) -> None:
    _, block = pair(CASES[name])
    x = torch.randn(BATCH, LENGTH, D, dtype=torch.float64)
    assert not block.config.absorbs(D, LENGTH, LENGTH)
    assert block.config.absorbs(D, 1, LENGTH)
    whole, _ = block(x, None, advance(None, BATCH, LENGTH)[0])
    _, state = block(x[:, :-1], None, advance(None, BATCH, LENGTH - 1)[0])
    last, _ = block(x[:, -1:], state, advance(advance(None, BATCH, LENGTH - 1)[1], BATCH, 1)[0])
    assert error(last[:, 0], whole[:, -1]) < 1e-12


def test_an_indexer_that_chooses_all_is_dense() -> None:
    _, block = pair(CASES["deepseek-v3.2"])
    dense = Config(**ZOO | {"rope": ROTATED}).build(D).double()
    dense.load_state_dict({name: p for name, p in block.state_dict().items() if not name.startswith("indexer.")})
    every = Config(**ZOO | INDEXER | {"rope": ROTATED, "index_top_k": LENGTH}).build(D).double()
    every.load_state_dict(block.state_dict())
    x, ctx = torch.randn(BATCH, LENGTH, D, dtype=torch.float64), advance(None, BATCH, LENGTH)[0]
    expected = dense(x, None, ctx)[0]
    assert error(every(x, None, ctx)[0], expected) < 1e-12
    assert error(block(x, None, ctx)[0][:, :9], expected[:, :9]) < 1e-12  # as many tokens as are chosen
    assert error(block(x, None, ctx)[0], expected) > 1e-2


CONFIGS: dict[str, dict[str, Any]] = {
    "latent queries": {"q_rank": 12, "kv_rank": 10, "nope_dim": 6, "rope_dim": 4, "value_dim": 7, "bias": True},
    "always absorbed": {"kv_rank": 2, "rope": None},
    "sparse": {"index_heads": 3, "index_dim": 8, "index_top_k": 8},
    "sparse, scores that tie": {
        "q_rank": 12,
        "kv_rank": 10,
        "nope_dim": 6,
        "rope_dim": 4,
        "index_heads": 1,
        "index_dim": 5,
        "index_top_k": 5,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract_holds_with_options(name: str) -> None:
    assert [r.check for r in check_block(Config(**CONFIGS[name]), d_model=32)] == list(CHECKS)


def test_published_sizes() -> None:
    config = Config(n_heads=128, q_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    assert config.cost(7168, 1).params == 187_105_280 + 1536 + 512  # matrices, norms
    assert config.cost(7168, 1000).state_bytes == 4 * 576 * 1000
    assert Config(n_heads=32).resolved(4096) == Config(n_heads=32, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128, scale=192**-0.5)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("n_heads", {"n_heads": 5}),
        ("q_rank", {"q_rank": 0}),
        ("kv_rank", {"kv_rank": 0}),
        ("rope_dim", {"rope_dim": 0}),
        ("rope.partial", {"rope_dim": 1}),
        ("index_heads", {"index_heads": -1}),
        ("index_top_k", {"index_heads": 2, "index_top_k": 0}),
        ("index_dim", {"index_heads": 2, "index_dim": 2}),
        ("index_pairs", {"index_pairs": "thirds"}),
    ],
)
def test_impossible_sizes_are_errors_that_name_the_key(place: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as wrong:
        Config(**options).check(32)
    assert wrong.value.place == place
