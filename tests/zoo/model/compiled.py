"""Every block under torch.compile, one JSON line each; run as a program: shape checks can't be traced, so pytest's process can't do it."""

import json
import sys
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

import zoo
from blocks.catalogue import block_types, config_class
from blocks.context import LANDMARK, META, Routed
from zoo.model.model import next_tokens

PLANS = {META: {"meta": {"every": 5}}, LANDMARK: {"landmark": {"every": 6}}}
SIZES: dict[str, dict[str, Any]] = {
    "mamba2": {"d_state": 8, "head_dim": 16},
    "core_context": {"group": 4, "local": 8},
    "moe": {"balance": 0.5, "z_loss": 0.1},
}
LENGTHS = (20, 70, 33, 130, 131)
STEPS = 4
PIECEWISE = ("core_context", "landmark")  # their caches grow by whole blocks: a decoding step has many shapes


def build(type_name: str) -> zoo.Model:
    plans: dict[str, Any] = {}
    for kind in config_class(type_name).needs_kinds:
        plans |= PLANS[kind]
    blocks = {"X": {"type": type_name, **SIZES.get(type_name, {})}}
    return zoo.build({"d_model": 32, "vocab_size": 24, "blocks": blocks, "pattern": "X", "tokens": plans}, seed=0)


def gradients(model: zoo.Model, tokens: Tensor, documents: Tensor | None) -> list[Tensor]:
    """The loss, auxiliary ones with it, the gradient of every parameter, and the load of experts."""
    routed: list[Routed] = []
    loss, _ = model.loss(tokens, next_tokens(tokens, documents), documents=documents, routed=routed)
    loss = torch.stack([loss, *(call.loss for call in routed)]).sum()
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return [loss, *grads, *(call.load for call in routed)]


def difference(tensors: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative norm; gradients of nothing but rounding (1e-6 of the largest) don't count."""
    floor = 1e-6 * max(float(x.detach().norm()) for x in expected)
    return max(float((a - b).detach().norm()) / max(float(b.detach().norm()), floor) for a, b in zip(tensors, expected, strict=True))


def decoded(model: zoo.Model, tokens: Tensor) -> Tensor:
    """Logits of a prompt's end and of some tokens after it, one by one."""
    with torch.no_grad():
        logits, state = model(tokens[:, :9])
        out = [logits[:, -1:]]
        for i in range(STEPS):
            logits, state = model(tokens[:, 9 + i : 10 + i], state)
            out.append(logits)
    return torch.cat(out, 1)


def measure(type_name: str) -> dict[str, Any]:
    """Compiles of a text's length, of packed text and of single tokens, counted by a backend that changes nothing; differences."""
    torch._dynamo.reset()
    eager, compiled = build(type_name), build(type_name)
    graphs: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(1)
        return graph

    compiled.stack.compile(backend=counting, fullgraph=True)
    torch.manual_seed(0)
    texts = [torch.randint(24, (2, t)) for t in LENGTHS]
    worst = max(difference(gradients(compiled, x, None), gradients(eager, x, None)) for x in texts)
    lengths = len(graphs)
    packed = [(x, torch.arange(x.shape[1]).expand(2, -1) // 11) for x in texts]
    worst = max(worst, *(difference(gradients(compiled, x, d), gradients(eager, x, d)) for x, d in packed))
    both = len(graphs)
    torch._dynamo.reset()
    if type_name not in PIECEWISE:
        worst = max(worst, difference([decoded(compiled, texts[-1])], [decoded(eager, texts[-1])]))
    return {"type": type_name, "lengths": lengths, "packed": both - lengths, "decoding": len(graphs) - both, "difference": worst}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or block_types():
        try:
            print(json.dumps(measure(name)), flush=True)
        except torch._dynamo.exc.TorchDynamoException as error:
            print(json.dumps({"type": name, "error": str(error)[:2000]}), flush=True)
