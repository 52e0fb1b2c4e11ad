"""`zoo generate`: a model continues a text, each token shown when it is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from blocks.errors import require
from train.data.text_codec import coder_of
from zoo.convert.hf_folder import resolve
from zoo.convert.model_folder import load
from zoo.model.generate import generate


class Summary(NamedTuple):
    """Tokens read and drawn, and their time."""

    read: int  # tokens of the prompt
    read_seconds: float  # until the first token is drawn
    written: int  # tokens drawn
    written_seconds: float  # for all tokens after the first

    def __str__(self) -> str:
        read = f"read {self.read} tokens, {self.read / self.read_seconds:,.1f} a second"
        rate = f", {(self.written - 1) / self.written_seconds:,.1f} a second" if self.written > 1 else ""
        return f"{read}; wrote {self.written} tokens{rate}"


def write(
    path: str | Path,
    prompt: str,
    show: Callable[[str], None],
    *,
    max_tokens: int = 256,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Summary:
    """Show the prompt and at most max_tokens more tokens, each when it is drawn. path: as zoo.load takes it. Raises ConfigError."""
    folder = resolve(path)
    model = load(folder)
    coder = coder_of(folder, model.config.vocab_size)
    ids = coder.ids(prompt)
    require(bool(ids), "--prompt", prompt, "holds no token, and the tokenizer puts none before a text", "give at least a word")
    drawn = generate(model, torch.tensor([ids]), steps=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    show(prompt)
    times = [time.perf_counter()]
    for token in drawn:
        times.append(time.perf_counter())
        if int(token) in coder.ends:
            break
        show(coder.text(int(token)))
    show(coder.rest())
    return Summary(len(ids), times[1] - times[0], len(times) - 1, times[-1] - times[1])
