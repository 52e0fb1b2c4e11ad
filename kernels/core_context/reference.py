"""The definition: one query at a time, over exactly the cores and keys it sees."""

import torch
from torch import Tensor

from kernels.core_context.sight import Sight
from kernels.dtypes import wide


def core_context(q: Tensor, k: Tensor, v: Tensor, cores_k: Tensor, cores_v: Tensor, view: Sight, *, scale: float | None) -> Tensor:
    (b, t, h, e), m, dtype = q.shape, k.shape[2], q.dtype
    q, k, v, cores_k, cores_v = (wide(x) for x in (q, k, v, cores_k, cores_v))
    scale = e**-0.5 if scale is None else scale
    out = []
    for row in range(b):
        for i, (first, stop, low, high) in enumerate(zip(*(x[row].tolist() for x in view), strict=True)):
            query = q[row, i, :, None] * scale  # (h, 1, e)
            cores = cores_k[row, first:stop].transpose(0, 1)  # (h, cores, e)
            keys, values = k[row, low:high].transpose(0, 1), v[row, low:high].transpose(0, 1)  # (m, keys, e or f)
            far = (query @ cores.mT)[:, 0]
            near = (query.reshape(m, -1, e) @ keys.mT).flatten(0, 1)
            p = torch.cat([far, near], 1).softmax(1)
            mixed = (p[:, None, : stop - first] @ cores_v[row, first:stop].transpose(0, 1))[:, 0]
            out.append(mixed + (p[:, stop - first :].unflatten(0, (m, -1)) @ values).flatten(0, 1))
    return torch.stack(out).view(b, t, h, -1).to(dtype)
