"""How much memory tensors take while something runs: what the allocator handed out and got back, not what the process holds."""

from collections.abc import Callable

from torch.autograd.profiler import profile


def peak(step: Callable[[], object]) -> int:
    """The most bytes of CPU tensors made by `step` that were alive at once."""
    with profile(profile_memory=True) as run:
        step()
    events = [event for event in run.kineto_results.events() if event.name() == "[memory]"]
    most = alive = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most
