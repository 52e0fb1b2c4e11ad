"""What is public about the models of configs/models/published: the parameters of their checkpoints, and the class that is their oracle.

The mapping `published:` of a YAML:

    published: {parameters: 8_030_261_248, source: safetensors of meta-llama/Llama-3.1-8B}

A count that was published rounded is text, digits and a unit (K, M, B, T): "2.7B" is 2 650 000 000 to 2 749 999 999 parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blocks.errors import require
from zoo.config.schema import load_yaml, parse

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
# file name -> family of transformers' classes, whose parity test is the model's oracle
FAMILIES: dict[str, str] = {
    "bamba_9b": "bamba",
    "command_r7b": "cohere2",
    "deepseek_v2_lite": "deepseek_v2",
    "deepseek_v3": "deepseek_v3",
    "deepseek_v32": "deepseek_v32",
    "diffllama": "diffllama",
    "falcon_h1_500m": "falcon_h1",
    "falcon_mamba_7b": "falcon_mamba",
    "gemma2_2b": "gemma2",
    "gemma3_1b": "gemma3",
    "glm5": "glm_moe_dsa",
    "gpt2_small": "gpt2",
    "gpt_oss_20b": "gpt_oss",
    "granite4_h_tiny": "granitemoehybrid",
    "granite_2b": "granite",
    "jamba_52b": "jamba",
    "kimi_linear_48b_a3b": "kimi_linear",
    "lfm2_1_2b": "lfm2",
    "lfm2_8b_a1b": "lfm2_moe",
    "llama3_8b": "llama",
    "llama4_scout": "llama4_text",
    "mamba2_2b7": "mamba2",
    "mamba_2b8": "mamba",
    "minimax_text_01": "minimax",
    "mistral_7b": "mistral",
    "mixtral_8x7b": "mixtral",
    "nanochat_d20": "nanochat",
    "nemotron_h_8b": "nemotron_h",
    "olmo3_7b": "olmo3",
    "olmo_hybrid_7b": "olmo_hybrid",
    "qwen3_30b_a3b": "qwen3_moe",
    "qwen3_5_35b_a3b": "qwen3_5_moe",
    "qwen3_5_9b": "qwen3_5",
    "qwen3_8b": "qwen3",
    "qwen3_next_80b_a3b": "qwen3_next",
    "recurrentgemma_2b": "recurrent_gemma",
    "rwkv4_169m": "rwkv",
    "smollm3_3b": "smollm3",
    "xlstm_7b": "xlstm",
    "zamba2_1b2": "zamba2",
    "zamba2_2b7": "zamba2",
    "zamba_7b": "zamba",
}
# of the small models of configs/models, those that zoo.convert.checkpoint.family_of writes as one of transformers' classes
SMALL: dict[str, str] = {"mamba1": "mamba", "mamba2": "mamba2", "sliding_window": "mistral", "transformer": "llama"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published count of parameters. ours + what stands apart = published, exactly or to the published digits."""

    parameters: int | str  # exact, or as published: "1.61B"
    source: str  # where the count was published: a checkpoint, or a paper with its arXiv id and table
    config: str | None = None  # the public config that the sizes were compared with; null: none, a comment `# unverified:` names them
    apart: dict[str, int] = field(default_factory=dict)  # what is counted there and isn't in our model (below 0: the other way round)
    differs: str | None = None  # why the counts differ, where they can't but do so

    def __post_init__(self) -> None:
        text = self.parameters
        if isinstance(text, str):
            rule = "must be a whole number, or text with digits and a unit (K, M, B, T)"
            require(re.fullmatch(r"\d+(\.\d+)?[KMBT]", text) is not None, "parameters", text, rule, 'for example "2.7B"')
        else:
            require(text > 0, "parameters", text, "must be above 0")
        require(bool(self.source.strip()), "source", self.source, "must say where the count was published")
        for name, value in self.apart.items():
            counted = isinstance(value, int) and not isinstance(value, bool) and value != 0
            require(counted, f"apart.{name}", value, "must be a whole number of parameters other than 0")

    def agrees(self, parameters: int) -> bool:
        """Whether a model of so many parameters is of the published size."""
        total = parameters + sum(self.apart.values())
        if isinstance(self.parameters, int):
            return total == self.parameters
        whole, _, decimals = self.parameters[:-1].partition(".")
        step = UNITS[self.parameters[-1]] // 10 ** len(decimals)
        return (total + step // 2) // step == int(whole + decimals)

    def as_dict(self, parameters: int) -> dict[str, Any]:
        """All of it and whether a model of so many parameters agrees."""
        return asdict(self) | {"agrees": self.agrees(parameters)}


def read_published(source: str | Path | Mapping[str, Any]) -> Published | None:
    """The mapping `published:` of a model's YAML, or of what it holds; None where it has none. Raises ConfigError on a wrong one."""
    values = (load_yaml(source) if isinstance(source, (str, Path)) else source).get("published")
    return None if values is None else parse(Published, values, "published")
