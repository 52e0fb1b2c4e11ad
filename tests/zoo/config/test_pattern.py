"""The pattern language: what it expands to, against a generator of patterns that knows the answer."""

from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config.pattern import expand

NAMES = st.sampled_from(["A", "M", "W2", "mix_er", "F"])
LAYER = st.lists(NAMES, min_size=1, max_size=3, unique=True).map(lambda names: ("|".join(names), [tuple(names)]))


def repeat(item: tuple[str, list[tuple[str, ...]]], times: int) -> tuple[str, list[tuple[str, ...]]]:
    return f"{times}*{item[0]}", item[1] * times


def group(items: list[tuple[str, list[tuple[str, ...]]]]) -> tuple[str, list[tuple[str, ...]]]:
    return f"({' '.join(text for text, _ in items)})", [layer for _, layers in items for layer in layers]


PATTERN = st.recursive(
    LAYER,
    lambda inner: st.one_of(
        st.tuples(st.lists(inner, min_size=1, max_size=3).map(group), st.integers(1, 3)).map(lambda pair: repeat(*pair)),
        st.lists(inner, min_size=1, max_size=3).map(group),
    ),
    max_leaves=6,
)


@given(PATTERN)
@settings(max_examples=200, deadline=None)
def test_expands_to_what_it_was_made_of(pattern: tuple[str, list[tuple[str, ...]]]) -> None:
    text, layers = pattern
    assert expand(text) == layers
    assert expand(f"  {text.replace('*', ' * ').replace('|', ' | ')}  ") == layers


def test_the_example_of_the_manual() -> None:
    layers = expand("2*(3*(M F) A F) M|W F")
    assert len(layers) == 18
    assert layers[:8] == [("M",), ("F",)] * 3 + [("A",), ("F",)]
    assert layers[-2:] == [("M", "W"), ("F",)]
