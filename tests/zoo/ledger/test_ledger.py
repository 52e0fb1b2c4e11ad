"""The ledger of whole models by equality: parameters on the meta device, FLOPs by torch's counter, state bytes by the tensors held."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo
from kernels import backend
from tests.zoo.model.test_model import PLANS, make, text
from zoo.check.contract import SDPA_ON_CPU
from zoo.config.model import load_model
from zoo.ledger.ledger import ledger


def counted(model: zoo.Model, length: int, room: str) -> tuple[int, Any]:
    with backend(room), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=SDPA_ON_CPU) as counter:
        _, state = model(text(1, length))
    return counter.get_total_flops(), state


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("length", [1, 8, 30])
def test_flops_and_state_bytes_are_what_is_spent_and_held(plan: str, length: int) -> None:
    model = make(PLANS[plan]).float()
    rows = model.ledger(length)
    flops, state = counted(model, length, "reference")
    assert rows.flops == flops
    assert rows.flops_train == 3 * flops
    if plan != "memory":  # the ledger counts a segment read at once; the model reads memory, text and memory in turn
        assert rows.total.executed_flops == counted(model, length, "chunked")[0]
    assert rows.state_bytes == zoo.state_bytes(zoo.detach(state))


@pytest.mark.parametrize("plan", PLANS)
def test_params_on_the_meta_device(plan: str) -> None:
    config = make(PLANS[plan]).config
    with torch.device("meta"):
        model = zoo.Model(config)
    assert ledger(config, 10).params == sum(p.numel() for p in model.parameters())
    assert ledger(config, 10).params_non_embedding == ledger(config, 10).params - config.vocab_size * config.d_model


@pytest.mark.parametrize("changes", [{"norm": "layernorm"}, {"parallel": "mean_norm"}, {"tie_embeddings": False}])
def test_params_of_every_surrounding(changes: dict[str, Any]) -> None:
    model = make({}, **changes)
    assert model.ledger(4).params == sum(p.numel() for p in model.parameters())


def test_a_shared_block_costs_its_weights_once_and_its_work_each_time() -> None:
    blocks = {"A": {"type": "gqa", "n_heads": 4}, "F": {"type": "swiglu"}}
    values = {"d_model": 32, "vocab_size": 50, "blocks": blocks, "pattern": "3*A F"}
    own = ledger(load_model(values), 16)
    shared = ledger(load_model(values, {"blocks": {"A": {"share": True}}}), 16)
    one = own.rows[1].cost.params - 32
    assert own.params - shared.params == 2 * one
    assert own.flops == shared.flops
    assert own.state_bytes == shared.state_bytes


MIXTURE = {"type": "moe", "n_experts": 6, "top_k": 2, "n_shared": 1, "bias": True}
MIXED = {"d_model": 32, "vocab_size": 50, "blocks": {"A": {"type": "gqa", "n_heads": 4}, "E": MIXTURE}, "pattern": "2*(A E)"}


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"blocks": {"E": {"groups": 3, "top_groups": 1, "scores": "sigmoid"}}}])
def test_active_parameters_are_those_with_a_gradient_after_one_token(changes: dict[str, Any]) -> None:
    """An expert is met or not as a whole; of an untied embedding the token meets one row, and the ledger counts all."""
    model = zoo.build(load_model(MIXED, changes)).double()
    loss, _ = model.loss(torch.tensor([[7]]), torch.tensor([[9]]))
    loss.backward()
    met = 0
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        experts = p.ndim > 1 and name.split(".")[-1] in ("up", "down", "up_bias", "down_bias")
        met += int((p.grad.flatten(1) != 0).any(1).sum()) * p[0].numel() if experts else p.numel()
        untouched = name == "embedding.weight" or name.endswith(("q.weight", "k.weight"))  # one key: its weight is 1 whatever they say
        assert experts or untouched or bool(p.grad.any()), name
    assert ledger(model.config, 1).active_params == met < ledger(model.config, 1).params


@pytest.mark.parametrize("pattern", ["A E", "2*(A E)", "2*(A A|E)"])
def test_idle_experts_are_counted_with_their_weights(pattern: str) -> None:
    own, shared = (ledger(load_model(MIXED, {"pattern": pattern, "blocks": {"E": {"share": s}}}), 8) for s in (False, True))
    expert = 3 * 32 * 48 + 2 * 48 + 32
    uses = 1 if pattern == "A E" else 2
    assert own.params - own.active_params == uses * 4 * expert
    assert shared.params - shared.active_params == 4 * expert
    assert own.as_dict()["total"]["active_params"] == own.active_params == sum(row["active_params"] for row in own.as_dict()["layers"])


def test_without_experts_every_parameter_is_active() -> None:
    rows = make({}).ledger(8)
    assert rows.active_params == rows.params


# As published, in billions: Mixtral arXiv:2401.04088, Jamba arXiv:2403.19887, DeepSeek-V2 arXiv:2405.04434 and V3 arXiv:2412.19437, Qwen3
# arXiv:2505.09388, gpt-oss arXiv:2508.10925, Kimi Linear arXiv:2510.26692, MiniMax-01 arXiv:2501.08313, else the model's card. The tables
# (embedding, head) that the publisher leaves out; nearest, or cut off after the published digits.
PUBLISHED_ACTIVE = {
    "mixtral_8x7b": ("12.9", 0, "nearest"),
    "jamba_52b": ("12", 0, "nearest"),
    "llama4_scout": ("17", 0, "nearest"),
    "granite4_h_tiny": ("1", 0, "nearest"),
    "kimi_linear_48b_a3b": ("3", 0, "nearest"),
    "qwen3_5_35b_a3b": ("3", 0, "nearest"),
    "qwen3_30b_a3b": ("3.3", 0, "cut off"),
    "qwen3_next_80b_a3b": ("3", 0, "cut off"),
    "deepseek_v3": ("37", 1, "nearest"),
    "deepseek_v32": ("37", 1, "nearest"),
    "deepseek_v2_lite": ("2.4", 1, "cut off"),
    "gpt_oss_20b": ("3.61", 1, "nearest"),
    "minimax_text_01": ("45.9", 2, "nearest"),
    "glm5": ("40", 2, "nearest"),
}


@pytest.mark.parametrize("name", PUBLISHED_ACTIVE)
def test_active_parameters_are_the_published(name: str) -> None:
    text, tables, rounding = PUBLISHED_ACTIVE[name]
    rows = ledger(load_model(f"configs/models/published/{name}.yaml"), 1)
    digits = len(text.partition(".")[2])
    scaled = (rows.active_params - tables * rows.embedding_params) * 10**digits
    found = scaled // 10**9 if rounding == "cut off" else (scaled + 10**9 // 2) // 10**9
    assert found == int(text.replace(".", ""))


@pytest.mark.parametrize("adapt", ["none", "mlp", "all"])
def test_what_each_use_has_of_its_own_is_counted_for_each(adapt: str) -> None:
    block = {"type": "shared_transformer", "share": True, "adapt": adapt, "adapter_rank": 3, "hidden": 20}
    values = {"d_model": 32, "vocab_size": 50, "blocks": {"S": block, "F": {"type": "swiglu"}}}
    found = [zoo.build(values | {"pattern": f"{uses}*(S F)"}) for uses in (1, 2, 5)]
    for model in found:
        rows = model.ledger(16)
        assert rows.params == sum(p.numel() for p in model.parameters())
        flops, state = counted(model, 16, "reference")
        assert (rows.flops, rows.state_bytes) == (flops, zoo.state_bytes(state))
    own = 32 * 32 + 3 * {"none": 0, "mlp": 32 + 40, "all": 32 + 40 + 3 * (64 + 64)}[adapt]
    params = [model.ledger(16).params - len(model.config.layers) // 2 * model.ledger(16).rows[2].cost.params for model in found]
    norm = 32  # of each use's sub-layer
    assert [b - a for a, b in pairwise(params)] == [own + norm, 3 * (own + norm)]
