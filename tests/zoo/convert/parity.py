"""Another library's model and ours, of the same weights: logits, gradients, decoding, and folders in both directions.

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
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

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
NUDGES = 8  # runs of theirs with weights moved by a last bit


class Differences(NamedTuple):
    """The largest difference over the largest value.

    logits32: our float32 to their float32; truth32: ours to their float64; theirs32: theirs to their float64, where logits32 is above 1e-5
    the farthest of several runs with weights moved by a last bit (of one run alone, chance decides how far it is). exported32: logits of
    the folder that we wrote, as the other library reads it.
    """

    logits64: float
    logits32: float
    truth32: float
    theirs32: float
    gradients64: float
    decode64: float
    exported32: float


WORST: dict[str, Differences] = {}


class Wide(TorchFunctionMode):
    """Float64 stays float64 where the other library narrows to float32 (norms, softmax)."""

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
    theirs = their_model(hf)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, safe_serialization=True)
        ours = import_folder(folder)
        exported = _exported(family, theirs, ours, Path(folder))
    found = compared(family, theirs, ours)._replace(exported32=exported)
    WORST[family] = Differences(*map(max, found, WORST.get(family, found)))
    within(found, hf)


def imported(theirs: Any) -> zoo.Model:
    """Ours, of the folder that theirs writes."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, safe_serialization=True)
        return import_folder(folder)


def compared(family: str, theirs: Any, ours: zoo.Model) -> Differences:
    """The differences of two models of the same weights in float32, without a folder of ours; leaves both in float64."""
    tokens = torch.randint(ours.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits32, runs = ours(tokens)[0], [their_logits(theirs, tokens)]
        apart = error(logits32, runs[0])
        runs += nudged(theirs, tokens) if apart > FLOAT32 else []
    widen(theirs)
    ours.double()
    with Wide():
        expected = their_logits(theirs, tokens)
    logits, _ = ours(tokens)
    assert expected.dtype == logits.dtype == torch.float64
    return Differences(
        error(logits, expected),
        apart,
        error(logits32.double(), expected),
        max(error(run.double(), expected) for run in runs),
        gradients(family, theirs, ours, tokens),
        error(decoded(ours, tokens), expected),
        0.0,
    )


def nudged(theirs: Any, tokens: Tensor) -> list[Tensor]:
    """Their float32 logits with every weight moved to a neighbouring number, up or down at random: rounding as it could have fallen."""
    generator = torch.Generator().manual_seed(5)
    own, found = [parameter.clone() for parameter in theirs.parameters()], []
    for _ in range(NUDGES):
        for parameter, value in zip(theirs.parameters(), own, strict=True):
            sides = torch.where(torch.rand(value.shape, generator=generator) < 0.5, -math.inf, math.inf)
            parameter.copy_(value.nextafter(sides))
        found.append(their_logits(theirs, tokens))
    for parameter, value in zip(theirs.parameters(), own, strict=True):
        parameter.copy_(value)
    return found


def within(found: Differences, hf: Mapping[str, Any]) -> None:
    """1e-9 in float64. In float32 ours is within 1e-5 of theirs, or our rounding (the distance to the float64 that both agree on) is at
    most twice theirs: a norm over channels of a delta rule that cancel multiplies whatever the last bits were."""
    bounds = Differences(FLOAT64, FLOAT32, math.inf, math.inf, FLOAT64, FLOAT64, FLOAT32)
    if found.logits32 > FLOAT32:
        bounds = bounds._replace(logits32=math.inf, truth32=2 * found.theirs32)
    assert all(a <= b for a, b in zip(found, bounds, strict=True)), f"{found}, {dict(hf)}"


def their_model(hf: Mapping[str, Any], start: int = 0) -> Any:
    """The other library's model, with weights that hide nothing."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(start)
    model = AutoModelForCausalLM.from_config(config_of(hf), attn_implementation="eager").eval()
    model.set_experts_implementation("eager")  # the others take no float64 and no odd widths
    scramble(model)
    return model


def their_config(model_type: str) -> Any:
    """The other library's class of a config."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def config_of(hf: Mapping[str, Any]) -> Any:
    """The other library's config of a config.json."""
    values = {key: value for key, value in hf.items() if key != "model_type"}
    return their_config(hf["model_type"])(**json.loads(json.dumps(values)))


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


def their_logits(model: Any, tokens: Tensor) -> Tensor:
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def decoded(model: zoo.Model, tokens: Tensor) -> Tensor:
    """A prefill, then single tokens."""
    logits, state = model(tokens[:, :PREFILL])
    parts = [logits]
    for t in range(PREFILL, tokens.shape[1]):
        logits, state = model(tokens[:, t : t + 1], state)
        parts.append(logits)
    return torch.cat(parts, 1)


def gradients(family: str, theirs: Any, ours: zoo.Model, tokens: Tensor) -> float:
    """The largest difference of the gradients of one scalar, ours mapped back through the rules to their names."""
    weight = torch.randn(BATCH, LENGTH, ours.config.vocab_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with Wide():
        (their_logits(theirs, tokens) * weight).mean().backward()
    (ours(tokens)[0] * weight).mean().backward()
    names = {id(t): name for name, t in ours.state_dict(keep_vars=True).items()}
    own = {name: torch.zeros_like(t) for name, t in weights_of(ours).items()}
    own |= {names[id(p)]: p.grad for p in ours.parameters() if p.grad is not None}
    mapped = weight_map.to_theirs(families.family(family).rules(ours.config), own, family)
    expected = _weights(family, ours, _as_saved(theirs))
    largest = max(float(g.abs().max()) for g in expected.values())
    floor = 1e-6 * largest  # a key's bias has no gradient but rounding
    return max(float((mapped[n] - expected[n]).abs().max()) / max(float(expected[n].abs().max()), floor) for n in mapped)


def _weights(family: str, ours: zoo.Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint by the names that we write, without what holds nothing learned."""
    entries = families.family(family).rules(ours.config)
    patterns = [entry.pattern for entry in entries if isinstance(entry, (weight_map.NotAWeight, weight_map.LeftOut))]
    found = weight_map.renamed(entries, tensors)
    return {name: tensor for name, tensor in found.items() if not any(fnmatchcase(name, pattern) for pattern in patterns)}


def _as_saved(theirs: Any) -> dict[str, Tensor]:
    """Their gradients under the names of a checkpoint: saved as if they were the weights."""
    for tensor in [*theirs.parameters(), *theirs.buffers()]:
        tensor.data = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, safe_serialization=True)
        return dict(read_shards(Path(folder)).items())


def _exported(family: str, theirs: Any, ours: zoo.Model, original: Path) -> float:
    """Out and in again: the weights to the bit on both sides; the difference of logits in the other library."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        export_folder(ours, folder, family)
        written, read = read_shards(Path(folder)), _weights(family, ours, read_shards(original))
        assert {n: t for n, t in read.items() if n not in written} == {}
        assert all(torch.equal(written[name], read[name]) for name in written)
        again = import_folder(folder)
        assert all(torch.equal(t, weights_of(again)[name]) for name, t in weights_of(ours).items())
        reloaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    reloaded.set_experts_implementation("eager")
    tokens = torch.randint(ours.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return error(their_logits(reloaded, tokens), their_logits(theirs, tokens))
