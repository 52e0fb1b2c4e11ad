"""The pattern language: `2*(3*(M F) A F) M|W F` -> one tuple of names a residual sub-layer.

    pattern  = item { item }
    item     = [ count "*" ] ( group | parallel )
    group    = "(" pattern ")"
    parallel = name { "|" name }          both read the same normalised input

Spaces separate; a name is letters, digits and underscores, beginning with a letter.
"""

import re
from typing import NamedTuple

from blocks.errors import ConfigError

MAX_SUBLAYERS = 10_000
_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z]\w*)|([*()|]))")
_GRAMMAR = "write names, N*X, N*(X Y) and X|Y, as in: 2*(3*(M F) A F) M|W F"


class _Token(NamedTuple):
    kind: str  # "number", "name", or the symbol itself
    text: str
    at: int


def expand(pattern: str) -> list[tuple[str, ...]]:
    """The residual sub-layers of a pattern, each a tuple of the names that run in parallel.

    Raises ConfigError (place `pattern`, with the column) where the pattern does not parse.
    """
    tokens = _tokens(pattern)
    layers, rest = _sequence(pattern, tokens, 0)
    if rest < len(tokens):
        raise _error(pattern, tokens[rest].at, f"{tokens[rest].text!r} closes nothing")
    return layers


def _tokens(pattern: str) -> list[_Token]:
    tokens, at = [], 0
    while pattern[at:].strip():
        match = _TOKEN.match(pattern, at)
        if match is None:
            column = at + len(pattern[at:]) - len(pattern[at:].lstrip())
            raise _error(pattern, column, f"{pattern[column]!r} is not part of the pattern language")
        kind = "number" if match[1] else "name" if match[2] else match[3]
        tokens.append(_Token(kind, match[0].strip(), match.end() - len(match[0].strip())))
        at = match.end()
    if not tokens:
        raise _error(pattern, 0, "the pattern is empty")
    return tokens


def _sequence(pattern: str, tokens: list[_Token], i: int) -> tuple[list[tuple[str, ...]], int]:
    layers: list[tuple[str, ...]] = []
    start = i
    while i < len(tokens) and tokens[i].kind != ")":
        item, i = _item(pattern, tokens, i)
        layers += item
        if len(layers) > MAX_SUBLAYERS:
            raise _error(pattern, tokens[start].at, f"it expands to more than {MAX_SUBLAYERS} sub-layers")
    if i == start:
        raise _error(pattern, tokens[i].at if i < len(tokens) else len(pattern), "a group can't be empty")
    return layers, i


def _item(pattern: str, tokens: list[_Token], i: int) -> tuple[list[tuple[str, ...]], int]:
    times = 1
    if tokens[i].kind == "number":
        times = int(tokens[i].text)
        if times < 1:
            raise _error(pattern, tokens[i].at, "a repeat count must be at least 1")
        if i + 1 >= len(tokens) or tokens[i + 1].kind != "*":
            raise _error(pattern, tokens[i].at, f"a count needs a star: {times}*X")
        i += 2
    if i >= len(tokens):
        raise _error(pattern, len(pattern), "nothing follows the star")
    if tokens[i].kind == "(":
        inner, end = _sequence(pattern, tokens, i + 1)
        if end >= len(tokens):
            raise _error(pattern, tokens[i].at, "'(' is never closed")
        return inner * times, end + 1
    names, i = _parallel(pattern, tokens, i)
    return [names] * times, i


def _parallel(pattern: str, tokens: list[_Token], i: int) -> tuple[tuple[str, ...], int]:
    names: list[str] = []
    while True:
        if i >= len(tokens) or tokens[i].kind != "name":
            at = tokens[i].at if i < len(tokens) else len(pattern)
            what = f"{tokens[i].text!r} stands" if i < len(tokens) else "the pattern ends"
            raise _error(pattern, at, f"{what} where a block's name should")
        names.append(tokens[i].text)
        i += 1
        if i >= len(tokens) or tokens[i].kind != "|":
            break
        i += 1
    if len(set(names)) < len(names):
        raise _error(pattern, tokens[i - 1].at, f"{names[-1]!r} stands twice in one parallel sub-layer")
    return tuple(names), i


def _error(pattern: str, at: int, what: str) -> ConfigError:
    return ConfigError("pattern", pattern, f"column {at + 1}: {what}", _GRAMMAR)
