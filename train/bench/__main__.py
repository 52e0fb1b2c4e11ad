"""Time some cases by hand: python -m train.bench WORD.. [--rounds N]; one thread, the processor's time."""

import argparse
from statistics import median

import torch

from train.bench.catalogue import all_cases
from train.bench.measure import alternate, gemm_rate

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rate = gemm_rate("cpu")
    print(f"GEMM {rate / 1e9:.0f} GFLOP/s")
    for case in all_cases():
        if all(word in case.name for word in arguments.words):
            times = alternate(case, arguments.rounds, "cpu")
            ours, theirs = (1000 * median(t) for t in times)
            share = "" if case.flops is None else f"{case.flops / median(times.ours) / rate:.0%} of GEMM"
            print(f"{case.name:90} {ours:9.1f} ms {theirs:9.1f} ms {times.ratio:6.2f}x {case.target} {share}", flush=True)
