"""The core of each group of tokens."""

from jaxtyping import Float
from torch import Tensor

from kernels.dtypes import wide

POOLINGS = ("core", "mean", "max")  # weighted by the last token's query; plain averages; the largest of each channel


def pool(
    q: Float[Tensor, "b p h e"],
    k: Float[Tensor, "b p g m e"],
    v: Float[Tensor, "b p g m f"],
    *,
    pooling: str = "core",
    scale: float | None = None,
) -> tuple[Float[Tensor, "b p h e"], Float[Tensor, "b p h f"]]:
    """Cores of complete groups: q of each group's last token, k and v of its g tokens. See the package."""
    repeats = q.shape[2] // k.shape[3]
    if pooling != "core":
        return tuple((x.mean(2) if pooling == "mean" else x.amax(2)).repeat_interleave(repeats, 2) for x in (k, v))  # type: ignore[return-value]
    keys, values = k.transpose(2, 3), v.transpose(2, 3)  # (b, p, m, g, e)
    queries = q.unflatten(2, (-1, repeats)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    weights = wide(queries @ keys.mT).softmax(-1).to(v.dtype)  # (b, p, m, h / m, g)
    return (weights @ keys).flatten(2, 3), (weights @ values).flatten(2, 3)


def pool_flops(groups: int, group: int, *, heads: int, key: int, value: int, pooling: str = "core") -> int:
    """A multiply-add an element of each token's score, key and value; means and maxima count nothing."""
    return 2 * heads * (2 * key + value) * groups * group if pooling == "core" else 0
