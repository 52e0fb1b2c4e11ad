"""`zoo check` fails where it must: sound blocks are broken in one way each, and the check for it reports it."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks import gated_delta, gqa, mamba2
from blocks.base import Config, Cost
from blocks.context import Context
from blocks.state import detach
from kernels.backends import serve
from train.cli.command_line import run
from zoo.check.contract import CHECKS, ContractError, check_block
from zoo.check.fixtures import Subject

D_MODEL = 32
Forward = Callable[[nn.Module, Tensor, Any, Context], tuple[Tensor, Any]]


class Spoilt(nn.Module):
    """A block whose forward goes through `spoil`."""

    def __init__(self, inner: nn.Module, spoil: Forward) -> None:
        super().__init__()
        self.inner, self.spoil = inner, spoil

    def forward(self, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
        return self.spoil(self.inner, x, state, ctx)


def sound(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    return inner(x, state, ctx)


def right(cost: Cost) -> Cost:
    return cost


def wrong(base: type[Config], forward: Forward = sound, cost: Callable[[Cost], Cost] = right, **sizes: Any) -> Config:
    """A config of a block whose forward or ledger row is spoilt."""

    @dataclass(frozen=True, kw_only=True)
    class Wrong(base):  # type: ignore[misc, valid-type]
        def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
            return Spoilt(super().build(d_model, layer, n_layers), forward)

        def cost(self, d_model: int, length: int) -> Cost:
            return cost(super().cost(d_model, length))

    return Wrong(**sizes)


def only(check: str, config: Config) -> float:
    """One check alone, whatever an earlier one would have said first."""
    return CHECKS[check](Subject(config, config.build(D_MODEL, 1, 3).double().eval(), D_MODEL))


def next_token(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """Every output knows a little of the token after it."""
    y, state = inner(x, state, ctx)
    return y + 1e-3 * torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1), state


def within_a_piece(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """Outputs know the whole piece that they were read in."""
    y, state = inner(x, state, ctx)
    return y + 1e-3 * x.mean(1, keepdim=True), state


def no_state(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """Every piece begins anew."""
    return inner(x, None, ctx)


def stale_state(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """The state after the first piece is kept for good."""
    y, after = inner(x, state, ctx)
    return y, after if state is None else state


def no_reset(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """What was read of one document is remembered in the next."""
    return inner(x, state, replace(ctx, reset=None, documents=None) if ctx.padding is None else ctx)


def padding_is_text(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """Padded tokens are read like any other."""
    return inner(x, state, replace(ctx, padding=None, documents=None))


def padding_fades(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """Each padded token makes the memory before it a little weaker."""
    if state is not None and ctx.pads is not None:
        state = state._replace(memory=state.memory * 0.999 ** ctx.pads[:, None, None, None])
    return inner(x, state, ctx)


def detached(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    y, state = inner(x, state, ctx)
    return y, detach(state)


def constant(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    y, state = inner(torch.zeros_like(x), state, ctx)
    return y + 0 * x, state


def half_precision(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """The recurrent state is kept in the width of the activations."""
    y, state = inner(x, state, ctx)
    narrow = torch.is_autocast_enabled("cpu")
    return y, state._replace(memory=state.memory.bfloat16()) if narrow else state


def infinite_at_padding(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    y, state = inner(x, state, ctx)
    return (y if ctx.padding is None else y.masked_fill(ctx.padding[..., None], float("nan"))), state


def another_room(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    """The fast kernel computes something a little different."""
    y, state = inner(x, state, ctx)
    return serve("spoilt", {"reference": lambda y: y, "chunked": lambda y: y * (1 + 1e-6)}, y), state


def infinite_in_half(inner: nn.Module, x: Tensor, state: Any, ctx: Context) -> tuple[Tensor, Any]:
    y, state = inner(x, state, ctx)
    return y * (float("inf") if torch.is_autocast_enabled("cpu") else 1.0), state


BLOCKS: dict[str, tuple[type[Config], dict[str, Any]]] = {
    "delta": (gated_delta.Config, {"n_heads": 2}),
    "gqa": (gqa.Config, {"n_heads": 2}),
    "mamba2": (mamba2.Config, {"d_state": 8, "head_dim": 16}),
}

# what is spoilt -> (block, spoilt forward, what the whole contract says)
WHOLE: dict[str, tuple[str, Forward, str]] = {
    "a future token leaks": ("delta", next_token, r"whole = pieces of \[16, 16, 5\]: relative difference"),
    "the piece leaks": ("gqa", within_a_piece, r"whole = pieces of \[16, 16, 5\]"),
    "a forgotten state": ("delta", no_state, r"whole = pieces of \[16, 16, 5\]"),
    "a forgotten cache": ("gqa", no_state, r"whole = pieces of \[16, 16, 5\]"),
    "a state that stands still": ("mamba2", stale_state, r"whole = pieces of \[16, 16, 5\]"),
    "a detached state": ("delta", detached, "gradient through the state"),
    "a detached cache": ("gqa", detached, "gradient through the state"),
    "documents leak in a recurrence": ("mamba2", no_reset, r"packed = alone, in pieces of \[37\]"),
    "documents leak in attention": ("gqa", no_reset, r"packed = alone, in pieces of \[37\]"),
}

# check, spoilt forward -> the blocks, and what this check alone says
ALONE: list[tuple[str, Forward, list[str], str]] = [
    ("no future leak", next_token, ["delta", "gqa", "mamba2"], "no future leak: outputs before a changed token"),
    ("no future leak", within_a_piece, ["delta", "gqa", "mamba2"], "no future leak: outputs before a changed token"),
    ("no future leak", constant, ["delta", "gqa", "mamba2"], "the block ignores its input"),
    ("packed = alone", no_reset, ["delta"], r"packed = alone, in pieces of \[37\]"),
    ("padded = alone", padding_is_text, ["delta", "gqa", "mamba2"], "padded = alone, row"),
    ("padded = alone", padding_fades, ["delta"], "padded = alone, row 0"),
    ("padded = alone", infinite_at_padding, ["delta", "gqa"], "outputs at padding are not finite"),
    ("chunked = reference", another_room, ["delta"], "chunked = reference"),
    ("bfloat16 autocast", half_precision, ["delta"], "recurrent state must be float32"),
    ("bfloat16 autocast", infinite_in_half, ["delta", "gqa"], "under bfloat16 autocast are not finite"),
]


@pytest.mark.parametrize("block", ["gqa", "mamba2"])
def test_wrapping_alone_breaks_nothing(block: str) -> None:
    base, sizes = BLOCKS[block]
    assert [r.check for r in check_block(wrong(base, **sizes), D_MODEL)] == list(CHECKS)


@pytest.mark.parametrize("case", WHOLE)
def test_a_spoilt_forward_is_found(case: str) -> None:
    block, spoil, words = WHOLE[case]
    base, sizes = BLOCKS[block]
    with pytest.raises(ContractError, match=words):
        check_block(wrong(base, spoil, **sizes), D_MODEL)


@pytest.mark.parametrize(("check", "spoil", "block", "words"), [(c, s, b, w) for c, s, blocks, w in ALONE for b in blocks])
def test_every_check_finds_its_own_fault(check: str, spoil: Forward, block: str, words: str) -> None:
    base, sizes = BLOCKS[block]
    with pytest.raises(ContractError, match=words):
        only(check, wrong(base, spoil, **sizes))


def one_more(field: str) -> Callable[[Cost], Cost]:
    return lambda cost: replace(cost, **{field: getattr(cost, field) + 1})


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("field", [f.name for f in fields(Cost)])
def test_a_cost_that_is_wrong_by_one_is_found(block: str, field: str) -> None:
    base, sizes = BLOCKS[block]
    with pytest.raises(ContractError, match=rf"^the ledger's {field} at length \d+ is \d+, the real one \d+$") as raised:
        only("ledger = reality", wrong(base, cost=one_more(field), **sizes))
    said, real = map(int, re.findall(r"is (\d+), the real one (\d+)", str(raised.value))[0])
    assert said == real + 1


def test_a_cost_that_is_wrong_only_when_long_is_found() -> None:
    """A window that the ledger forgets: right up to its length, wrong beyond."""

    @dataclass(frozen=True, kw_only=True)
    class Endless(gqa.Config):
        def cost(self, d_model: int, length: int) -> Cost:
            return replace(self, window=None).cost(d_model, length) if self.window is not None else super().cost(d_model, length)

    with pytest.raises(ContractError, match=r"the ledger's \w+ at length 64"):
        only("ledger = reality", Endless(n_heads=2, window=20))


PLUGIN = '''
"""A leaky average."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from blocks.base import Config, Cost
from blocks.context import Context
from blocks.errors import require


@dataclass(frozen=True, kw_only=True)
class MyBlock(Config):
    """h_t = decay h_(t-1) + W x_t; y_t = V h_t."""

    paper: ClassVar[str] = "none"
    decay: float = 0.5  # of the memory

    def check(self, d_model: int) -> None:
        require(0 < self.decay < 1, "decay", self.decay, "must be in (0, 1)")

    def cost(self, d_model: int, length: int) -> Cost:
        flops = 4 * d_model * d_model * length
        return Cost(2 * d_model * d_model, flops, flops, 4 * d_model)

    def build(self, d_model: int, layer: int = 0, n_layers: int = 1) -> nn.Module:
        return Block(self, d_model)


class State(NamedTuple):
    h: Tensor  # (b, d) float32


class Block(nn.Module):
    def __init__(self, config: MyBlock, d_model: int) -> None:
        super().__init__()
        self.decay = config.decay
        self.inner = nn.Linear(d_model, d_model, bias=False)
        self.outer = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, state: State | None, ctx: Context) -> tuple[Tensor, State]:
        u = self.inner(x)
        u = u if u.dtype == torch.float64 else u.float()
        h, out = torch.zeros_like(u[:, 0]) if state is None else state.h, []
        for t, token in enumerate(u.unbind(1)):
            if ctx.reset is not None:
                h = h.masked_fill(ctx.reset[:, t, None], 0)
            after = self.decay * h + token
            h = after if ctx.padding is None else torch.where(ctx.padding[:, t, None], h, after)
            out.append(h)
        return self.outer(torch.stack(out, 1).to(x.dtype)), State(h)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's package with a block, on the path."""
    (tmp_path / "my_zoo_blocks.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_zoo_blocks", raising=False)
    return "my_zoo_blocks.MyBlock"


def test_a_users_own_block_is_checked(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", plugin, "--plugin", "my_zoo_blocks", "decay=0.9"]) == 0
    printed = capsys.readouterr().out
    assert all(f"holds  {name}" in printed for name in CHECKS)


def test_a_users_broken_block_is_found(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my_zoo_blocks.py"
    path.write_text(PLUGIN.replace("if ctx.reset is not None", "if False"))
    with pytest.raises(SystemExit) as ended:
        run(["check", plugin, "--plugin", "my_zoo_blocks"])
    printed = capsys.readouterr().out
    assert ended.value.code == 1
    assert "BROKEN packed = alone" in printed
    assert "holds  no future leak" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my_zoo_blocks.MyBlock"], "plugins: [my_zoo_blocks]"),
        (["my_zoo_blocks.MyBlock", "--plugin", "my_zoo_blocks", "decay=2.0"], "decay = 2.0: must be in (0, 1)"),
        (["my_zoo_blocks.MyBlock", "--plugin", "my_zoo_blocks", "decai=0.5"], "did you mean decay?"),
        (["my_zoo_blocks.Other", "--plugin", "my_zoo_blocks"], "has no Other"),
        (["gatd_delta"], "did you mean gated_delta?"),
    ],
)
def test_what_cannot_be_checked_is_said(plugin: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert len(printed.err.strip().splitlines()) == 1
