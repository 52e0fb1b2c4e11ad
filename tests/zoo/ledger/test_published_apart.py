"""What a checkpoint holds beside the model (`apart:`), counted from its parts: never the difference that happens to be missing."""

from pathlib import Path

import pytest

from blocks import gqa, mla, moe, swiglu
from zoo.config.model import ModelConfig, load_model
from zoo.ledger.ledger import ledger
from zoo.ledger.published import read_published

FOLDER = Path(__file__).parents[3] / "configs" / "models" / "published"
Shapes = list[tuple[int, int]]


def apart(name: str) -> dict[str, int]:
    published = read_published(FOLDER / f"{name}.yaml")
    assert published is not None
    return published.apart


def gated(d: int, hidden: int | None) -> Shapes:
    assert hidden is not None
    return [(hidden, d), (hidden, d), (d, hidden)]


def latent(c: mla.Config, d: int) -> Shapes:
    """The matrices of a latent attention that DeepSeek stores in 8 bits: not the weights of the indexer's heads."""
    assert c.q_rank is not None
    sizes = c.sizes(d)
    queries = [(c.q_rank, d), (c.n_heads * (sizes.nope + sizes.rope), c.q_rank)]
    keys = [(sizes.kv + sizes.rope, d), (c.n_heads * (sizes.nope + sizes.value), sizes.kv), (d, c.n_heads * sizes.value)]
    return queries + keys + ([(c.index_heads * c.index_dim, c.q_rank), (c.index_dim, d)] if c.index_heads else [])


def scales(shapes: Shapes) -> int:
    """One for every started 128 x 128 weights."""
    return sum(-(-rows // 128) * -(-columns // 128) for rows, columns in shapes)


def layers_of(config: ModelConfig) -> tuple[mla.Config, swiglu.Config, moe.Config, int, int]:
    """Attention, dense and routed channel mixer, and how many layers have each of the two."""
    attention, dense, routed = (config.named[name].config for name in "AFM")
    assert isinstance(attention, mla.Config)
    assert isinstance(dense, swiglu.Config)
    assert isinstance(routed, moe.Config)
    return attention, dense, routed, config.layers.count(("F",)), config.layers.count(("M",))


@pytest.mark.parametrize(("name", "copies"), [("deepseek_v3", 2), ("deepseek_v32", 2), ("glm5", 0)])
def test_multi_token_prediction_is_one_more_layer(name: str, copies: int) -> None:
    """With its selection bias, the projection of two streams into one, and three norms; copies: of the embedding and the head."""
    config = load_model(FOLDER / f"{name}.yaml")
    routed, mixtures, d = *layers_of(config)[2::2], config.d_model
    attention_and_mixture = sum(
        row.cost.params for row in ledger(config, 1).rows if row.index in (len(config.layers) - 2, len(config.layers) - 1)
    )
    assert apart(name)["mtp"] == attention_and_mixture + routed.n_experts + 2 * d * d + 3 * d + copies * config.vocab_size * d
    assert apart(name)["selection_bias"] == mixtures * routed.n_experts
    assert set(apart(name)) == {"mtp", "selection_bias"} | ({"fp8_scales"} if copies else set())


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v32"])
def test_scales_of_8_bit_weights(name: str) -> None:
    """The multi-token prediction's layer has them too; its projection, the routers, the embedding and the head are in 16 bits."""
    config = load_model(FOLDER / f"{name}.yaml")
    attention, dense, routed, wide, mixtures = layers_of(config)
    d, experts = config.d_model, routed.n_experts + routed.n_shared
    mixers = (wide + mixtures + 1) * scales(latent(attention, d))
    assert apart(name)["fp8_scales"] == mixers + wide * scales(gated(d, dense.hidden)) + (mixtures + 1) * experts * scales(
        gated(d, routed.hidden)
    )


def test_causal_masks_of_gpt2() -> None:
    config = load_model(FOLDER / "gpt2_small.yaml")
    assert config.positions is not None
    mixers = sum(isinstance(config.named[name].config, gqa.Config) for (name,) in config.layers)
    assert apart("gpt2_small") == {"causal_masks": mixers * config.positions**2}


def test_the_vision_tower_of_llama4() -> None:
    """34 layers of width 1408 on 24 x 24 patches of 14 x 14 x 3 and a class token, an adapter and a projector without biases."""
    d, hidden, out, text = 1408, 5632, 4096, load_model(FOLDER / "llama4_scout.yaml").d_model
    layer = 4 * (d * d + d) + 2 * d * hidden + hidden + d + 4 * d
    ends = d + (24 * 24 + 1) * d + 14 * 14 * 3 * d + 4 * d
    assert apart("llama4_scout") == {"vision": 34 * layer + ends + hidden * out + out * out + out * text}


def test_the_embedding_that_a_name_leaves_out() -> None:
    config = load_model(FOLDER / "command_r7b.yaml")
    assert apart("command_r7b") == {"embedding": -config.vocab_size * config.d_model}
