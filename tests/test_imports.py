"""Imports run one way: kernels <- blocks <- zoo <- train. No file imports upward, no block imports another, nothing CUDA-only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ["kernels", "blocks", "zoo", "train"]
FILES = sorted(path for folder in HOUSE for path in (ROOT / folder).rglob("*.py"))
SHARED = {"base", "catalogue", "parts", "rope", "keys"}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_upward_import(path: Path) -> None:
    level = HOUSE.index(path.relative_to(ROOT).parts[0])
    upward = {name for name in imported(path) if name.split(".")[0] in HOUSE[level + 1 :]}
    assert upward == set()


@pytest.mark.parametrize("path", sorted((ROOT / "blocks").glob("*.py")), ids=lambda p: p.stem)
def test_blocks_do_not_import_one_another(path: Path) -> None:
    blocks = {p.stem for p in (ROOT / "blocks").glob("*.py")} - SHARED - {"__init__"}
    if path.stem != "catalogue":
        assert {name.split(".")[1] for name in imported(path) if name.startswith("blocks.")} & blocks == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_cuda_only_at_import(path: Path) -> None:
    cuda_only = {"triton", "fla", "mamba_ssm", "causal_conv1d"}
    top = ast.parse(path.read_text(encoding="utf-8")).body
    names = {a.name.split(".")[0] for n in top if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in top if isinstance(n, ast.ImportFrom)}
    assert names & cuda_only == set()
