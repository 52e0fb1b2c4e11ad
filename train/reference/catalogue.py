"""What there is: blocks, tasks, measures, experiments and claims, a row each, without importing torch."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from typing import Any

import yaml

from train.reference.fields import class_value
from train.reference.source import ROOT, Source, read, read_head

CONFIGS = ROOT / "configs"


def blocks() -> list[dict[str, Any]]:
    """The blocks: type, kind (mixer | channel), causal, paper, summary."""
    rows = []
    for name in block_types():
        source = read_head(f"blocks.{name}", "Config")
        config = source.find_class("Config")
        about = {key: class_value(source, config, key) for key in ("kind", "causal", "paper")}
        rows.append({"type": name, **about, "summary": first_line(source.docstring)})
    return rows


def block_types() -> list[str]:
    """The files of blocks/ that are blocks, by name."""
    catalogue = read("blocks.catalogue")
    node = catalogue.definitions["NOT_BLOCKS"]
    assert isinstance(node, ast.Assign)
    others = {"__init__", *catalogue.value(node.value)}
    return sorted(path.stem for path in (ROOT / "blocks").glob("*.py") if path.stem not in others)


def tasks() -> list[dict[str, Any]]:
    """The generated tasks: task, summary."""
    return [{"task": name, "summary": summary(module)} for name, module in _modules("zoo.tasks").items()]


def measures() -> list[dict[str, Any]]:
    """The measures: measure, summary."""
    return [{"measure": name, "summary": summary(module)} for name, module in _modules("zoo.measures").items()]


def task_sources() -> dict[str, Source]:
    """The module of each task, in the order of zoo.tasks.TASKS."""
    return {name: read(module) for name, module in _modules("zoo.tasks").items()}


def measure_sources() -> dict[str, Source]:
    """The module of each measure, in the order of zoo.measures.MEASURES."""
    return {name: read(module) for name, module in _modules("zoo.measures").items()}


def experiments() -> list[dict[str, Any]]:
    """The experiments that come with the zoo: path, summary."""
    paths = sorted((CONFIGS / "experiments").rglob("*.yaml"))
    return [{"path": str(path.relative_to(ROOT)), "summary": first_comment(path)} for path in paths]


def claims() -> list[dict[str, Any]]:
    """The claims that come with the zoo: path, finding, paper, and the verdict of the last run here (runs/NAME), if there was one."""
    rows = []
    for path in sorted((CONFIGS / "claims").glob("*.yaml")):
        values = load_yaml(path)
        about, file = values["claim"], Path("runs") / values["name"] / "verdict.json"
        last = json.loads(file.read_text(encoding="utf-8"))["verdict"] if file.is_file() else "not run"
        rows.append({"path": str(path.relative_to(ROOT)), "finding": about["finding"], "paper": about["paper"], "verdict": last})
    return rows


def summary(module: str) -> str:
    """A module's SUMMARY."""
    source = read_head(module, "SUMMARY")
    node = source.definitions["SUMMARY"]
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    assert node.value is not None
    return str(source.value(node.value))


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as it is written, quickly: nothing is resolved or checked."""
    loaded: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded


def first_line(text: str) -> str:
    """The first line of a docstring."""
    return text.strip().split("\n")[0]


def first_comment(path: Path) -> str:
    """The paragraph of comment that a YAML begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("# ") for line in lines)


def _modules(package: str) -> dict[str, str]:
    """Name -> module of a package's tasks or measures: its files with a SUMMARY."""
    names = (path.stem for path in sorted(read(package).path.parent.glob("*.py")) if path.stem != "__init__")
    modules = {name: f"{package}.{name}" for name in names}
    return {name: module for name, module in modules.items() if "SUMMARY" in read_head(module, "SUMMARY").definitions}
