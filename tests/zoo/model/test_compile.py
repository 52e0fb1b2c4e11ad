"""torch.compile: one graph a stack without a break, compiled anew for no length, with the numbers of the eager model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blocks.catalogue import block_types

ROOT = Path(__file__).parents[3]
DATA_DEPENDENT = ("meta_attention",)  # gathers its tokens by their kinds, which only the data know: compiled in pieces
# caches: one size, another, then any
GROWING = ("gqa", "mla", "differential", "core_context", "landmark", "ngram", "hashed_attention", "shared_transformer")


def compiled(*types: str) -> dict[str, dict[str, Any]]:
    """What tests/zoo/model/compiled.py says of each type, in a process without shape checks."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("compiled.py")), *types]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {row["type"]: row for row in map(json.loads, done.stdout.splitlines())}


def check(row: dict[str, Any]) -> None:
    """The first length is compiled as it is, the second for any length; the same for packed text and for single tokens."""
    assert "error" not in row, row["error"]
    assert row["lengths"] <= 2, row
    assert row["packed"] <= 2, row
    assert row["decoding"] <= (5 if row["type"] in GROWING else 2), row
    assert row["difference"] < 5e-5, row


def test_a_recurrence_and_attention() -> None:
    rows = compiled("mamba2", "gqa")
    check(rows["mamba2"])
    check(rows["gqa"])


@pytest.mark.slow
def test_every_block() -> None:
    rows = compiled(*(name for name in block_types() if name not in DATA_DEPENDENT))
    assert len(rows) == len(block_types()) - len(DATA_DEPENDENT)
    for row in rows.values():
        check(row)
