"""The Triton programs of softmax and differential attention: `forward`, `query_gradients`, `key_gradients`.

One or two maps (MAPS) weigh the same values: o = P_1 v, or (P_1 - mix P_2) v. Only the log-sum of each softmax is kept, and of two
maps also P_2 v. With dw = do v^T and D_n = do . P_n v the gradients of the scores and of the mix are

    P_1 (dw - D_1),    -mix P_2 (dw - D_2),    -D_2.

Scores are in units of log 2. Tensors are contiguous and read by their sizes: q (b, t, MAPS, h, e), k (b, s, SETS, m, e), v (b, s, m, w),
mix (b, t, h), o and P_2 v (b, t, h, w), sums and pulls D (b, h, MAPS, t) float32, sinks (h) float32, tables those of intervals.py.
EP and WP are E and W padded to powers of two; BM queries and BN keys a tile. Nothing is added atomically: runs repeat bit by bit.
"""

from typing import no_type_check

import triton
import triton.language as tl

from kernels.attention.device import (
    block_at,
    interval,
    key_block,
    keys_of,
    load_rows,
    queries_of,
    scores,
    sees,
    spans,
    store_rows,
    uncapped,
)

INF = tl.constexpr(float("inf"))
LEAST = tl.constexpr(-1e30)  # below every score, and finite: a row that sees nothing makes no NaN


@triton.jit
@no_type_check
def _fold(s, v, peak, total, mixed, PRECISION: tl.constexpr):
    """A block of scores and values into a running softmax."""
    higher = tl.maximum(peak, tl.max(s, 1))
    fade, p = tl.exp2(peak - higher), tl.exp2(s - higher[:, None])
    mixed = tl.dot(p.to(v.dtype), v, mixed * fade[:, None], input_precision=PRECISION)
    return higher, total * fade + tl.sum(p, 1), mixed


@triton.jit
@no_type_check
def _settle(peak, total, mixed):
    """The mean of the values and the log-sum; 0 and +inf, whose weights are 0, where nothing was seen."""
    some = total > 0
    mean = mixed * tl.where(some, 1 / tl.where(some, total, 1.0), 0.0)[:, None]
    return mean, tl.where(some, peak + tl.log2(tl.where(some, total, 1.0)), INF)


@triton.jit
@no_type_check
def forward(
    q, k, v, mix, sinks, table, o, second, sums, scale, cap, window, sink_tokens, t, s, H, M,
    E: tl.constexpr, W: tl.constexpr, EP: tl.constexpr, WP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    MAPS: tl.constexpr, SETS: tl.constexpr, SINKS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of BM queries of one head, long rows first."""
    tiles = tl.cdiv(t, BM)
    tile, pair = tiles - 1 - tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row, head = (pair // H).to(tl.int64), pair % H
    q, k = q + (row * t * MAPS * H + head) * E, k + (row * s * SETS * M + head // (H // M)) * E
    v, o, sums = v + (row * s * M + head // (H // M)) * W, o + (row * t * H + head) * W, sums + (row * H + head) * MAPS * t
    if table is not None:
        table += row * 3 * t

    live = tile * BM + tl.arange(0, BM) < t
    rows = tl.minimum(tile * BM + tl.arange(0, BM), t - 1)  # beyond the end: the last query again
    own, first, stop = rows + s - t, tile * BM + s - t, tl.minimum(tile * BM + BM, t) + s - t
    low, begin, sink = interval(table, rows, own, t, window, sink_tokens)
    since, before, whole, partial, origin, far = keys_of(low, begin, sink, first, stop, BN, SINKS)

    q1 = load_rows(q, rows, MAPS * H * E, E, EP)
    peak1, total1, mixed1 = tl.full([BM], LEAST, tl.float32), tl.zeros([BM], tl.float32), tl.zeros([BM, WP], tl.float32)
    if sinks is not None:
        peak1, total1 = peak1 * 0 + tl.load(sinks + head), total1 + 1
    if MAPS == 2:
        q2 = load_rows(q + H * E, rows, MAPS * H * E, E, EP)
        peak2, total2, mixed2 = peak1, total1, mixed1

    for masked in tl.static_range(2):
        for index in range(far + partial if masked else whole):
            start, limit = key_block(index, since, stop, before, whole, origin, far, BN, masked)
            keys = start + tl.arange(0, BN)
            at = tl.minimum(keys, s - 1) if masked else keys
            k1 = load_rows(k, at, SETS * M * E, E, EP)
            values = load_rows(v, at, M * W, W, WP)
            s1 = scores(q1, k1, scale, cap, SOFTCAP, PRECISION)
            if masked:
                near, sunk = spans(own, low, begin, sink, limit)
                seen = sees(keys[None, :], low[:, None], near[:, None], begin[:, None], sunk[:, None], SINKS)
                s1 = tl.where(seen, s1, -INF)
            peak1, total1, mixed1 = _fold(s1, values, peak1, total1, mixed1, PRECISION)
            if MAPS == 2:
                k2 = k1 if SETS == 1 else load_rows(k + M * E, at, SETS * M * E, E, EP)
                s2 = scores(q2, k2, scale, cap, SOFTCAP, PRECISION)
                if masked:
                    s2 = tl.where(seen, s2, -INF)
                peak2, total2, mixed2 = _fold(s2, values, peak2, total2, mixed2, PRECISION)

    mixed1, sum1 = _settle(peak1, total1, mixed1)
    tl.store(sums + rows, sum1, mask=live)
    if MAPS == 2:
        mixed2, sum2 = _settle(peak2, total2, mixed2)
        tl.store(sums + t + rows, sum2, mask=live)
        mixed1 -= tl.load(mix + (row * t + rows) * H + head).to(tl.float32)[:, None] * mixed2
        if second is not None:
            store_rows(second + (row * t * H + head) * W, rows, H * W, live, mixed2, W, WP)
    store_rows(o, rows, H * W, live, mixed1, W, WP)


@triton.jit
@no_type_check
def query_gradients(
    q, k, v, mix, table, o, second, do, sums, pulls, dq, dmix, scale, slope, cap, window, sink_tokens, t, s, H, M,
    E: tl.constexpr, W: tl.constexpr, EP: tl.constexpr, WP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    MAPS: tl.constexpr, SETS: tl.constexpr, SINKS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dmix and the pulls D of one tile of BM queries of one head."""
    tiles = tl.cdiv(t, BM)
    tile, pair = tiles - 1 - tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row, head = (pair // H).to(tl.int64), pair % H
    q, k = q + (row * t * MAPS * H + head) * E, k + (row * s * SETS * M + head // (H // M)) * E
    dq, outputs = dq + (row * t * MAPS * H + head) * E, (row * t * H + head) * W
    v, sums, pulls = v + (row * s * M + head // (H // M)) * W, sums + (row * H + head) * MAPS * t, pulls + (row * H + head) * MAPS * t
    if table is not None:
        table += row * 3 * t

    live = tile * BM + tl.arange(0, BM) < t
    rows = tl.minimum(tile * BM + tl.arange(0, BM), t - 1)
    own, first, stop = rows + s - t, tile * BM + s - t, tl.minimum(tile * BM + BM, t) + s - t
    low, begin, sink = interval(table, rows, own, t, window, sink_tokens)
    since, before, whole, partial, origin, far = keys_of(low, begin, sink, first, stop, BN, SINKS)

    do1 = load_rows(do + outputs, rows, H * W, W, WP)
    pull1 = tl.sum(do1.to(tl.float32) * load_rows(o + outputs, rows, H * W, W, WP).to(tl.float32), 1)
    q1, sum1 = load_rows(q, rows, MAPS * H * E, E, EP), tl.load(sums + rows)
    dq1 = tl.zeros([BM, EP], tl.float32)
    if MAPS == 2:
        q2, sum2 = load_rows(q + H * E, rows, MAPS * H * E, E, EP), tl.load(sums + t + rows)
        pull2 = tl.sum(do1.to(tl.float32) * load_rows(second + outputs, rows, H * W, W, WP).to(tl.float32), 1)
        shares = (row * t + rows) * H + head
        share = tl.load(mix + shares).to(tl.float32)
        pull1 += share * pull2
        dq2 = dq1
        tl.store(pulls + t + rows, pull2, mask=live)
        tl.store(dmix + shares, -pull2, mask=live)
    tl.store(pulls + rows, pull1, mask=live)

    for masked in tl.static_range(2):
        for index in range(far + partial if masked else whole):
            start, limit = key_block(index, since, stop, before, whole, origin, far, BN, masked)
            keys = start + tl.arange(0, BN)
            at = tl.minimum(keys, s - 1) if masked else keys
            k1 = load_rows(k, at, SETS * M * E, E, EP)
            dw = tl.dot(do1, tl.trans(load_rows(v, at, M * W, W, WP)), input_precision=PRECISION)
            s1 = scores(q1, k1, scale, cap, SOFTCAP, PRECISION)
            p1 = tl.exp2(s1 - sum1[:, None])
            if masked:
                near, sunk = spans(own, low, begin, sink, limit)
                seen = sees(keys[None, :], low[:, None], near[:, None], begin[:, None], sunk[:, None], SINKS)
                p1 = tl.where(seen, p1, 0.0)
            d1 = uncapped(p1 * (dw - pull1[:, None]), s1, cap, SOFTCAP)
            dq1 = tl.dot(d1.to(k1.dtype), k1, dq1, input_precision=PRECISION)
            if MAPS == 2:
                k2 = k1 if SETS == 1 else load_rows(k + M * E, at, SETS * M * E, E, EP)
                p2 = tl.exp2(scores(q2, k2, scale, cap, SOFTCAP, PRECISION) - sum2[:, None])
                if masked:
                    p2 = tl.where(seen, p2, 0.0)
                d2 = p2 * (pull2[:, None] - dw) * share[:, None]
                dq2 = tl.dot(d2.to(k2.dtype), k2, dq2, input_precision=PRECISION)

    store_rows(dq, rows, MAPS * H * E, live, dq1 * slope, E, EP)
    if MAPS == 2:
        store_rows(dq + H * E, rows, MAPS * H * E, live, dq2 * slope, E, EP)


@triton.jit
@no_type_check
def key_gradients(
    q, k, v, mix, table, reach, do, sums, pulls, dk, dv, scale, slope, cap, window, sink_tokens, t, s, H, M,
    E: tl.constexpr, W: tl.constexpr, EP: tl.constexpr, WP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    MAPS: tl.constexpr, SETS: tl.constexpr, SINKS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of one tile of BN keys of one key head, of all its query heads. Tiles of weights are (keys, queries)."""
    tiles = tl.cdiv(s, BN)
    tile, pair = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    row, head, group = (pair // M).to(tl.int64), pair % M, H // M
    key, value = (row * s * SETS * M + head) * E, (row * s * M + head) * W
    if table is not None:
        table += row * 3 * t
        reach += row * 2 * s

    keys = tile * BN + tl.arange(0, BN)
    live, at, last = keys < s, tl.minimum(keys, s - 1), tl.minimum(tile * BN + BN, s) - 1
    since, before, whole, partial = queries_of(reach, tile * BN, last, s, t, window, sink_tokens, BM, BN, SINKS)
    k1, values = load_rows(k + key, at, SETS * M * E, E, EP), load_rows(v + value, at, M * W, W, WP)
    dk1, dv1 = tl.zeros([BN, EP], tl.float32), tl.zeros([BN, WP], tl.float32)
    if MAPS == 2:
        k2 = k1 if SETS == 1 else load_rows(k + key + M * E, at, SETS * M * E, E, EP)
        dk2 = dk1

    for masked in tl.static_range(2):
        count = partial if masked else whole
        for index in range(count * group):
            query_head = head * group + index // count
            start = block_at(index % count, since, before, whole, BM, masked)
            rows = start + tl.arange(0, BM)
            there = rows < t
            rows = tl.minimum(rows, t - 1) if masked else rows
            queries = q + (row * t * MAPS * H + query_head) * E
            kept = (row * H + query_head) * MAPS * t + rows
            do1 = load_rows(do + (row * t * H + query_head) * W, rows, H * W, W, WP)
            q1 = load_rows(queries, rows, MAPS * H * E, E, EP)
            s1 = scores(k1, q1, scale, cap, SOFTCAP, PRECISION)
            p1 = tl.exp2(s1 - tl.load(sums + kept)[None, :])
            if masked:
                own = rows + s - t
                low, begin, sink = interval(table, rows, own, t, window, sink_tokens)
                near, sunk = spans(own, low, begin, sink, tl.where(there, s, 0))
                seen = sees(keys[:, None], low[None, :], near[None, :], begin[None, :], sunk[None, :], SINKS)
                p1 = tl.where(seen, p1, 0.0)
            dw = tl.dot(values, tl.trans(do1), input_precision=PRECISION)
            d1 = uncapped(p1 * (dw - tl.load(pulls + kept)[None, :]), s1, cap, SOFTCAP)
            dk1 = tl.dot(d1.to(q1.dtype), q1, dk1, input_precision=PRECISION)
            if MAPS == 2:
                q2 = load_rows(queries + H * E, rows, MAPS * H * E, E, EP)
                p2 = tl.exp2(scores(k2, q2, scale, cap, SOFTCAP, PRECISION) - tl.load(sums + kept + t)[None, :])
                if masked:
                    p2 = tl.where(seen, p2, 0.0)
                p2 *= tl.load(mix + (row * t + rows) * H + query_head).to(tl.float32)[None, :]
                d2 = p2 * (tl.load(pulls + kept + t)[None, :] - dw)
                if SETS == 1:
                    dk1 = tl.dot(d2.to(q2.dtype), q2, dk1, input_precision=PRECISION)
                else:
                    dk2 = tl.dot(d2.to(q2.dtype), q2, dk2, input_precision=PRECISION)
                p1 -= p2
            dv1 = tl.dot(p1.to(do1.dtype), do1, dv1, input_precision=PRECISION)

    store_rows(dv + value, keys, M * W, live, dv1, W, WP)
    store_rows(dk + key, keys, SETS * M * E, live, dk1 * slope, E, EP)
    if MAPS == 2 and SETS == 2:
        store_rows(dk + key + M * E, keys, SETS * M * E, live, dk2 * slope, E, EP)
