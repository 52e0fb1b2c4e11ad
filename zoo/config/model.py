"""A model's YAML, read strictly: d_model, vocab_size, named blocks, the pattern, and what surrounds the stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError, one_of, require
from blocks.parts import NORMS
from zoo.config.block import NORM_PLACES, USES, Named, block_mapping, counted, read_blocks
from zoo.config.inserted_tokens import TokensConfig
from zoo.config.pattern import expand
from zoo.config.schema import Prepared, join, load_yaml, merge, parse, plain

__all__ = ["USES", "ModelConfig", "Named", "load_model", "model_mapping", "validate"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Prepared):
    """What a model's YAML holds."""

    d_model: int  # width of the residual stream
    vocab_size: int  # number of token ids
    blocks: dict[str, Named]  # name -> {type: ..., its fields} or {like: NAME, changes}
    pattern: str  # see zoo.config.pattern
    norm: str = "rmsnorm"  # rmsnorm | rmsnorm_centred (weight 1 + w) | rmsnorm_plain (no weight) | layernorm | layernorm_unbiased
    norm_eps: float = 1e-5  # added to the mean square (the variance) under the root
    norm_place: str = (
        "pre"  # of a sub-layer's norm: pre (before it) | post (on its output) | sandwich (both) | stream | none (zoo.model.stack)
    )
    parallel: str = "add"  # how X|Y are mixed: add | mean_norm (each normed, then averaged, as in Hymba)
    residual_scale: float = 1.0  # factor of every sub-layer's output before it is added
    embedding_scale: float = 1.0  # factor of the tokens' embeddings
    embedding_norm: bool = False  # a norm before the first sub-layer
    positions: int | None = None  # a learned embedding for each of so many positions; null: none
    tie_embeddings: bool = True  # the head reads the embedding's weight
    logit_scale: float = 1.0  # factor of the logits
    dropout: float = 0.0  # on every sub-layer's output, in training
    logit_softcap: float | None = None  # c * tanh(logits / c)
    tokens: TokensConfig = field(default_factory=TokensConfig)  # tokens that the model inserts by itself
    plugins: tuple[str, ...] = ()  # packages whose blocks may be named by a dotted type

    @cached_property
    def layers(self) -> list[tuple[str, ...]]:
        """One tuple of block names a residual sub-layer."""
        return expand(self.pattern)

    @cached_property
    def named(self) -> dict[str, Named]:
        """The blocks by name; shared ones know how often the pattern uses them."""
        uses = Counter(name for names in self.layers for name in names)
        return {name: counted(block, name, uses[name]) for name, block in self.blocks.items()}

    @classmethod
    def prepare(cls, values: Any, place: str) -> Any:
        """The mapping with its blocks read: what they are depends on `plugins`, on `norm_place` and on one another."""
        blocks = values.get("blocks") if isinstance(values, Mapping) else None
        if not isinstance(blocks, Mapping):
            return values
        plugins, norm_place = values.get("plugins"), values.get("norm_place")  # where they are wrong, their own fields say so
        allowed = tuple(plugins) if isinstance(plugins, (list, tuple)) else ()
        placed = norm_place if norm_place in NORM_PLACES else cls.norm_place
        return {**values, "blocks": read_blocks(blocks, allowed, placed, join(place, "blocks"))}


def load_model(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, tiny: bool = False) -> ModelConfig:
    """A checked ModelConfig from a YAML path or a mapping. Raises ConfigError on anything that could not be built.

    A model of published size may hold `tiny:`, the changes that make a small one of the same kind (tiny = with them), and `published:`,
    what is known of its checkpoint (see zoo.ledger.published)."""
    values = load_yaml(source) if isinstance(source, (str, Path)) else dict(source)
    values.pop("published", None)
    small = values.pop("tiny", {})
    require(isinstance(small, Mapping), "tiny", small, "must be a mapping of the keys to change")
    config = parse(ModelConfig, merge(merge(values, small if tiny else {}), overrides or {}))
    validate(config)
    return config


def validate(config: ModelConfig) -> None:
    """Raise ConfigError unless every block can be built at this width and every name is used and known."""
    require(config.d_model >= 1, "d_model", config.d_model, "must be at least 1")
    require(config.vocab_size >= 2, "vocab_size", config.vocab_size, "must be at least 2")
    require(0 <= config.dropout < 1, "dropout", config.dropout, "must be in [0, 1)")
    require(config.norm_eps > 0, "norm_eps", config.norm_eps, "must be above 0")
    for name in ("residual_scale", "embedding_scale", "logit_scale"):
        require(getattr(config, name) != 0, name, 0, "can't be 0", "1 leaves everything as it is")
    require(config.positions is None or config.positions >= 1, "positions", config.positions, "must be at least 1, or null for none")
    cap = config.logit_softcap
    require(cap is None or cap > 0, "logit_softcap", cap, "must be above 0, or null for none")
    one_of("norm", config.norm, NORMS)
    one_of("norm_place", config.norm_place, NORM_PLACES)
    one_of("parallel", config.parallel, ("add", "mean_norm"))
    require(bool(config.blocks), "blocks", config.blocks, "a model needs at least one block", "for example: A: {type: gqa, n_heads: 4}")
    used = {name for layer in config.layers for name in layer}
    for name in sorted(used - set(config.blocks)):
        near = get_close_matches(name, list(config.blocks), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError("pattern", config.pattern, f"there is no block {name!r}", f"{hint}Blocks: {', '.join(config.blocks)}")
    bases = {block.like for block in config.blocks.values()}
    for name in config.blocks:
        require(name in used or name in bases, f"blocks.{name}", None, "is used nowhere in the pattern", "use it or remove it")
    for name, named in config.named.items():
        try:
            named.config.check(config.d_model)
        except ConfigError as error:
            raise error.within(f"blocks.{name}") from None
        if name in used:
            config.tokens.check_block(name, named.type, named.config)
    blocks = config.named
    layers = [[blocks[name] for name in names] for names in config.layers]
    for names, here in zip(config.layers, layers, strict=True):
        _check_together(here, names)
    for (name, *_), here, behind in zip(config.layers, layers, [*layers[1:], None], strict=True):
        _check_into(name, here[0], behind)
    config.tokens.check()


def model_mapping(config: ModelConfig) -> dict[str, Any]:
    """A ModelConfig as YAML would hold it: every block with all its fields, no `like`."""
    used = {name for layer in config.layers for name in layer}
    values = plain({f.name: getattr(config, f.name) for f in fields(config)} | {"tokens": asdict(config.tokens)})
    values["blocks"] = {name: block_mapping(block) for name, block in config.blocks.items() if name in used}
    return values


def _check_together(blocks: Sequence[Named], names: tuple[str, ...]) -> None:
    """Parallel blocks have one norm and one stream to be added to."""
    for key in ("norm_place", "skip_scale", "into"):
        values = [getattr(block, key) for block in blocks]
        rule = f"must be that of {names[0]}, which runs beside it: {values[0]}"
        require(len(set(values)) == 1, f"blocks.{names[-1]}.{key}", values[-1], rule)


def _check_into(name: str, block: Named, behind: Sequence[Named] | None) -> None:
    """What goes into the next sub-layer has one, and no say in the stream."""
    if block.into == "stream":
        return
    place = f"blocks.{name}"
    require(behind is not None, f"{place}.into", block.into, "the last sub-layer has none behind it", "into: stream adds to the stream")
    require(block.skip_scale == 1, f"{place}.skip_scale", block.skip_scale, "has no effect with into: next")
    for norm_place, whose in ((block.norm_place, place), *((b.norm_place, "the next sub-layer's") for b in behind or ())):
        require(norm_place != "stream", f"{place}.into", block.into, f"can't go with norm_place: stream ({whose})", "into: stream")
