"""A stream of any length needs no more memory than its state: every block, in a hybrid, read in pieces with the state carried.

`python -m tests.zoo.model.test_streaming CASE` streams LONG tokens in a process of its own and prints what it measured as JSON.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from blocks.catalogue import block_types, config_class
from blocks.context import LANDMARK, META
from blocks.state import state_bytes

LONG, LONG_PIECE = 100_000, 1000
SHORT, SHORT_PIECE, TAIL = 4000, 500, 64
VOCAB = 32
WARM = 5  # pieces after which a process has met every size of tensor it will ask for
FLAT = 4 << 20  # bytes: what a peak may grow by that is no state (pages of the allocator)
COPIES = 4  # of a growing state at once: the old and the new one, and the layouts that kernels read
# MiB that tiles of scores take beside a growing state, and that the allocator keeps of them
TILES = {"gqa": 200, "differential": 330, "landmark": 100, "core_context": 25, "shared_transformer": 200}
PLANS = {META: {"meta": {"every": 50}}, LANDMARK: {"landmark": {"every": 50}}}

SMALL: dict[str, dict[str, Any]] = {  # sizes that differ from the block's defaults
    "core_context": {"n_heads": 1, "group": 16, "local": 64},
    "differential": {"n_heads": 1},
    "gated_delta": {"n_heads": 2},
    "gla": {"n_heads": 2},
    "gqa": {"n_heads": 1},
    "landmark": {"n_heads": 1},
    "linear_attention": {"n_heads": 2},
    "mamba2": {"d_state": 8, "head_dim": 16},
    "meta_attention": {"n_heads": 1},
    "rwkv6": {"head_dim": 8},
    "rwkv7": {"head_dim": 8},
    "shared_transformer": {"n_heads": 1},
}
WINDOWED: dict[str, dict[str, Any]] = {
    "gqa, window": {"type": "gqa", "n_heads": 2, "window": 100, "sink_tokens": 4},
    "differential, window": {"type": "differential", "n_heads": 1, "window": 100},
}
CASES: dict[str, dict[str, Any]] = {name: {"type": name, **SMALL.get(name, {})} for name in block_types()} | WINDOWED


def hybrid(case: str) -> zoo.Model:
    """The block beside a delta rule and a channel mixer."""
    block = CASES[case]
    blocks = {"X": block, "D": {"type": "gated_delta", "n_heads": 2, "head_dim": 8}, "F": {"type": "swiglu", "hidden": 16}}
    plans: dict[str, Any] = {}
    for kind in config_class(block["type"]).needs_kinds:
        plans |= PLANS[kind]
    return zoo.build({"d_model": 16, "vocab_size": VOCAB, "blocks": blocks, "pattern": "D X F", "tokens": plans}, seed=0).eval()


def grows(case: str) -> bool:
    """Whether the ledger says that the state grows with the text."""
    model = hybrid(case)
    return model.ledger(2 * SHORT).state_bytes > model.ledger(SHORT).state_bytes


def pieces(length: int, size: int) -> Iterator[Tensor]:
    """The same text whatever the size of the pieces."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, length, size):
        yield torch.randint(VOCAB, (1, min(size, length - start)), generator=generator)


@torch.no_grad()
def measured(case: str, length: int, size: int) -> dict[str, int]:
    """Stream `length` tokens; bytes: how far the process's peak grew after the warm-up, and the state then and at the end."""
    model, state, early, peak = hybrid(case), None, 0, 0
    for number, piece in enumerate(pieces(length, size), 1):
        logits, state = model(piece, state)
        if not bool(torch.isfinite(logits).all()):
            raise AssertionError(f"piece {number}: logits are not finite")
        if number == WARM:
            early, peak = state_bytes(state), high_water()
    return {"grown": high_water() - peak, "early": early, "late": state_bytes(state), "ledger": model.ledger(length).state_bytes}


def high_water() -> int:
    """The largest memory that this process has ever held, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_stream_is_the_whole_and_its_state_has_the_ledgers_size(case: str) -> None:
    model, state = hybrid(case), None
    text = torch.cat(list(pieces(SHORT, SHORT_PIECE)), 1)
    sizes = []
    for piece in text.split(SHORT_PIECE, 1):
        logits, state = model(piece, state)
        sizes.append(state_bytes(state))
    whole, _ = model(text)
    torch.testing.assert_close(logits[:, -TAIL:], whole[:, -TAIL:], rtol=1e-4, atol=1e-4)
    assert sizes[-1] == model.ledger(SHORT).state_bytes
    assert (len(set(sizes)) > 1) == grows(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_100_000_tokens_in_flat_memory(case: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-m", __name__, case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)
    assert sizes["late"] == sizes["ledger"]
    if not grows(case):
        assert sizes["early"] == sizes["late"]
        assert sizes["grown"] <= FLAT
    else:
        assert sizes["early"] < sizes["late"]
        assert sizes["grown"] <= FLAT + COPIES * sizes["ledger"] + (TILES.get(case, 0) << 20)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measured(sys.argv[1], LONG, LONG_PIECE)))
