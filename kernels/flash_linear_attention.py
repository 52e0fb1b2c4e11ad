"""What the back ends of flash-linear-attention share: what its kernels can't do, and documents as sequences of one packed row."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.torch_version import TorchVersion

from kernels.gpu import differentiated, lacks_gpu, needs_tf32, unknown_dtype

SHORT = 16  # tokens, the smallest side of a matrix product on a GPU: what is no longer and needs no gradient goes token by token
NARROWEST = 16  # keys and values: the same side
WIDEST = 256  # keys: most programs hold whole columns of a state
FLOOR = -50.0  # of a log decay: e^-50 of a state is nothing beside what is written, and a larger sum over a chunk would lose digits

Kernel = Callable[..., tuple[Tensor, Tensor]]


def is_short(q: Tensor, *others: Tensor | None) -> bool:
    """Whether a call, of which these are all the tensors, is served by the library's recurrences: they have no backward."""
    return q.shape[1] <= SHORT and not differentiated(q, *others)


def refuses(factors: Sequence[Tensor], others: Sequence[Tensor | None], widest: int = WIDEST) -> str | None:
    """Why a call of a matrix memory can't be served. factors (b, t, h, width): what is multiplied, the keys and the values last;
    others: its decays, strengths, states; widest: of the keys."""
    k, v = factors[-2].shape[3], factors[-1].shape[3]
    why = lacks_gpu(factors[0]) or unknown_dtype("flash-linear-attention", *factors, *(x for x in others if x is not None))
    if why is None and k > widest:
        why = f"keys of {k} are wider than {widest}"
    if why is not None or is_short(*factors, *others):
        return why
    if min(k, v) < NARROWEST or k % 2 or v % 2:
        return f"the chunk kernels want keys and values of an even width from {NARROWEST} on, not {k} and {v}"
    return needs_tf32(factors[-1])


def loses_gates(gate: Tensor | None, *others: Tensor | None) -> str | None:
    """Why gradients through a gate a head can't be had: Triton 3.4 to 3.7.0 compiles that backward wrongly for Hopper chips, and
    the library stops there (its issue 640). gate: None = the call has no such gate."""
    if gate is None or not gate.is_cuda or not differentiated(gate, *others):
        return None
    import triton

    version = TorchVersion(triton.__version__)
    if torch.cuda.get_device_capability(gate.device)[0] != 9 or not "3.4.0" <= version < "3.7.1":
        return None
    return f"Triton {triton.__version__} gives wrong gradients of gates on a Hopper chip; 3.7.1 does not"


def log_decays(g: Tensor | None) -> Tensor | None:
    """In float32. The kernels subtract sums over a chunk: where decays are strong, pairs of tokens are good to 4 digits."""
    return None if g is None else g.float().clamp(min=FLOOR)


def by_documents(kernel: Kernel, inputs: Sequence[Tensor | None], state: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """kernel(*inputs, state, offsets) -> (outputs, final states), where a memory that resets is a batch of shorter sequences.

    Without resets the kernel gets inputs (b, t, ...), a state (b, ...) or None and offsets None. With resets (b, t) it gets inputs
    (1, b t, ...), the n sequences one after another, where each begins and the last ends (n + 1,), and n states: a row's first
    sequence starts from the row's state unless its first token resets it, the others from zeros. Returns outputs (b, t, ...) and
    the states after each row's last sequence (b, ...).
    """
    if reset is None:
        return kernel(*inputs, state, None)
    b, t = reset.shape
    starts = reset.clone()
    starts[:, 0] = True
    offsets = F.pad(starts.flatten().nonzero()[:, 0], (0, 1), value=b * t)
    pieces = starts.sum(1)
    last = pieces.cumsum(0) - 1
    if state is not None:
        kept = state.masked_fill(reset[:, 0].view(b, *[1] * (state.ndim - 1)), 0)
        state = state.new_zeros(len(offsets) - 1, *state.shape[1:]).index_copy(0, last - pieces + 1, kept)
    row = [None if x is None else x.reshape(1, b * t, *x.shape[2:]) for x in inputs]
    out, final = kernel(*row, state, offsets)
    return out[0].unflatten(0, (b, t)), final[last]
