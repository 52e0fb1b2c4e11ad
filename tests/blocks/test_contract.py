"""The whole contract on every file of blocks/: a new block is tested by existing."""

import pytest

from blocks.catalogue import block_types
from zoo.check.contract import CHECKS, check_block


@pytest.mark.parametrize("block", block_types())
def test_contract(block: str) -> None:
    assert [r.check for r in check_block(block, d_model=32)] == list(CHECKS)
