"""Device functions of the Triton programs: tiles of rows, their scores, and which blocks of keys or queries a tile meets.

A tile of queries meets the keys from `since` to `stop` in blocks: `before` blocks that some query sees only in part, then `whole` ones
that every query sees whole and that need no mask, then partial ones again. Sinks before `since` are partial blocks ahead of them all.
A tile of keys meets its queries in the same way. `no_type_check` keeps runtime shape checkers off what Triton compiles.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def load_rows(base, rows, stride, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows of WIDTH elements, `stride` apart, as (rows, PADDED) with zeros behind."""
    columns = tl.arange(0, PADDED)
    at = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(at) if WIDTH == PADDED else tl.load(at, mask=(columns < WIDTH)[None, :], other=0.0)


@triton.jit
@no_type_check
def store_rows(base, rows, stride, live, x, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The rows that are live, in the dtype of base."""
    columns = tl.arange(0, PADDED)
    at = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(at, x.to(base.dtype.element_ty), mask=live[:, None] & (columns < WIDTH)[None, :])


@triton.jit
@no_type_check
def tanh(x):
    """By its series near 0, where the quotient would lose digits; the quotient by a root, since a division takes AMD's compiler a pair
    of scalar registers a number."""
    fade = tl.exp2(tl.minimum(tl.maximum(x, -15.0), 15.0) * -2.8853900817779268)
    square = x * x
    near = x * (1 - square * (0.3333333333333333 - square * (0.13333333333333333 - square * 0.05396825396825397)))
    root = tl.rsqrt(1 + fade)
    return tl.where(square < 0.04, near, (1 - fade) * root * root)


@triton.jit
@no_type_check
def scores(a, b, scale, cap, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr):
    """Of rows a (n, e) against rows b (m, e), (n, m) in units of log 2: scale a b, or cap tanh(scale a b)."""
    s = tl.dot(a, tl.trans(b), input_precision=PRECISION) * scale
    if SOFTCAP:
        s = cap * tanh(s)
    return s


@triton.jit
@no_type_check
def uncapped(d, s, cap, SOFTCAP: tl.constexpr):
    """The gradient d of scores s as that of the scores before the cap."""
    if SOFTCAP:
        share = s * (1 / cap)
        d = d * (1 - share * share)
    return d


@triton.jit
@no_type_check
def interval(table, rows, own, t, window, sink_tokens):
    """low, begin and sink of these queries, whose own keys are `own`: see intervals.py. No table: a plain call."""
    if table is None:
        low = tl.maximum(own - window + 1, 0)
        begin, sink = low * 0, low * 0 + sink_tokens
    else:
        low, begin, sink = tl.load(table + rows), tl.load(table + t + rows), tl.load(table + 2 * t + rows)
    return low, begin, sink


@triton.jit
@no_type_check
def spans(own, low, begin, sink, limit):
    """How many keys before `limit` each query sees from its low, and how many from its begin: unsigned, for `sees`."""
    end = tl.minimum(own + 1, limit)
    near, far = tl.maximum(end - low, 0), tl.maximum(tl.minimum(sink, end) - begin, 0)
    return near.to(tl.uint32), far.to(tl.uint32)


@triton.jit
@no_type_check
def sees(keys, low, near, begin, far, SINKS: tl.constexpr):
    """The rule of visibility; keys broadcast against the rest. One comparison a span: what lies before it wraps to a large number."""
    seen = (keys - low).to(tl.uint32, bitcast=True) < near
    if SINKS:
        seen = seen | ((keys - begin).to(tl.uint32, bitcast=True) < far)
    return seen


@triton.jit
@no_type_check
def plan(since, full, until, stop, BLOCK: tl.constexpr):
    """Of the blocks from `since` to `stop`: how many come before the first whole one, how many are whole, and how many are partial.

    A block is whole if it lies between `full` and `until`.
    """
    blocks = tl.cdiv(tl.maximum(stop - since, 0), BLOCK)
    before = tl.minimum(tl.cdiv(tl.maximum(full - since, 0), BLOCK), blocks)
    whole = tl.minimum(tl.maximum(until - since - before * BLOCK, 0) // BLOCK, blocks - before)
    return before, whole, blocks - whole


@triton.jit
@no_type_check
def block_at(index, since, before, whole, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    """Where the partial (MASKED) or whole block of that index begins."""
    block = tl.where(index < before, index, index + whole) if MASKED else before + index
    return since + block * BLOCK


@triton.jit
@no_type_check
def keys_of(low, begin, sink, first, stop, BLOCK: tl.constexpr, SINKS: tl.constexpr):
    """The key blocks of a tile of queries; `first` is the own key of its first query, `stop` is one past that of its last one.

    Returns since, before, whole, partial, and where the blocks of sinks before them begin and how many there are. Only the document
    of the first query can have sinks before `since`.
    """
    since, origin = tl.min(low, 0), tl.min(begin, 0)
    before, whole, partial = plan(since, tl.max(low, 0), first + 1, stop, BLOCK)
    far = since * 0
    if SINKS:
        far = tl.cdiv(tl.maximum(tl.minimum(tl.min(sink, 0), since) - origin, 0), BLOCK)
    return since, before, whole, partial, origin, far


@triton.jit
@no_type_check
def key_block(index, since, stop, before, whole, origin, far, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    """Where a block of `keys_of` begins, and the key that it must stay before: the blocks of sinks come first."""
    if MASKED:
        start = block_at(index - far, since, before, whole, BLOCK, MASKED)
        start, stop = tl.where(index < far, origin + index * BLOCK, start), tl.where(index < far, since, stop)
    else:
        start = block_at(index, since, before, whole, BLOCK, MASKED)
    return start, stop


@triton.jit
@no_type_check
def queries_of(table, first, last, s, t, window, sink_tokens, BLOCK: tl.constexpr, KEYS: tl.constexpr, SINKS: tl.constexpr):
    """The query blocks of a tile of keys from `first` to `last`: since, before, whole and partial."""
    ahead = s - t
    if table is None:
        until, stop = tl.minimum(first + window - ahead, t), tl.minimum(last + window - ahead, t)
        if SINKS:
            stop = tl.where(first < sink_tokens, t, stop)
    else:
        keys = tl.minimum(first + tl.arange(0, KEYS), s - 1)
        until, stop = tl.load(table + first), tl.max(tl.load(table + s + keys), 0)
    since = tl.maximum(first - ahead, 0)
    before, whole, partial = plan(since, last - ahead, until, stop, BLOCK)
    return since, before, whole, partial
