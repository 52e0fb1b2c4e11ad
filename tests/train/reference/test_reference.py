"""Reference pages: they are what the source says, every key has words, every example is read by the zoo, and the lists need no torch."""

import ast
import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from blocks.catalogue import block_types, config_class
from blocks.errors import ConfigError
from train.config.experiment import load_experiment
from train.data.config import parse_data
from train.reference import catalogue, examples, instruments, sections, terminal, write
from train.reference.fields import Field, fields, fields_of
from train.reference.page import Code, Page, described, escaped, markdown
from train.reference.source import ROOT, Source, read
from zoo.config.model import load_model
from zoo.config.schema import parse, plain
from zoo.measures import MEASURES
from zoo.tasks import TASKS

GROUPS = [group for groups in sections.SECTIONS.values() for group in groups]
CONFIGS = [
    *(read(f"blocks.{name}") for name in catalogue.block_types()),
    *catalogue.task_sources().values(),
    *catalogue.measure_sources().values(),
]


def code(page: Page, language: str) -> str:
    return next(part.text for part in page.parts if isinstance(part, Code) and part.language == language)


def wordless(source: Source, own: list[Field]) -> list[str]:
    """The keys without words, those of mappings inside included."""
    inner = [name for f in own for s, node in f.nested for name in wordless(s, fields(s, node))]  # type: ignore[arg-type]
    return [*(f"{f.source.path.relative_to(ROOT)}: {f.name}" for f in own if not f.meaning), *inner]


def test_the_pages_are_what_the_source_says() -> None:
    assert write.stale() == [], "run: python -m train.reference"


@pytest.mark.parametrize("source", CONFIGS, ids=lambda source: source.module)
def test_every_key_of_an_instrument_has_words(source: Source) -> None:
    assert wordless(source, fields(source, source.find_class("Config"))) == [], "write a comment beside the field"


@pytest.mark.parametrize("name", catalogue.block_types())
def test_every_field_of_a_state_has_words(name: str) -> None:
    assert [field.name for field in fields_of(f"blocks.{name}", "State") if not field.words] == [], "write a comment beside the field"


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_key_of_a_section_has_words(group: sections.Group) -> None:
    source = read(group.module)
    assert wordless(source, fields(source, source.find_class(group.name))) == [], "write a comment beside the field"


def test_the_lists_are_what_the_classes_say() -> None:
    assert [row["type"] for row in catalogue.blocks()] == list(block_types())
    for row in catalogue.blocks():
        cls = config_class(row["type"])
        assert (row["kind"], row["causal"], row["paper"]) == (cls.kind, cls.causal, cls.paper)
        assert row["summary"] == sys.modules[cls.__module__].__doc__.strip().split("\n")[0]  # type: ignore[union-attr]
    assert catalogue.tasks() == [{"task": name, "summary": module.SUMMARY} for name, module in TASKS.items()]
    assert catalogue.measures() == [{"measure": name, "summary": module.SUMMARY} for name, module in MEASURES.items()]


@pytest.mark.parametrize("source", CONFIGS, ids=lambda source: source.module)
def test_the_keys_are_those_of_the_class(source: Source) -> None:
    """Names, order and defaults as the imported dataclass has them."""
    cls = importlib.import_module(source.module).Config
    own = fields(source, source.find_class("Config"))
    assert [f.name for f in own] == [f.name for f in dataclasses.fields(cls)]
    made = cls(**{f.name: examples.REQUIRED[f.name] for f in own if f.default is None})
    for field in own:
        if field.default is not None and not field.nested:
            assert plain(field.source.value(field.default)) == plain(getattr(made, field.name)), field.name
            assert isinstance(field.default, ast.BinOp) or yaml.safe_load(field.default_text) == plain(getattr(made, field.name)), (
                field.name
            )


@pytest.mark.parametrize("name", catalogue.block_types())
def test_the_example_of_a_block_builds(name: str) -> None:
    config = load_model(yaml.safe_load(code(instruments.block(name), "yaml")))
    assert [block.type for block in config.named.values()] == [name]


@pytest.mark.parametrize("name", TASKS)
def test_the_example_of_a_task_is_read(name: str) -> None:
    assert parse_data(yaml.safe_load(code(instruments.task(name), "yaml"))["data"]).task == name  # type: ignore[union-attr]


@pytest.mark.parametrize("name", MEASURES)
def test_the_example_of_a_measure_is_read(name: str) -> None:
    ((label, values),) = yaml.safe_load(code(instruments.measure(name), "yaml"))["measures"].items()
    assert values.pop("measure", label) == name
    required = {f.name: examples.REQUIRED[f.name] for f in fields_of(MEASURES[name].__name__, "Config") if f.default is None}
    parse(MEASURES[name].Config, required | values)


@pytest.mark.parametrize("group", [group for group in GROUPS if group.example], ids=lambda group: group.name)
def test_the_example_of_a_section_is_read(group: sections.Group, tmp_path: Path) -> None:
    values = yaml.safe_load(group.example)
    if group.name == "ExperimentConfig":
        (tmp_path / "mine.yaml").write_text(group.example)
        load_experiment(tmp_path / "mine.yaml")
    elif group.name == "ModelConfig":
        load_model(values)
    else:
        parse(getattr(importlib.import_module(group.module), group.name), values)


def test_every_kind_of_effect_has_a_section() -> None:
    from train.claims.config import EFFECTS

    assert {cls.__name__ for cls in EFFECTS.values()} <= {group.name for group in GROUPS}


def test_a_list_starts_without_torch() -> None:
    lists = "c.blocks(), c.tasks(), c.measures(), c.experiments(), c.claims(), t.page('measures', 'collapse'), t.page('keys', 'train')"
    imports = "import sys; from train.reference import catalogue as c, terminal as t"
    source = f"{imports}; {lists}; print('torch' in sys.modules, 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=ROOT).stdout == "False False\n"


def test_a_page_in_the_terminal() -> None:
    text = terminal.page("keys", "train")
    assert "  lr: float = 0.003\n      the highest learning rate" in text
    assert terminal.page("keys", "budget") == terminal.page("keys", "experiment")
    assert terminal.page("blocks", "mlp").startswith("mlp\n\n")
    assert "pattern:" in terminal.page("models", "mamba2")


@pytest.mark.parametrize(
    ("what", "name", "near"), [("measures", "colapse", "collapse"), ("blocks", "gated_dleta", "gated_delta"), ("block", "gqa", "blocks")]
)
def test_a_wrong_name_suggests_the_nearest(what: str, name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        terminal.page(what, name)


def test_comments_go_on_and_bases_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "from dataclasses import dataclass",
        "@dataclass",
        "class Base:",
        "    first: int  # one",
        "@dataclass",
        "class Config(Base):",
        "    # above",
        "    second: float | None = None",
        "    third: tuple[int, ...] = (1, 2)  # a |",
        "    # b",
        "    fourth: str = (",
        '        "x"  # inside',
        "    )",
        "    fifth: bool = True",
    ]
    (tmp_path / "some.py").write_text("\n".join(lines))
    monkeypatch.setattr("train.reference.source.ROOT", tmp_path)
    source = Source("some")
    found = {f.name: (f.words, f.type, f.default_text) for f in fields(source, source.find_class("Config"))}
    assert found == {
        "first": ("one", "int", "required"),
        "second": ("above", "float or null", "null"),
        "third": ("a | b", "list of int", "[1, 2]"),
        "fourth": ("inside", "str", "x"),
        "fifth": ("", "bool", "true"),
    }


def test_words_are_no_markup() -> None:
    assert escaped("d_model * x_ [a](b) <c> `d_`") == r"d_model \* x\_ \[a\](b) \<c> `d_`"
    assert markdown(Page("t", tuple(described("One.\n\n    y = x\n")))) == "# t\n\nOne.\n\n```text\ny = x\n```\n"
