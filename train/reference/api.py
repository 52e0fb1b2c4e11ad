"""The page of the Python API: the public names of zoo, their signatures and docstrings."""

from __future__ import annotations

import ast

from train.reference.page import Code, Heading, Page, Part, Prose, described
from train.reference.source import Defined, Source, read

METHODS = ("forward", "hidden", "loss", "nll", "ledger")  # of zoo.Model
EXAMPLE = """import torch

import zoo

model = zoo.build("configs/models/mamba2_hybrid.yaml", seed=0)
tokens = torch.randint(256, (2, 64))
logits, state = model(tokens)  # (2, 64, 256) float32
logits, state = model(tokens[:, :1], state)  # goes on: one more token a sequence
loss, state = model.loss(tokens, None, zoo.detach(state))  # the next piece, cut from the graph: truncated BPTT
loss.backward()
print(zoo.state_bytes(state), model.ledger(4096).state_bytes, model.ledger(4096).flops)

configs = {name: zoo.load_model(f"configs/models/{name}.yaml") for name in ("transformer", "mamba2")}
matched = zoo.match(configs, reference="transformer", axis="params", length=256, tolerance=0.02, vary={"mamba2": ["width"]})
print(matched.models["mamba2"].sizes, f"{matched.worst:.2%}")

try:
    zoo.load_model("configs/models/mamba2.yaml", {"blocks": {"M": {"d_sate": 32}}})
except zoo.ConfigError as error:
    print(error)  # names the place, the rule, and d_state"""


def api() -> Page:
    """Every public name, in the order in which one meets them."""
    source = read("zoo")
    order = ("build", "load", "load_model", "match", "Model", "ModelConfig", "ConfigError", "detach", "map_state", "state_bytes")
    names = [*order, *(name for name in public(source) if name not in order)]
    return Page("Python API", (Prose("import zoo: these names and no others are public."), Code(EXAMPLE, "python"), *_all(source, names)))


def public(source: Source) -> list[str]:
    """The names of __all__."""
    node = source.definitions["__all__"]
    assert isinstance(node, ast.Assign)
    return list(source.value(node.value))


def _all(source: Source, names: list[str]) -> list[Part]:
    return [part for name in names for part in _name(source, name)]


def _name(source: Source, name: str) -> list[Part]:
    defined = source.find(name)
    assert defined is not None, name
    if isinstance(defined.node, ast.ClassDef):
        return [Heading(f"zoo.{name}"), *_class(defined, defined.node)]
    assert isinstance(defined.node, ast.FunctionDef)
    return [Heading(f"zoo.{name}"), *_function(defined.node, f"zoo.{name}")]


def _class(defined: Defined, node: ast.ClassDef) -> list[Part]:
    parts = described(ast.get_docstring(node) or "")
    if node.name == "Model":
        methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
        parts = [*described(defined.source.docstring), *parts]
        return [*parts, *(part for method in METHODS for part in _function(methods[method], _called(method)))]
    if node.name == "ModelConfig":
        return [*parts, Prose("What a model's YAML holds; its keys: zoo list keys model.")]
    return parts


def _called(method: str) -> str:
    return "model" if method == "forward" else f"model.{method}"


def _function(node: ast.FunctionDef, name: str) -> list[Part]:
    """Its signature without self, one line if it fits, and its docstring."""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    line = f"{name}({arguments}) -> {ast.unparse(node.returns) if node.returns else 'None'}"
    if len(line) > 100:
        inner = "".join(f"    {text},\n" for text in _arguments(arguments))
        line = f"{name}(\n{inner}) -> {ast.unparse(node.returns) if node.returns else 'None'}"
    return [Code(line, "python"), *described(ast.get_docstring(node) or "")]


def _arguments(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for i, sign in enumerate(text):
        depth += (sign in "[(") - (sign in "])")
        if sign == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]
