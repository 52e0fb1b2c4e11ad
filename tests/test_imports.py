"""Imports run one way: kernels <- blocks <- zoo <- train, and so do the folders inside zoo and train. No file imports upward, no block
imports another, nothing CUDA-only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ["kernels", "blocks", "zoo", "train"]
FILES = sorted(path for folder in HOUSE for path in (ROOT / folder).rglob("*.py"))
FOLDERS = {  # each folder imports only from those before it
    "zoo": ["config", "tasks", "ledger", "model", "weights", "check", "measures", "convert", "hf"],
    "train": ["system", "data", "measure", "claims", "config", "plan", "trainer", "run", "report", "bench", "reference", "cli"],
}
SHARED = {"base", "catalogue", "context", "errors", "forgetting", "keys", "parts", "qkv", "rope", "state"}


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


@pytest.mark.parametrize("house", FOLDERS)
def test_folders_import_one_way(house: str) -> None:
    order = FOLDERS[house]
    assert {path.name for path in (ROOT / house).iterdir() if path.is_dir() and path.name != "__pycache__"} == set(order)
    for path in FILES:
        own, *inside = path.relative_to(ROOT).parts
        if own == house and len(inside) > 1:
            later = order[order.index(inside[0]) + 1 :]
            assert {
                name for name in imported(path) if name.split(".")[0] == house and name.split(".")[1:2] and name.split(".")[1] in later
            } == set(), path


@pytest.mark.parametrize("path", sorted((ROOT / "blocks").glob("*.py")), ids=lambda p: p.stem)
def test_blocks_do_not_import_one_another(path: Path) -> None:
    blocks = {p.stem for p in (ROOT / "blocks").glob("*.py")} - SHARED - {"__init__"}
    if path.stem != "catalogue":
        assert {name.split(".")[1] for name in imported(path) if name.startswith("blocks.")} & blocks == set()


def at_import(path: Path) -> set[str]:
    """What importing the file imports: the statements at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_nothing_cuda_only_at_import() -> None:
    """Only the rooms of a GPU library need it, and they are imported when they are first asked for: every other file can be imported
    without, also through others."""
    imports = {module(path): at_import(path) for path in FILES}
    needs = {name for name, found in imports.items() if {n.split(".")[0] for n in found} & {"triton", "fla", "mamba_ssm", "causal_conv1d"}}
    while more := {name for name, found in imports.items() if found & needs} - needs:
        needs |= more
    assert needs != set()
    rooms = {path.relative_to(ROOT) for path in FILES if module(path) in needs}
    assert {path for path in rooms if path.parts[0] != "kernels" or path.name == "__init__.py"} == set()
