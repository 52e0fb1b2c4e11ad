"""A condition is a mapping in Python and text in files; the one made from the other is the same."""

from typing import Any

import pytest

from zoo.measures.shared.condition import Condition


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({"length": 128, "depth": 0.5}, "length=128;depth=0.5"),
        ({"depth": 0.0, "margin": 0.1234567}, "depth=0;margin=0.123457"),
        ({"flops": 3_000_000_000, "rate": 1e-5}, "flops=3000000000;rate=1e-05"),
        ({"window": "document", "share": True}, "window=document;share=True"),
        ({"id": "007", "rule": "a=b", "sizes": (1, 2), "limit": float("inf")}, "id=007;rule=a=b;sizes=(1, 2);limit=inf"),
    ],
)
def test_there_and_back(values: dict[str, Any], text: str) -> None:
    condition = Condition(values)
    assert str(condition) == text
    assert Condition.parse(text) == condition
    assert hash(Condition.parse(text)) == hash(condition)
    assert str(Condition.parse(text)) == text


def test_values_are_numbers_or_text() -> None:
    condition = Condition.parse("length=128;depth=0.5;window=document;id=007")
    assert dict(condition) == {"length": 128, "depth": 0.5, "window": "document", "id": "007"}
    assert list(condition) == ["length", "depth", "window", "id"]
