"""`zoo generate`: a model goes on with a text, shown as it is written."""

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


class Written(NamedTuple):
    """What a text cost."""

    read: int  # tokens of the prompt
    read_seconds: float  # to the first token, which is drawn from what the prompt left
    written: int  # tokens drawn
    written_seconds: float  # of those behind the first

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
) -> Written:
    """Show the prompt and at most max_tokens more tokens, each at once. path: as zoo.load takes it. Raises ConfigError."""
    folder = resolve(path)
    model = load(folder)
    coder = coder_of(folder, model.config.vocab_size)
    ids = coder.ids(prompt)
    require(bool(ids), "--prompt", prompt, "holds no token, and the tokenizer begins texts with none", "give at least a word")
    drawn = generate(model, torch.tensor([ids]), steps=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    show(prompt)
    times = [time.perf_counter()]
    for token in drawn:
        times.append(time.perf_counter())
        if int(token) in coder.ends:
            break
        show(coder.text(int(token)))
    show(coder.rest())
    return Written(len(ids), times[1] - times[0], len(times) - 1, times[-1] - times[1])
