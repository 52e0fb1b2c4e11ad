"""The YAML files that come with the zoo: models, experiments and claims, found by name. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocks.errors import ConfigError
from train.cli.suggestions import did_you_mean

CONFIGS = Path(__file__).parents[2] / "configs"


def model_paths() -> list[Path]:
    """The models' files, a folder after the other."""
    return sorted((CONFIGS / "models").rglob("*.yaml"), key=lambda path: (path.parent, path.name))


def experiment_paths() -> list[Path]:
    """The files of experiments and claims (a claim is an experiment with something to decide)."""
    return [*sorted((CONFIGS / "experiments").rglob("*.yaml")), *sorted((CONFIGS / "claims").glob("*.yaml"))]


def shown(path: Path) -> str:
    """A file's path as lists print it: from the folder that holds configs/."""
    return str(path.relative_to(CONFIGS.parent))


def experiments() -> list[dict[str, Any]]:
    """The experiments that come with the zoo."""
    paths = sorted((CONFIGS / "experiments").rglob("*.yaml"))
    return [{"path": shown(path), "summary": first_comment(path)} for path in paths]


def claims() -> list[dict[str, Any]]:
    """The claims that come with the zoo, each with the verdict of its last run here (runs/NAME), if there was one."""
    import yaml

    rows = []
    for path in sorted((CONFIGS / "claims").glob("*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        about = {key: values["claim"][key] for key in ("finding", "paper")}
        rows.append({"path": shown(path), **about, "verdict": _last_verdict(Path("runs") / values["name"])})
    return rows


def _last_verdict(folder: Path) -> str:
    if not folder.is_dir():
        return "not run"
    from train.claims.verdict import read_verdict

    verdict = read_verdict(folder)
    return str(verdict["verdict"]) if verdict else "not run"


def first_comment(path: Path) -> str:
    """The paragraph of comment that a YAML begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("# ") for line in lines)


def find_model(name: str) -> Path:
    """The file of a model, from its path or its name in `zoo list models`. Raises ConfigError, also if it is an experiment's."""
    path = _find(name, model_paths() + experiment_paths(), "models")
    if _is_experiment(path):
        raise ConfigError(name, None, "is an experiment, not a model", f"To see its models and their sizes: zoo plan {name}")
    return path


def find_experiment(name: str) -> Path:
    """The file of an experiment or claim, from its path or its name in `zoo list`. Raises ConfigError, also if it is a model's."""
    path = _find(name, experiment_paths() + model_paths(), "experiments")
    if _is_model(path):
        raise ConfigError(name, None, "is a model, not an experiment", f"To see its layers: zoo show {name}")
    return path


def refuse_model(name: str) -> None:
    """Raise ConfigError if the name, meant for a run, is that of a model's YAML: there are no weights in it."""
    is_file = name.endswith(".yaml") and Path(name).is_file() and _is_model(Path(name))
    if is_file or (not Path(name).exists() and _named(name, model_paths())):
        rule = "is a model without weights, not a run"
        raise ConfigError(name, None, rule, f"To see its layers: zoo show {name}; to train it: zoo run EXPERIMENT")


def _find(name: str, paths: list[Path], what: str) -> Path:
    """A file of the user's, or the first of `paths` of that name. what: the list that names them."""
    if Path(name).is_file():
        return Path(name)
    matches = _named(name, paths)
    if matches or Path(name).exists():
        return matches[0] if matches else Path(name)
    hint = did_you_mean(name, [path.stem for path in paths])
    raise ConfigError(name, None, "there is no such file", f"{hint}`zoo list {what}` names those that come with the zoo")


def _named(name: str, paths: list[Path]) -> list[Path]:
    """The files of that name: a stem, or a path from configs/, from its folder, or from configs/models, with or without .yaml."""
    bare, tops = name.removesuffix(".yaml"), (CONFIGS.parent, CONFIGS, CONFIGS / "models")
    return [path for path in paths if bare in (path.stem, *(_bare(path, top) for top in tops if path.is_relative_to(top)))]


def _bare(path: Path, top: Path) -> str:
    return path.relative_to(top).with_suffix("").as_posix()


def _values(path: Path) -> Mapping[str, Any]:
    from zoo.config.schema import load_yaml

    return load_yaml(path)


def _is_experiment(path: Path) -> bool:
    values = _values(path)
    return "parts" in values and "pattern" not in values


def _is_model(path: Path) -> bool:
    values = _values(path)
    return "pattern" in values and "parts" not in values
