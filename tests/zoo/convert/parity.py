"""A model of transformers (hf) and the zoo's, of the same weights: logits, gradients, decoding, and folders in both directions.

A family's test file is a strategy of config.json dictionaries and one call:

    @examples(configs())
    def test_parity(hf: dict[str, Any]) -> None:
        check("llama", hf)

The largest differences of each family are kept in WORST; `python -m tests.zoo.convert.table` prints them.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import jaxtyping
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import zoo
from tests.oracle import error
from zoo.convert import families, weight_map
from zoo.convert.checkpoint import export_folder, import_folder, read_shards
from zoo.weights.safetensors_io import weights_of

LENGTH, PREFILL, BATCH = 16, 10, 2
FLOAT64, FLOAT32 = 1e-9, 1e-5  # of the largest logit (gradient of a tensor)
NUDGES = 8  # runs of hf with weights moved by a last bit


class Differences(NamedTuple):
    """The largest difference over the largest value.

    logits32: the zoo's float32 to hf's float32; zoo32: the zoo's float32 to hf's float64; hf32: hf's float32 to its float64, where
    logits32 is above 1e-5 the farthest of several runs with weights moved by a last bit (of one run alone, chance decides how far it is).
    exported32: logits of the folder that the zoo wrote, as transformers reads it.
    """

    logits64: float
    logits32: float
    zoo32: float
    hf32: float
    gradients64: float
    decode64: float
    exported32: float


WORST: dict[str, Differences] = {}


class Wide(TorchFunctionMode):
    """Float64 stays float64 where transformers narrows to float32 (norms, softmax)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.polar:  # its cosines differ in the last bit from cos
            return torch.complex(args[0] * args[1].cos(), args[0] * args[1].sin())
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float or (func in (Tensor.to, Tensor.type) and torch.float32 in (*args[1:], *kwargs.values())):
                return args[0]
            if kwargs.get("dtype") is torch.float32:
                kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


def examples(
    strategy: SearchStrategy[Any], count: int = 5, chosen: int | None = None
) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """A test over a few drawn configs, the same ones every time. chosen: a seed for others than those of the test's own name."""

    def decorate(test: Callable[[Any], None]) -> Callable[[], None]:
        checks = list(HealthCheck)
        if chosen is None:
            rules = settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=checks)
            return rules(given(strategy)(test))
        rules = settings(max_examples=count, phases=[Phase.generate], deadline=None, database=None, suppress_health_check=checks)
        return seed(chosen)(rules(given(strategy)(test)))

    return decorate


def check(family: str, hf: Mapping[str, Any]) -> None:
    """Everything that must agree for one config.json. hf: its keys, model_type included."""
    reference = hf_model(hf)
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder, safe_serialization=True)
        model = import_folder(folder)
        exported = _exported(family, reference, model, Path(folder))
    differences = compared(family, reference, model)._replace(exported32=exported)
    WORST[family] = Differences(*map(max, differences, WORST.get(family, differences)))
    within(differences, hf)


def imported(reference: Any) -> zoo.Model:
    """The zoo's model of the folder that hf writes."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder, safe_serialization=True)
        return import_folder(folder)


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of shapes, which take most of the time of small models: for calls of a kind that has just passed them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def compared(family: str, reference: Any, model: zoo.Model) -> Differences:
    """The differences of two models of the same weights in float32, without a folder of the zoo's; leaves both in float64."""
    tokens = torch.randint(model.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits32, runs = model(tokens)[0], [hf_logits(reference, tokens)]
        apart = error(logits32, runs[0])
        runs += nudged(reference, tokens) if apart > FLOAT32 else []
    widen(reference)
    model.double()
    with Wide():
        expected = hf_logits(reference, tokens)
    with unchecked():
        logits, _ = model(tokens)
    assert expected.dtype == logits.dtype == torch.float64
    steps = decoded(model, tokens)
    return Differences(
        error(logits, expected),
        apart,
        error(logits32.double(), expected),
        max(error(run.double(), expected) for run in runs),
        gradients(family, reference, model, logits, expected),
        error(steps, expected),
        0.0,
    )


def nudged(reference: Any, tokens: Tensor) -> list[Tensor]:
    """hf's float32 logits with every weight moved to a neighbouring number, up or down at random: rounding as it could have fallen."""
    generator = torch.Generator().manual_seed(5)
    weights, runs = [parameter.clone() for parameter in reference.parameters()], []
    for _ in range(NUDGES):
        for parameter, value in zip(reference.parameters(), weights, strict=True):
            sides = torch.where(torch.rand(value.shape, generator=generator) < 0.5, -math.inf, math.inf)
            parameter.copy_(value.nextafter(sides))
        runs.append(hf_logits(reference, tokens))
    for parameter, value in zip(reference.parameters(), weights, strict=True):
        parameter.copy_(value)
    return runs


def within(differences: Differences, hf: Mapping[str, Any]) -> None:
    """1e-9 in float64. In float32 the zoo is within 1e-5 of hf, or its rounding (the distance to the float64 that both agree on) is at
    most twice that of hf: a norm over channels of a delta rule that cancel multiplies whatever the last bits were."""
    bounds = Differences(FLOAT64, FLOAT32, math.inf, math.inf, FLOAT64, FLOAT64, FLOAT32)
    if differences.logits32 > FLOAT32:
        bounds = bounds._replace(logits32=math.inf, zoo32=2 * differences.hf32)
    assert all(a <= b for a, b in zip(differences, bounds, strict=True)), f"{differences}, {dict(hf)}"


def hf_model(hf: Mapping[str, Any], start: int = 0) -> Any:
    """The model in transformers of a config.json, with weights that hide nothing."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(start)
    model = AutoModelForCausalLM.from_config(hf_config(hf), attn_implementation="eager").eval()
    model.set_experts_implementation("eager")  # the others take no float64 and no odd widths
    scramble(model)
    return model


def hf_config_class(model_type: str) -> Any:
    """The class of a config in transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def hf_config(hf: Mapping[str, Any]) -> Any:
    """The config in transformers of a config.json."""
    values = {key: value for key, value in hf.items() if key != "model_type"}
    return hf_config_class(hf["model_type"])(**json.loads(json.dumps(values)))


def scramble(model: nn.Module) -> None:
    """Constants moved at random, matrices as large as a trained network's: 0.02 would leave attention flat and differences unseen."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for name, b in model.named_buffers() if b.is_floating_point() and not is_computed(name))]:
            if tensor.ndim > 0 and bool((tensor == tensor.flatten()[0]).all()):
                tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
            elif tensor.ndim > 1 and float(tensor.std()) < 0.05:
                tensor *= tensor.shape[-1] ** -0.5 / tensor.std()


def is_computed(name: str) -> bool:
    """Whether a buffer follows from the config: frequencies, MiniMax's decays."""
    return any(word in name for word in ("inv_freq", "slope_rate", "_decay"))


def widen(model: nn.Module) -> None:
    """Parameters in float64; what is computed from the config stays as it is (the angles of positions are float32 on both sides)."""
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and "inv_freq" not in name:
                exact = module.scalar_embed_scale if name == "embed_scale" else buffer  # Gemma's sqrt(d_model), not rounded
                setattr(module, name, torch.as_tensor(exact, dtype=torch.float64))
        if type(module).__name__ == "MiniMaxLightningAttention":
            _widen_decays(module)


def _widen_decays(module: Any) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        module.slope_rate = module.get_slope_rate()
        module.query_decay, module.key_decay, module.diagonal_decay = module.decay_factors(module.slope_rate)
    finally:
        torch.set_default_dtype(torch.float32)


def hf_logits(model: Any, tokens: Tensor) -> Tensor:
    """(batch, length, vocabulary), of a model of transformers."""
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def decoded(model: zoo.Model, tokens: Tensor) -> Tensor:
    """Logits of a prefill, then of single tokens; shapes are checked in the first of these."""
    with torch.no_grad():
        with unchecked():
            logits, state = model(tokens[:, :PREFILL])
        step, state = model(tokens[:, PREFILL : PREFILL + 1], state)
        parts = [logits, step]
        with unchecked():
            for t in range(PREFILL + 1, tokens.shape[1]):
                step, state = model(tokens[:, t : t + 1], state)
                parts.append(step)
    return torch.cat(parts, 1)


def gradients(family: str, reference: Any, model: zoo.Model, logits: Tensor, expected: Tensor) -> float:
    """The largest difference of the gradients of one scalar of both logits, the zoo's mapped back through the rules to hf's names."""
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with Wide():
        (expected * weight).mean().backward()
    (logits * weight).mean().backward()
    names = {id(t): name for name, t in model.state_dict(keep_vars=True).items()}
    own = {name: torch.zeros_like(t) for name, t in weights_of(model).items()}
    own |= {names[id(p)]: p.grad for p in model.parameters() if p.grad is not None}
    mapped = weight_map.to_hf(families.family(family).rules(model.config), own, family)
    wanted = _weights(family, model, _as_saved(reference))
    largest = max(float(g.abs().max()) for g in wanted.values())
    floor = 1e-6 * largest  # a key's bias has no gradient but rounding
    return max(float((mapped[n] - wanted[n]).abs().max()) / max(float(wanted[n].abs().max()), floor) for n in mapped)


def _weights(family: str, model: zoo.Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint by the names that the zoo writes, without what holds nothing learned."""
    entries = families.family(family).rules(model.config)
    patterns = [entry.pattern for entry in entries if isinstance(entry, (weight_map.NotAWeight, weight_map.LeftOut))]
    named = weight_map.renamed(entries, tensors)
    return {name: named[name] for name in named if not any(fnmatchcase(name, pattern) for pattern in patterns)}


def _as_saved(reference: Any) -> dict[str, Tensor]:
    """hf's gradients under the names of a checkpoint: saved as if they were the weights."""
    for tensor in [*reference.parameters(), *reference.buffers()]:
        tensor.data = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder, safe_serialization=True)
        return dict(read_shards(Path(folder)))


def _exported(family: str, reference: Any, model: zoo.Model, original: Path) -> float:
    """Out and in again: the weights to the bit on both sides; the difference of logits in transformers."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        export_folder(model, folder, family)
        written, read = dict(read_shards(Path(folder))), _weights(family, model, dict(read_shards(original)))
        assert read.keys() - written.keys() == set()
        assert all(torch.equal(written[name], read[name]) for name in written)
        again = weights_of(import_folder(folder))
        assert all(torch.equal(t, again[name]) for name, t in weights_of(model).items())
        reloaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    reloaded.set_experts_implementation("eager")
    tokens = torch.randint(model.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return error(hf_logits(reloaded, tokens), hf_logits(reference, tokens))
