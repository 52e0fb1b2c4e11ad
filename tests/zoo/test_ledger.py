"""The ledger of whole models by equality: parameters on the meta device, FLOPs by torch's counter, state bytes by the tensors held."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo
from kernels import backend
from tests.zoo.test_model import PLANS, make, text
from zoo.check import SDPA_ON_CPU
from zoo.config import load_model
from zoo.ledger import ledger


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
