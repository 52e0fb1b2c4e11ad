"""The fields of a dataclass or NamedTuple with their types, defaults and the comments beside them, bases included."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import Any

from train.reference.source import Defined, Source, read


@dataclass(frozen=True)
class Field:
    """One key that a user may write."""

    name: str
    annotation: ast.expr
    default: ast.expr | None  # None: required
    words: str  # the comment beside it; empty: none
    source: Source  # where it is written

    @property
    def type(self) -> str:
        """The type as YAML has it: int, float or null, list of str, mapping."""
        return _type(self.annotation)

    @property
    def default_text(self) -> str:
        """The default as YAML has it; `required` where there is none."""
        return "required" if self.default is None else _default(self.default, self.source)

    @property
    def meaning(self) -> str:
        """Its words as a user of YAML reads them, where Python's None is null; without any, what the dataclass that it holds says."""
        words = self.words or next((ast.get_docstring(d.node) or "" for d in self.nested), "").split("\n")[0]  # type: ignore[arg-type]
        return re.sub(r"\bNone\b", "null", words)

    @property
    def nested(self) -> list[Defined]:
        """The dataclasses that its value holds."""
        found = []
        for node in ast.walk(self.annotation):
            if isinstance(node, ast.Name | ast.Attribute):
                defined = self.source.find(ast.unparse(node))
                if defined is not None and isinstance(defined.node, ast.ClassDef) and is_dataclass(defined.node):
                    found.append(defined)
        return found


def fields(source: Source, node: ast.ClassDef) -> list[Field]:
    """All fields of a class in the order of the dataclass: those of its bases first. Class variables are none."""
    table: dict[str, Field] = {}
    for base in reversed(bases(source, node)):
        table |= {f.name: f for f in fields(base.source, base.node)}  # type: ignore[arg-type]
    for field in _own(source, node):
        inherited = table.get(field.name)
        table[field.name] = field if field.words or inherited is None else _with_words(field, inherited.words)
    return list(table.values())


def fields_of(module: str, name: str) -> list[Field]:
    """The fields of a class by module and name. Raises KeyError."""
    source = read(module)
    return fields(source, source.find_class(name))


def bases(source: Source, node: ast.ClassDef) -> list[Defined]:
    """The bases that are classes of this project."""
    found = (source.find(ast.unparse(base)) for base in node.bases)
    return [base for base in found if base is not None and isinstance(base.node, ast.ClassDef)]


def class_value(source: Source, node: ast.ClassDef, name: str) -> Any:
    """The value of a class variable, its own or of the first base that has one. Raises KeyError."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name and statement.value is not None:
            return source.value(statement.value)
    for base in bases(source, node):
        try:
            return class_value(base.source, base.node, name)  # type: ignore[arg-type]
        except KeyError:
            continue
    raise KeyError(f"{source.module}.{node.name} has no {name}")


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether a class is decorated as one."""
    return any(ast.unparse(decorator).split("(")[0].endswith("dataclass") for decorator in node.decorator_list)


def _own(source: Source, node: ast.ClassDef) -> list[Field]:
    made: list[Field] = []
    before: ast.AnnAssign | None = None
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if not ast.unparse(statement.annotation).startswith("ClassVar"):
                words = _words(source, statement, before)
                made.append(Field(statement.target.id, statement.annotation, statement.value, words, source))
            before = statement
    return made


def _words(source: Source, node: ast.AnnAssign, before: ast.AnnAssign | None) -> str:
    """The comments on a field's own lines and those that go on below; without any, those above, unless they go on from the field before."""
    inside = _beside(source, node)
    if inside:
        return " ".join([*inside, *_alone(source, (node.end_lineno or node.lineno) + 1, 1)])
    if before is not None and _beside(source, before):
        return ""
    return " ".join(reversed(_alone(source, node.lineno - 1, -1)))


def _beside(source: Source, node: ast.AnnAssign) -> list[str]:
    return [source.comments[i] for i in range(node.lineno, (node.end_lineno or node.lineno) + 1) if i in source.comments]


def _alone(source: Source, line: int, step: int) -> list[str]:
    """The comments that have lines to themselves, from `line` on."""
    found = []
    while line in source.comments and source.lines[line - 1].lstrip().startswith("#"):
        found.append(source.comments[line])
        line += step
    return found


def _with_words(field: Field, words: str) -> Field:
    return Field(field.name, field.annotation, field.default, words, field.source)


def _type(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=str(text)):
            return _type(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, right=right):
            return f"{_type(left)} or {_type(right)}"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=value)])) if value is ...:
            return f"list of {_type(item)}"
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=items)):
            return f"[{', '.join(map(_type, items))}]"
        case ast.Subscript(value=ast.Name(id="dict" | "Mapping")):
            return "mapping"
        case ast.Name(id="Any"):
            return "any"
        case ast.Name(id="int" | "float" | "str" | "bool" as name):
            return name
    return "mapping"


def _default(node: ast.expr, source: Source) -> str:
    if isinstance(node, ast.Call):
        factory = next((keyword.value for keyword in node.keywords if keyword.arg == "default_factory"), None)
        return {"dict": "{}", "list": "[]", "tuple": "[]"}.get(ast.unparse(factory), "its defaults") if factory else ast.unparse(node)
    if isinstance(node, ast.BinOp):
        return ast.unparse(node)  # 8 / 3 says more than its digits
    try:
        return yaml_text(source.value(node))
    except ValueError:
        return ast.unparse(node)


def yaml_text(value: Any) -> str:
    """A value on one line of YAML."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return f"[{', '.join(map(yaml_text, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {yaml_text(item)}' for key, item in value.items())}}}"
        case "":
            return '""'
        case math.inf:
            return ".inf"
        case float() if "e" in repr(value) and "." not in repr(value):
            return repr(value).replace("e", ".0e")  # without a point YAML 1.1 reads text
    return str(value)
