"""Numerics only: functions on tensors. No nn.Module, no config.

One folder an operation, and in each the same back ends: `reference.py` (the definition, step by step), `chunked.py` (the
matmul form that trains on any device). An operation has one signature whichever back end serves it, and `backend` chooses the back end.

This folder is a plain top-level package of a checkout (or an editable install); it is not Hugging Face's `kernels`
distribution, and `__version__` says so to the libraries that probe for that one by name.
"""

from kernels.backends import BACKENDS, BackendError, backend

__version__ = "0.0.0"
__all__ = ["BACKENDS", "BackendError", "backend"]
