"""The largest differences of every family over its test's configs: `python -m tests.zoo.interop.table [FAMILY ...]`."""

import importlib
import logging
import pkgutil
import sys

import tests.conftest  # noqa: F401  (no GPU library half-installed)
from tests.zoo import interop
from tests.zoo.interop import parity


def main(wanted: list[str]) -> None:
    logging.disable(logging.WARNING)
    for module in pkgutil.iter_modules(interop.__path__):
        if module.name.startswith("test_") and (not wanted or module.name.removeprefix("test_") in wanted):
            test = getattr(importlib.import_module(f"{interop.__name__}.{module.name}"), "test_parity", None)
            if test is not None:
                test()
    print("family        " + "  ".join(f"{name:>11}" for name in parity.Differences._fields))
    for family, found in sorted(parity.WORST.items()):
        print(f"{family:<14}" + "  ".join(f"{value:11.1e}" for value in found))


if __name__ == "__main__":
    main(sys.argv[1:])
