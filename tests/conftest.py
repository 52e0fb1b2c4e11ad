"""Before any import of ours: quiet threads, shape checks on, and no GPU library half-installed behind Hugging Face's back.

With TRITON_INTERPRET=1 in the environment the session is another one: Triton's kernels, ours and the libraries', run on CPU tensors
under Triton's interpreter, and only tests marked `interpreted` make sense (`make test` runs both sessions).
"""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("TRITON_INTERPRET") == "1":
    from tests import interpreter

    interpreter.install()
else:
    for name in ("fla", "mamba_ssm", "causal_conv1d"):  # transformers binds them at import without looking for a device
        sys.modules[name] = None  # type: ignore[assignment]

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["kernels", "blocks"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
