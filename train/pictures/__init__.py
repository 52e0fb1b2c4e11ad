"""Pictures of the measures, a file a measure, drawn from result rows alone. One that is not here shows no picture and no headline."""

from train.pictures import collapse, loss, passkey, recall, state
from train.pictures.base import Picture, Pictures, Shown

PICTURES: dict[str, Pictures] = {"collapse": collapse, "loss": loss, "passkey": passkey, "recall": recall, "state": state}

__all__ = ["PICTURES", "Picture", "Pictures", "Shown"]
