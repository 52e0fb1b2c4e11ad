"""Wrong input: one message with place, value, rule and alternatives, exit code 2, no traceback."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from train.cli.command_line import run
from zoo.config.schema import merge

GOOD: dict[str, Any] = {
    "d_model": 32,
    "vocab_size": 64,
    "blocks": {
        "A": {"type": "gqa", "n_heads": 4, "n_kv_heads": 2, "rope": {"base": 10000}},
        "M": {"type": "mamba2", "d_state": 16, "head_dim": 16},
        "W": {"like": "A", "window": 8},
        "F": {"type": "swiglu"},
    },
    "pattern": "2*(M F) A F W|M F",
}
REMOVE = object()

# changes to GOOD -> what the message must say: its place first, then value, rule or alternatives
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"d_modle": 3}, ["d_modle:", "did you mean d_model?", "Keys: d_model, vocab_size"]),
    "missing width": ({"d_model": REMOVE}, ["d_model:", "is missing"]),
    "missing pattern": ({"pattern": REMOVE}, ["pattern:", "is missing"]),
    "width is text": ({"d_model": "wide"}, ["d_model = 'wide'", "a whole number"]),
    "width is a fraction": ({"d_model": 32.5}, ["d_model = 32.5", "a whole number"]),
    "width is true": ({"d_model": True}, ["d_model = True", "a whole number"]),
    "width is zero": ({"d_model": 0}, ["d_model = 0", "at least 1"]),
    "vocabulary of one": ({"vocab_size": 1}, ["vocab_size = 1", "at least 2"]),
    "dropout of one": ({"dropout": 1.0}, ["dropout = 1.0", "[0, 1)"]),
    "unknown norm": ({"norm": "batchnorm"}, ["norm = 'batchnorm'", "rmsnorm, rmsnorm_centred"]),
    "negative epsilon": ({"norm_eps": -1e-5}, ["norm_eps = -1e-05", "above 0"]),
    "unknown parallel": ({"parallel": "concat"}, ["parallel = 'concat'", "add, mean_norm"]),
    "softcap of zero": ({"logit_softcap": 0.0}, ["logit_softcap = 0.0", "above 0"]),
    "tie is a number": ({"tie_embeddings": 3}, ["tie_embeddings = 3", "true or false"]),
    "blocks is a list": ({"blocks": ["gqa"]}, ["blocks = ['gqa']", "must be"]),
    "no blocks": ({"blocks": None}, ["blocks:", "must be"]),
    "misspelt field": (
        {"blocks": {"M": {"d_sate": 3}}},
        ["blocks.M.d_sate:", "mamba2 has no such key", "did you mean d_state?", "head_dim"],
    ),
    "field of wrong type": ({"blocks": {"M": {"d_state": "big"}}}, ["blocks.M.d_state = 'big'", "a whole number"]),
    "list for a number": ({"blocks": {"M": {"d_state": [16]}}}, ["blocks.M.d_state = [16]", "a whole number"]),
    "null for a number": ({"blocks": {"M": {"d_state": None}}}, ["blocks.M.d_state:", "a whole number"]),
    "nested misspelling": ({"blocks": {"A": {"rope": {"bsae": 1}}}}, ["blocks.A.rope.bsae:", "did you mean base?"]),
    "nested is a number": ({"blocks": {"A": {"rope": 5}}}, ["blocks.A.rope = 5", "a mapping with the keys base, partial"]),
    "rope of nothing": ({"blocks": {"A": {"rope": {"partial": 0.0}}}}, ["blocks.A.rope.partial = 0.0", "(0, 1]"]),
    "unknown type": ({"blocks": {"M": {"type": "mamba3000"}}}, ["blocks.M.type = 'mamba3000'", "did you mean mamba", "gated_delta"]),
    "no type": ({"blocks": {"X": {"n_heads": 4}}, "pattern": "X 2*(M F) A F W"}, ["blocks.X:", "needs a type", "zoo list blocks"]),
    "block is text": ({"blocks": {"F": "swiglu"}}, ["blocks.F = 'swiglu'", "must be a mapping"]),
    "heads not dividing width": ({"blocks": {"A": {"n_heads": 5}}}, ["blocks.A.n_heads = 5", "divide"]),
    "kv heads not dividing heads": ({"blocks": {"A": {"n_kv_heads": 3}}}, ["blocks.A.n_kv_heads = 3", "divide"]),
    "head width not dividing": ({"blocks": {"M": {"head_dim": 24}}}, ["blocks.M.head_dim = 24", "divi"]),
    "window of zero": ({"blocks": {"W": {"window": 0}}}, ["blocks.W.window = 0", "at least 1"]),
    "like nobody": ({"blocks": {"W": {"like": "B"}}}, ["blocks.W.like = 'B'", "no such block", "Blocks: A, M, F"]),
    "like in a circle": ({"blocks": {"A": {"like": "W", "type": REMOVE}}}, ["blocks.", ".like:", "circle", "->"]),
    "like and type": ({"blocks": {"W": {"type": "gqa"}}}, ["blocks.W.type = 'gqa'", "not both"]),
    "share is a word": ({"blocks": {"A": {"share": "yes please"}}}, ["blocks.A.share = 'yes please'", "true or false"]),
    "unused block": ({"blocks": {"Z": {"type": "mlp"}}}, ["blocks.Z:", "used nowhere in the pattern"]),
    "unknown name in the pattern": ({"pattern": "2*(M F) A F W|M G"}, ["pattern = ", "no block 'G'", "Blocks: A, M, W, F"]),
    "open parenthesis": ({"pattern": "2*(M F A"}, ["column 3", "never closed"]),
    "closing nothing": ({"pattern": "M F) A"}, ["column 4", "closes nothing"]),
    "count without a star": ({"pattern": "2 M F A W"}, ["column 1", "2*X"]),
    "count of zero": ({"pattern": "0*M F A W"}, ["column 1", "at least 1"]),
    "huge count": ({"pattern": "9999999*(M F) A W"}, ["more than 10000"]),
    "bar without a name": ({"pattern": "M || F A W"}, ["column 4", "where a block's name should"]),
    "empty pattern": ({"pattern": "  "}, ["the pattern is empty"]),
    "foreign sign": ({"pattern": "M + F A W"}, ["column 3", "'+'"]),
    "pattern is a list": ({"pattern": ["M", "F"]}, ["pattern = ['M', 'F']", "text"]),
    "plugin not allowed": ({"blocks": {"F": {"type": "my_blocks.Mine"}}}, ["blocks.F.type = 'my_blocks.Mine'", "plugins: [my_blocks]"]),
    "plugin missing": (
        {"blocks": {"F": {"type": "no_such_blocks.Mine"}}, "plugins": ["no_such_blocks"]},
        ["blocks.F.type", "can't be imported"],
    ),
    "plugin without that class": ({"blocks": {"F": {"type": "json.Mine"}}, "plugins": ["json"]}, ["blocks.F.type", "has no Mine"]),
    "plugin is no block": ({"blocks": {"F": {"type": "json.JSONDecoder"}}, "plugins": ["json"]}, ["blocks.F.type", "is not a block"]),
    "unknown token plan": ({"tokens": {"prefixes": {"count": 2}}}, ["tokens.prefixes:", "did you mean prefix?"]),
    "token plan without its size": ({"tokens": {"prefix": {}}}, ["tokens.prefix.count:", "is missing"]),
    "no prefix tokens": ({"tokens": {"prefix": {"count": 0}}}, ["tokens.prefix.count = 0", "at least 1"]),
    "memory with others": ({"tokens": {"memory": {}, "landmark": {}}}, ["tokens.memory:", "no other token plan"]),
    "landmark block without landmarks": ({"blocks": {"F": {"type": "landmark"}}}, ["blocks.F.type = 'landmark'", "needs landmark tokens"]),
}


def changed(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    out = merge(base, {k: v for k, v in change.items() if v is not REMOVE and not isinstance(v, dict)})
    out |= {k: changed(base.get(k, {}), v) for k, v in change.items() if isinstance(v, dict)}
    return {k: v for k, v in out.items() if change.get(k) is not REMOVE}


def show(tmp_path: Path, text: str, *arguments: str) -> int:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    return run(["show", str(path), *arguments])


def test_the_good_one_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, yaml.safe_dump(GOOD, sort_keys=False)) == 0
    assert "total" in capsys.readouterr().out


@pytest.mark.parametrize("case", WRONG)
def test_one_message_and_exit_code_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, expected = WRONG[case]
    code = show(tmp_path, yaml.safe_dump(changed(GOOD, change), sort_keys=False))
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.err.startswith("zoo: ")
    for words in expected:
        assert words in printed.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d_model: [1, 2\n", "is not valid YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("d_model: ${nowhere}\n", "interpolation"),
        ("", "d_model: is missing"),
    ],
)
def test_files_that_are_no_model(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, text) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["d_model"], "key=value"),
        (["d_model=33"], "divide"),
        (["blocks.M.d_sate=3"], "did you mean d_state?"),
        (["--length", "0"], "--length = 0"),
        (["--length", "many"], "invalid int value"),
    ],
)
def test_overrides_and_flags(arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, yaml.safe_dump(GOOD, sort_keys=False), *arguments) == 2
    assert expected in capsys.readouterr().err


def test_missing_file_and_unknown_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["show", str(tmp_path / "no.yaml")], "no such file"),
        (["shwo", "x"], "command = 'shwo': there is no such"),
    ):
        assert run(arguments) == 2
        assert expected in capsys.readouterr().err


def test_wrong_input_as_a_user_sees_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.cli", "show", str(tmp_path / "no.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_loading_a_file_executes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    witness = tmp_path / "executed"
    text = f"d_model: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{witness}]]\n"
    assert show(tmp_path, text) == 2
    assert not witness.exists()
