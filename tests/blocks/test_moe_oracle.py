"""Mixtures of experts against the published ones in transformers: values, and the gradients of the input and of every weight.

Routers that transformers computes in float32 whatever its input (DeepSeek's and those made after it) are compared to that precision.
"""

import importlib
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.moe import Block, Config
from tests.oracle import error, moved
from zoo.check.contract import CHECKS, check_block

transformers = pytest.importorskip("transformers")

D, F, SHARED, EXPERTS, BATCH, LENGTH = 12, 10, 7, 8, 2, 9
SIZES: dict[str, Any] = {
    "hidden_size": D,
    "intermediate_size": F,
    "moe_intermediate_size": F,
    "shared_expert_intermediate_size": SHARED,
    "moe_shared_expert_intermediate_size": SHARED,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
}
DEEPSEEK_V3 = {"n_routed_experts": EXPERTS, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
OURS_V3 = {"scores": "sigmoid", "selection_bias": True, "top_k": 3, "groups": 4, "top_groups": 2, "routed_scale": 2.5}


class Case(NamedTuple):
    """A module of transformers', the options of its config, what we call them, and what its numbers are good for."""

    module: str  # model.Class
    config: str
    hf: dict[str, Any]
    zoo: dict[str, Any]
    precision: float


CASES = {
    "mixtral": Case("mixtral.MixtralSparseMoeBlock", "Mixtral", {"num_local_experts": EXPERTS}, {}, 1e-6),
    "qwen3-moe": Case("qwen3_moe.Qwen3MoeSparseMoeBlock", "Qwen3Moe", {"num_experts": EXPERTS, "norm_topk_prob": True}, {"top_k": 8}, 1e-6),
    "qwen3-moe, as it is": Case("qwen3_moe.Qwen3MoeSparseMoeBlock", "Qwen3Moe", {"num_experts": 9}, {"top_k": 8, "normalize": False}, 1e-6),
    "qwen3-next": Case(
        "qwen3_next.Qwen3NextSparseMoeBlock",
        "Qwen3Next",
        {"num_experts": EXPERTS, "num_experts_per_tok": 3},
        {"top_k": 3, "shared_hidden": SHARED, "shared_gate": True},
        1e-6,
    ),
    "jamba": Case("jamba.JambaSparseMoeBlock", "Jamba", {"num_experts": EXPERTS}, {"normalize": False}, 1e-6),
    "gpt-oss": Case(
        "gpt_oss.GptOssMLP",
        "GptOss",
        {"num_local_experts": EXPERTS, "num_experts_per_tok": 3, "swiglu_alpha": 1.3, "swiglu_limit": 0.8},
        {"top_k": 3, "activation": "clamped_swiglu", "bias": True, "router_bias": True, "alpha": 1.3, "limit": 0.8},
        1e-12,
    ),
    "llama4": Case(
        "llama4.Llama4TextMoe",
        "Llama4Text",
        {"num_local_experts": EXPERTS, "head_dim": 6},
        {"scores": "sigmoid", "normalize": False, "top_k": 1, "weigh": "input", "n_shared": 1},
        1e-6,
    ),
    "deepseek-v2": Case(
        "deepseek_v2.DeepseekV2Moe",
        "DeepseekV2",
        {"n_routed_experts": EXPERTS, "num_experts_per_tok": 3, "routed_scaling_factor": 1.5},
        {"top_k": 3, "normalize": False, "n_shared": 2, "routed_scale": 1.5},
        1e-6,
    ),
    "deepseek-v2, groups": Case(
        "deepseek_v2.DeepseekV2Moe",
        "DeepseekV2",
        {"topk_method": "group_limited_greedy", "n_routed_experts": EXPERTS, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2},
        {"top_k": 3, "normalize": False, "n_shared": 2, "groups": 4, "top_groups": 2, "group_score": "max"},
        1e-6,
    ),
    "deepseek-v3": Case("deepseek_v3.DeepseekV3MoE", "DeepseekV3", DEEPSEEK_V3, OURS_V3 | {"n_shared": 1}, 1e-6),
    "kimi-linear": Case(
        "kimi_linear.KimiLinearMoE", "KimiLinear", DEEPSEEK_V3 | {"num_local_experts": EXPERTS}, OURS_V3 | {"n_shared": 1}, 1e-6
    ),
    "nemotron-h": Case(
        "nemotron_h.NemotronHMoE", "NemotronH", DEEPSEEK_V3, OURS_V3 | {"activation": "relu2", "shared_hidden": SHARED}, 1e-6
    ),
}


def hugging_face(case: Case) -> nn.Module:
    model, name = case.module.split(".")
    fields = getattr(transformers, f"{case.config}Config")
    config = fields(**SIZES | case.hf)
    config._experts_implementation = "eager"
    return getattr(importlib.import_module(f"transformers.models.{model}.modeling_{model}"), name)(config)


ROUTER = {"gate": "router", "router": "router"}
SHARED_NAMES = ("shared_expert", "shared_experts")


def renamed(hf: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers by the zoo's names: gate and up of the shared network in one; those of gpt-oss and Llama 4 transposed."""
    out, hf = {}, dict(hf)
    interleaved = "experts.gate_up_proj_bias" in hf  # gpt-oss
    transposed = interleaved or hf["experts.down_proj"].shape[1] == F
    for place, name in (("experts.gate_up_proj", "up"), ("experts.up_proj", "up"), ("experts.down_proj", "down")):
        if place in hf:
            x = hf.pop(place)
            out[name] = x.mT if transposed else x
        if f"{place}_bias" in hf:
            out[f"{name}_bias"] = hf.pop(f"{place}_bias")
    if interleaved:
        out |= {name: torch.cat([out[name][:, ::2], out[name][:, 1::2]], 1) for name in ("up", "up_bias")}
    for name in list(hf):
        head, _, rest = name.partition(".")
        if head in ROUTER:
            kind = "selection_bias" if rest == "e_score_correction_bias" else f"router.{rest}"
            out[kind] = hf.pop(name)
    shared = next((head for head in SHARED_NAMES if f"{head}.down_proj.weight" in hf), None)
    if shared is not None:
        parts = [hf.pop(f"{shared}.{p}.weight") for p in ("gate_proj", "up_proj") if f"{shared}.{p}.weight" in hf]
        out |= {"shared_up.weight": torch.cat(parts), "shared_down.weight": hf.pop(f"{shared}.down_proj.weight")}
    if "shared_expert_gate.weight" in hf:
        out["shared_gate.weight"] = hf.pop("shared_expert_gate.weight")
    assert not hf
    return out


def measured(case: Case) -> dict[str, float]:
    """The largest relative difference of the output, and of every gradient."""
    hf = moved(hugging_face(case)).double().eval()
    with torch.no_grad():
        for p in hf.parameters():
            p.normal_(0, 0.5)
        for name, b in hf.named_buffers():
            assert name == "gate.e_score_correction_bias"
            b.normal_(0, 0.3)
    config = Config(**{"n_experts": case.hf.get("num_experts", EXPERTS), "hidden": F} | case.zoo)
    block = config.build(D).double()
    block.load_state_dict(renamed({name: x.detach() for name, x in hf.state_dict().items()}))
    assert isinstance(block, Block)
    x, weight = torch.randn(2, BATCH, LENGTH, D, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    y, _ = block(inputs[0], None, advance(None, BATCH, LENGTH)[0])
    expected = hf(inputs[1])
    expected = (expected[0] if isinstance(expected, tuple) else expected).view_as(x)
    mine = torch.autograd.grad((y * weight).sum(), [inputs[0], *block.parameters()])
    grads = dict(zip(["x", *dict(block.named_parameters())], mine, strict=True))
    names = [n for n, _ in hf.named_parameters()]
    truth = torch.autograd.grad((expected * weight).sum(), [inputs[1], *hf.parameters()])
    errors = {"y": error(y, expected), "x": error(grads.pop("x"), truth[0])}
    gradients = renamed(dict(zip(names, truth[1:], strict=True)))
    assert gradients.keys() == grads.keys()
    return errors | {name: error(grads[name], gradients[name]) for name in grads}


@pytest.mark.parametrize("name", CASES)
def test_moe_is_hugging_faces(name: str) -> None:
    errors = measured(CASES[name])
    assert max(errors.values()) < CASES[name].precision, errors


def test_a_softmax_over_the_chosen_is_a_normalised_softmax_over_all() -> None:
    block = Config(top_k=3).build(D).double()
    x = torch.randn(1, 5, D, dtype=torch.float64)
    chosen, weights = block.route(block.logits(x))
    logits = block.router(x)
    assert torch.equal(chosen, logits.topk(3, -1).indices)
    assert error(weights, logits.gather(-1, chosen).softmax(-1)) < 1e-14


def test_active_parameters_are_what_a_token_meets() -> None:
    config = Config(n_experts=6, top_k=2, n_shared=1, shared_gate=True, bias=True)
    cost = config.cost(D, 1)
    block = config.build(D)
    y, _ = block(torch.randn(1, 1, D), None, advance(None, 1, 1)[0])
    gradients = dict(zip(dict(block.named_parameters()), torch.autograd.grad(y.sum(), list(block.parameters())), strict=True))
    stacks = [gradients.pop(name) for name in ("up", "down", "up_bias", "down_bias")]
    met = sum(int((g.flatten(1) != 0).any(1).sum()) * g[0].numel() for g in stacks)
    assert cost.active_params == met + sum(g.numel() for g in gradients.values())
    assert cost.idle_params == 4 * (3 * D * config.width(D) + 2 * config.width(D) + D)


CONFIGS: dict[str, dict[str, Any]] = {
    "gpt-oss": {"activation": "clamped_swiglu", "bias": True, "router_bias": True, "top_k": 3, "limit": 0.3},
    "deepseek": OURS_V3 | {"n_shared": 2},
    "llama4": {"weigh": "input", "scores": "sigmoid", "normalize": False, "top_k": 1, "activation": "relu2", "shared_hidden": 7},
    "one expert": {"n_experts": 1, "top_k": 1, "n_shared": 1, "shared_gate": True},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract_holds_with_options(name: str) -> None:
    assert [r.check for r in check_block(Config(**CONFIGS[name]), d_model=32)] == list(CHECKS)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("n_experts", {"n_experts": 0}),
        ("top_k", {"top_k": 9}),
        ("top_k", {"top_k": 3, "groups": 8, "top_groups": 2}),
        ("groups", {"groups": 3}),
        ("top_groups", {"groups": 4, "top_groups": 5}),
        ("group_score", {"group_score": "sum"}),
        ("scores", {"scores": "tanh"}),
        ("activation", {"activation": "relu"}),
        ("weigh", {"weigh": "both"}),
        ("limit", {"limit": 0.0}),
        ("hidden", {"hidden": 0}),
        ("shared_gate", {"shared_gate": True}),
    ],
)
def test_impossible_sizes_are_errors_that_name_the_key(place: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as wrong:
        Config(**options).check(32)
    assert wrong.value.place == place
