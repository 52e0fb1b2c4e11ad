"""Pictures of the measures, a file a measure, drawn from result rows alone. One that is not here shows no picture and no headline."""

from train.report.figures import (
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
from train.report.figures.base import Picture, Pictures, Shown

PICTURES: dict[str, Pictures] = {"collapse": collapse, "loss": loss, "passkey": passkey, "recall": recall, "state": state}
PICTURES |= {"remembrance": remembrance, "repeats": repeats, "task": task, "unexplored": unexplored}
PICTURES |= {"attention_entropy": attention_entropy, "induction_heads": induction_heads, "retrieval_heads": retrieval_heads, "rope": rope}

__all__ = ["PICTURES", "Picture", "Pictures", "Shown"]
