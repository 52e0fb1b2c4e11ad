"""A file in which a long measure keeps how far it is: a .safetensors with its nesting as JSON, replaced at once. Nothing is pickled."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from blocks.errors import ConfigError
from train.system.atomic_files import replacing
from train.system.nested_tensors import load_nested, save_nested

SECONDS = 60.0  # of work that an interruption may cost


class ResumeFile:
    """A zoo.measures.ResumeStore of one measure of one model."""

    def __init__(self, path: Path, of: Mapping[str, Any], seconds: float = SECONDS) -> None:
        """of: all that the rows depend on (measure, config, seed, weights, documents), as JSON; what was saved of anything else is
        not loaded. seconds: the least time between two writes."""
        self.path, self.of, self.seconds = path, json.dumps(of, sort_keys=True), seconds
        self.written = time.monotonic()

    def load(self) -> Any:
        """What was saved last; None: nothing, or of something else. Raises ConfigError where the file is damaged."""
        if not self.path.exists():
            return None
        try:
            kept = load_nested(self.path)
        except (SafetensorError, ValueError, OSError) as error:
            raise ConfigError(str(self.path), None, f"is damaged: {error}", "delete it to measure anew") from None
        return kept["tree"] if kept["of"] == self.of else None

    def save(self, tree: Any) -> None:
        """Replace the file, unless the last time is less than `seconds` ago."""
        if time.monotonic() - self.written < self.seconds:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as fresh:
            save_nested({"of": self.of, "tree": tree}, fresh)
        self.written = time.monotonic()

    def clear(self) -> None:
        """Remove the file: the rows are written."""
        self.path.unlink(missing_ok=True)
