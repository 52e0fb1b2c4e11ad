"""The pages of blocks, tasks and measures."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import MappingProxyType

from train.reference import examples
from train.reference.catalogue import measure_sources, task_sources
from train.reference.fields import Field, class_value, fields, is_dataclass
from train.reference.page import Code, Heading, Page, Part, Prose, Rows, described, keys
from train.reference.source import Defined, Source, read

COST = "Of one sequence of so many tokens at a width of d_model: exact integers, a multiply-add is 2 FLOPs."
KEYS = Heading("Keys")
NOWHERE: Mapping[str, str] = MappingProxyType({})
LENGTHS = (1024, 4096)  # tokens of the example's ledger


def block(name: str) -> Page:
    """The page of a block: what it is, its keys, its state, its cost, an example with the ledger's numbers."""
    source = read(f"blocks.{name}")
    config = source.find_class("Config")
    own = fields(source, config)
    kind, causal = class_value(source, config, "kind"), class_value(source, config, "causal")
    sort = f"A {'channel' if kind == 'channel' else 'time'} mixer{'' if causal else ', not causal'}."
    about = [Prose(f"{sort} {class_value(source, config, 'paper')}".strip())]
    parts = [*described(source.docstring), *about, KEYS, *keyed(own), *_inherited(source, own), *_state(source), *_cost(source, config)]
    return Page(name, (*parts, *_block_example(name), Prose(f"Source: blocks/{name}.py")))


def task(name: str) -> Page:
    """The page of a task: what it is, its keys, what it returns, an example."""
    source = task_sources()[name]
    own = fields(source, source.find_class("Config"))
    more = [*_function(source, "chance", "Chance"), *_function(source, "generate", "What generate returns")]
    example: list[Part] = [
        Heading("Example"),
        Prose("As the data of a part of an experiment:"),
        Code(examples.task_example(name, own), "yaml"),
    ]
    return Page(name, (*described(source.docstring), KEYS, *keyed(own), *_inherited(source, own), *more, *example, _where(source)))


def measure(name: str) -> Page:
    """The page of a measure: what it says, its conditions and metrics, its keys, an example."""
    source = measure_sources()[name]
    own = fields(source, source.find_class("Config"))
    example: list[Part] = [Heading("Example"), Prose("In a part of an experiment:"), Code(examples.measure_example(name, own), "yaml")]
    command = Code(f"zoo measure RUN {name}" + "".join(f" {f.name}={f.default_text}" for f in own[:1] if f.default is not None), "sh")
    ask: list[Part] = [Prose("Of a run, a checkpoint or an imported model:"), command]
    return Page(name, (*described(source.docstring), KEYS, *keyed(own), *_inherited(source, own), *example, *ask, _where(source)))


def keyed(own: list[Field], elsewhere: Mapping[str, str] = NOWHERE) -> list[Part]:
    """A table of keys, and one of each mapping among them; `elsewhere`: class -> where its keys are described."""
    parts: list[Part] = [keys(own) if own else Prose("None.")]
    for field in own:
        for source, node in field.nested:
            assert isinstance(node, ast.ClassDef)
            if node.name in elsewhere:
                parts += [Prose(f"Keys of {field.name}: {elsewhere[node.name]}.")]
            else:
                inner = keyed(fields(source, node), elsewhere)
                parts += [Heading(f"Keys of {field.name}"), *described(ast.get_docstring(node) or ""), *inner]
    return parts


def _inherited(source: Source, own: list[Field]) -> list[Part]:
    """What the modules say whose keys this one has too."""
    others = {field.source.module: field.source for field in own if field.source is not source}
    parts: list[Part] = []
    for other in others.values():
        names = ", ".join(field.name for field in own if field.source is other)
        parts += [Heading(f"About {names}"), *described(other.docstring)]
    return parts


def _state(source: Source) -> list[Part]:
    heading: list[Part] = [Heading("State"), Prose("What it carries from one piece of a text to the next.")]
    return [*heading, *_tuple(source, source.find_class("State"))]


def _tuple(source: Source, node: ast.ClassDef) -> list[Part]:
    """The fields of a NamedTuple, then those of the NamedTuples in it."""
    own = fields(source, node)
    parts = described(ast.get_docstring(node) or "")
    parts += [keys(own, bare=True)] if own else []
    for defined in {name: d for field in own for name, d in _tuples(field).items()}.values():
        assert isinstance(defined.node, ast.ClassDef)
        parts += [Prose(f"{defined.node.name}:"), *_tuple(defined.source, defined.node)]
    return parts


def _tuples(field: Field) -> dict[str, Defined]:
    """The NamedTuples that a field holds, by name."""
    names = {ast.unparse(node) for node in ast.walk(field.annotation) if isinstance(node, ast.Name | ast.Attribute)}
    found = {name: field.source.find(name) for name in sorted(names)}
    return {name: d for name, d in found.items() if d is not None and isinstance(d.node, ast.ClassDef) and not is_dataclass(d.node)}


def _cost(source: Source, config: ast.ClassDef) -> list[Part]:
    method = next((n for n in config.body if isinstance(n, ast.FunctionDef) and n.name == "cost"), None)
    if method is None:
        return []
    lines = source.segment(method).split("\n")
    text = "\n".join([lines[0], *(line[4:] for line in lines[1:])])
    return [Heading("Cost"), Prose(COST), Code(text, "python")]


def _block_example(name: str) -> list[Part]:
    models = examples.models_with(name)
    if not models:
        return []
    shown = examples.simplest(models)
    values = examples.model_of(shown)
    used = ", ".join(str(model.path).removeprefix("configs/models/") for model in models)
    says = Prose(f"The block of {shown.path}{' at its tiny size' if 'tiny' in shown.values else ''}, alone:")
    return [Heading("Example"), says, Code(examples.model_text(values), "yaml"), _ledger(values), Prose(f"In configs/models: {used}.")]


def _ledger(values: dict[str, object]) -> Rows:
    """The ledger of the model's only sub-layer."""
    from zoo.config.model import load_model  # torch, which a list does without
    from zoo.ledger.ledger import ledger

    config, rows = load_model(values), []
    for length in LENGTHS:
        cost = next(row.cost for row in ledger(config, length).rows if row.index == 0)
        rows.append((f"{length:,}", *(f"{n:,}" for n in (cost.params, cost.flops, cost.executed_flops, cost.state_bytes))))
    return Rows(("tokens", "parameters", "FLOPs", "executed FLOPs", "state bytes"), tuple(rows))


def _function(source: Source, name: str, heading: str) -> list[Part]:
    node = source.definitions.get(name)
    text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
    return [Heading(heading), *described(text)] if text else []


def _where(source: Source) -> Prose:
    return Prose(f"Source: {source.module.replace('.', '/')}.py")
