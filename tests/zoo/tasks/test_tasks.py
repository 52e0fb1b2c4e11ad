"""The tasks: pure functions of (config, seed, index), solvable from their inputs alone, and pinned."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from blocks.errors import ConfigError
from zoo.tasks import HELD_OUT, IGNORE, TASKS, Batch, accuracy, exact, mqar, passkey, passkey_tokens
from zoo.tasks.shared.base import distinct, uniforms, weighted

MQAR = mqar.Config(vocab_size=64, length=96, pairs=8)
CONFIGS = {
    "mqar": MQAR,
    "mqar-zero": replace(MQAR, filler="zero"),
    "mqar-noise": replace(MQAR, filler="noise", power=1.0),
    "mqar-overwrite": replace(MQAR, filler="noise", overwrite=1.0),
    "mqar-half": replace(MQAR, filler="zero", overwrite=0.5),
    "passkey": passkey.Config(length=512),
    "passkey-deep": passkey.Config(length=300, digits=3, depth=0.25),
    "passkey_tokens": passkey_tokens.Config(vocab_size=64, length=40),
    "passkey_tokens-zero": passkey_tokens.Config(vocab_size=1024, length=40, depth=0.5, filler="zero"),
}
# SHA-256 over the inputs and labels (little-endian int64) of examples 0..7 under seed 3
GOLDEN: dict[str, str] = {
    "mqar": "2df3b1a14e59b4e5649ca113e4f35e7b73849dac608edf1c25527be8f9870a5b",
    "mqar-zero": "531b6fc76c50e16c55b2e81f67d673e6dd5752eaf01a1a70613331432bc9a8c4",
    "mqar-noise": "908743b4c8ed0827e01688d6f29736cd87905bd5b09d8ff3364e8e97dc110c71",
    "mqar-overwrite": "5ae425bbfbe8683e3d97fd72e1f0879f87079a7717bdeefe5e752383e874d84b",
    "mqar-half": "fd7b40664dc31382a451a77037a7a6fbf7a46116bf6a5a33c992cab9c2e78404",
    "passkey": "3cd51b39b55e584fa66b9676567f38b0a9381b97652bd86a0e779d875f39d8b9",
    "passkey-deep": "4f7aee2f8c1ed5dc726e94eff84cc13e60b5428d2e2294b2351284dcf54aefbe",
    "passkey_tokens": "3170c205b738c29de7c714a6de96de4afdc62a05e3fe69ce0e6ec0f983e393bf",
    "passkey_tokens-zero": "b5ab82ae49ce4b57aed0a31d2e9d8f90959f80383730e793f0ca4211be8d19f8",
}


def generate(name: str, seed: int, start: int, count: int) -> Batch:
    return TASKS[name.partition("-")[0]].generate(CONFIGS[name], seed, start, count)


def solve_mqar(inputs: np.ndarray, config: mqar.Config, query: int) -> int:
    """The value written last for the key at `query`, read from the pairs at the head of the row."""
    head = 2 * (config.pairs + config.overwritten)
    return {int(k): int(v) for k, v in inputs[:head].reshape(-1, 2)}[int(inputs[query])]


def oracle(name: str, batch: Batch) -> torch.Tensor:
    """Predictions (b, t) from the inputs alone, 0 where nothing is asked."""
    out = torch.zeros_like(batch.labels)
    for row, inputs in enumerate(batch.inputs.numpy()):
        for t in (batch.labels[row] != IGNORE).nonzero()[:, 0].tolist():
            out[row, t] = _answer(name, inputs, t)
    return out


def _answer(name: str, inputs: np.ndarray, t: int) -> int:
    if name.startswith("mqar"):
        return solve_mqar(inputs, CONFIGS[name], t)
    if name.startswith("passkey_tokens"):
        return int(inputs[int(np.nonzero(inputs[:t] == inputs[t])[0][-1]) + 1])
    numbers = re.findall(rb"The pass key is (\d+)\. Remember", bytes(inputs[: t + 1].astype(np.uint8)))
    given = len(bytes(inputs[: t + 1].astype(np.uint8)).rpartition(b"The pass key is ")[2])
    return numbers[0][given]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_brute_force_oracle_answers_everything(name: str) -> None:
    batch = generate(name, 0, 0, 64)
    assert batch.inputs.dtype == batch.labels.dtype == torch.int64
    assert batch.inputs.shape == batch.labels.shape == (64, CONFIGS[name].length)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() < CONFIGS[name].vocab_size
    assert exact(oracle(name, batch), batch.labels).all()
    assert (accuracy(oracle(name, batch), batch.labels) == 1).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_answers_of_other_queries_score_at_chance(name: str) -> None:
    """mqar: the row's own answers shuffled. passkeys: another row's answer."""
    batch = generate(name, 1, 0, 400)
    labels = batch.labels[batch.labels != IGNORE].reshape(400, -1)
    if name.startswith("mqar"):
        order = np.argsort(uniforms(("shuffle",), 0, 400, labels.shape[1]))
        score = (labels.gather(1, torch.from_numpy(order)) == labels).double().mean()
    else:
        score = (labels.roll(1, 0) == labels).all(1).double().mean()
    chance = TASKS[name.partition("-")[0]].chance(CONFIGS[name])
    n = labels.numel() if name.startswith("mqar") else 400
    assert abs(score - chance) < 4 * (chance * (1 - chance) / n) ** 0.5 + 1 / n


@pytest.mark.parametrize("name", CONFIGS)
def test_any_range_is_drawn_without_those_before_it(name: str) -> None:
    whole, part = generate(name, 5, 0, 12), generate(name, 5, 7, 3)
    assert torch.equal(part.inputs, whole.inputs[7:10])
    assert torch.equal(part.labels, whole.labels[7:10])
    assert all(np.array_equal(part.info[key], whole.info[key][7:10]) for key in whole.info)


@pytest.mark.parametrize("name", CONFIGS)
def test_examples_differ_between_indices_seeds_and_the_held_out_range(name: str) -> None:
    blocks = [generate(name, seed, start, 50).inputs for seed, start in ((0, 0), (1, 0), (0, HELD_OUT), (0, 2 * HELD_OUT))]
    for i, block in enumerate(blocks):
        assert len(block.unique(dim=0)) > 40
        assert all((block == other).all(1).sum() <= 2 for other in blocks[:i])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_examples_are_pinned(name: str) -> None:
    batch = generate(name, 3, 0, 8)
    digest = hashlib.sha256()
    for tensor in (batch.inputs, batch.labels):
        digest.update(tensor.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == GOLDEN[name]


@pytest.mark.parametrize("name", [n for n in CONFIGS if n.startswith("mqar")])
def test_mqar_has_the_published_layout(name: str) -> None:
    config, batch = CONFIGS[name], generate(name, 0, 0, 100)
    half, head = config.vocab_size // 2, 2 * (config.pairs + config.overwritten)
    pairs = batch.inputs[:, :head].reshape(100, -1, 2)
    assert (pairs[..., 0] >= 1).all()
    assert (pairs[..., 0] < half).all()
    assert (pairs[..., 1] >= half).all()
    asked = batch.labels != IGNORE
    assert (asked.sum(1) == config.pairs).all()
    assert not asked[:, :head].any()
    assert not asked[:, 1::2].any()
    for row in range(100):
        keys = pairs[row, : config.pairs, 0].tolist()
        assert len(set(keys)) == config.pairs
        assert len(set(pairs[row, :, 1].tolist())) == config.pairs + config.overwritten  # a new value is new to the whole example
        assert sorted(batch.inputs[row][asked[row]].tolist()) == sorted(keys)
        if config.filler == "noise":
            rest = batch.inputs[row, head:][~asked[row, head:]]
            assert not set(rest.tolist()) & set(keys)
        if config.filler == "zero":
            assert (batch.inputs[row, head:][~asked[row, head:]] == 0).all()


def test_mqar_distance_leads_back_to_the_key_and_stale_values_are_the_overwritten_ones() -> None:
    config, batch = CONFIGS["mqar-half"], generate("mqar-half", 0, 0, 50)
    assert config.overwritten == 4
    for row in range(50):
        stale = 0
        for t in (batch.labels[row] != IGNORE).nonzero()[:, 0].tolist():
            written = t - int(batch.info["distance"][row, t])
            assert batch.inputs[row, written] == batch.inputs[row, t]
            assert batch.inputs[row, written + 1] == batch.labels[row, t]
            if batch.info["stale"][row, t] != IGNORE:
                stale += 1
                first = int((batch.inputs[row, :16:2] == batch.inputs[row, t]).nonzero()[0, 0])
                assert batch.info["stale"][row, t] == batch.inputs[row, 2 * first + 1]
                assert written >= 16
        assert stale == 4


def test_mqar_random_filler_covers_the_whole_vocabulary_and_noise_all_but_the_keys() -> None:
    for filler, missing in (("random", 0), ("noise", 8)):
        config = mqar.Config(vocab_size=32, length=4000, pairs=8, filler=filler)
        batch = mqar.generate(config, 0, 0, 1)
        rest = batch.inputs[0, 16:][batch.labels[0, 16:] == IGNORE]
        counts = rest.bincount(minlength=32).double()
        present = counts > 0
        assert (~present).sum() == missing
        assert ((counts[present] / counts[present].mean() - 1).abs() < 0.4).all()


def test_mqar_queries_follow_the_power_law() -> None:
    """49 % of the queries of 256/16 fall in the first 16 of 112 slots; uniform slots put a seventh there."""
    for power, low, high in ((None, 0.47, 0.51), (1.0, 0.13, 0.16)):
        config = mqar.Config(vocab_size=512, length=256, pairs=16, power=power, filler="zero")
        slots = (mqar.generate(config, 0, 0, 1000).labels[:, 32::2] != IGNORE).double()
        assert low < float(slots[:, :16].sum() / slots.sum()) < high
    assert mqar.Config(overwrite=0.5).slots == 64 // 2 - 4 - 2


def test_weighted_draws_have_the_law_of_successive_sampling() -> None:
    weights = np.array([1.0, 0.5, 0.25, 0.25])
    drawn = weighted(uniforms(("w",), 0, 40_000, 4), weights, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    p = weights / weights.sum()
    for i in range(4):
        for j in range(4):
            expected = 0 if i == j else p[i] * p[j] / (1 - p[i])
            assert abs(np.mean((drawn[:, 0] == i) & (drawn[:, 1] == j)) - expected) < 0.01
    assert np.array_equal(np.sort(weighted(uniforms(("w",), 0, 5, 4), weights, 4), axis=1), np.tile(np.arange(4), (5, 1)))


def test_distinct_draws_are_uniform_permutations() -> None:
    drawn = distinct(uniforms(("d",), 0, 60_000, 3), 3)
    codes, counts = np.unique(drawn @ np.array([9, 3, 1]), return_counts=True)
    assert len(codes) == 6
    assert (abs(counts / 10_000 - 1) < 0.05).all()


def test_passkey_places_the_needle_at_the_depth() -> None:
    for depth in (0.0, 0.3, 1.0):
        batch = passkey.generate(passkey.Config(length=600, depth=depth), 0, 0, 4)
        for row in range(4):
            text = bytes(batch.inputs[row].numpy().astype(np.uint8))
            before = text.index(b"\nThe pass key") - len(passkey.HEADER)
            room = passkey.Config(length=600).room
            assert abs(before / room - depth) <= 0.5 / room
            assert batch.info["depth"][row] == pytest.approx(before / room)
            first = 600 - 5 - batch.info["distance"][row]
            assert int(text[first : first + 5]) == batch.info["key"][row]
    spread = passkey.generate(passkey.Config(length=600), 0, 0, 500).info["depth"]
    assert np.abs(np.histogram(spread, bins=5, range=(0, 1))[0] / 100 - 1).max() < 0.4


def test_passkey_labels_are_the_answers_digits_and_nothing_else() -> None:
    batch = generate("passkey", 0, 0, 8)
    for row in range(8):
        scored = batch.labels[row][batch.labels[row] != IGNORE]
        assert bytes(scored.tolist()).decode() == f"{batch.info['key'][row]:05d}"
        assert (batch.labels[row, :-5] == IGNORE).all()


def test_passkey_takes_its_haystack_from_a_document() -> None:
    document = bytes(range(32, 127)) * 20
    config = passkey.Config(length=400, haystack="text")
    batch = passkey.generate(config, 0, 0, 6, text=document)
    assert exact(oracle("passkey", batch), batch.labels).all()
    for row in batch.inputs.numpy().astype(np.uint8):
        head = bytes(row)[len(passkey.HEADER) :].partition(b"\nThe pass key is ")[0]
        assert head in document
    for bad in (b"short", b"the Pass Key is here " * 100):
        with pytest.raises(ConfigError):
            passkey.generate(config, 0, 0, 1, text=bad)
    with pytest.raises(ConfigError, match=r"needs a document"):
        passkey.generate(config, 0, 0, 1)
    with pytest.raises(ConfigError, match=r"uses no document"):
        passkey.generate(passkey.Config(), 0, 0, 1, text=document)


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: mqar.Config(length=65), "length"),
        (lambda: mqar.Config(length=64, pairs=17), "length"),
        (lambda: mqar.Config(length=64, pairs=16, overwrite=0.5), "length"),
        (lambda: mqar.Config(vocab_size=16, length=64, pairs=8), "pairs"),
        (lambda: mqar.Config(vocab_size=16, length=64, pairs=6, overwrite=1.0), "pairs"),
        (lambda: mqar.Config(filler="nois"), "filler"),
        (lambda: mqar.Config(overwrite=2.0), "overwrite"),
        (lambda: mqar.Config(overwrite=0.01), "overwrite"),
        (lambda: mqar.Config(power=0.0), "power"),
        (lambda: mqar.Config(pairs=0), "pairs"),
        (lambda: mqar.Config(vocab_size=2), "vocab_size"),
        (lambda: passkey.Config(length=100), "length"),
        (lambda: passkey.Config(digits=0), "digits"),
        (lambda: passkey.Config(depth=1.5), "depth"),
        (lambda: passkey.Config(haystack="grass"), "haystack"),
        (lambda: passkey_tokens.Config(length=5), "length"),
        (lambda: passkey_tokens.Config(length=2), "length"),
        (lambda: passkey_tokens.Config(filler="random"), "filler"),
        (lambda: passkey_tokens.Config(depth=-0.1), "depth"),
        (lambda: mqar.generate(MQAR, -1, 0, 1), "seed"),
        (lambda: mqar.generate(MQAR, 0, -1, 1), "start"),
        (lambda: mqar.generate(MQAR, 0, 0, 0), "count"),
    ],
)
def test_impossible_sizes_name_their_place(make: object, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.place == place


def test_the_shortest_sizes_work() -> None:
    full = mqar.Config(vocab_size=40, length=32, pairs=8)
    assert (mqar.generate(full, 0, 0, 4).labels != IGNORE).sum() == 32
    shortest = passkey.Config(length=500).length - passkey.Config(length=500).room
    batch = passkey.generate(passkey.Config(length=shortest), 0, 0, 2)
    assert exact(oracle("passkey", batch), batch.labels).all()
    assert passkey_tokens.generate(passkey_tokens.Config(length=4), 0, 0, 2).labels[:, 2].min() >= 4096


def test_conditions_vary_length_and_pairs_only() -> None:
    made = mqar.conditions(mqar.Config(filler="zero"), mqar.TEST_SIZES)
    assert [(c.length, c.pairs) for c in made] == list(mqar.TEST_SIZES)
    assert {c.filler for c in made} == {"zero"}
    for sizes in (mqar.SMALL_TRAIN_SIZES, mqar.SMALL_TEST_SIZES):
        assert len(mqar.conditions(mqar.Config(vocab_size=1024), sizes)) == len(sizes)


def test_every_task_has_a_summary() -> None:
    assert all(task.SUMMARY and "\n" not in task.SUMMARY for task in TASKS.values())
