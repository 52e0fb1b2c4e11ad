"""Attention beside torch's fused kernel and the dense masked forms, and its guard rails: linear in the length, ahead of its reference."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import attention, backend, core_context, landmark
from train.bench.case import Case, Step, Target, leaf, training

H, M, E = 4, 2, 64  # query heads, key heads, width of a head
WINDOW = 128
BLOCK = 64  # of landmark attention, its landmark included
GROUP = 16  # of core-context attention


def cases() -> Iterator[Case]:
    for t, equal in ((1024, 3.5), (4096, 8.0)):
        flops = 12 * H * E * 4 * attention.visible_pairs(t, WINDOW)
        ours, theirs = partial(_window, 4, t), partial(_masked_sdpa, 4, t)
        yield Case(f"sliding window {WINDOW}", _shape(4, t), "SDPA with a bool mask", ours, theirs, Target(equal=equal), flops)
    flops = 12 * H * E * 4 * attention.visible_pairs(1024)
    ours, theirs = partial(_dense, 4, 1024), partial(_sdpa, 4, 1024)
    yield Case("dense causal GQA", _shape(4, 1024), "SDPA, is_causal", ours, theirs, Target(equal=1 / 1.02), flops)
    yield from _differential_cases()
    yield from _block_cases()
    yield from _guard_rails()


def _differential_cases() -> Iterator[Case]:
    flops = 3 * 4 * attention.flops(1024, H, E, 2 * E, maps=2)
    for name, peer, equal in (("two SDPA calls", two_sdpa, 1.4), ("written out", written_out, 3.0)):
        yield Case(
            "differential",
            _shape(4, 1024),
            name,
            partial(_differential, attention.differential, 4, 1024),
            partial(_differential, peer, 4, 1024),
            Target(equal=equal),
            flops,
        )


def _block_cases() -> Iterator[Case]:
    t, note = 4096, "batch 1: the dense form takes 268 MB a matrix"
    marks = [i % BLOCK == BLOCK - 1 for i in range(t)]
    flops = 3 * landmark.flops(marks, heads=H, key=E, value=E)
    ours, theirs = partial(_landmark, landmark.landmark, 1, t), partial(_landmark, dense_landmark, 1, t)
    yield Case(f"landmark, blocks of {BLOCK}", _shape(1, t), "dense masked form", ours, theirs, Target(equal=3.0), flops, note)
    for local in (256, 1024):
        flops = 3 * core_context.flops(t, GROUP, local, heads=H, key=E, value=E)
        ours, theirs = (partial(_core_context, f, 1, t, local) for f in (core_context.core_context, dense_core_context))
        name = f"core context, groups of {GROUP}, local {local}"
        yield Case(name, _shape(1, t), "dense masked form", ours, theirs, Target(equal=3.0), flops, note)


def _guard_rails() -> Iterator[Case]:
    """The window is linear in the length; all forms beside their own reference."""
    window = f"sliding window {WINDOW}"
    yield Case(window, _shape(4, 4096), "itself at T1024", partial(_window, 4, 4096), partial(_window, 4, 1024), Target(limit=4.6))
    steps: dict[str, Callable[[int, int], Step]] = {
        window: _window,
        "dense causal GQA": _dense,
        "differential": partial(_differential, attention.differential),
        f"landmark, blocks of {BLOCK}": partial(_landmark, landmark.landmark),
        f"core context, groups of {GROUP}, local 32": partial(_near, 32),
    }
    for name, step in steps.items():
        ours, theirs = (partial(_in_room, room, step, 4, 64) for room in ("auto", "reference"))
        yield Case(name, _shape(4, 64), "its own reference", ours, theirs, Target(equal=1.0))


def _in_room(room: str, make: Callable[[int, int], Step], batch: int, length: int) -> Step:
    with backend(room):
        step = make(batch, length)

    def inside() -> object:
        with backend(room):
            return step()

    return inside


def _shape(batch: int, length: int) -> str:
    return f"B{batch} T{length} H{H}/{M} E{E}"


def qkv(b: int, t: int) -> list[Tensor]:
    return [leaf(b, t, h, E, seed=seed) for seed, h in enumerate((H, M, M))]


def _dense(b: int, t: int) -> Step:
    return training(attention.attention, *qkv(b, t))


def _sdpa(b: int, t: int) -> Step:
    return training(partial(sdpa, mask=None), *qkv(b, t))


def _window(b: int, t: int) -> Step:
    return training(partial(attention.attention, window=WINDOW), *qkv(b, t))


def _masked_sdpa(b: int, t: int) -> Step:
    index = torch.arange(t)
    mask = (index <= index[:, None]) & (index > index[:, None] - WINDOW)
    return training(partial(sdpa, mask=mask), *qkv(b, t))


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True).transpose(1, 2)


def _differential(function: Callable[..., Tensor], b: int, t: int) -> Step:
    return training(function, *differential_leaves(b, t))


def differential_leaves(b: int, t: int) -> list[Tensor]:
    shapes = ((2, H, E), (2, M, E), (M, 2 * E), (H,))
    return [leaf(b, t, *shape, seed=seed) for seed, shape in enumerate(shapes)]


def two_sdpa(q: Tensor, k: Tensor, v: Tensor, mix: Tensor) -> Tensor:
    v = v.transpose(1, 2)
    maps = zip(q.unbind(2), k.unbind(2), strict=True)
    first, second = (
        F.scaled_dot_product_attention(x.transpose(1, 2), y.transpose(1, 2), v, is_causal=True, enable_gqa=True) for x, y in maps
    )
    return (first - mix.transpose(1, 2)[..., None] * second).transpose(1, 2)


def written_out(q: Tensor, k: Tensor, v: Tensor, mix: Tensor) -> Tensor:
    t = q.shape[1]
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    queries, keys = q.permute(2, 0, 3, 1, 4), k.repeat_interleave(H // M, 3).permute(2, 0, 3, 1, 4)
    first, second = (queries @ keys.mT * E**-0.5).masked_fill(future, -torch.inf).softmax(-1)
    weights = first - mix.transpose(1, 2)[..., None] * second
    return (weights @ v.repeat_interleave(H // M, 2).transpose(1, 2)).transpose(1, 2)


def _landmark(function: Callable[..., Tensor], b: int, t: int) -> Step:
    return training(function, *qkv(b, t), landmark_marks(b, t))


def landmark_marks(b: int, t: int) -> Tensor:
    return (torch.arange(t) % BLOCK == BLOCK - 1).expand(b, t).contiguous()


def dense_landmark(q: Tensor, k: Tensor, v: Tensor, marks: Tensor) -> Tensor:
    """Two softmaxes over the whole square, one of them over its columns in blocks of BLOCK."""
    q, k, v = _heads_first(q, k, v)
    index = torch.arange(marks.shape[1])
    block, mark = index // BLOCK, marks[0]
    own = (block == block[:, None]) & (index <= index[:, None]) & ~mark
    past = block < block[:, None]
    scores = q @ k.mT * E**-0.5
    main = scores.masked_fill(~(own | (past & mark)), -torch.inf).softmax(-1)
    inside = scores.masked_fill(mark, -torch.inf).unflatten(-1, (-1, BLOCK)).softmax(-1)
    through = inside * main[..., BLOCK - 1 :: BLOCK, None]
    return (torch.where(past, through.flatten(-2), main.masked_fill(mark, 0)) @ v).transpose(1, 2)


def _heads_first(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    return [x.repeat_interleave(H // x.shape[2], 2).transpose(1, 2) for x in (q, k, v)]


def _near(local: int, b: int, t: int) -> Step:
    return _core_context(core_context.core_context, b, t, local)


def _core_context(function: Callable[..., Tensor], b: int, t: int, local: int) -> Step:
    return training(partial(function, group=GROUP, local=local), *core_context_leaves(b, t), torch.arange(t).expand(b, t))


def core_context_leaves(b: int, t: int) -> list[Tensor]:
    return [*qkv(b, t), *(leaf(b, t // GROUP, H, E, seed=seed) for seed in (3, 4))]


def dense_core_context(
    q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, positions: Tensor, *, group: int, local: int
) -> Tensor:
    """One softmax over all cores and all tokens, with a mask."""
    q, k, v = _heads_first(q, k, v)
    index, position = torch.arange(k.shape[2]), positions[0][:, None]
    bound = ((position + 1 - local).div(group, rounding_mode="floor").clamp(min=0)) * group
    far = torch.arange(cores_k.shape[1]) * group < bound
    near = (index >= bound) & (index <= position)
    keys, values = (torch.cat([x.transpose(1, 2), y], 2) for x, y in ((cores_k, k), (cores_v, v)))
    scores = (q @ keys.mT * E**-0.5).masked_fill(~torch.cat([far, near], 1), -torch.inf)
    return (scores.softmax(-1) @ values).transpose(1, 2)
