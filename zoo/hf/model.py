"""ZooForCausalLM: zoo.Model with the arguments and outputs of transformers' causal language models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import LoadStateDictInfo

from blocks.errors import ConfigError, require
from kernels.cross_entropy import logits_of
from zoo.hf.cache import ZooCache
from zoo.hf.config import ZooConfig
from zoo.hf.inputs import Piece, piece_of
from zoo.hf.streams import with_streams
from zoo.model.model import Model


class ZooForCausalLM(PreTrainedModel, GenerationMixin):
    """A zoo model in transformers: from_pretrained, save_pretrained, generate, Trainer."""

    config: ZooConfig
    config_class = ZooConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = True  # num_items_in_batch: Trainer then weighs all labelled tokens of a step alike
    supports_gradient_checkpointing = False
    _is_stateful = True  # a state can't be taken back by some tokens: assisted generation is refused

    def __init__(self, config: ZooConfig) -> None:
        super().__init__(config)
        self._no_split_modules = ["Model"]  # one device: the head reads the embedding's weight
        self.model = Model(config.zoo)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: ZooCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """input_ids (b, t), or inputs_embeds (b, t, d) as get_input_embeddings gives them -> logits (b, t, vocab) float32.

        attention_mask: (b, n) with n >= t, 0 = padding, anywhere in a row; of what was read before, it is passed over. position_ids:
        (b or 1, >= t), those that follow from the mask, or those of texts packed in a row, which then don't see one another.
        past_key_values: moved on in place; returned with use_cache, or if given. labels: (b, t), -100 = not scored; as in all of
        transformers, logits at t are scored by labels at t + 1; the loss is their mean, or their sum over num_items_in_batch.
        output_hidden_states: the stream before the first sub-layer and behind each, the last one normed. logits_to_keep: so many at the
        end, or a tensor of places; 0 = all. Raises ConfigError for what a zoo model does not have.
        """
        self._refuse(output_attentions, past_key_values)
        piece = piece_of(self.model.config, input_ids, inputs_embeds, attention_mask, position_ids, past_key_values)
        hidden, state, streams = self._hidden(piece, past_key_values, bool(output_hidden_states or self.config.output_hidden_states))
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        scored = hidden if labels is not None else hidden[:, kept]
        logits, loss = logits_of(scored, self.model.head_weight, self.model.config.logit_softcap), None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items_in_batch)
            logits = logits[:, kept]
        cache = ZooCache() if past_key_values is None and use_cache else past_key_values
        if use_cache is False:
            cache = None
        if cache is not None:
            cache.advance(state, piece.tokens.shape[1], piece.real)
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache, hidden_states=streams)  # type: ignore[arg-type]  # what generate needs of a Cache
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _refuse(self, output_attentions: bool | None, past_key_values: Any) -> None:
        asked = output_attentions or self.config.output_attentions
        require(not asked, "output_attentions", True, "few blocks have attentions", "zoo measure RUN attention_entropy")
        known = past_key_values is None or isinstance(past_key_values, ZooCache)
        require(known, "past_key_values", type(past_key_values).__name__, "a zoo model has states of its own types", "zoo.hf.ZooCache()")

    def _hidden(self, piece: Piece, cache: ZooCache | None, streams: bool) -> tuple[Tensor, Any, tuple[Tensor, ...] | None]:
        options = {"documents": piece.documents, "padding": piece.padding, "embeddings": piece.embeddings}
        state = None if cache is None else cache.state
        if streams:
            return with_streams(self.model, piece.tokens, state, **options)
        return *self.model.hidden(piece.tokens, state, **options), None

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]  # transformers' own takes any module
        self.model.embedding = value

    def get_output_embeddings(self) -> nn.Module | None:  # type: ignore[override]  # transformers' own never says None
        return self.model.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.model.head = new_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """The embedding, and the head if it has weights of its own, with so many rows; new ones are random, around the old ones' mean."""
        require(mean_resizing, "mean_resizing", False, "new rows are random, around the mean of the old ones", "leave it out")
        embedding: nn.Embedding = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of)
        self.model.config = replace(self.model.config, vocab_size=embedding.num_embeddings)
        self.config.model = {**(self.config.model or {}), "vocab_size": embedding.num_embeddings}
        return embedding

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> bool:
        """Give generate a ZooCache from the first piece on (prefill_chunk_size needs it). Returns whether there is a cache."""
        name = generation_config.cache_implementation
        rule = "a zoo model's state is its own cache, whose tensors grow only where a block keeps tokens"
        require(name in (None, "dynamic"), "cache_implementation", name, rule, "leave it out")
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = ZooCache()
        return model_kwargs.get("past_key_values") is not None

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: blocks initialise their weights when they are built."""

    def _adjust_missing_and_unexpected_keys(self, loading_info: LoadStateDictInfo) -> None:
        """Called after loading: transformers would only warn of missing weights, and leave them uninitialised."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        wrong = {
            "lacks": loading_info.missing_keys,
            "holds what the model has no place for": loading_info.unexpected_keys,
            "has other sizes:": {str(key[0]) for key in loading_info.mismatched_keys},
        }
        said = [f"{what} {', '.join(sorted(names))}" for what, names in wrong.items() if names]
        if said:
            raise ConfigError(str(self.config.name_or_path), None, "; ".join(said))
