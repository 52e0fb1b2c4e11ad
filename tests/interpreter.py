"""Triton's kernels on CPU tensors: its interpreter, with what it lacks for the kernels of flash-linear-attention and mamba-ssm.

Written against Triton 3.7; every patch names the failure that it removes. What a kernel computes stays as it is. Import this with
TRITON_INTERPRET=1 in the environment and before any kernel: Triton binds functions to the interpreter when they are decorated.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

import numpy as np
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, ReduceScanOpInterface, TensorHandle

from tests import gpu_stubs, tuning

Method = Callable[..., Any]


def install() -> None:
    """Patch this process, once."""
    if isinstance(interpreter.FunctionRewriter.ast_transformer, _TensorLoops):
        return
    tuning.keep_first()  # to time configurations needs a driver
    _index_loops_by_tensors()
    _bind_gather()
    _patch_the_language_at_a_launch_only()
    _wrap(interpreter.GridExecutor, "__call__", np.errstate(all="ignore"))  # inf and NaN are no warnings on a GPU
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)  # as compiled without debug
    for name, position in (("create_masked_load", 1), ("create_masked_store", 2), ("create_atomic_rmw", 3)):
        _wrap(InterpreterBuilder, name, _with_a_bool_mask(position))
    _compute_bfloat16_in_float32()
    gpu_stubs.install()


def _wrap(owner: Any, name: str, wrapper: Callable[[Method], Method]) -> None:
    method = getattr(owner, name)
    setattr(owner, name, wraps(method)(wrapper(method)))


class _TensorLoops(interpreter.ASTTransformer):
    """`for i in range(n)` has a tensor i in a compiled kernel, and an int in the interpreter, which has no `i.to(tl.int64)`."""

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        if isinstance(node.iter, ast.Call) and ast.unparse(node.iter.func) in ("range", "tl.range"):
            node.iter = ast.copy_location(ast.Call(ast.Name("_as_tensors", ast.Load()), [node.iter], []), node.iter)
        return node


def _as_tensors(numbers: Iterable[int]) -> Iterator[tl.tensor]:
    return map(interpreter._implicit_cvt, numbers)


def _index_loops_by_tensors() -> None:
    interpreter._as_tensors = _as_tensors  # a rewritten kernel is given the names of that module
    interpreter.FunctionRewriter.ast_transformer = _TensorLoops()


def _bind_gather() -> None:
    """The interpreter replaces `tl.gather` while a kernel runs; a library that took the function at import holds the compiler's."""
    gather = tl.gather

    def bound(src: tl.tensor, index: tl.tensor, axis: int, _semantic: object = None) -> tl.tensor:
        return gather(src, index, axis, _semantic=interpreter.interpreter_semantic)

    tl.gather = tl.core.gather = bound


class _Language:
    """Stands for a function whose file names all that the interpreter patches."""

    __globals__ = {"tl": tl, "core": tl.core}  # noqa: RUF012


def _patch_the_language_at_a_launch_only() -> None:
    """The interpreter patches Triton's language at a launch, and again at every call of a device function, which takes most of its
    time. Here a launch patches all that a device function may name."""
    patch = interpreter._patch_lang
    interpreter._patch_lang = lambda fn: patch(_Language)
    interpreter.InterpretedFunction.__call__ = lambda self, *args, **kwargs: self.rewrite()(*args, **kwargs)


def _with_a_bool_mask(position: int) -> Callable[[Method], Method]:
    """A mask computed from integers may be held as integers: the interpreter's loads and stores want bool."""

    def wrapper(method: Method) -> Method:
        def call(self: InterpreterBuilder, *args: Any, **kwargs: Any) -> Any:
            mask = args[position]
            if isinstance(mask, TensorHandle) and mask.data.dtype != bool:
                args = (*args[:position], TensorHandle(mask.data.astype(bool), tl.int1), *args[position + 1 :])
            return method(self, *args, **kwargs)

        return call

    return wrapper


def _compute_bfloat16_in_float32() -> None:
    """A bfloat16 is held as its bits in a uint16, and arithmetic on those is silently arithmetic on integers. Here every operation widens
    its operands to float32 and rounds its result to the nearest bfloat16."""
    for name in ("unary_op", "binary_op", "ternary_op", "create_fma", "create_rsqrt", "create_erf"):
        _wrap(InterpreterBuilder, name, _in_float32)
    _wrap(InterpreterBuilder, "create_dot", _dot_of_float32)
    _wrap(InterpreterBuilder, "cast_impl", _cast_by_float32)
    _wrap(InterpreterBuilder, "create_atomic_rmw", _without_bfloat16)
    _wrap(ReduceScanOpInterface, "apply", _reduced_in_float32)
    _wrap(interpreter, "_convert_float", _rounded_to_nearest)
    InterpreterBuilder.get_bf16 = lambda self, value: TensorHandle(_round(np.array([value], np.float32)), tl.bfloat16)  # constants


def _is_bfloat16(x: Any) -> bool:
    return isinstance(x, TensorHandle) and x.dtype.scalar == tl.bfloat16


def _widened(x: Any) -> Any:
    return TensorHandle(_wide(x.data), tl.float32) if _is_bfloat16(x) else x


def _rounded(x: TensorHandle) -> TensorHandle:
    """Results of comparisons are left alone."""
    return x if x.data.dtype == bool else TensorHandle(_round(x.data), tl.bfloat16)


def _wide(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round(x: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, ties to even; what isn't a number stays so."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(np.shape(x))
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, nearest).astype(np.uint16)


def _in_float32(method: Method) -> Method:
    def call(self: InterpreterBuilder, *args: Any) -> TensorHandle:
        if not any(_is_bfloat16(x) for x in args):
            return method(self, *args)
        return _rounded(method(self, *(_widened(x) for x in args)))

    return call


def _dot_of_float32(method: Method) -> Method:
    """The sum that a product is added to says what the result is."""

    def call(self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, d: TensorHandle, *options: Any) -> TensorHandle:
        product = method(self, _widened(a), _widened(b), _widened(d), *options)
        return _rounded(product) if _is_bfloat16(d) else product

    return call


def _cast_by_float32(method: Method) -> Method:
    def call(self: InterpreterBuilder, src: TensorHandle, dst_type: tl.dtype) -> TensorHandle:
        if dst_type.scalar == tl.bfloat16:
            return _rounded(method(self, _widened(src), tl.float32)) if not _is_bfloat16(src) else src
        return method(self, _widened(src), dst_type)

    return call


def _without_bfloat16(method: Method) -> Method:
    def call(self: InterpreterBuilder, *args: Any) -> TensorHandle:
        if any(_is_bfloat16(x) for x in args):
            raise NotImplementedError("the interpreter has no atomic operations on bfloat16")
        return method(self, *args)

    return call


def _reduced_in_float32(method: Method) -> Method:
    def call(self: ReduceScanOpInterface, given: Any) -> Any:
        if not isinstance(given, tuple):
            return call(self, (given,))[0]
        inputs = tuple(self.to_tensor(_wide(x.handle.data), tl.float32) if _is_bfloat16(x.handle) else x for x in given)
        outputs = method(self, inputs)
        return tuple(
            self.to_tensor(_round(o.handle.data), tl.bfloat16) if _is_bfloat16(x.handle) and o.dtype == tl.float32 else o
            for o, x in zip(outputs, given, strict=False)  # the largest has its index beside it
        )

    return call


def _rounded_to_nearest(method: Method) -> Method:
    """The interpreter's own conversion cuts the digits off, or loses the carry where it rounds."""

    def call(x: np.ndarray, src: tl.dtype, dst: tl.dtype, rounding: Any) -> np.ndarray:
        if (src, dst) == (tl.bfloat16, tl.float32):
            return _wide(x)
        if (src, dst) == (tl.float32, tl.bfloat16) and rounding != ir.ROUNDING_MODE.RTZ:
            return _round(x)
        return method(x, src, dst, rounding)

    return call
