"""Options of a model around its blocks: norms, their places, factors, positions. Streaming, packing and the ledger hold for each."""

from typing import Any

import pytest
import torch

import zoo
from blocks.context import advance
from blocks.errors import ConfigError
from tests.zoo.ledger.test_ledger import counted
from tests.zoo.model.test_model import LENGTH, close, make, read, text
from zoo.config.model import model_mapping

OPTIONS: dict[str, dict[str, Any]] = {
    "centred": {"norm": "rmsnorm_centred"},
    "plain": {"norm": "rmsnorm_plain"},
    "layernorm": {"norm": "layernorm"},
    "layernorm without bias": {"norm": "layernorm_unbiased"},
    "post": {"norm_place": "post"},
    "sandwich": {"norm_place": "sandwich", "norm": "layernorm"},
    "stream": {"norm_place": "stream"},
    "places of their own": {
        "blocks": {
            "A": {"type": "gqa", "n_heads": 4, "norm_place": "post"},
            "F": {"type": "swiglu", "norm_place": "stream", "skip_scale": 0.5},
            "G": {"type": "swiglu"},
        },
        "pattern": "A F A G",
    },
    "no norm": {"norm_place": "none"},
    "beside the stream": {
        "blocks": {
            "A": {"type": "gqa", "n_heads": 4, "into": "next", "norm_place": "none"},
            "G": {"type": "swiglu", "into": "next", "norm_place": "sandwich"},
            "F": {"type": "swiglu"},
        },
        "pattern": "A F A G F",
    },
    "shared": {
        "blocks": {
            "S": {"type": "shared_transformer", "share": True, "into": "next", "norm_place": "none", "adapt": "all", "adapter_rank": 3},
            "T": {"like": "S", "n_heads": 2},
            "F": {"type": "swiglu"},
        },
        "pattern": "F 2*(S F T F) S F",
    },
    "factors": {"residual_scale": 0.3, "embedding_scale": 7.0, "logit_scale": 0.25},
    "embedding norm": {"embedding_norm": True},
    "positions": {"positions": 64},
    "all": {"positions": 64, "embedding_norm": True, "norm_place": "sandwich", "norm": "rmsnorm_centred", "logit_scale": 3.0},
}
PLANS: dict[str, dict[str, Any]] = {"no tokens": {}, "prefix": {"prefix": {"count": 3}}, "memory": {"memory": {"count": 3, "segment": 8}}}


@pytest.mark.parametrize("option", OPTIONS)
def test_whole_is_pieces_is_packed(option: str) -> None:
    model, tokens = make({}, **OPTIONS[option]), text()
    whole = read(model, tokens, [LENGTH])
    close(read(model, tokens, [8, 1, 1, 1, 22]), whole)
    documents = torch.arange(LENGTH).ge(13).long().expand(2, -1)
    packed = read(model, tokens, [20, 13], documents=documents)
    close(packed[:, :13], whole[:, :13])
    close(packed[:, 13:], read(model, tokens[:, 13:], [LENGTH - 13]))


@pytest.mark.parametrize("plan", PLANS)
def test_everything_at_once_with_inserted_tokens(plan: str) -> None:
    model, tokens = make(PLANS[plan], **OPTIONS["all"]), text()
    close(read(model, tokens, [8, 1, 1, 1, 22]), read(model, tokens, [LENGTH]))


@pytest.mark.parametrize("option", OPTIONS)
def test_the_ledger_counts_it(option: str) -> None:
    model = make({}, **OPTIONS[option]).float()
    assert model.ledger(30).params == sum(p.numel() for p in model.parameters())
    assert model.ledger(30).flops == counted(model, 30, "reference")[0]
    tables = [model.embedding.weight, *([] if model.positions is None else [model.positions.weight])]
    assert model.ledger(30).params_non_embedding == model.ledger(30).params - sum(t.numel() for t in tables)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_parameter_matters(option: str) -> None:
    model = make({}, **OPTIONS[option]).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.0 if bool(parameter.any()) else 0.1  # what begins at 0 would hide what it multiplies
    model.loss(text())[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_factors_are_what_they_say() -> None:
    plain, tokens = make({}), text()
    scaled = make({}, logit_scale=0.25)
    close(scaled(tokens)[0], 0.25 * plain(tokens)[0])
    scaled = make({}, embedding_scale=7.0)
    with torch.no_grad():
        plain.embedding.weight *= 7
    close(scaled.hidden(tokens)[0], plain.hidden(tokens)[0])


def test_factors_of_one_block() -> None:
    """Two parallel networks, written out."""
    network = {"type": "swiglu", "gate_scale": 0.7}
    blocks = {"A": network | {"input_scale": 2.0, "output_scale": 0.5}, "B": network}
    model = zoo.build({"d_model": 16, "vocab_size": 20, "blocks": blocks, "pattern": "A|B"}).double()
    tokens = torch.randint(20, (2, 5))
    x = model.embedding(tokens)
    normed = model.stack.norms["0"](x)

    def network_of(key: str, x: torch.Tensor) -> torch.Tensor:
        f: Any = model.stack.blocks[key]
        return f.down(torch.nn.functional.silu(0.7 * f.gate(x)) * f.up(x))

    close(model.hidden(tokens)[0], model.norm(x + 0.5 * network_of("00_A", 2.0 * normed) + network_of("00_B", normed)))


def test_places_of_the_norm() -> None:
    """One sub-layer, written out."""
    blocks = {"F": {"type": "swiglu", "skip_scale": 3.0}}
    values = {"d_model": 16, "vocab_size": 20, "blocks": blocks, "pattern": "F", "residual_scale": 0.5, "norm_eps": 1e-3}
    tokens = torch.randint(20, (2, 5))
    for place in ("pre", "post", "sandwich", "stream"):
        model = zoo.build(values | {"norm_place": place}).double()
        x = model.embedding(tokens)
        y = model.stack.norms["0"](x) if place != "post" else x
        y, _ = model.stack.blocks["00_F"](y, None, advance(None, 2, 5)[0])
        y = model.stack.post_norms["0"](y) if place in ("post", "sandwich") else y
        skip = model.stack.norms["0"](x) if place == "stream" else x
        close(model.hidden(tokens)[0], model.norm(3.0 * skip + 0.5 * y))


def test_what_goes_into_the_next_leaves_the_stream_alone() -> None:
    """Two networks, written out: the second reads x + y and is added to x; a third before both is overtaken."""
    blocks = {"A": {"type": "swiglu", "into": "next", "norm_place": "none"}, "B": {"type": "swiglu"}}
    values = {"d_model": 16, "vocab_size": 20, "blocks": blocks, "residual_scale": 0.5}
    tokens, ctx = torch.randint(20, (2, 5)), advance(None, 2, 5)[0]
    model = zoo.build(values | {"pattern": "A B"}).double()
    built: Any = model.stack.blocks
    x = model.embedding(tokens)
    y = 0.5 * built["00_A"](x, None, ctx)[0]
    close(model.hidden(tokens)[0], model.norm(x + 0.5 * built["01_B"](model.stack.norms["1"](x + y), None, ctx)[0]))
    model = zoo.build(values | {"pattern": "A A B"}).double()
    built = model.stack.blocks
    x = model.embedding(tokens)
    y = 0.5 * built["01_A"](x + 0.5 * built["00_A"](x, None, ctx)[0], None, ctx)[0]
    close(model.hidden(tokens)[0], model.norm(x + 0.5 * built["02_B"](model.stack.norms["2"](x + y), None, ctx)[0]))


def test_blocks_are_told_what_was_embedded_and_which_use_this_is() -> None:
    model, tokens, seen = make({}, **OPTIONS["shared"], embedding_scale=3.0, embedding_norm=True, positions=64), text(), []
    for name in ("S", "T"):
        model.stack.blocks[name].register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[2].use, args[2].embedded)))
    model(tokens)
    assert [(name, use) for name, use, _ in seen] == [("S", 0), ("T", 0), ("S", 1), ("T", 1), ("S", 2)]
    assert model.positions is not None
    assert model.embedding_norm is not None
    x = model.embedding_norm(3.0 * model.embedding(tokens) + model.positions(torch.arange(LENGTH)))
    for _, _, embedded in seen:
        close(embedded, x)


def test_uses_follow_the_pattern_and_are_not_written() -> None:
    model = make({}, **OPTIONS["shared"])
    named = model.config.named
    assert {name: named[name].config.uses for name in ("S", "T")} == {"S": 3, "T": 2}  # type: ignore[attr-defined]
    again = zoo.load_model(model_mapping(model.config), {"pattern": "F S F T F"})
    assert {name: again.named[name].config.uses for name in ("S", "T")} == {"S": 1, "T": 1}  # type: ignore[attr-defined]


def test_learned_positions_end() -> None:
    model, tokens = make({}, positions=20), text()
    _, state = model(tokens[:, :20])
    with pytest.raises(ConfigError, match="a document of 21 tokens is longer"):
        model(tokens[:, 20:21], state)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"norm": "batchnorm"}, "norm"),
        ({"norm_place": "around"}, "norm_place"),
        ({"residual_scale": 0.0}, "residual_scale"),
        ({"positions": 0}, "positions"),
        ({"blocks": {"F": {"type": "swiglu", "output_scale": 0.0}}, "pattern": "F"}, "blocks.F.output_scale"),
        ({"blocks": {"F": {"type": "swiglu", "norm_place": "around"}}, "pattern": "F"}, "blocks.F.norm_place"),
        ({"blocks": {"F": {"type": "swiglu"}, "G": {"like": "F", "skip_scale": 2.0}}, "pattern": "F|G"}, "blocks.G.skip_scale"),
        ({"blocks": {"F": {"type": "swiglu", "into": "head"}}, "pattern": "F"}, "blocks.F.into"),
        ({"blocks": {"F": {"type": "swiglu", "into": "next"}}, "pattern": "F"}, "blocks.F.into"),
        ({"blocks": {"F": {"type": "swiglu", "into": "next"}, "G": {"type": "swiglu"}}, "pattern": "F|G G"}, "blocks.G.into"),
        ({"blocks": {"F": {"type": "swiglu", "into": "next"}, "G": {"like": "F", "into": "stream"}}, "pattern": "F G F"}, "blocks.F.into"),
        (
            {"blocks": {"F": {"type": "swiglu", "into": "next", "norm_place": "stream"}, "G": {"type": "swiglu"}}, "pattern": "F G"},
            "blocks.F.into",
        ),
        (
            {"blocks": {"F": {"type": "swiglu", "into": "next"}, "G": {"type": "swiglu", "norm_place": "stream"}}, "pattern": "F G"},
            "blocks.F.into",
        ),
        (
            {"blocks": {"F": {"type": "swiglu", "into": "next", "skip_scale": 2.0}, "G": {"type": "swiglu"}}, "pattern": "F G"},
            "blocks.F.skip_scale",
        ),
        ({"blocks": {"S": {"type": "shared_transformer", "share": True, "uses": 3}}, "pattern": "2*S"}, "blocks.S.uses"),
        ({"tiny": 3}, "tiny"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make({}, **changes)
    assert caught.value.place == place


def test_a_tiny_form_is_chosen_by_name() -> None:
    values = {
        "d_model": 64,
        "vocab_size": 20,
        "blocks": {"F": {"type": "swiglu"}},
        "pattern": "9*F",
        "tiny": {"d_model": 8, "pattern": "F"},
    }
    full, tiny = zoo.load_model(values), zoo.load_model(values, {"vocab_size": 30}, tiny=True)
    assert (full.d_model, len(full.layers)) == (64, 9)
    assert (tiny.d_model, tiny.vocab_size, len(tiny.layers)) == (8, 30, 1)
