"""Before any import of ours: quiet threads, shape checks on, and no GPU library half-installed behind Hugging Face's back.

With TRITON_INTERPRET=1 in the environment the session is another one: Triton's kernels, ours and the libraries', run on CPU tensors
under Triton's interpreter, and only tests marked `interpreted` make sense (`make test` runs both sessions).
"""

import os
import sys

LIBRARIES = ("fla", "mamba_ssm", "causal_conv1d")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("TRITON_INTERPRET") == "1":
    from tests import interpreter

    interpreter.install()
else:
    for name in LIBRARIES:  # transformers binds them at import without looking for a device
        sys.modules[name] = None  # type: ignore[assignment]

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["kernels", "blocks"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

from tests import tuning  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.interpreted), pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a library's kernels run: on a CPU under the interpreter, or on a GPU, where the libraries are let in."""
    for name in LIBRARIES:
        if sys.modules.get(name, pytest) is None:
            monkeypatch.delitem(sys.modules, name)
    if request.param == "cuda":
        tuning.keep_first()
    return str(request.param)
