"""Measures: what a trained model remembers, forgets, and where it collapses. All through the contract: state in, state out.

A measure is a module with SUMMARY, Config and run(model, config, seed, *, data=None, progress=None) -> Result, see base.Measure. It works
on any model that zoo.build makes, reads in pieces of bounded size, and gives the same numbers whatever the pieces.
"""

from zoo.measures import collapse, loss, passkey, recall, state
from zoo.measures.base import Documents, Measure, MeasureConfig, Progress, Reads, Result, Row, condition, parts

MEASURES: dict[str, Measure] = {"collapse": collapse, "loss": loss, "passkey": passkey, "recall": recall, "state": state}

__all__ = [
    "MEASURES",
    "Documents",
    "Measure",
    "MeasureConfig",
    "Progress",
    "Reads",
    "Result",
    "Row",
    "collapse",
    "condition",
    "loss",
    "parts",
    "passkey",
    "recall",
    "state",
]
