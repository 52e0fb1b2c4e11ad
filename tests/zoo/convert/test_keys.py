"""No key of config.json is silently passed over.

Each key of a class is moved, in configs drawn from the family's strategy: either the model that the zoo builds moves with it (or is
refused), or nothing that the class computes does. A family's UNREAD names keys that its class alone passes over.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
import torch

from blocks.errors import ConfigError
from tests.oracle import error
from tests.zoo.convert.parity import examples, hf_config, hf_config_class, hf_logits, hf_model, is_computed
from tests.zoo.convert.table import compared, module
from zoo.config.model import load_model
from zoo.convert import families

# keys of many classes that change nothing computed in eval mode from explicit positions; `test_what_moves_nothing_...` proves it
HARMLESS = {
    *("initializer_range", "rescale_prenorm_residual", "w_init_variance_scale", "lambda_std_dev"),
    *("time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme"),
    *("linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max", "linear_dt_init_floor"),
    *("use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "num_logits_to_keep"),
    *("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "router_jitter_noise"),
    *("output_router_logits", "router_aux_loss_coef", "z_loss_coefficient", "moe_shared_expert_overlap"),
    *("use_mambapy", "use_associative_scan", "use_mamba_kernels", "chunk_size", "mamba_chunk_size", "block_size"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
    *("reorder_and_upcast_attn", "residual_in_fp32", "mamba_ssm_cache_dtype", "inference_state_dtype", "autocast_kernel_dtype"),
}
ROTARY = {"rope_parameters", "max_position_embeddings"}  # the tests of parity draw them
SEED = 0  # of the configs drawn here
ROUNDING = 1e-4  # in float32, of another order of the same sums


def drawn(family: str, count: int) -> list[dict[str, Any]]:
    """Configs of a family's strategy, the same ones every time, whatever this file's names are."""
    configs: list[dict[str, Any]] = []

    @examples(module(family).CONFIGS, count, SEED)
    def collect(hf: dict[str, Any]) -> None:
        configs.append(hf)

    collect()
    return configs


def keys(family: str) -> dict[str, Any]:
    """The keys of the class with their defaults, those of every class left out."""
    from transformers import PreTrainedConfig

    fields = hf_config_class(families.family(family).MODEL_TYPES[0]).__dataclass_fields__
    return {key: field.default for key, field in fields.items() if key not in PreTrainedConfig.__dataclass_fields__}


def others(value: Any) -> list[Any]:
    """Other values of a key."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [2 * value, value + 1] if isinstance(value, int) and value else [2 * value + 0.5, value / 2] if value else [1, 2]
    if isinstance(value, (list, tuple)):
        return [[*value[1:], value[0]], list(value[:-1])] if value else [[0]]
    return [True, 1, 3, 0.5, "other", [0], [1]]


def moved(family: str, hf: Mapping[str, Any], wanted: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, config with another value of it)."""
    for key, default in keys(family).items():
        for value in others(hf.get(key, default)):
            if key in wanted and known(other := {**hf, key: value}):
                yield key, other


def known(hf: Mapping[str, Any]) -> bool:
    """Whether the class takes a config; its types are checked."""
    try:
        hf_config(hf)
    except Exception:  # whatever the class's checks say
        return False
    return True


def made(family: str, hf: Mapping[str, Any]) -> Any:
    """What the zoo makes of a config: a ModelConfig, or None if it is refused."""
    try:
        return load_model(families.family(family).to_zoo(hf))
    except ConfigError:
        return None


def shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items() if not is_computed(name)}


class Reference:
    """The model in transformers of a config, and what it computes of the same weights under another config."""

    def __init__(self, hf: Mapping[str, Any]) -> None:
        model = hf_model(hf)
        self.weights = model.state_dict()
        self.tokens = torch.randint(int(hf["vocab_size"]), (2, 16), generator=torch.Generator().manual_seed(1))
        self.logits = self.of(model)

    def of(self, model: Any) -> torch.Tensor:
        with torch.no_grad():
            return hf_logits(model, self.tokens)

    def moves(self, hf: Mapping[str, Any]) -> bool:
        """Whether this config means another model; one that can't be built or run means none."""
        try:
            model = hf_model(hf)
            if shapes(model.state_dict()) != shapes(self.weights):
                return True
            model.load_state_dict({n: t for n, t in self.weights.items() if not is_computed(n)}, strict=False)
            return error(self.of(model), self.logits) > ROUNDING
        except Exception:  # whatever the class's modules say
            return False


@pytest.mark.slow
@pytest.mark.parametrize("family", compared())
def test_what_moves_nothing_in_the_zoo_moves_nothing_in_transformers(family: str) -> None:
    overlooked = {}
    for hf in drawn(family, 6):
        model, reference = made(family, hf), Reference(hf)
        for key, other in moved(family, hf, keys(family).keys() - {"rope_parameters"}):
            if made(family, other) == model and reference.moves(other):
                overlooked[key] = other[key]
    assert overlooked == {}


@pytest.mark.parametrize("family", compared())
def test_every_key_moves_what_the_zoo_builds(family: str) -> None:
    """...but for those that change nothing, as the test above proves of each."""
    wanted, tried = keys(family).keys() - HARMLESS - ROTARY - set(families.declared(family, "UNREAD")), set()
    for hf in drawn(family, 8):
        model = made(family, hf)
        for key, other in moved(family, hf, wanted):
            if made(family, other) != model:
                wanted.discard(key)
            tried.add(key)
    assert sorted(tried & wanted) == []


@pytest.mark.parametrize("family", compared())
def test_other_names_of_keys_are_read(family: str) -> None:
    names = hf_config_class(families.family(family).MODEL_TYPES[0]).attribute_map
    for hf in drawn(family, 2):
        for alias, name in names.items():
            for one, other in ((alias, name), (name, alias)):
                if one in hf and other not in families.declared(family, "UNREAD"):
                    renamed = {other if key == one else key: value for key, value in hf.items()}
                    assert made(family, renamed) == made(family, hf), other


@pytest.mark.slow
@pytest.mark.parametrize("family", compared())
def test_keys_of_other_classes_move_nothing_or_transformers_too(family: str) -> None:
    """A key that the zoo reads and the class does not would make another model of a config."""
    foreign = {key: default for other in compared() for key, default in keys(other).items() if key not in keys(family)}
    misread = {}
    for hf in drawn(family, 2):
        model, reference = made(family, hf), Reference(hf)
        for key, default in foreign.items():
            for value in others(default)[:4]:
                other = {**hf, key: value}
                if known(other) and made(family, other) not in (model, None) and not reference.moves(other):
                    misread[key] = value
    assert misread == {}
