"""Grouped-query attention and its options against the attention layers of Hugging Face models: values and gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.gqa import Block, Config, Temperature
from blocks.rope import Rope
from zoo.check.contract import check_block

D, LENGTH, HEADS, KV_HEADS, HEAD_DIM = 24, 21, 4, 2, 10

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": D,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
    "pad_token_id": 0,
    "eos_token_id": 1,
}
LLAMA4: dict[str, Any] = {"num_local_experts": 2, "intermediate_size_mlp": 16}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 1, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}


def hugging_face(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A one-layer model of the family `name`."""

    def build() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(**SIZES | options)
        return getattr(transformers, f"{name}Model")._from_config(config, attn_implementation="eager")

    return build


class Case(NamedTuple):
    """A model of Hugging Face's and what we call its attention."""

    hf: Callable[[], nn.Module]
    zoo: dict[str, Any]


CASES = {
    "llama": Case(hugging_face("Llama"), {}),
    "llama with biases": Case(hugging_face("Llama", attention_bias=True), {"bias": True, "output_bias": True}),
    "mistral": Case(hugging_face("Mistral", sliding_window=6), {"window": 6}),
    "qwen3": Case(hugging_face("Qwen3"), {"qk_norm": "head"}),
    "olmo2": Case(hugging_face("Olmo2", rms_norm_eps=1e-5, hidden_size=HEADS * HEAD_DIM), {"qk_norm": "full", "norm_eps": 1e-5}),
    "gemma2": Case(
        hugging_face("Gemma2", query_pre_attn_scalar=7, attn_logit_softcapping=1.5, layer_types=["sliding_attention"], sliding_window=5),
        {"softcap": 1.5, "scale": 7**-0.5, "window": 5},
    ),
    "gpt-oss": Case(
        hugging_face("GptOss", layer_types=["sliding_attention"], sliding_window=6, num_local_experts=2, num_experts_per_tok=1),
        {"sink_logit": True, "window": 6, "bias": True, "output_bias": True},
    ),
    "llama4": Case(
        hugging_face(
            "Llama4Text", layer_types=["chunked_attention"], no_rope_layers=[1], attention_chunk_size=6, rms_norm_eps=1e-6, **LLAMA4
        ),
        {
            "chunk": 6,
            "rope": Rope(base=500.0, pairs="adjacent"),
            "qk_norm": "head",
            "qk_norm_kind": "rmsnorm_plain",
            "qk_norm_after_rope": True,
        },
    ),
    "llama4, without positions": Case(
        hugging_face("Llama4Text", layer_types=["full_attention"], no_rope_layers=[0], floor_scale=4, attn_scale=0.5, **LLAMA4),
        {"rope": None, "temperature": Temperature(scale=0.5, every=4)},
    ),
    "qwen3-next": Case(
        hugging_face(
            "Qwen3Next",
            layer_types=["full_attention"],
            num_experts=2,
            rope_parameters=SIZES["rope_parameters"] | {"partial_rotary_factor": 0.4},
            **EXPERTS,
        ),
        {"qk_norm": "head", "output_gate": "element", "rope": Rope(base=500.0, partial=0.4)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gqa_is_hugging_faces_attention(name: str) -> None:
    case = CASES[name]
    hf = case.hf().eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.normal_(0, 0.4)
    attention = hf.get_submodule("layers.0.self_attn")
    x, y = observed(hf, attention)
    config = Config(**{"n_heads": HEADS, "n_kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "rope": Rope(base=500.0)} | case.zoo)
    block = config.build(x.shape[2])
    assert isinstance(block, Block)
    copied(block, attention)

    ours_x = x.detach().clone().requires_grad_()
    ours_y, _ = block(ours_x, None, advance(None, *x.shape[:2])[0])
    weight = torch.randn_like(y)
    truth = torch.autograd.grad((y * weight).sum(), [x, *attention.parameters()])
    grads = torch.autograd.grad((ours_y * weight).sum(), [ours_x, *block.parameters()])
    pairs = [(ours_y, y), (grads[0], truth[0])]
    by_name = dict(zip((n for n, _ in block.named_parameters()), grads[1:], strict=True))
    hf_by_name = dict(zip((n for n, _ in attention.named_parameters()), truth[1:], strict=True))
    pairs += [(by_name[name], value) for name, value in renamed(hf_by_name).items()]
    assert len(pairs) == 2 + len(by_name)
    for a, b in pairs:
        assert a.shape == b.shape
        assert float((a - b).abs().max().detach()) < 1e-5 * float(b.abs().max().detach())


def observed(model: nn.Module, attention: nn.Module) -> tuple[Tensor, Tensor]:
    """What the attention layer of a model reads and gives while the model reads random tokens: its own mask and positions."""
    seen: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        x = kwargs["hidden_states"].detach().clone().requires_grad_()
        seen.append(x)
        return args, kwargs | {"hidden_states": x}

    def after(_: nn.Module, __: Any, output: tuple[Tensor, ...]) -> None:
        seen.append(output[0])

    handles = [attention.register_forward_pre_hook(before, with_kwargs=True), attention.register_forward_hook(after)]
    model(torch.randint(1, 32, (2, LENGTH)))
    for handle in handles:
        handle.remove()
    return seen[0], seen[1]


def renamed(hf: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers by the block's names: q, k and v in one; a gate that lies between the rows of q on its own."""
    out = {}
    gated = hf["q_proj.weight"].shape[0] == 2 * HEADS * HEAD_DIM
    q = hf["q_proj.weight"]
    if gated:
        q, gate = (part.flatten(0, 1) for part in q.unflatten(0, (HEADS, 2, HEAD_DIM)).unbind(1))
        out["gate.weight"] = gate
    out["qkv.weight"] = torch.cat([q, hf["k_proj.weight"], hf["v_proj.weight"]])
    out["out.weight"] = hf["o_proj.weight"]
    if "q_proj.bias" in hf:
        out["qkv.bias"] = torch.cat([hf[f"{name}_proj.bias"] for name in "qkv"])
        out["out.bias"] = hf["o_proj.bias"]
    out |= {name: hf[name] for name in ("q_norm.weight", "k_norm.weight", "sinks") if name in hf}
    return out


def copied(block: Block, attention: nn.Module) -> None:
    """The weights of transformers in the block; zero-centred norms (1 + weight) as plain weights."""
    weights = renamed({n: p.detach().clone() for n, p in attention.named_parameters()})
    if "gate.weight" in weights:
        weights |= {name: 1 + weights[name] for name in ("q_norm.weight", "k_norm.weight")}
    block.load_state_dict(weights)


CONFIGS: dict[str, dict[str, Any]] = {
    "everything": {
        "n_kv_heads": 2,
        "window": 5,
        "sink_tokens": 2,
        "sink_logit": True,
        "softcap": 3.0,
        "qk_norm": "head",
        "output_gate": "element",
        "bias": True,
        "output_bias": True,
        "conv": 4,
    },
    "one key head": {"n_kv_heads": 1, "window": 12, "rope": None, "qk_norm": "full", "output_gate": "head"},
    "chunks": {"n_kv_heads": 2, "chunk": 16, "sink_logit": True, "softcap": 3.0, "temperature": Temperature(scale=0.5, every=5), "conv": 3},
    "chunks of one token": {"chunk": 1},
    "a chunk wider than the text": {"chunk": 100},
    "a window wider than the text": {"window": 40, "sink_tokens": 3, "head_dim": 6, "scale": 0.3},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract_holds_with_options(name: str) -> None:
    check_block(Config(**CONFIGS[name]), d_model=32)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("n_heads", {"n_heads": 5}),
        ("n_kv_heads", {"n_kv_heads": 3}),
        ("window", {"window": 0}),
        ("sink_tokens", {"sink_tokens": 2}),
        ("chunk", {"chunk": 0}),
        ("chunk", {"chunk": 4, "window": 4}),
        ("temperature.every", {"temperature": Temperature(every=0)}),
        ("qk_norm", {"qk_norm": "heads"}),
        ("softcap", {"softcap": 0.0}),
        ("conv", {"conv": 1}),
        ("rope.partial", {"rope": Rope(partial=0.1)}),
    ],
)
def test_impossible_sizes_are_errors_that_name_the_key(place: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**options).check(32)
    assert error.value.place == place
