"""Pictures of the state and of what it remembers, from rows alone."""

from collections.abc import Iterable

import pandas as pd
import pytest
import torch

import zoo
from train.measure.results import frame, joined, record
from train.report.figures import pictures
from zoo.measures import MEASURES, collapse, remembrance, state, unexplored
from zoo.measures.shared.base import Row
from zoo.measures.shared.condition import Condition

LENGTH = 16
CONFIGS = {
    "collapse": collapse.Config(train_length=LENGTH, times=4, documents=2, windows=0),
    "state": state.Config(length=64, every=8, documents=2, horizons=(), train_length=LENGTH),
    "remembrance": remembrance.Config(train_length=LENGTH, times=(1.0, 2.0), documents=2),
    "unexplored": unexplored.Config(train_length=LENGTH, times=4, documents=4),
}


def table(measure: str, rows: dict[str, Iterable[Row]]) -> pd.DataFrame:
    records = [record("e", "p", model, 0, measure, row) for model, found in rows.items() for row in found]
    return frame(records + joined(records))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_is_drawn(name: str) -> None:
    data = [torch.randint(0, 20, (64,), generator=torch.Generator().manual_seed(i)) for i in range(4)]
    rows = {}
    for mixer in ("mamba1", "gated_delta"):
        model = zoo.build({"d_model": 8, "vocab_size": 20, "blocks": {"M": {"type": mixer}}, "pattern": "M"})
        rows[mixer] = MEASURES[name].run(model, CONFIGS[name], 0, data=data).rows
    found = pictures(name, "mine", table(name, rows), list(rows), LENGTH)
    assert len(found) == (2 if name == "state" else 1)
    for picture in found:
        assert picture.title.startswith("mine: ")
        assert all(model in picture.svg for model in rows)
        assert "tokens" in picture.svg


def test_exploding_channels_are_labelled() -> None:
    where, span = "layer=2;block=M;tensor=ssm;head=1", "train_length=16;length=64"
    rows = [
        Row(Condition.parse(f"{where};channel={c};token={t}"), "channel_rms", 1.0 + c * t, 1, 1, 2) for c in range(8) for t in (8, 16, 64)
    ]
    for c, growth, exploding in ((7, 230.0, 1.0), (6, 5.0, 0.0)):
        rows.append(Row(Condition.parse(f"{where};channel={c};{span}"), "growth", growth, growth, growth, 2))
        rows.append(Row(Condition.parse(f"{where};channel={c};{span}"), "exploding", exploding, exploding, exploding, 2))
    (picture,) = pictures("state", "mine", table("state", {"one": rows}), ["one"], LENGTH)
    assert "7: ×2.3e+02" in picture.svg
    assert "6: ×" not in picture.svg
    assert "one: layer 2, M ssm, head 1" in picture.svg


def test_an_attention_model_has_no_picture_of_its_state() -> None:
    rows = [Row(Condition.parse("layer=0;block=A;tensor=cache;token=8"), "bytes", 8.0, 8.0, 8.0, 2)]
    assert pictures("state", "mine", table("state", {"one": rows}), ["one"], LENGTH) == []
