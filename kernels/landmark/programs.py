"""The Triton programs of landmark attention: `forward`, `query_gradients`, `key_gradients`.

With a_c the score of block c's landmark, r the softmax over the block's regular keys and P the main softmax, key j of an earlier
block weighs P_c r_j, and a key of the query's own block P_j. A block is read as one tile of BN keys, its landmark among them
(WHOLE), or tile by tile, first for its sum and then for its values. Only the log-sum of the main softmax is kept. With
dw_j = do . v_j, d_c = sum_j r_j dw_j and D = do . o the gradients of the scores are

    P_j (dw_j - D) in the own block,    P_c r_j (dw_j - d_c) in an earlier one,    P_c (d_c - D) at its landmark.

Scores are in units of log 2. Cells are those of cells.py. A tensor is contiguous and read by its sizes: q (b, t, h, e), k (b, s, m, e),
v (b, s, m, f), o (b, t, h, f), sums and pulls (b, h, t) float32, chosen (b, h, t, KP) int32. EP and FP are E and F padded to powers
of two; TOP says that only chosen cells are read. `no_type_check` keeps runtime shape checkers off what Triton compiles.
"""

from typing import no_type_check

import triton
import triton.language as tl

from kernels.rows import INF, LOG2E, finite, load_rows, log_sum, products, store_rows


@triton.jit
@no_type_check
def _picked(past, chosen, rows, live, c, KP: tl.constexpr, TOP: tl.constexpr):
    """Which of the `past` rows read cell c."""
    if TOP:
        ranks = tl.arange(0, KP)
        cells = tl.load(chosen + rows[:, None] * KP + ranks[None, :], mask=live[:, None], other=-1)
        return past & (tl.sum((cells == c).to(tl.int32), 1) > 0)
    return past


@triton.jit
@no_type_check
def _look(queries, outputs, k, v, offset, regulars, keys, factor, M, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr,
          BN: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """A tile of a cell of `keys` keys, of which the first `regulars` are regular: keys, values, scores (-inf where not regular), what
    the tile has of the landmark's score, and dw (with MEAN)."""
    j = offset + tl.arange(0, BN)
    tile_k, tile_v = load_rows(k, j, M * E, j < keys, E, EP), load_rows(v, j, M * F, j < regulars, F, FP)
    scores = products(queries, tile_k, PRECISION) * factor
    dw = scores
    if MEAN:
        dw = products(outputs, tile_v, PRECISION)
    mark = tl.sum(tl.where((j == regulars)[None, :], scores, 0.0), 1)
    return tile_k, tile_v, tl.where((j < regulars)[None, :], scores, -INF), mark, dw


@triton.jit
@no_type_check
def _sweep(queries, outputs, k, v, regulars, keys, factor, M, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr,
           BM: tl.constexpr, BN: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """A cell tile by tile: the landmark's score, the log-sum of the inside softmax, d."""
    top, part = tl.full([BM], -INF, tl.float32), tl.zeros([BM], tl.float32)
    mark, mean = tl.zeros([BM], tl.float32), tl.zeros([BM], tl.float32)
    for offset in range(0, keys, BN):
        _, _, scores, share, dw = _look(queries, outputs, k, v, offset, regulars, keys, factor, M, E, F, EP, FP, BN, MEAN, PRECISION)
        higher = tl.maximum(top, tl.max(scores, 1))
        fade, p = tl.exp2(top - finite(higher)), tl.exp2(scores - finite(higher)[:, None])
        mark += share
        top, part, mean = higher, part * fade + tl.sum(p, 1), mean * fade + tl.sum(p * dw, 1)
    return mark, log_sum(top, part), mean / tl.where(part > 0, part, 1.0)


@triton.jit
@no_type_check
def _stats(scores, dw):
    """The log-sum of the inside softmax, and d, of a whole cell."""
    top = finite(tl.max(scores, 1))
    p = tl.exp2(scores - top[:, None])
    part = tl.sum(p, 1)
    return log_sum(top, part), tl.sum(p * dw, 1) / tl.where(part > 0, part, 1.0)


@triton.jit
@no_type_check
def forward(
    q, k, v, o, sums, cell, first, regular, start, length, size, chosen, scale, t, s, n,
    H: tl.constexpr, M: tl.constexpr, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr, KP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, TOP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BM queries of one head; the grid is (tiles, b h)."""
    tile, row, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H  # long rows first
    row = row.to(tl.int64)
    factor = scale * LOG2E
    kb, vb = k + (row * s * M + head // (H // M)) * E, v + (row * s * M + head // (H // M)) * F
    cell, first, regular = cell + row * s, first + row * s, regular + row * s
    start, length, size = start + row * n, length + row * n, size + row * n
    chosen, sums = chosen + (row * H + head) * t * KP, sums + (row * H + head) * t

    rows = tile * BM + tl.arange(0, BM)
    live = rows < t
    index = rows + s - t
    begin, last = s - t + tile * BM, s - t + tl.minimum(tile * BM + BM, t) - 1
    mine, since = tl.load(cell + index, mask=live, other=-1), tl.load(first + index, mask=live, other=0)
    queries = load_rows(q + (row * t * H + head) * E, rows, H * E, live, E, EP)
    slots = tl.arange(0, BN)
    peak, total = tl.full([BM], -INF, tl.float32), tl.zeros([BM], tl.float32)
    mixed = tl.zeros([BM, FP], tl.float32)

    for c in range(tl.load(first + begin), tl.load(cell + last)):
        at, regulars, keys = tl.load(start + c), tl.load(length + c), tl.load(size + c)
        kc, vc = kb + at * M * E, vb + at * M * F
        if WHOLE:
            _, tile_v, scores, mark, dw = _look(queries, queries, kc, vc, 0, regulars, keys, factor, M, E, F, EP, FP, BN, False, PRECISION)
            inside, _ = _stats(scores, dw)
        else:
            mark, inside, _ = _sweep(queries, queries, kc, vc, regulars, keys, factor, M, E, F, EP, FP, BM, BN, False, PRECISION)
        past = _picked((since <= c) & (c < mine), chosen, rows, live, c, KP, TOP)
        mark = tl.where(past, mark, -INF)
        higher = tl.maximum(peak, mark)
        fade, weight = tl.exp2(peak - finite(higher)), tl.exp2(mark - finite(higher))
        peak, total, mixed = higher, total * fade + weight, mixed * fade[:, None]
        for offset in range(0, BN if WHOLE else keys, BN):
            if not WHOLE:
                _, tile_v, scores, _, dw = _look(
                    queries, queries, kc, vc, offset, regulars, keys, factor, M, E, F, EP, FP, BN, False, PRECISION
                )
            p = tl.exp2(scores - inside[:, None]) * weight[:, None]
            mixed = tl.dot(p.to(tile_v.dtype), tile_v, mixed, input_precision=PRECISION)

    for j0 in range(tl.load(start + tl.maximum(tl.load(cell + begin), 0)), last + 1, BN):
        j = j0 + slots
        owner = tl.load(regular + j, mask=j <= last, other=-2)
        tile_k = load_rows(kb, j, M * E, j <= last, E, EP)
        scores = products(queries, tile_k, PRECISION) * factor
        scores = tl.where((owner[None, :] == mine[:, None]) & (j[None, :] <= index[:, None]), scores, -INF)
        higher = tl.maximum(peak, tl.max(scores, 1))
        fade, p = tl.exp2(peak - finite(higher)), tl.exp2(scores - finite(higher)[:, None])
        peak, total = higher, total * fade + tl.sum(p, 1)
        tile_v = load_rows(vb, j, M * F, owner >= 0, F, FP)
        mixed = tl.dot(p.to(tile_v.dtype), tile_v, mixed * fade[:, None], input_precision=PRECISION)

    store_rows(o + (row * t * H + head) * F, rows, H * F, live, mixed / tl.where(total > 0, total, 1.0)[:, None], F, FP)
    tl.store(sums + rows, log_sum(peak, total), mask=live)


@triton.jit
@no_type_check
def query_gradients(
    q, k, v, o, do, dq, sums, pulls, cell, first, regular, start, length, size, chosen, scale, t, s, n,
    H: tl.constexpr, M: tl.constexpr, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr, KP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, TOP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BM queries of one head: dq, and pulls = D for `key_gradients`. The grid is that of `forward`."""
    tile, row, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H
    row = row.to(tl.int64)
    factor = scale * LOG2E
    kb, vb = k + (row * s * M + head // (H // M)) * E, v + (row * s * M + head // (H // M)) * F
    cell, first, regular = cell + row * s, first + row * s, regular + row * s
    start, length, size = start + row * n, length + row * n, size + row * n
    chosen, sums, pulls = chosen + (row * H + head) * t * KP, sums + (row * H + head) * t, pulls + (row * H + head) * t

    rows = tile * BM + tl.arange(0, BM)
    live = rows < t
    index = rows + s - t
    begin, last = s - t + tile * BM, s - t + tl.minimum(tile * BM + BM, t) - 1
    mine, since = tl.load(cell + index, mask=live, other=-1), tl.load(first + index, mask=live, other=0)
    queries = load_rows(q + (row * t * H + head) * E, rows, H * E, live, E, EP)
    outputs = load_rows(do + (row * t * H + head) * F, rows, H * F, live, F, FP)
    pull = tl.sum(outputs.to(tl.float32) * load_rows(o + (row * t * H + head) * F, rows, H * F, live, F, FP).to(tl.float32), 1)
    tl.store(pulls + rows, pull, mask=live)
    main = tl.load(sums + rows, mask=live, other=INF)
    slots = tl.arange(0, BN)
    grad = tl.zeros([BM, EP], tl.float32)

    for c in range(tl.load(first + begin), tl.load(cell + last)):
        at, regulars, keys = tl.load(start + c), tl.load(length + c), tl.load(size + c)
        kc, vc = kb + at * M * E, vb + at * M * F
        if WHOLE:
            tile_k, _, scores, mark, dw = _look(queries, outputs, kc, vc, 0, regulars, keys, factor, M, E, F, EP, FP, BN, True, PRECISION)
            inside, mean = _stats(scores, dw)
        else:
            mark, inside, mean = _sweep(queries, outputs, kc, vc, regulars, keys, factor, M, E, F, EP, FP, BM, BN, True, PRECISION)
        past = _picked((since <= c) & (c < mine), chosen, rows, live, c, KP, TOP)
        share = tl.where(past, tl.exp2(mark - main), 0.0)
        for offset in range(0, BN if WHOLE else keys, BN):
            if not WHOLE:
                tile_k, _, scores, _, dw = _look(
                    queries, outputs, kc, vc, offset, regulars, keys, factor, M, E, F, EP, FP, BN, True, PRECISION
                )
            ds = tl.exp2(scores - inside[:, None]) * (dw - mean[:, None])
            ds = tl.where((offset + slots == regulars)[None, :], (mean - pull)[:, None], ds) * share[:, None]
            grad = tl.dot(ds.to(tile_k.dtype), tile_k, grad, input_precision=PRECISION)

    for j0 in range(tl.load(start + tl.maximum(tl.load(cell + begin), 0)), last + 1, BN):
        j = j0 + slots
        owner = tl.load(regular + j, mask=j <= last, other=-2)
        tile_k, tile_v = load_rows(kb, j, M * E, j <= last, E, EP), load_rows(vb, j, M * F, owner >= 0, F, FP)
        scores = products(queries, tile_k, PRECISION) * factor
        seen = (owner[None, :] == mine[:, None]) & (j[None, :] <= index[:, None])
        p = tl.where(seen, tl.exp2(scores - main[:, None]), 0.0)
        ds = p * (products(outputs, tile_v, PRECISION) - pull[:, None])
        grad = tl.dot(ds.to(tile_k.dtype), tile_k, grad, input_precision=PRECISION)

    store_rows(dq + (row * t * H + head) * E, rows, H * E, live, grad * scale, E, EP)


@triton.jit
@no_type_check
def key_gradients(
    q, k, v, do, dk, dv, sums, pulls, start, length, size, stop, chosen, scale, t, s, n,
    H: tl.constexpr, M: tl.constexpr, E: tl.constexpr, F: tl.constexpr, EP: tl.constexpr, FP: tl.constexpr, KP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, TOP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BN keys of one cell and key head, for all its query heads; the grid is (n, b m, tiles of the longest)."""
    c, offset = tl.program_id(0), tl.program_id(2) * BN
    row, group = (tl.program_id(1) // M).to(tl.int64), tl.program_id(1) % M
    at, regulars, keys = tl.load(start + row * n + c), tl.load(length + row * n + c), tl.load(size + row * n + c)
    if offset >= keys:
        return
    factor = scale * LOG2E
    kc, vc = k + ((row * s + at) * M + group) * E, v + ((row * s + at) * M + group) * F
    j = offset + tl.arange(0, BN)
    tile_k, tile_v = load_rows(kc, j, M * E, j < keys, E, EP), load_rows(vc, j, M * F, j < regulars, F, FP)
    after, until = at + keys - (s - t), tl.load(stop + row * n + c) - (s - t)  # from the first query behind the cell to the last
    grad_k, grad_v = tl.zeros([BN, EP], tl.float32), tl.zeros([BN, FP], tl.float32)

    for head in range(group * (H // M), (group + 1) * (H // M)):
        qh, doh = q + (row * t * H + head) * E, do + (row * t * H + head) * F
        lane = (row * H + head) * t
        for r0 in range(tl.maximum(at + offset - (s - t), 0), until, BM):
            rows = r0 + tl.arange(0, BM)
            live, own = rows < until, rows < after
            past = _picked(live & (rows >= after), chosen + lane * KP, rows, live, c, KP, TOP)
            queries, outputs = load_rows(qh, rows, H * E, live, E, EP), load_rows(doh, rows, H * F, live, F, FP)
            main, pull = tl.load(sums + lane + rows, mask=live, other=INF), tl.load(pulls + lane + rows, mask=live, other=0.0)
            scores = products(queries, tile_k, PRECISION) * factor
            dw = products(outputs, tile_v, PRECISION)
            if WHOLE:
                mark = tl.sum(tl.where((j == regulars)[None, :], scores, 0.0), 1)
                inside, mean = _stats(tl.where((j < regulars)[None, :], scores, -INF), dw)
            else:
                swept = tl.where(r0 + BM > after, keys, 0)  # the cell's own queries need no inside softmax
                mark, inside, mean = _sweep(queries, outputs, kc, vc, regulars, swept, factor, M, E, F, EP, FP, BM, BN, True, PRECISION)
            share = tl.where(past, tl.exp2(mark - main), 0.0)
            # an own query's weights are exp2(scores - main), the others' share exp2(scores - inside)
            seen = (j < regulars)[None, :] & (at + j[None, :] <= rows[:, None] + s - t)
            p = tl.where(seen, tl.exp2(scores - tl.where(own, main, inside)[:, None]), 0.0) * tl.where(own, 1.0, share)[:, None]
            grad_v = tl.dot(tl.trans(p.to(outputs.dtype)), outputs, grad_v, input_precision=PRECISION)
            ds = tl.where((j == regulars)[None, :], ((mean - pull) * share)[:, None], p * (dw - tl.where(own, pull, mean)[:, None]))
            grad_k = tl.dot(tl.trans(ds.to(queries.dtype)), queries, grad_k, input_precision=PRECISION)

    store_rows(dk + ((row * s + at) * M + group) * E, j, M * E, j < keys, grad_k * scale, E, EP)
    store_rows(dv + ((row * s + at) * M + group) * F, j, M * F, j < keys, grad_v, F, FP)
