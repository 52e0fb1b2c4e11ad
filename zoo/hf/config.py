"""config.json of a zoo model."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig

from zoo.config.model import ModelConfig
from zoo.convert.families import zoo as family


class ZooConfig(PreTrainedConfig):
    """What transformers knows of a zoo model: `model` is its mapping, as a model's YAML holds it, and the other keys follow from it."""

    model_type = family.MODEL_TYPES[0]
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    model: dict[str, Any] | None = None  # None: a config without a model, which transformers makes to compare with
    vocab_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    max_position_embeddings: int | None = None  # of a model with a table of learned positions; None: no longest text
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:  # the name and the rest of config.json are transformers' own
        if self.model is not None:
            for key, value in family.sizes(self.zoo).items():
                setattr(self, key, value)
        super().__post_init__(**kwargs)

    @property
    def zoo(self) -> ModelConfig:
        """The model's config. Raises ConfigError if `model` is none."""
        return family.read(self.model)
