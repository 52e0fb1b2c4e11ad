"""mamba_ssm and causal_conv1d without a GPU: what they compile for CUDA, as torch code on CPU tensors.

Only what calls the compiled extensions is replaced, by the libraries' own reference functions behind the extensions' checks of layout
and dtype, so that the rest of them runs: their autograd Functions, and their Triton kernels under the interpreter.
"""

import contextlib
import sys
import types
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

LANES = 8  # numbers that the convolution loads at once
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def install() -> None:
    """Before the libraries are imported."""
    scan = {"fwd": scan_forward, "bwd": scan_backward}
    conv = {"causal_conv1d_fwd_function": conv_forward, "causal_conv1d_bwd_function": conv_backward, "causal_conv1d_update_function": None}
    for name, functions in (("selective_scan_cuda", scan), ("causal_conv1d.cpp_functions", conv)):
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(functions)
    if not torch.cuda.is_available():
        pretend_a_device()


def pretend_a_device() -> None:
    """The Triton wrappers enter the tensors' device and count its processors."""
    torch.cuda.device = lambda *_: contextlib.nullcontext()  # type: ignore[assignment,misc]
    torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(multi_processor_count=1)  # type: ignore[assignment]
    torch.cuda.get_device_capability = lambda *_: (8, 0)


def conv_checks(x: Tensor, weight: Tensor, bias: Tensor | None, documents: Tensor | None, start: Tensor | None) -> None:
    """What the extension checks, and that rows start where it may load."""
    channels_last = x.stride(1) == 1 and x.stride(2) > 1
    assert x.dtype in DTYPES
    assert weight.dtype in DTYPES
    assert x.stride(2) == 1 or x.stride(1) == 1
    assert 2 <= weight.shape[1] <= 4
    assert bias is None or (bias.dtype == weight.dtype and bias.stride(-1) == 1)
    if channels_last:
        assert not any(i % LANES for i in (x.shape[1], x.stride(2), x.stride(0), x.storage_offset()))
    if documents is not None:
        assert channels_last
        assert documents.dtype == torch.int32
        assert documents.is_contiguous()
        assert documents.shape == (x.shape[0], x.shape[2])
        assert start is None, "the extension drops a start state silently where documents are given"
    if start is not None:
        assert channels_last
        assert start.dtype == x.dtype
        assert start.shape == (*x.shape[:2], weight.shape[1] - 1)
        assert start.stride(1) == 1


def conv_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, documents: Tensor | None, start: Tensor | None, last: Tensor | None, silu: bool
) -> Tensor:
    from causal_conv1d.causal_conv1d_interface import causal_conv1d_ref

    conv_checks(x, weight, bias, documents, start)
    assert last is None
    return causal_conv1d_ref(x, weight, bias, start, activation="silu" if silu else None, seq_idx=documents)


def conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    documents: Tensor | None,
    start: Tensor | None,
    dlast: Tensor | None,
    dx: Tensor | None,
    wants_dstart: bool,
    silu: bool,
) -> tuple[Tensor | None, ...]:
    conv_checks(x, weight, bias, documents, start)
    assert dlast is None
    assert dx is None
    assert dout.stride(1) != 1 or not any(i % LANES for i in (dout.stride(2), dout.stride(0), dout.storage_offset()))

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, start: Tensor | None) -> Tensor:
        return conv_forward(x, weight, bias, documents, start, None, silu)

    *grads, dstart = gradients(forward, (x, weight, bias, start), dout)
    return *grads, dstart if wants_dstart else None


def scan_checks(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
    assert u.dtype in DTYPES
    assert A.dtype == torch.float32
    assert A.shape[1] <= 256
    assert B.shape == C.shape == (u.shape[0], 1, A.shape[1], u.shape[2])
    for x in (delta, B, C):
        assert x.dtype == u.dtype
    for x in (u, delta, B, C):
        assert x.stride(-1) == 1 or x.shape[-1] == 1


def scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: None, z: None, bias: None, softplus: bool
) -> tuple[Tensor, Tensor]:
    """The output, and the states after each chunk of 2048 tokens (b, c, chunks, 2 n): a decay and a state in turn."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    scan_checks(u, delta, A, B, C)
    assert D is None and z is None and bias is None and not softplus  # noqa: PT018
    y, last = selective_scan_ref(u, delta, A, B, C, return_last_state=True)
    states = torch.full((*u.shape[:2], -(-u.shape[2] // 2048), 2 * A.shape[1]), torch.nan)
    states[:, :, -1, 1::2] = last
    return y, states


def scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: None, z: None, bias: None, dout: Tensor, *rest: Any
) -> tuple[Tensor | None, ...]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    scan_checks(u, delta, A, B, C)
    assert dout.stride(-1) == 1
    return *gradients(selective_scan_ref, (u, delta, A, B, C), dout), None, None


def gradients(forward: Any, inputs: Iterable[Tensor | None], dout: Tensor) -> list[Tensor | None]:
    """Those of the inputs that are no None, in their places."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        grads = iter(torch.autograd.grad(forward(*leaves), [x for x in leaves if x is not None], dout))
    return [None if x is None else next(grads) for x in leaves]
