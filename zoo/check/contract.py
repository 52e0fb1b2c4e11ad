"""The contract of a block, run on any block: `zoo check TYPE`.

Each check compares numbers that must be equal, in float64, so that a failure is a defect and not rounding:
whole = pieces = steps; the gradient flows through the state; no future leaks; packed and padded = alone; the chunked
back end = the reference; the ledger's row = what is really built, spent and held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from blocks.base import Config
from blocks.catalogue import config_class
from blocks.context import TEXT
from blocks.keys import Keys
from blocks.state import detach, state_bytes
from kernels import backend
from kernels.backends import observed
from kernels.decay import strong_flops
from zoo.check.fixtures import LENGTH, Piece, Subject, cut_up, random_piece, read, scrambled

TOLERANCE = 1e-9  # relative, float64
LEDGER_LENGTHS = (1, 7, 64, 130)


class ContractError(AssertionError):
    """A block breaks the contract."""


class PassedCheck(NamedTuple):
    """A check that a block has passed: its name and the largest relative difference that was seen."""

    check: str
    worst: float


def check_block(block: str | Config, d_model: int = 32, *, layer: int = 1, n_layers: int = 3) -> list[PassedCheck]:
    """Run the whole contract on a block: its type with defaults, or a Config. Raises ContractError at the first breach."""
    return list(run_checks(config_class(block)() if isinstance(block, str) else block, d_model, layer=layer, n_layers=n_layers))


def run_checks(config: Config, d_model: int, *, layer: int = 1, n_layers: int = 3) -> Iterator[PassedCheck]:
    """The contract's checks, one after the other. Raises ContractError at the first breach."""
    config.check(d_model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        subject = Subject(config, scrambled(config.build(d_model, layer, n_layers)), d_model, layer, n_layers)
    for name, check in CHECKS.items():
        yield PassedCheck(name, check(subject))


def difference(a: Tensor, b: Tensor) -> float:
    """The norm of a - b over the norm of b."""
    return float(((a - b).norm() / b.norm().clamp(min=1e-30)).detach())


def _same(check: str, a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> float:
    if a.shape != b.shape:
        raise ContractError(f"{check}: shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    worst = difference(a, b)
    if not worst <= tolerance:  # NaN is a breach
        raise ContractError(f"{check}: relative difference {worst:.2e}, allowed {tolerance:.0e}")
    return worst


def check_pieces(subject: Subject) -> float:
    """Whole = pieces of any sizes = one token at a time, and so does what is read afterwards."""
    text, more = random_piece(subject), random_piece(subject, 5, seed=1)
    whole, state, cursor = read(subject, [text])
    after, _, _ = read(subject, [more], state, cursor)
    worst = 0.0
    for sizes in ([16, 16, 5], [1, 20, 1, 15], [1] * LENGTH):
        pieces, state, cursor = read(subject, cut_up(text, sizes))
        worst = max(worst, _same(f"whole = pieces of {sizes[:4]}", pieces, whole))
        worst = max(worst, _same("the state after pieces goes on as the whole's", read(subject, [more], state, cursor)[0], after))
    return worst


def check_state_gradient(subject: Subject) -> float:
    """The gradient of what is read later reaches what was read before, through the state alone."""
    text = random_piece(subject)
    weight = torch.randn(text.x[:, 20:].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for sizes in ([LENGTH], [20, LENGTH - 20]):
        x = text.x.clone().requires_grad_()
        y, _, _ = read(subject, cut_up(text._replace(x=x), sizes))
        gradients.append(torch.autograd.grad((y[:, 20:] * weight).sum(), x)[0])
    return _same("gradient through the state", gradients[1], gradients[0])


def check_causal(subject: Subject) -> float:
    """Changing a token changes nothing before it, and changes something at it or after it."""
    text, at = random_piece(subject), 19  # of the special kind, where the block needs one
    assert text.tokens is not None
    changed, tokens = text.x.clone(), text.tokens.clone()
    changed[:, at] += 1.0
    tokens[:, at] += 4  # an id that is nowhere else
    whole, _, _ = read(subject, [text])
    other, _, _ = read(subject, [text._replace(x=changed, tokens=tokens)])
    if difference(other[:, at:], whole[:, at:]) == 0:
        raise ContractError("the block ignores its input: a changed token changes no output")
    return _same("no future leak: outputs before a changed token", other[:, :at], whole[:, :at])


def check_packed(subject: Subject) -> float:
    """Packed documents = each alone, whole and cut in the middle of documents."""
    text = random_piece(subject)
    documents = torch.tensor([[0] * 9 + [1] * 1 + [2] * 17 + [3] * 10, [7] * 20 + [8] * 2 + [7] * 15])
    packed = text._replace(documents=documents)
    alone = torch.zeros_like(text.x)
    for row, lengths in enumerate(([9, 1, 17, 10], [20, 2, 15])):
        for piece, (start, stop) in _spans(text, row, lengths):
            alone[row : row + 1, start:stop] = read(subject, [piece])[0]
    worst = 0.0
    for sizes in ([LENGTH], [5, 16, 16], [1] * LENGTH):
        worst = max(worst, _same(f"packed = alone, in pieces of {sizes[:3]}", read(subject, cut_up(packed, sizes))[0], alone))
    return worst


def _spans(text: Piece, row: int, lengths: Sequence[int]) -> list[tuple[Piece, tuple[int, int]]]:
    ends = torch.tensor(lengths).cumsum(0).tolist()
    one = Piece(*(None if p is None else p[row : row + 1] for p in text))  # type: ignore[arg-type]
    return [(one.cut(end - n, end), (end - n, end)) for n, end in zip(lengths, ends, strict=True)]


def check_padding(subject: Subject) -> float:
    """Rows of different lengths, padded on the left at the start and in mid-stream, = each alone."""
    text, more = random_piece(subject), random_piece(subject, 11, seed=1)
    padded, extra = _pad(text, [0, 13]), _pad(more, [4, 0])
    first, state, cursor = read(subject, [padded])
    second, state, cursor = read(subject, [extra], state, cursor)
    third, _, _ = read(subject, [more], state, cursor)
    worst = 0.0
    for row, (pads, later) in enumerate(((0, 4), (13, 0))):
        pieces = [_row(padded, row, pads), _row(extra, row, later), _row(more, row, 0)]
        alone, _, _ = read(subject, pieces)
        joined = torch.cat([first[row : row + 1, pads:], second[row : row + 1, later:], third[row : row + 1]], 1)
        worst = max(worst, _same(f"padded = alone, row {row}", joined, alone))
    if not all(bool(torch.isfinite(y).all()) for y in (first, second)):
        raise ContractError("outputs at padding are not finite")
    return worst


def _pad(piece: Piece, pads: Sequence[int]) -> Piece:
    """The first pads[row] tokens of each row become padding."""
    length = piece.x.shape[1]
    return piece._replace(padding=torch.arange(length) < torch.tensor(pads)[:, None])


def _row(piece: Piece, row: int, start: int) -> Piece:
    one = Piece(*(None if p is None else p[row : row + 1, start:] for p in piece))  # type: ignore[arg-type]
    return one._replace(padding=None)


def check_chunked(subject: Subject) -> float:
    """The chunked back end = the reference, values and the gradients of every parameter and of the input."""
    text = random_piece(subject, 70)
    results = []
    for name in ("reference", "chunked"):
        x = text.x.clone().requires_grad_()
        with backend(name):
            y, _, _ = read(subject, [text._replace(x=x)])
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        wanted = [x, *(p for p in subject.block.parameters() if p.requires_grad)]
        grads = torch.autograd.grad((y * weight).sum(), wanted, allow_unused=True)
        results.append([y, *(torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True))])
    scale = max(float(g.detach().norm()) for g in results[0])
    worst = 0.0
    for a, b in zip(results[1], results[0], strict=True):
        if float(b.detach().norm()) > 1e-9 * scale:  # a gradient that is zero but for rounding has no relative error
            worst = max(worst, _same("chunked = reference", a, b, 1e-8))
    return worst


def check_ledger(subject: Subject) -> float:
    """Parameters, FLOPs (reference), executed FLOPs (chunked) and state bytes at several lengths, by equality; the idle ones are idle.
    The ledger's executed FLOPs are those of mild decays; what the strong ones of this text change is added (kernels/decay/cost.py)."""
    single = subject.rebuilt()
    for length in LEDGER_LENGTHS:
        piece = random_piece(subject, length, batch=1)
        piece = piece._replace(x=piece.x.float())
        kinds = [TEXT] * length if piece.kinds is None else piece.kinds[0].tolist()
        cost = subject.config.cost_of_kinds(subject.d_model, kinds)
        state, flops = _counted(single, piece, "reference")
        with _strong_flops() as strong:
            _, executed = _counted(single, piece, "chunked")
        _equal("params", cost.params, sum(p.numel() for p in single.block.parameters()), length)
        _equal("flops", cost.flops, flops, length)
        _equal("executed_flops", cost.executed_flops + sum(strong), executed, length)
        _equal("state_bytes", cost.state_bytes, state_bytes(detach(state)), length)
    idle, unmet = subject.config.cost(subject.d_model, LENGTH).idle_params, _unmet(subject)
    if idle > unmet:  # what a token meets may still have no gradient
        _equal("idle_params", idle, unmet, LENGTH)
    return 0.0


def _unmet(subject: Subject) -> int:
    """The entries of all parameters that the last token of a text gives no gradient."""
    y, _, _ = read(subject, [random_piece(subject, batch=1)])
    parameters = [p for p in subject.block.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(y[:, -1].square().sum(), parameters, allow_unused=True)
    return sum(p.numel() if g is None else int((g == 0).sum()) for p, g in zip(parameters, gradients, strict=True))


def _counted(subject: Subject, piece: Piece, backend_name: str) -> tuple[Any, int]:
    with backend(backend_name), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=SDPA_ON_CPU) as counter:
        _, state, _ = read(subject, [piece])
    return state, counter.get_total_flops()


@contextmanager
def _strong_flops() -> Iterator[list[int]]:
    """What the decays inside this `with` change in the executed FLOPs of each call of `decay`."""
    changes: list[int] = []

    def watch(operation: str, _: str, __: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if operation == "decay":
            changes.append(strong_flops(*args, **kwargs))

    with observed(watch):
        yield changes


def _sdpa_flops(q: Any, k: Any, v: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    b, h, t, e = q
    return 2 * b * h * t * k[2] * (e + v[3])


SDPA_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops}  # torch's counter has no entry for it


def _equal(what: str, ledger: int, real: int, length: int) -> None:
    if ledger != real:
        raise ContractError(f"the ledger's {what} at length {length} is {ledger}, the real one {real}")


def check_precision(subject: Subject) -> float:
    """Under bfloat16 autocast outputs are finite, and a state that does not grow with the text is float32."""
    single = subject.rebuilt()
    piece = random_piece(subject)
    piece = piece._replace(x=piece.x.float())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first, early, cursor = read(single, [piece.cut(0, 20)])
        second, late, _ = read(single, [piece.cut(20, LENGTH)], early, cursor)
    if not bool(torch.isfinite(torch.cat([first, second], 1)).all()):
        raise ContractError("outputs under bfloat16 autocast are not finite")
    leaves = pytree.tree_leaves(late, is_leaf=lambda node: isinstance(node, Keys))  # keys and values are activations
    floats = [t.dtype for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
    if state_bytes(early) == state_bytes(late) and any(dtype != torch.float32 for dtype in floats):
        raise ContractError(f"the recurrent state must be float32 under bfloat16 autocast, not {floats}")
    return 0.0


CHECKS: dict[str, Callable[[Subject], float]] = {
    "whole = pieces = steps": check_pieces,
    "gradient through the state": check_state_gradient,
    "no future leak": check_causal,
    "packed = alone": check_packed,
    "padded = alone": check_padding,
    "chunked = reference": check_chunked,
    "ledger = reality": check_ledger,
    "bfloat16 autocast": check_precision,
}
