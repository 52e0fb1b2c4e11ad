"""The command line itself: help with examples that parse, suggestions for what is misspelt, names for paths, an early start and end."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train.cli import configs
from train.cli.command_line import parse, run, run_process, version
from train.cli.options import COMMANDS

ROOT = Path(__file__).parents[3]
QUICKSTART = str(ROOT / "configs" / "experiments" / "quickstart.yaml")
MAMBA2 = str(ROOT / "configs" / "models" / "mamba2.yaml")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert COMMANDS[name].examples
    for example in COMMANDS[name].examples:
        assert f"  {example}\n" in shown
        zoo, command, *arguments = shlex.split(example)
        assert (zoo, command) == ("zoo", name)
        assert parse([command, *arguments]).command is COMMANDS[name].function


def test_the_configs_of_the_examples_are_there() -> None:
    named = [word for command in COMMANDS.values() for example in command.examples for word in example.split() if word.endswith(".yaml")]
    assert named
    assert all((ROOT / path).is_file() for path in named)
    assert configs.find_model("mamba2") == Path(MAMBA2)


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["--help"])
    assert capsys.readouterr().out == alone
    assert all(f"    {name} " in alone for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"zoo {version()}\n"
    assert f'version = "{version()}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["shw", "x"], "did you mean show?"),
        (["list", "blokcs"], "did you mean blocks?"),
        (["list", "keyz"], "did you mean keys?"),
        (["list", "tasks", "mqar", "--json"], "--json"),
        (["measure", "somewhere", "colapse"], "did you mean collapse?"),
        (["measure", "published/llama3_8b"], "zoo show published/llama3_8b"),
        (["measure", MAMBA2], "without weights"),
        (["generate", "mamba2", "--prompt", "a"], "without weights"),
        (["export", "mamba2", "--out", "nowhere"], "without weights"),
        (["show", "mamba22"], "did you mean mamba2?"),
        (["show", QUICKSTART], f"zoo plan {QUICKSTART}"),
        (["show", "quickstart"], "zoo plan quickstart"),
        (["show", MAMBA2, "d_state=3"], "did you mean blocks.M.d_state?"),
        (["show", MAMBA2, "d_modle=32"], "did you mean d_model?"),
        (["show", MAMBA2, "learning_rate=1"], "ModelConfig has no such key. Keys:"),
        (["run", MAMBA2], f"zoo show {MAMBA2}"),
        (["plan", "samba"], "zoo show samba"),
        (["plan", "quickstrat"], "did you mean quickstart?"),
        (["plan", QUICKSTART, "learning_rate=1"], "did you mean parts.recall.train.lr or parts.text.train.lr?"),
        (["run", QUICKSTART, "parts.text.train.learning_rate=1"], "did you mean lr?"),
        (["plan", QUICKSTART, "match.axs=flops"], "did you mean axis?"),
    ],
    ids=lambda value: " ".join(value).replace(str(ROOT), "") if isinstance(value, list) else "",
)
def test_what_was_meant_is_suggested(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert expected in printed.err


def test_every_name_of_a_model_is_taken() -> None:
    for path in configs.model_paths():
        inside = path.relative_to(ROOT / "configs" / "models").with_suffix("")
        for name in (path, path.relative_to(ROOT), inside, path.stem):
            assert configs.find_model(str(name)).samefile(path)
    assert configs.find_experiment("quickstart") == Path(QUICKSTART)
    assert configs.find_experiment("claims/recall_capacity").stem == "recall_capacity"


def test_show_takes_a_name_and_a_file_of_ones_own_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("llama3_8b", "published/llama3_8b", "configs/models/published/llama3_8b.yaml"):
        assert run(["show", name, "--json"]) == 0
        assert '"params": 8030261248' in capsys.readouterr().out
    Path("llama3_8b").write_text(Path(MAMBA2).read_text())
    assert configs.find_model("llama3_8b") == Path("llama3_8b")


def test_help_and_lists_start_without_torch() -> None:
    """One process: each command would take a second and more with torch, and the user waits for a table of names."""
    program = """if True:
        import sys
        from contextlib import suppress
        from train.cli.command_line import run
        for arguments in ([], ["--help"], ["--version"], ["list", "--help"], ["list", "experiments"], ["list", "claims"], ["lits"]):
            with suppress(SystemExit):
                run(arguments)
            assert "torch" not in sys.modules, arguments"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def interrupted(before: str, argv: str = "['list', 'claims']") -> subprocess.CompletedProcess[str]:
    """`zoo`, sent SIGINT by itself at the first import of a module that `before` names."""
    program = f"""if True:
        import os, signal, sys
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == {before!r}:
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Finder())
        from train.cli import main
        main({argv})"""
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "argv", "sentence"),
    [
        ("blocks.errors", ["list", "claims"], "zoo: interrupted\n"),
        ("torch", ["show", "mamba2"], "zoo: interrupted\n"),
        ("train.claims.verdict", ["run", "quickstart"], "zoo: interrupted; the same command goes on from the last checkpoint\n"),
    ],
)
def test_an_interruption_while_it_starts_is_one_sentence(module: str, argv: list[str], sentence: str) -> None:
    done = interrupted(module, repr(argv))
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_pipe_that_is_closed_early_is_silent() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "train.cli", "list", "experiments"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_run_process_gives_the_codes_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_process([]) == 0
    assert run_process(["shw"]) == 2
    assert "show" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
