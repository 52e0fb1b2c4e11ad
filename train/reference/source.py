"""One Python file as text: its docstring, classes, constants, and where an imported name is defined."""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
INFINITE = {"math.inf": math.inf, "np.inf": math.inf}


class Defined(NamedTuple):
    """A name where it is defined."""

    source: Source
    node: ast.stmt


class Source:
    """A module of this project, read and not imported."""

    def __init__(self, module: str, *, head: bool = False) -> None:
        """head: only what stands before the first function or method. Raises SyntaxError where that can't be read alone."""
        self.module = module
        path = ROOT.joinpath(*module.split("."))
        self.is_package = path.is_dir()
        self.path = path / "__init__.py" if self.is_package else path.with_suffix(".py")
        text = self.path.read_text(encoding="utf-8")
        self.text = re.split(r"^(?:    )?(?:def |@property)", text, maxsplit=1, flags=re.MULTILINE)[0] if head else text
        self.tree = ast.parse(self.text)

    @property
    def docstring(self) -> str:
        """Of the module, unindented; empty if it has none."""
        return ast.get_docstring(self.tree) or ""

    @cached_property
    def comments(self) -> dict[int, str]:
        """Line -> its comment without the sign."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string.lstrip("#").strip() for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Classes, functions and assigned names at the top of the module; of a name that is assigned twice the first."""
        named: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            for name in _names(node):
                named.setdefault(name, node)
        return named

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """Local name -> (module, name in it, or None where the module itself is imported)."""
        table: dict[str, tuple[str, str | None]] = {}
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                table |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                table |= {alias.asname: (alias.name, None) for alias in node.names if alias.asname}
        return table

    def find(self, name: str) -> Defined | None:
        """Where a dotted name is defined, through imports; None: outside of this project."""
        head, _, rest = name.partition(".")
        if head in self.imports:
            module, inner = self.imports[head]
            if not is_module(module):
                return None
            if inner is None or is_module(f"{module}.{inner}"):
                return read(module if inner is None else f"{module}.{inner}").find(rest) if rest else None
            return read(module).find(inner)
        node = self.definitions.get(head)
        return Defined(self, node) if node is not None and not rest else None

    def find_class(self, name: str) -> ast.ClassDef:
        """A class of this very module. Raises KeyError."""
        node = self.definitions.get(name)
        if not isinstance(node, ast.ClassDef):
            raise KeyError(f"{self.module} has no class {name}")
        return node

    def segment(self, node: ast.AST) -> str:
        """The source of a node."""
        return ast.get_source_segment(self.text, node) or ""

    def value(self, node: ast.expr) -> Any:
        """The value of a constant expression, names of constants followed. Raises ValueError where it is none."""
        match node:
            case ast.Name() | ast.Attribute():
                defined = self.find(ast.unparse(node))
                if defined is not None and isinstance(defined.node, ast.Assign | ast.AnnAssign) and defined.node.value is not None:
                    return defined.source.value(defined.node.value)
            case ast.Tuple() | ast.List():
                return tuple(self.value(item) for item in node.elts)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self.value(left) / self.value(right)
        return INFINITE.get(ast.unparse(node)) or ast.literal_eval(node)


@cache
def read(module: str) -> Source:
    """A module's source, parsed once."""
    return Source(module)


@cache
def read_head(module: str, name: str) -> Source:
    """As much of a module as defines a name: its beginning, where that will do (parsing is what takes a list its time)."""
    try:
        source = Source(module, head=True)
    except SyntaxError:
        return read(module)
    return source if name in source.definitions else read(module)


@cache
def is_module(name: str) -> bool:
    """Whether a dotted name is a module of this project."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _names(node: ast.stmt) -> list[str]:
    match node:
        case ast.ClassDef() | ast.FunctionDef():
            return [node.name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []
