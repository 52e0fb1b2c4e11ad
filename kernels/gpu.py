"""What the back ends that need a GPU library ask of a call."""

import os

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def lacks_gpu(x: Tensor) -> str | None:
    """Why no kernel can run where x lies. Triton's interpreter runs them on a CPU."""
    if x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"tensors on {x.device} need a GPU here"


def unknown_dtype(library: str, *tensors: Tensor) -> str | None:
    """Why the library can't take these dtypes."""
    for x in tensors:
        if x.dtype not in DTYPES:
            return f"{library} has no kernels for {str(x.dtype).removeprefix('torch.')}"
    return None


def differentiated(*tensors: Tensor | None) -> bool:
    """Whether a gradient of one of these may be asked for."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def needs_tf32(x: Tensor) -> str | None:
    """Why a library whose matrix products of float32 run as TF32 (10 bits after the point) can't take x: the user decides on that."""
    if x.dtype != torch.float32 or not x.is_cuda or torch.get_float32_matmul_precision() != "highest":
        return None
    return "its products of float32 run as TF32, which torch.set_float32_matmul_precision('high') allows"
