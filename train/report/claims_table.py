"""The markdown table of several claims and their pictures: python -m train.report.claims_table FOLDER... [--figures docs/claims]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from blocks.errors import ConfigError
from train.claims.verdict import FILE, read_verdict
from train.report.claim_figures import save_png
from train.report.claim_text import HEADING, markdown_row


def table(folders: Sequence[str | Path], figures: Path) -> str:
    """The table of these experiments' verdicts; each picture is saved as NAME.png in `figures`. Raises ConfigError."""
    lines = [HEADING]
    for folder in folders:
        verdict = read_verdict(folder)
        if verdict is None:
            raise ConfigError(str(Path(folder) / FILE), None, "there is no such file", "is this the folder of a finished claim?")
        path = figures / f"{verdict['experiment']}.png"
        save_png(verdict, path)
        lines.append(markdown_row(verdict, path.as_posix()))
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.report.claims_table", description="The markdown table of claims and their pictures."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="folders of finished claims")
    parser.add_argument("--figures", default="docs/claims", type=Path, help="where the pictures go (default docs/claims)")
    arguments = parser.parse_args(argv)
    try:
        print(table(arguments.folders, arguments.figures))
    except ConfigError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
