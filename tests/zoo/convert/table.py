"""The largest differences of every family: `python -m tests.zoo.convert.table [--examples N] [--seed S] [FAMILY ...]`.

Over the configs of each family's test, or over N other configs of its strategy, drawn from a seed.
"""

import argparse
import importlib
import logging
import traceback
from typing import Any

import tests.conftest  # noqa: F401  (no GPU library half-installed)
from tests.zoo.convert import parity
from zoo.convert import families
from zoo.convert.checkpoint import OWN


def compared() -> list[str]:
    """The families that transformers knows."""
    return [name for name in families.names() if name != OWN]


def module(family: str) -> Any:
    """The test file of a family: `CONFIGS`, the strategy of its config.json dictionaries, and `test_parity`."""
    return importlib.import_module(f"tests.zoo.convert.families.test_{family}")


def run(family: str, count: int | None, seed: int) -> bool:
    """Whether all configs agree; prints one that does not."""
    try:
        if count is None:
            module(family).test_parity()
        else:
            parity.examples(module(family).CONFIGS, count, seed)(lambda hf: parity.check(family, hf))()
    except Exception:
        print(family)
        traceback.print_exc(limit=-3)
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--examples", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    failed = [family for family in given.families or compared() if not run(family, given.examples, given.seed)]
    print("family            " + "  ".join(f"{name:>11}" for name in parity.Differences._fields))
    for family, differences in sorted(parity.WORST.items()):
        print(f"{family:<18}" + "  ".join(f"{value:11.1e}" for value in differences))
    if failed:
        raise SystemExit(f"further apart than allowed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
