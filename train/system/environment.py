"""Where a run was trained: what environment.json holds."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from train.system.startup import bfloat16, physical_cores, settings

PACKAGES = ("zoo", "torch", "lightning", "numpy", "safetensors", "omegaconf", "triton", "fla-core", "mamba-ssm", "causal-conv1d")


def environment() -> dict[str, Any]:
    """Versions, processor, threads, accelerator, and the commit of this code, as JSON."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": physical_cores(),
        "bfloat16": bfloat16(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "settings": [asdict(setting) for setting in settings()],
        "git": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str | None:
    """The commit of this checkout, `+` if files have changed since; None outside one."""
    return _git("rev-parse", "HEAD", mark=bool(_git("status", "--porcelain", "--untracked-files=no")))


def _git(*command: str, mark: bool = False) -> str | None:
    own = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # look, don't touch: someone may be committing
    try:
        done = subprocess.run(["git", *command], cwd=Path(__file__).parent, env=own, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() + ("+" if mark else "")
