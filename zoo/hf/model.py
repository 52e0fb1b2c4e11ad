"""ZooForCausalLM: zoo.Model with the arguments and outputs of transformers' causal language models."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import LoadStateDictInfo

from blocks.base import ConfigError
from kernels.cross_entropy import logits_of
from zoo.hf.cache import ZooCache
from zoo.hf.config import ZooConfig
from zoo.model import Model


class ZooForCausalLM(PreTrainedModel, GenerationMixin):
    """A zoo model in transformers: from_pretrained, save_pretrained, generate, loss with labels."""

    config: ZooConfig
    config_class = ZooConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _is_stateful = True  # a state can't be taken back by some tokens: assisted generation is refused

    def __init__(self, config: ZooConfig) -> None:
        super().__init__(config)
        self.model = Model(config.zoo)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: ZooCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """input_ids (b, t) -> logits (b, t, vocab) float32, of the last logits_to_keep tokens if that is not 0.

        attention_mask: (b, n) with n >= t, 0 = padding, anywhere in a row; of what was read before, it is passed over. past_key_values:
        moved on in place. labels: (b, t), -100 = not scored; as in all of transformers, logits at t are scored by labels at t + 1.
        """
        t = input_ids.shape[1]
        state = None if past_key_values is None else past_key_values.state
        padding = None if attention_mask is None else attention_mask[:, -t:] == 0
        hidden, state = self.model.hidden(input_ids, state, padding=padding)
        scored = hidden if labels is not None else hidden[:, -logits_to_keep:]
        logits = logits_of(scored, self.model.head_weight, self.model.config.logit_softcap)
        loss = None if labels is None else self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        cache = None
        if use_cache or (use_cache is None and past_key_values is not None):
            cache = ZooCache() if past_key_values is None else past_key_values
            cache.advance(state, t)
        output = CausalLMOutputWithPast(loss=loss, logits=logits[:, -logits_to_keep:], past_key_values=cache)  # type: ignore[arg-type]  # what generate needs of a Cache
        return output if return_dict is None or return_dict else output.to_tuple()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """generate must not make a cache of its own: the first forward call does."""
        return False

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: blocks draw their weights when they are built."""

    def _adjust_missing_and_unexpected_keys(self, loading_info: LoadStateDictInfo) -> None:
        """Called after loading: transformers would only warn of weights that it did not find, and leave them undrawn."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        wrong = {
            "lacks": loading_info.missing_keys,
            "holds what the model has no place for": loading_info.unexpected_keys,
            "has other sizes:": {str(key[0]) for key in loading_info.mismatched_keys},
        }
        said = [f"{what} {', '.join(sorted(names))}" for what, names in wrong.items() if names]
        if said:
            raise ConfigError(str(self.config.name_or_path), None, "; ".join(said))
