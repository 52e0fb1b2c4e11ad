"""A process that times what it is told to: one JSON request a line on standard input, one JSON answer a line on standard output.

    {"case": NAME, "clock": "wall", "rounds": 7, "seconds": 20}    both sides, alternately  -> {"ours": [..], "theirs": [..], "gemm": rate}
    {"case": NAME, "side": "ours"}                                 build this side          -> {}
    {"step": true, "clock": "wall"}                                one step of it           -> {"seconds": ..}

python -m train.bench.worker ours|plain THREADS: with the start-up settings of `zoo`, or with none.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from train.system import startup

if __name__ == "__main__" and sys.argv[1] == "ours":
    startup.before_torch()

import torch

from train.bench.case import Step
from train.bench.catalogue import find
from train.bench.measure import CLOCKS, alternate, gemm_rate, timed
from train.bench.probe import PROBE


class Worker:
    """What the process remembers between requests: the side that it has built."""

    def __init__(self) -> None:
        self.step: Step | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what the request says."""
        if "step" in request:
            assert self.step is not None
            return {"seconds": timed(self.step, CLOCKS[request["clock"]])}
        self.step = None
        gc.collect()
        case = PROBE if request["case"] == PROBE.name else find(request["case"])
        if "side" in request:
            build: Callable[[], Step] = getattr(case, request["side"])
            self.step = build()
            return {}
        times = alternate(case, request["rounds"], request["clock"], request["seconds"])
        return times._asdict() | {"gemm": gemm_rate(request["clock"])}


def main(settings: str, threads: int) -> None:
    """Answer until standard input ends."""
    if settings == "ours":
        startup.set_up()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    out = sys.stdout
    sys.stdout = sys.stderr  # a peer that prints must not speak in our name
    worker = Worker()
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
