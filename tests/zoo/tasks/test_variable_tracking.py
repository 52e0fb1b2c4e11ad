"""Variable tracking: solved by running the assignments."""

import re
from dataclasses import replace

import pytest

from tests.zoo.tasks.contract import assert_counted, assert_parsed, assert_refused, assert_solved
from tests.zoo.tasks.haystacks import answers, assert_copies, assert_document, assert_quick, assert_rate, picks
from zoo.tasks import variable_tracking

Config = variable_tracking.Config
CONFIGS = {
    "one": Config(vocab_size=64, length=60, size=2),
    "chains": Config(vocab_size=64, length=100, size=2, chains=3, hops=3, haystack="random"),
    "value": Config(vocab_size=64, length=100, size=2, chains=4, hops=2, ask="value", haystack="random"),
    "no-hops": Config(vocab_size=32, length=60, size=1, chains=5, hops=0),
    "text": Config(form="text", length=500, chains=2),
    "text-value": Config(form="text", length=500, chains=3, hops=2, ask="value", haystack="random"),
}


def held(seen: list[int], config: Config) -> dict[object, list[object]]:
    """The names that hold each value, in the order in which they were assigned."""
    if config.form == "text":
        assignments: list[tuple[object, object]] = re.findall(r"\nVAR (\w+) = (?:VAR )?(\w+)\n", bytes(seen).decode())
    else:
        n = config.size
        assignments = [
            (tuple(seen[i + 1 : i + 1 + n]), tuple(seen[i + 2 + n : i + 2 + 2 * n])) for i, token in enumerate(seen) if token == 0
        ]
    state: dict[object, object] = {}
    chains: dict[object, list[object]] = {}
    for name, source in assignments:
        state[name] = state.get(source, source)
        chains.setdefault(state[name], []).append(name)
    return chains


def listed(config: Config, seen: list[int], asked: object) -> list[object]:
    chains = held(seen, config)
    return chains[asked][::-1] if config.ask == "names" else [next(value for value, names in chains.items() if asked in names)]


def solver(seen: list[int], config: Config) -> int | None:
    if config.form == "text":
        text = bytes(seen).decode()
        asked = re.search(r"\nFind all .* value (\d+) in .* They are: (.*)$|\nWhat is .* variable (\w+) in .* It is (\d*)$", text)
        if not asked:
            return None
        answer = " ".join(str(part) for part in listed(config, seen, asked[1] or asked[3]))[len(asked[2] or asked[4] or "") :]
        return ord(answer[0]) if answer[:1].strip() else None
    mark = 1 if config.ask == "names" else 3
    if mark not in seen:
        return None
    after = seen[seen.index(mark) + 1 :]
    if len(after) < config.size:
        return None
    flat = [token for part in listed(config, seen, tuple(after[: config.size])) for token in part]  # type: ignore[attr-defined]
    return flat[len(after) - config.size] if len(after) - config.size < len(flat) else None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_names_that_hold_the_value_are_the_answer(name: str) -> None:
    assert_solved("variable_tracking", CONFIGS[name], solver, count=4)
    assert_counted("variable_tracking", CONFIGS[name])
    assert_parsed("variable_tracking", CONFIGS[name])
    assert_copies(variable_tracking.generate(CONFIGS[name], 0, 0, 32))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "one"])
def test_answers_of_any_chain_score_at_chance(name: str) -> None:
    config, count = CONFIGS[name], 600
    batch, hits = variable_tracking.generate(config, 1, 0, count), 0
    for row, answer, pick in zip(batch.inputs.tolist(), answers(batch), picks(count, config.chains), strict=True):
        chains = held(row, config)
        assert len(chains) == config.chains
        assert {len(names) for names in chains.values()} == {config.hops + 1}
        value, names = sorted(chains.items(), key=repr)[pick]
        guess = names[-1] if config.ask == "names" else value
        size = config.size if config.ask == "names" else config.value_size
        hits += (tuple(guess.encode()) if isinstance(guess, str) else guess) == tuple(answer[:size])
    assert_rate(hits, count, variable_tracking.chance(config))


@pytest.mark.parametrize("ask", variable_tracking.ASKS)
def test_of_a_single_chain_all_names_and_values_are_as_likely(ask: str) -> None:
    config = Config(vocab_size=32, length=40, size=1, hops=2, ask=ask)
    given = answers(variable_tracking.generate(config, 1, 0, 1500))
    assert_rate(sum(a[0] == b[0] for a, b in zip(given, given[1:] + given[:1], strict=True)), 1500, variable_tracking.chance(config))
    assert variable_tracking.chance(config) == 0.1


def test_hops_count_down_to_the_value() -> None:
    for name, config in CONFIGS.items():
        batch = variable_tracking.generate(config, 0, 0, 4)
        scored = batch.info["hops"][batch.labels.numpy() >= 0].reshape(4, -1)
        expected = [config.hops] * config.value_size
        if config.ask == "names":
            expected = [hop for hop in range(config.hops, -1, -1) for _ in range(config.size)]
        assert (scored == expected).all(), name


def test_documents_and_long_rows() -> None:
    assert_document("variable_tracking", Config(form="text", haystack="text", length=600), b"x\nVAR A = 1")
    long = Config(length=1 << 17, vocab_size=4096, size=2, chains=64, hops=16)
    assert_quick("variable_tracking", long, replace(long, vocab_size=64, size=4), Config(form="text", length=1 << 17, haystack="random"))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"form": "bytes"}, "form"),
        ({"haystack": "needles"}, "haystack"),
        ({"haystack": "text"}, "haystack"),
        ({"vocab_size": 15}, "vocab_size"),
        ({"ask": "all"}, "ask"),
        ({"chains": 0}, "chains"),
        ({"hops": -1}, "hops"),
        ({"size": 0}, "size"),
        ({"size": 1, "vocab_size": 20}, "size"),
        ({"length": 73}, "length"),
        ({"form": "text", "length": 300}, "length"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], place: str) -> None:
    assert_refused(lambda: Config(**changes), place)
    assert Config(length=74).slots == 5
