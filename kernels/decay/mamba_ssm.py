"""Gates of one scalar a head on mamba-ssm's Triton kernels of state space duality (arXiv:2405.21060).

Its entry point makes both the decay exp(dt A) and the strength dt of a write from one step. Here they are apart, so its kernels
are called one by one, with every strength 1 and sums of log decays that are ours: the tiles' states, the states passed on from
tile to tile, the scores, the outputs; and backwards. x, B, C of the library are v, k, q; its states are (b, h, v, k).

The kernels sum log decays over a tile in float32: with a decay of e^-3000 in a tile, pairs of tokens are good to 3 digits. Their
matrix products of float32 run as TF32 where the device has it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mamba_ssm.ops.triton import ssd_bmm, ssd_chunk_scan, ssd_chunk_state, ssd_combined, ssd_state_passing
from mamba_ssm.ops.triton.selective_state_update import selective_state_update
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.decay.queries import repeated
from kernels.dtypes import wide
from kernels.gpu import differentiated, lacks_gpu, needs_tf32, unknown_dtype

CHUNK = 256  # the library's own; a tile is a power of two
LEAST = 16  # tokens of a tile: the smallest side of a matrix product
WIDEST = 256  # of a head: a kernel holds a whole one
FLOOR = -50.0  # of a log decay: e^-50 of a state is lost in float32 anyway, and larger sums would lose digits that matter
GRID = 65535  # programs along the second and third axis of a launch


def refuses_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> str | None:
    del reset
    b, t, h, width = v.shape
    if g is not None and g.ndim == 4:
        return "mamba-ssm's gates are one scalar a head, not one a key channel"
    if bonus is not None:
        return "mamba-ssm has no bonus"
    if max(q.shape[3], width) > WIDEST:
        return f"keys of {q.shape[3]} or values of {width} are wider than {WIDEST}"
    if max(h, b * -(-t // tile(t, chunk)) * q.shape[2]) > GRID:
        return f"the tiles are more than the {GRID} of a launch"
    why = lacks_gpu(v) or unknown_dtype("mamba-ssm", *(x for x in (q, k, v, g, state) if x is not None))
    return why or (None if _is_step(q, k, v, g, state) else needs_tf32(_narrowest(q, k, v)))


def tile(length: int, chunk: int | None) -> int:
    """Tokens of a tile: `chunk`, the library's or those of a short text, as a power of two."""
    return max(LEAST, 1 << (min(chunk or CHUNK, CHUNK, length) - 1).bit_length())


def _is_step(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor | None) -> bool:
    """Whether the call is a single token whose gradient nobody asks for: the library's step multiplies no matrices."""
    return v.shape[1] == 1 and v.shape[0] * v.shape[2] <= GRID and not differentiated(q, k, v, g, state)


def _narrowest(*tensors: Tensor) -> Tensor:
    return min(tensors, key=lambda x: x.dtype.itemsize)


@torch.compiler.disable
@repeated
def decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    state: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    reset: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The kernels run in the narrowest dtype of q, k and v; sums of decays and states are float32."""
    del bonus  # refused
    b, t, h, _ = v.shape
    if _is_step(q, k, v, g, state):
        return _step(q[:, 0], k[:, 0], v[:, 0], g, state, reset)
    size, dtype = tile(t, chunk), _narrowest(q, k, v).dtype
    gates = wide(v.new_zeros(b, t, h)) if g is None else wide(g).clamp(min=FLOOR)
    gates = F.pad(gates, (0, 0, 0, -t % size)).unflatten(1, (-1, size)).permute(0, 3, 1, 2)
    start = None if state is None else wide(state).mT.contiguous()
    documents = None if reset is None else reset.cumsum(1, dtype=torch.int32)
    o, last = SSD.apply(*(x.to(dtype).contiguous() for x in (q, k, v)), gates, start, documents)
    return o.to(v.dtype), last.mT.contiguous()


class SSD(torch.autograd.Function):
    """(q, k (b, t, n, k), v (b, t, h, v), gates (b, h, c, i), start (b, h, v, k), documents (b, t) int32) -> o, the last state.

    A document's number is 0 where the start state is seen.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, gates: Tensor, start: Tensor | None, documents: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        sums, one = gates.cumsum(-1), _ones(gates)
        before, last = _states(k, v, sums, start, documents)
        scores = ssd_bmm._bmm_chunk_fwd(q, k, sums.shape[-1], seq_idx=documents, output_dtype=torch.float32)
        o, _ = ssd_chunk_scan._chunk_scan_fwd(scores, v, one, sums, q, before, seq_idx=documents)
        ctx.save_for_backward(q, k, v, sums, start, documents)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sums, start, documents = ctx.saved_tensors
        do, one, n, size = do.contiguous(), _ones(sums), q.shape[2], sums.shape[-1]
        before, _ = _states(k, v, sums, start, documents)
        scores = ssd_bmm._bmm_chunk_fwd(q, k, size, seq_idx=documents, output_dtype=torch.float32)
        dread = ssd_chunk_scan._chunk_scan_bwd_dstates(q, sums, do, seq_idx=documents, dtype=torch.float32)
        dwritten, dcarry, dstart = _states_backward(before, sums, dread, dlast, documents, start is not None)
        dv, _, _ = ssd_combined._chunk_scan_chunk_state_bwd_dx(v, one, sums, k, scores, do, dwritten, seq_idx=documents)
        dk, dleave = ssd_chunk_state._chunk_state_bwd_db(v, one, sums, dwritten, seq_idx=documents, B=k, ngroups=n)
        dq, denter = ssd_chunk_scan._chunk_scan_bwd_dC(before, sums, do, seq_idx=documents, C=q, ngroups=n)
        dscores = ssd_chunk_scan._chunk_scan_bwd_dcb(v, one, sums, do, seq_idx=documents, ngroups=n)
        dk = ssd_bmm._bmm_chunk_bwd(q, dscores, residual=dk)
        dq = ssd_bmm._bmm_chunk_bwd(k, dscores.mT, residual=dq)
        denter[..., -1] += dcarry
        dgates = denter.flip(-1).cumsum(-1).flip(-1) + dleave  # these two are gradients of sums; within a tile, of the gates
        dgates += ssd_chunk_scan._chunk_scan_bwd_ddAcs_stable(v, one, sums, do, scores)
        return dq, dk, dv, dgates, dstart, None


def _ones(gates: Tensor) -> Tensor:
    """The strength of every write, in no memory."""
    return gates.new_ones(1).expand(gates.shape)


def _states(k: Tensor, v: Tensor, sums: Tensor, start: Tensor | None, documents: Tensor | None) -> tuple[Tensor, Tensor]:
    """The states before each tile (b, c, h, v, k) and after the last (b, h, v, k)."""
    written = ssd_chunk_state._chunk_state_fwd(k, v, _ones(sums), sums, seq_idx=documents, states_in_fp32=True)
    before, last = ssd_state_passing._state_passing_fwd(
        written.flatten(-2),
        sums[..., -1],
        initial_states=None if start is None else start.flatten(-2),
        seq_idx=documents,
        chunk_size=sums.shape[-1],
    )
    return before.unflatten(-1, written.shape[-2:]), last.unflatten(-1, written.shape[-2:])


def _states_backward(
    before: Tensor, sums: Tensor, dread: Tensor, dlast: Tensor, documents: Tensor | None, started: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of what each tile writes, of each tile's whole log decay (b, h, c) and of the start state."""
    dwritten, dcarry, dstart = ssd_state_passing._state_passing_bwd(
        before.flatten(-2),
        sums[..., -1],
        dread.flatten(-2),
        dfinal_states=dlast.flatten(-2),
        seq_idx=documents,
        has_initial_states=started,
        chunk_size=sums.shape[-1],
    )
    dstart = None if dstart is None else dstart.unflatten(-1, before.shape[-2:])
    return dwritten.unflatten(-1, before.shape[-2:]), dcarry, dstart


def _step(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token, q, k (b, n, k), v (b, h, v). The library's step has one A a head for all rows, so the rows become heads and A the
    gate; it writes the new state over the old one, so it gets a copy; it wants a D and a bias: zeros."""
    b, h, width = v.shape
    after = wide(v.new_zeros(b, h, k.shape[2], width)) if state is None else wide(state).clone(memory_format=torch.contiguous_format)
    if reset is not None:
        after.masked_fill_(reset[..., None, None], 0)
    heads = after.mT.flatten(0, 1)[None]  # (1, b h, v, k), the same memory
    gates = after.new_zeros(b * h) if g is None else wide(g).flatten()
    one, zero = (after.new_full((1,), x).expand(b * h, width) for x in (1.0, 0.0))
    o = selective_state_update(
        heads,
        v.reshape(1, b * h, width),
        one[None],
        gates[:, None, None].expand(heads.shape[1:]),
        *(x.reshape(1, -1, x.shape[2]) for x in (k, q)),
        D=zero,
        dt_bias=zero,
    )
    return o.view(v.shape)[:, None], after
