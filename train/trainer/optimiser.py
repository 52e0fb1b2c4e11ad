"""AdamW (Loshchilov & Hutter, arXiv:1711.05101), with fused kernels, and its state as named tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.config.run import TrainConfig
from train.trainer.checkpoint import damaged

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
FUSED = ("cpu", "cuda", "mps")  # devices with a fused AdamW


def decayed(model: nn.Module) -> dict[str, bool]:
    """Each parameter's name, and whether weights decay: matrices do, unless embeddings or marked by blocks.base.no_decay."""
    tables = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, nn.ParameterDict)) for p in m.parameters(recurse=False)}
    tables |= {id(p) for name, p in model.named_parameters() if name == "segments.memory"}  # inserted tokens are embeddings too
    return {name: p.ndim >= 2 and id(p) not in tables and not getattr(p, "no_decay", False) for name, p in model.named_parameters()}


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of a model: fused where the device and the dtypes allow it."""
    decays = decayed(model)
    named = dict(model.named_parameters())
    groups = [
        {"params": [named[n] for n, yes in decays.items() if yes], "weight_decay": config.weight_decay},
        {"params": [named[n] for n, yes in decays.items() if not yes], "weight_decay": 0.0},
    ]
    fused = all(p.is_floating_point() and p.device.type in FUSED for p in named.values())
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def optimiser_tensors(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as `moment/parameter` -> tensor."""
    states = {name: optimiser.state[p] for name, p in model.named_parameters() if p in optimiser.state}
    return {f"{moment}/{name}": state[moment] for name, state in states.items() for moment in MOMENTS}


def restore_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor], step: int) -> None:
    """Put back what `optimiser_tensors` gave after `step` steps. Raises ConfigError for anything else."""
    wrong = _wrong(dict(model.named_parameters()), tensors, step)
    if wrong is not None:
        raise damaged("checkpoint/optimiser.safetensors", wrong)
    names = {id(p): name for name, p in model.named_parameters()}
    order = [names[id(p)] for group in optimiser.param_groups for p in group["params"]]
    state = {i: {m: tensors[f"{m}/{name}"] for m in MOMENTS} for i, name in enumerate(order) if f"step/{name}" in tensors}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _wrong(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor], step: int) -> str | None:
    """Why these tensors are not the optimiser's state of these parameters after `step` steps; None: they are.

    A parameter that no step has reached has no state; of one that some steps have not reached the own count of steps is smaller.
    """
    reached = [name for name in parameters if f"step/{name}" in tensors]
    expected = {f"{moment}/{name}" for name in reached for moment in MOMENTS}
    if tensors.keys() != expected:
        return f"{min(tensors.keys() ^ expected)} is of no parameter, or not there"
    for name in reached:
        parameter, (count, *moments) = parameters[name], [tensors[f"{moment}/{name}"] for moment in MOMENTS]
        if any((m.shape, m.dtype) != (parameter.shape, parameter.dtype) for m in moments):
            return f"the moments of {name} must have its shape {tuple(parameter.shape)} and be {parameter.dtype}"
        if count.shape or not count.is_floating_point() or not 1 <= float(count) <= step:
            return f"the steps of {name} must be one number from 1 to {step}"
    last = max((float(tensors[f"step/{name}"]) for name in reached), default=0.0)
    return None if last == step else f"it holds {last:g} steps, the checkpoint {step}"


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate
