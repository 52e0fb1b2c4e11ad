"""gated_delta against the layers of transformers, with their random weights: values and every gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks.context import advance
from blocks.errors import ConfigError
from blocks.gated_delta import Block, Config

D, HEADS, V_HEADS, K, V, T = 32, 2, 4, 6, 8, 70
Get = Callable[[str], Tensor]  # a weight, or its gradient, by the other implementation's name


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.5))
    return module


def qwen3_next() -> tuple[nn.Module, Config, Callable[[Get], dict[str, Tensor]]]:
    from transformers.models.qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = Qwen3NextConfig(hidden_size=D, **_linear_sizes(), layer_types=["linear_attention"], num_hidden_layers=1, rms_norm_eps=1e-5)
    ratio = V_HEADS // HEADS

    def translate(get: Get) -> dict[str, Tensor]:
        groups = get("in_proj_qkvz.weight").view(HEADS, -1, D).split([K, K, ratio * V, ratio * V], 1)
        q, k, v, z = (i.reshape(-1, D) for i in groups)
        beta, a = (i.reshape(-1, D) for i in get("in_proj_ba.weight").view(HEADS, -1, D).split([ratio, ratio], 1))
        return _common(get, torch.cat([q, k, v]), beta, "norm", "out_proj") | {"decay.weight": a, "output_gate.weight": z}

    return Qwen3NextGatedDeltaNet(config, 0), _config(), translate


def olmo_hybrid() -> tuple[nn.Module, Config, Callable[[Get], dict[str, Tensor]]]:
    from transformers.models.olmo_hybrid import OlmoHybridConfig
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet

    sizes = _linear_sizes()
    config = OlmoHybridConfig(hidden_size=D, **sizes, layer_types=["linear_attention", "full_attention"], num_hidden_layers=2)
    assert config.linear_allow_neg_eigval

    def translate(get: Get) -> dict[str, Tensor]:
        own = {"decay.weight": get("a_proj.weight"), "output_gate.weight": get("g_proj.weight")}
        return _common(get, _three(get), get("b_proj.weight"), "o_norm", "o_proj") | own

    return OlmoHybridGatedDeltaNet(config, 0), _config(negative_eigenvalues=True), translate


def kimi_linear() -> tuple[nn.Module, Config, Callable[[Get], dict[str, Tensor]]]:
    from transformers.models.kimi_linear import KimiLinearConfig
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

    sizes: dict[str, Any] = {
        "hidden_size": D,
        "linear_num_heads": HEADS,
        "linear_head_dim": K,
        "linear_conv_kernel_dim": 4,
        "rms_norm_eps": 1e-5,
    }
    layers = {"layer_types": ["linear_attention"], "mlp_layer_types": ["dense"], "num_hidden_layers": 1}
    config = KimiLinearConfig(**sizes, **layers)

    def translate(get: Get) -> dict[str, Tensor]:
        own = {
            "decay.0.weight": get("forget_gate.f_a_proj.weight"),
            "decay.1.weight": get("forget_gate.f_b_proj.weight"),
            "A_log": get("forget_gate.A_log").flatten(),
            "dt_bias": get("forget_gate.dt_bias"),
            "output_gate.0.weight": get("g_a_proj.weight"),
            "output_gate.1.weight": get("g_b_proj.weight"),
        }
        return _common(get, _three(get), get("b_proj.weight"), "o_norm", "o_proj", steps=False) | own

    zoo_config = Config(n_heads=HEADS, head_dim=K, gate="vector", output_gate="sigmoid", output_gate_rank=K, norm_eps=1e-5)
    return KimiLinearDeltaAttention(config, 0), zoo_config, translate


def _linear_sizes() -> dict[str, Any]:
    heads = {"linear_num_key_heads": HEADS, "linear_num_value_heads": V_HEADS}
    return heads | {"linear_key_head_dim": K, "linear_value_head_dim": V, "linear_conv_kernel_dim": 4}


def _config(**changes: Any) -> Config:
    return Config(n_heads=HEADS, n_v_heads=V_HEADS, head_dim=K, expand_v=V / K, **changes)


def _three(get: Get) -> Tensor:
    return torch.cat([get(f"{i}_proj.weight") for i in "qkv"])


def _common(get: Get, qkv: Tensor, beta: Tensor, norm: str, output: str, *, steps: bool = True) -> dict[str, Tensor]:
    tensors = {"qkv.weight": qkv, "conv.weight": get("conv1d.weight")[:, 0], "beta.weight": beta}
    tensors |= {"norm.weight": get(f"{norm}.weight"), "output.weight": get(f"{output}.weight")}
    return tensors | ({"A_log": get("A_log"), "dt_bias": get("dt_bias")} if steps else {})


def assert_close(a: Tensor, b: Tensor, name: str) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max())
    assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("make", [qwen3_next, olmo_hybrid, kimi_linear])
def test_layers_of_transformers(make: Callable[[], tuple[nn.Module, Config, Callable[[Get], dict[str, Tensor]]]]) -> None:
    hf, config, translate = make()
    randomised(hf)
    config.check(D)
    block = config.build(D)
    weights = dict(hf.named_parameters())
    block.load_state_dict({name: w.detach() for name, w in translate(lambda name: weights[name]).items()})
    x = torch.randn(2, T, D, requires_grad=True)
    weight = torch.randn(2, T, D)
    ctx, _ = advance(None, 2, T)
    y = block(x, None, ctx)[0]
    (y * weight).sum().backward()
    dx, x.grad = x.grad, None
    exact = hf(x)
    (exact * weight).sum().backward()
    assert dx is not None
    assert_close(y, exact, "y")
    assert_close(dx, x.grad, "x")
    grads = translate(lambda name: weights[name].grad)
    for name, p in block.named_parameters():
        assert_close(p.grad, grads[name], name)


def test_initial_decays_are_the_official_ones() -> None:
    block = Config(n_heads=4, gate="vector").build(512)
    assert isinstance(block, Block)
    step, rates = torch.nn.functional.softplus(block.dt_bias.detach()), block.A_log.detach().exp()
    assert step.shape == (512,)
    assert 1e-3 * 0.99 <= float(step.min()) <= 2e-3
    assert 0.05 <= float(step.max()) <= 0.1 * 1.01
    assert 1 <= float(rates.min()) <= float(rates.max()) <= 16


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (Config(gate="vectr"), "gate"),
        (Config(output_gate="silu"), "output_gate"),
        (Config(n_heads=5), "n_heads"),
        (Config(n_v_heads=6), "n_v_heads"),
        (Config(head_dim=5, expand_v=1.5), "expand_v"),
        (Config(gate_rank=4), "gate_rank"),
        (Config(output_gate="none", output_gate_rank=4), "output_gate"),
        (Config(conv=-1), "conv"),
    ],
)
def test_impossible_sizes_name_their_place(config: Config, place: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.check(32)
    assert error.value.place == place


VARIANTS = [
    Config(gate="none", output_gate="none"),
    Config(gate="vector", output_gate="sigmoid", output_gate_rank=5, output_gate_bias=True, gate_rank=3),
    Config(n_heads=2, head_dim=6, n_v_heads=4, expand_v=1.5, negative_eigenvalues=True, conv=0),
    Config(n_heads=2, head_dim=6, n_v_heads=4, expand_v=0.5, gate="vector", conv=1),
]


@pytest.mark.parametrize("config", VARIANTS)
def test_contract_of_the_variants(config: Config) -> None:
    from zoo.check.contract import check_block

    check_block(config, d_model=16)
