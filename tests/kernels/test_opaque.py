"""Operations as a compiler sees them: the node gives the operation's values and every gradient, and promises the right shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.attention import attention, differential
from kernels.core_context import core_context
from kernels.decay import decay
from kernels.delta import delta, dplr
from kernels.landmark import landmark
from kernels.linear_scan import linear_scan, selective_scan
from kernels.opaque import _forward, _layouts
from kernels.running_max import running_max

B, T, N, H, K, V, C, S = 2, 9, 2, 4, 6, 10, 5, 3


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def gate(*shape: int) -> Tensor:
    return (-torch.rand(*shape, dtype=torch.float64)).requires_grad_()


def packed() -> Tensor:
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 4] = True
    return reset


def per_head(*widths: int) -> list[Tensor]:
    return [leaf(B, T, H, width) for width in widths]


DOCUMENTS = torch.tensor([[0] * 4 + [1] * 5, [0] * 9])


def _decay() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    arguments = [leaf(B, T, N, K), leaf(B, T, N, K), leaf(B, T, H, V), gate(B, T, H, K), leaf(B, H, K, V)]
    return decay, arguments, {"bonus": leaf(H, K), "reset": packed(), "chunk": 4}


def _delta() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    return delta, [*per_head(K, K, V), None, gate(B, T, H), leaf(B, H, K, V)], {"chunk": 4}


def _dplr() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    q, k, v, a, b = per_head(K, K, V, K, K)
    return dplr, [q, gate(B, T, H, K), k, v, a, b], {"reset": packed()}


def _linear() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    return linear_scan, [gate(B, T, C), leaf(B, T, C)], {"state": leaf(B, C)}


def _selective() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    dt = torch.rand(B, T, C, dtype=torch.float64).requires_grad_()
    return selective_scan, [leaf(B, T, C), dt, gate(C, S), leaf(B, T, S), leaf(B, T, S)], {"state": leaf(B, C, S), "reset": packed()}


def _attention() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """One tensor is two arguments."""
    return (
        attention,
        [leaf(B, T, H, K), leaf(B, T, N, K), leaf(B, T, N, V)],
        {
            "q_documents": DOCUMENTS,
            "k_documents": DOCUMENTS,
            "window": 3,
            "softcap": 2.0,
            "sink_logits": leaf(H),
        },
    )


def _differential() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    return differential, [leaf(B, T, 2, H, K), leaf(B, T, 2, N, K), leaf(B, T, N, V), leaf(B, T, H)], {"scale": 0.5}


def _landmark() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    return landmark, [*per_head(K, K, V), torch.arange(T).expand(B, T) % 4 == 3], {"documents": None}


def _core_context() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    q, k, v = per_head(K, K, V)
    cores = [leaf(B, T // 2, H, K), leaf(B, T // 2, H, V)]
    return core_context, [q, k, v, *cores, torch.arange(T).expand(B, T)], {"group": 2, "local": 2}


def _running_max() -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    return running_max, [gate(B, T, C), leaf(B, T, C)], {"start": 0.0, "reset": packed()}


@pytest.mark.parametrize(
    "build",
    [_running_max, _decay, _delta, _dplr, _linear, _selective, _attention, _differential, _landmark, _core_context],
    ids=lambda f: f.__name__[1:],
)
def test_the_node_is_the_operation(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    function, args, kwargs = build()
    leaves = [x for x in [*args, *kwargs.values()] if isinstance(x, Tensor) and x.requires_grad]
    plain = results(function, args, kwargs, leaves)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for a, b in zip(results(function, args, kwargs, leaves), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    tensors = {id(x): x.detach() for x in [*args, *kwargs.values()] if isinstance(x, Tensor)}
    torch.library.opcheck(_forward, (len(_layouts) - 1, list(tensors.values())), test_utils=("test_schema", "test_faketensor"))


def results(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], leaves: list[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of a fixed random functional of them."""
    found = function(*args, **kwargs)
    outputs = list(found) if isinstance(found, tuple) else [found]
    torch.manual_seed(1)
    score = sum((y * torch.randn(y.shape, dtype=y.dtype)).sum() for y in outputs)
    return [*(y.detach() for y in outputs), *torch.autograd.grad(score, leaves)]
