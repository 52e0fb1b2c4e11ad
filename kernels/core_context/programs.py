"""The Triton programs of core-context attention: `forward`, `query_gradients`, and `key_gradients` for keys or for cores.

One softmax over two sources, each read through an interval of its indexes a query (sight.py): cores from .. to, then keys. Only the
log-sum of the softmax is kept; with P the weights, dw_j = do . v_j and D = do . o the gradient of a score is P_j (dw_j - D).

Scores are in units of log 2. A tensor is contiguous and read by its sizes: q (b, t, h, e), k (b, s, m, e), v (b, s, m, f),
cores_k (b, p, h, e), cores_v (b, p, h, f), o (b, t, h, f), sums and pulls (b, h, t) float32, intervals (b, t) int32. EP and FP are
E and F padded to powers of two. `no_type_check` keeps runtime shape checkers off what Triton compiles.
"""

from typing import no_type_check

import triton
import triton.language as tl

from kernels.rows import INF, LOG2E, finite, load_rows, log_sum, products, store_rows

FAR = tl.constexpr(2**31 - 1)  # beyond any index


@triton.jit
@no_type_check
def _interval(low, high, rows, live):
    """The intervals of some queries, and one that holds them all."""
    low, high = tl.load(low + rows, mask=live, other=0), tl.load(high + rows, mask=live, other=0)
    return low, high, tl.min(tl.where(high > low, low, FAR)), tl.max(tl.where(high > low, high, 0))


@triton.jit
@no_type_check
def _mix(queries, k, v, stride_k, stride_v, low, high, begin, end, peak, total, mixed, factor, E: tl.constexpr, F: tl.constexpr,
         EP: tl.constexpr, FP: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The running softmax of the queries' tile after one more source."""
    for j0 in range(begin, end, BN):
        j = j0 + tl.arange(0, BN)
        tile_k = load_rows(k, j, stride_k, j < end, E, EP)
        scores = products(queries, tile_k, PRECISION) * factor
        scores = tl.where((low[:, None] <= j[None, :]) & (j[None, :] < high[:, None]), scores, -INF)
        higher = tl.maximum(peak, tl.max(scores, 1))
        fade, p = tl.exp2(peak - finite(higher)), tl.exp2(scores - finite(higher)[:, None])
        peak, total = higher, total * fade + tl.sum(p, 1)
        tile_v = load_rows(v, j, stride_v, j < end, F, FP)
        mixed = tl.dot(p.to(tile_v.dtype), tile_v, mixed * fade[:, None], input_precision=PRECISION)
    return peak, total, mixed


@triton.jit
@no_type_check
def _collect(queries, outputs, k, v, stride_k, stride_v, low, high, begin, end, main, pull, grad, factor, E: tl.constexpr, F: tl.constexpr,
             EP: tl.constexpr, FP: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The gradient of the queries' tile after one more source."""
    for j0 in range(begin, end, BN):
        j = j0 + tl.arange(0, BN)
        tile_k, tile_v = load_rows(k, j, stride_k, j < end, E, EP), load_rows(v, j, stride_v, j < end, F, FP)
        scores = products(queries, tile_k, PRECISION) * factor
        seen = (low[:, None] <= j[None, :]) & (j[None, :] < high[:, None])
        p = tl.where(seen, tl.exp2(scores - main[:, None]), 0.0)
        ds = p * (products(outputs, tile_v, PRECISION) - pull[:, None])
        grad = tl.dot(ds.to(tile_k.dtype), tile_k, grad, input_precision=PRECISION)
    return grad


@triton.jit
@no_type_check
def forward(
    q, k, v, cores_k, cores_v, o, sums, first, stop, low, high, scale, t, s, p,
    H: tl.constexpr, M: tl.constexpr, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BM queries of one head; the grid is (tiles, b h)."""
    tile, row, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H  # long rows first
    row = row.to(tl.int64)
    factor = scale * LOG2E
    near, far = row * s * M + head // (H // M), row * p * H + head
    rows = tile * BM + tl.arange(0, BM)
    live = rows < t
    queries = load_rows(q + (row * t * H + head) * E, rows, H * E, live, E, EP)
    peak, total, mixed = tl.full([BM], -INF, tl.float32), tl.zeros([BM], tl.float32), tl.zeros([BM, FP], tl.float32)

    a, b, begin, end = _interval(first + row * t, stop + row * t, rows, live)
    peak, total, mixed = _mix(queries, cores_k + far * E, cores_v + far * F, H * E, H * F, a, b, begin, end, peak, total, mixed, factor,
                              E, F, EP, FP, BN, PRECISION)  # fmt: skip
    a, b, begin, end = _interval(low + row * t, high + row * t, rows, live)
    peak, total, mixed = _mix(queries, k + near * E, v + near * F, M * E, M * F, a, b, begin, end, peak, total, mixed, factor,
                              E, F, EP, FP, BN, PRECISION)  # fmt: skip

    store_rows(o + (row * t * H + head) * F, rows, H * F, live, mixed / tl.where(total > 0, total, 1.0)[:, None], F, FP)
    tl.store(sums + (row * H + head) * t + rows, log_sum(peak, total), mask=live)


@triton.jit
@no_type_check
def query_gradients(
    q, k, v, cores_k, cores_v, o, do, dq, sums, pulls, first, stop, low, high, scale, t, s, p,
    H: tl.constexpr, M: tl.constexpr, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BM queries of one head: dq, and pulls = D for `key_gradients`. The grid is that of `forward`."""
    tile, row, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H
    row = row.to(tl.int64)
    factor = scale * LOG2E
    near, far, lane = row * s * M + head // (H // M), row * p * H + head, (row * H + head) * t
    rows = tile * BM + tl.arange(0, BM)
    live = rows < t
    queries = load_rows(q + (row * t * H + head) * E, rows, H * E, live, E, EP)
    outputs = load_rows(do + (row * t * H + head) * F, rows, H * F, live, F, FP)
    pull = tl.sum(outputs.to(tl.float32) * load_rows(o + (row * t * H + head) * F, rows, H * F, live, F, FP).to(tl.float32), 1)
    tl.store(pulls + lane + rows, pull, mask=live)
    main = tl.load(sums + lane + rows, mask=live, other=INF)
    grad = tl.zeros([BM, EP], tl.float32)

    a, b, begin, end = _interval(first + row * t, stop + row * t, rows, live)
    grad = _collect(queries, outputs, cores_k + far * E, cores_v + far * F, H * E, H * F, a, b, begin, end, main, pull, grad, factor,
                    E, F, EP, FP, BN, PRECISION)  # fmt: skip
    a, b, begin, end = _interval(low + row * t, high + row * t, rows, live)
    grad = _collect(queries, outputs, k + near * E, v + near * F, M * E, M * F, a, b, begin, end, main, pull, grad, factor,
                    E, F, EP, FP, BN, PRECISION)  # fmt: skip
    store_rows(dq + (row * t * H + head) * E, rows, H * E, live, grad * scale, E, EP)


@triton.jit
@no_type_check
def key_gradients(
    q, k, v, do, dk, dv, sums, pulls, low, high, begins, ends, scale, t, s,
    H: tl.constexpr, M: tl.constexpr, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BN keys of one key head, or of cores of one head (M = H), for all its query heads; the grid is (tiles, b m).

    begins, ends (b, tiles) int32: from the first query that sees a key of the tile to one past the last.
    """
    tile, row, group = tl.program_id(0), (tl.program_id(1) // M).to(tl.int64), tl.program_id(1) % M
    factor = scale * LOG2E
    begin, end = tl.load(begins + row * tl.num_programs(0) + tile), tl.load(ends + row * tl.num_programs(0) + tile)
    j = tile * BN + tl.arange(0, BN)
    kb, vb = (row * s * M + group) * E, (row * s * M + group) * F
    tile_k, tile_v = load_rows(k + kb, j, M * E, j < s, E, EP), load_rows(v + vb, j, M * F, j < s, F, FP)
    grad_k, grad_v = tl.zeros([BN, EP], tl.float32), tl.zeros([BN, FP], tl.float32)

    for head in range(group * (H // M), (group + 1) * (H // M)):
        lane = (row * H + head) * t
        for r0 in range(begin, end, BM):
            rows = r0 + tl.arange(0, BM)
            live = rows < end
            queries = load_rows(q + (row * t * H + head) * E, rows, H * E, live, E, EP)
            outputs = load_rows(do + (row * t * H + head) * F, rows, H * F, live, F, FP)
            a, b = tl.load(low + row * t + rows, mask=live, other=0), tl.load(high + row * t + rows, mask=live, other=0)
            main, pull = tl.load(sums + lane + rows, mask=live, other=INF), tl.load(pulls + lane + rows, mask=live, other=0.0)
            scores = products(tile_k, queries, PRECISION) * factor
            seen = (a[None, :] <= j[:, None]) & (j[:, None] < b[None, :])
            p = tl.where(seen, tl.exp2(scores - main[None, :]), 0.0)
            grad_v = tl.dot(p.to(outputs.dtype), outputs, grad_v, input_precision=PRECISION)
            ds = p * (products(tile_v, outputs, PRECISION) - pull[None, :])
            grad_k = tl.dot(ds.to(queries.dtype), queries, grad_k, input_precision=PRECISION)

    store_rows(dk + kb, j, M * E, j < s, grad_k * scale, E, EP)
    store_rows(dv + vb, j, M * F, j < s, grad_v, F, FP)
