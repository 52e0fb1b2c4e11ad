"""Synthetic tasks. A task is a module with SUMMARY, Config, chance(config) and generate(config, seed, start, count) -> Batch.

`generate` is a pure function: example i under a seed is the same whatever was drawn before it. Training counts examples up
from 0; evaluation takes them from HELD_OUT on.
"""

from zoo.tasks import (
    compression,
    facts,
    in_context_languages,
    in_context_recall,
    induction,
    joint_recall,
    many_shot,
    memorization,
    mqar,
    mqar_hops,
    needle,
    passkey,
    passkey_tokens,
    phonebook,
    selective_copying,
    state_tracking,
    threading,
    variable_tracking,
    word_extraction,
)
from zoo.tasks.shared.base import HELD_OUT, IGNORE, Batch, Task, accuracy, exact

TASKS: dict[str, Task] = {
    "mqar": mqar,
    "passkey": passkey,
    "passkey_tokens": passkey_tokens,
    "mqar_hops": mqar_hops,
    "induction": induction,
    "selective_copying": selective_copying,
    "in_context_recall": in_context_recall,
    "compression": compression,
    "memorization": memorization,
    "phonebook": phonebook,
    "state_tracking": state_tracking,
    "in_context_languages": in_context_languages,
    "needle": needle,
    "threading": threading,
    "variable_tracking": variable_tracking,
    "word_extraction": word_extraction,
    "joint_recall": joint_recall,
    "facts": facts,
    "many_shot": many_shot,
}

__all__ = ["HELD_OUT", "IGNORE", "TASKS", "Batch", "Task", "accuracy", "exact", "mqar", "passkey", "passkey_tokens"]
