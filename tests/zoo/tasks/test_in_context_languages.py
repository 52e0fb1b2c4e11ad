"""In-context languages: the labels are drawn; the laws they are drawn from can be learnt from the strings."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.zoo.tasks.contract import assert_chance, assert_counted, assert_parsed, assert_refused, assert_well_formed
from zoo.tasks import IGNORE, in_context_languages

Config = in_context_languages.Config
CONFIG = Config(length=200)
CONFIGS = {
    "default": CONFIG,
    "short-strings": Config(vocab_size=64, length=2000, string=(1, 3), nodes=(3, 5), degree=(1, 2)),
    "small": Config(vocab_size=5, length=100, letters=4, alphabet=(3, 4), nodes=(4, 4), degree=(2, 3), string=(5, 5)),
    "large": Config(vocab_size=128, length=64, letters=100, alphabet=(50, 100), nodes=(10, 30), degree=(2, 8)),
}


def prefixes(seen: list[int]) -> list[tuple[int, ...]]:
    """What was written of its string at each position, after the token there."""
    out: list[tuple[int, ...]] = []
    for token in seen:
        out.append((*out[-1], token) if token else ())
    return out


@pytest.mark.parametrize("name", CONFIGS)
def test_the_contract(name: str) -> None:
    assert_well_formed(in_context_languages.generate(CONFIGS[name], 0, 0, 8), CONFIGS[name], 8)
    assert_counted("in_context_languages", CONFIGS[name])
    assert_parsed("in_context_languages", CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_labels_are_the_next_symbols_and_nothing_stands_before_a_delimiter(name: str) -> None:
    batch = in_context_languages.generate(CONFIGS[name], 0, 0, 16)
    following = torch.where(batch.inputs[:, 1:] == 0, IGNORE, batch.inputs[:, 1:])
    assert torch.equal(batch.labels[:, :-1], following)
    assert (batch.inputs[:, 0] == 0).all()
    assert (batch.info["string"] == ((batch.inputs == 0).cumsum(1) - 1).numpy()).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_laws_are_those_of_the_strings(name: str) -> None:
    """Uniform over their legal symbols; every label is legal; the same start of a string has one law; few different laws."""
    config = CONFIGS[name]
    batch, laws = in_context_languages.generate(config, 0, 0, 8), in_context_languages.distributions(config, 0, 0, 8)
    asked = batch.labels != IGNORE
    assert laws.shape == (8, config.length, config.vocab_size)
    assert (laws[~asked] == 0).all()
    assert (laws[..., 0] == 0).all()
    torch.testing.assert_close(laws[asked].sum(-1), torch.ones(int(asked.sum())))
    choices = (laws > 0).sum(-1)
    assert torch.equal(choices, torch.from_numpy(batch.info["choices"]))
    torch.testing.assert_close(laws.max(-1).values[asked], 1 / choices[asked])
    assert (laws.gather(-1, batch.labels.clamp(min=0)[..., None])[..., 0][asked] > 0).all()
    for row in range(8):
        known: dict[tuple[int, ...], torch.Tensor] = {}
        for t, prefix in enumerate(prefixes(batch.inputs[row].tolist())):
            if asked[row, t]:
                assert torch.equal(known.setdefault(prefix, laws[row, t]), laws[row, t])
        assert len(laws[row][asked[row]].unique(dim=0)) <= batch.info["nodes"][row]


def test_a_solver_that_remembers_what_followed_knows_the_laws() -> None:
    """Strings of up to three symbols, hundreds of them: at the end of a row, what followed each start of a string is the law."""
    config = CONFIGS["short-strings"]
    batch, laws = in_context_languages.generate(config, 3, 0, 8), in_context_languages.distributions(config, 3, 0, 8)
    right = 0
    for row in range(8):
        followers: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for t, prefix in enumerate(prefixes(batch.inputs[row].tolist())):
            if batch.labels[row, t] == IGNORE:
                continue
            if t > 1500:
                assert followers[prefix] == set(laws[row, t].nonzero()[:, 0].tolist())
                right += 1
            followers[prefix].add(int(batch.labels[row, t]))
    assert right > 2000


def test_labels_follow_the_laws() -> None:
    """Of the legal symbols, the lowest is the label as often as the second or the third."""
    batch, laws = in_context_languages.generate(CONFIG, 0, 0, 400), in_context_languages.distributions(CONFIG, 0, 0, 400)
    asked = batch.labels != IGNORE
    labels, rows = batch.labels[asked], laws[asked]
    rank = ((rows > 0).cumsum(-1).gather(-1, labels[:, None]) - 1)[:, 0]
    for degree in (1, 2, 3):
        of_degree = rank[(rows > 0).sum(-1) == degree]
        shares = of_degree.bincount(minlength=degree) / len(of_degree)
        assert (abs(shares - 1 / degree) < 0.02).all()


def test_languages_have_the_sizes_asked_for() -> None:
    batch = in_context_languages.generate(replace(CONFIG, length=2000), 0, 0, 300)
    assert np.unique(batch.info["nodes"]).tolist() == list(range(4, 13))
    assert np.unique(batch.info["alphabet"]).tolist() == list(range(4, 19))
    assert np.unique(batch.info["choices"]).tolist() == [0, 1, 2, 3]
    for row, letters in zip(batch.inputs, batch.info["alphabet"], strict=True):
        assert len(row[row > 0].unique()) <= letters
        ends = np.flatnonzero(row.numpy() == 0)
        assert (np.diff(ends) - 1).min() >= 1
        assert (np.diff(ends) - 1).max() <= 50
    symbols = batch.inputs[batch.inputs > 0].bincount(minlength=19)[1:].double()
    assert abs(symbols / symbols.mean() - 1).max() < 0.5


def test_an_edge_never_stays_and_no_two_lead_to_the_same_state() -> None:
    language, walk = in_context_languages._drawn(CONFIG, 0, 0, 100)
    used = np.arange(3) < language.degree[:, :, None]
    for row in range(100):
        for state in range(language.nodes[row]):
            targets = language.targets[row, state][used[row, state]]
            symbols = language.symbols[row, state][used[row, state]]
            assert len(set(targets)) == len(targets) == len(set(symbols))
            assert state not in targets
            assert targets.max() < language.nodes[row]
    assert (walk.states.max(1) < language.nodes).all()


def test_other_answers_score_at_chance() -> None:
    assert in_context_languages.chance(CONFIG) == 1 / 18
    one_an_example = replace(CONFIG, length=2)
    assert_chance("in_context_languages", one_an_example, count=4000)


def test_long_texts_are_drawn_at_once() -> None:
    assert in_context_languages.generate(replace(CONFIG, length=1 << 17), 0, 0, 1).labels.shape == (1, 1 << 17)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"alphabet": (5, 4)}, "alphabet"),
        ({"nodes": (1, 4)}, "nodes"),
        ({"string": (0, 4)}, "string"),
        ({"letters": 17}, "letters"),
        ({"vocab_size": 18}, "vocab_size"),
        ({"degree": (1, 4)}, "degree"),
        ({"alphabet": (2, 18)}, "degree"),
        ({"length": 1}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
