"""What is set at start-up: each choice can be switched, a wrong value is an error, and what is in force is reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blocks.errors import ConfigError
from train.system import startup

ROOT = Path(__file__).parents[3]


def in_a_new_process(**environ: str) -> dict[str, startup.Setting]:
    code = """if True:
        import json
        from dataclasses import asdict
        from train.system import startup
        startup.before_torch()
        startup.set_up()
        print(json.dumps([asdict(setting) for setting in startup.settings()]))"""
    own = {"PATH": "", **environ}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=own, check=True)
    return {row["name"]: startup.Setting(**row) for row in json.loads(done.stdout)}


def test_defaults_and_switches() -> None:
    chosen = in_a_new_process()
    assert chosen["allocator"].value == ("keep" if sys.platform == "linux" else "system")
    assert chosen["waiting"].value == "passive"
    other = in_a_new_process(ZOO_ALLOCATOR="system", ZOO_MATMUL="torch", OMP_WAIT_POLICY="active", OMP_NUM_THREADS="1")
    assert [setting.value for setting in other.values()] == ["system", "torch", "active", "1"]


def test_a_wrong_value_names_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"ZOO_MATMUL.*mkl.*auto, onednn, torch"):
        startup.set_up({"ZOO_MATMUL": "mkl"})


@pytest.mark.parametrize("error", [1e-3, 1e-7])
def test_onednn_is_kept_only_where_it_is_exact(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    monkeypatch.setattr(startup, "product_error", lambda: error)
    value, _ = startup._try_onednn()
    after = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = before
    assert (value, after) == (("onednn", "bf16") if error < startup.ACCURACY else ("torch", before))


def test_a_float32_product_is_one_by_default() -> None:
    assert startup.product_error() < startup.ACCURACY
