"""Triton's kernels on CPU tensors: its interpreter, with what it lacks."""


def install() -> None:
    """Prepare this process, before any kernel is imported."""
