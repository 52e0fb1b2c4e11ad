"""Measures: what a trained model remembers, forgets, and where it collapses. All through the contract: state in, state out.

A measure is a module with SUMMARY, Config and run(model, config, seed, *, data=None, progress=None) -> Result, see base.Measure. It works
on any model that zoo.build makes, reads in pieces of bounded size, and gives the same numbers whatever the pieces.
"""

from zoo.measures import (
    attention_entropy,
    collapse,
    induction_heads,
    loss,
    passkey,
    recall,
    remembrance,
    repeats,
    retrieval_heads,
    rope,
    state,
    task,
    unexplored,
)
from zoo.measures.shared.base import Documents, Keeper, Measure, MeasureConfig, Progress, Reads, Result, Resumable, Row, condition, parts

MEASURES: dict[str, Measure] = {"collapse": collapse, "loss": loss, "passkey": passkey, "recall": recall, "state": state}
MEASURES |= {"remembrance": remembrance, "repeats": repeats, "task": task, "unexplored": unexplored}
MEASURES |= {"attention_entropy": attention_entropy, "induction_heads": induction_heads, "retrieval_heads": retrieval_heads, "rope": rope}
RESUMABLE: dict[str, Resumable] = {"collapse": collapse, "state": state}  # these can be interrupted

__all__ = [
    "MEASURES",
    "RESUMABLE",
    "Documents",
    "Keeper",
    "Measure",
    "MeasureConfig",
    "Progress",
    "Reads",
    "Result",
    "Resumable",
    "Row",
    "attention_entropy",
    "collapse",
    "condition",
    "induction_heads",
    "loss",
    "parts",
    "passkey",
    "recall",
    "remembrance",
    "repeats",
    "retrieval_heads",
    "rope",
    "state",
    "task",
    "unexplored",
]
