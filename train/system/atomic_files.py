"""Files and folders that are replaced atomically: a process killed at any instant leaves the old version or the new one, complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path to write a new version of a file to; it takes the file's place, durably, when the block ends without an error."""
    fresh = path.with_name(path.name + ".tmp")
    yield fresh
    sync_file(fresh)
    fresh.replace(path)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Write a file's contents to the disk (fsync)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def exchange(fresh: Path, folder: Path) -> None:
    """Put the complete folder `fresh` in the place of `folder`. `settle` finishes what a kill leaves half done."""
    for path in fresh.iterdir():
        sync_file(path)
    sync_folder(fresh)
    fresh.rename(_next(folder))
    sync_folder(folder.parent)
    settle(folder)


def settle(folder: Path) -> None:
    """Finish an exchange that was begun (a `.next` is complete and newer) and remove what is left over."""
    old, newer = folder.with_name(folder.name + ".old"), _next(folder)
    if newer.exists():
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        newer.rename(folder)
        sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(unfinished(folder), ignore_errors=True)


def unfinished(folder: Path) -> Path:
    """Where a new version of the folder is written."""
    return folder.with_name(folder.name + ".tmp")


def _next(folder: Path) -> Path:
    return folder.with_name(folder.name + ".next")


class Table:
    """A CSV that grows by rows whose first column is the step, and can be cut back to a step."""

    def __init__(self, path: Path, columns: Sequence[str], step: int) -> None:
        """Open for appending; rows after `step` are dropped, and so is a last line that was not finished. `steps`: of the rows kept."""
        self.path, self.columns = path, tuple(columns)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines[1:] if line.endswith("\n") and line.count(",") == len(columns) - 1]
        kept = [line for line in whole if line.split(",", 1)[0].isdecimal() and int(line.split(",", 1)[0]) <= step]
        self.steps = [int(line.split(",", 1)[0]) for line in kept]
        write_text(path, "".join([",".join(columns) + "\n", *kept]))

    def add(self, **row: int | float | str) -> None:
        """One row; floats are written so that they are read back exactly."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(str(row[name]) for name in self.columns) + "\n")

    def sync(self) -> None:
        """Write the rows to the disk (fsync)."""
        sync_file(self.path)
