"""lm-evaluation-harness on a zoo model, offline, on a task of our own: its numbers are those of the model itself."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.generate import generate
from zoo.interop.checkpoint import export_folder

pytest.importorskip("lm_eval")
pytestmark = [pytest.mark.filterwarnings("default")]  # the harness's own

TASKS = {
    "choice": 'output_type: multiple_choice\ndoc_to_text: "{{text}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
    "target_delimiter: ''\nmetric_list:\n  - metric: acc\n",
    "rolling": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\nmetric_list:\n  - metric: bits_per_byte\n',
    "writing": 'output_type: generate_until\ndoc_to_text: "{{text}}"\ndoc_to_target: "{{written}}"\ntarget_delimiter: \'\'\n'
    "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 6\n  do_sample: false\nmetric_list:\n  - metric: exact_match\n",
}
TEXTS = ["the state of a gate", "keeps", "what it holds, and forgets", "é"]
CHOICES = ["a", "bc", " d"]


def model() -> zoo.Model:
    blocks = {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}, "A": {"type": "gqa", "n_heads": 2, "window": 6}}
    made = zoo.build({"d_model": 16, "vocab_size": 256, "blocks": blocks, "pattern": "M A", "tie_embeddings": False}, seed=4).eval()
    with torch.no_grad():
        made.head_weight.mul_(4)
    return made


def log_likelihood(made: zoo.Model, before: bytes, text: bytes) -> float:
    tokens = torch.tensor([[*before, *text]])
    scores = made(tokens[:, :-1])[0].detach().double().log_softmax(-1)
    return float(scores.gather(2, tokens[:, 1:, None])[0, len(before) - 1 :].sum())


def written(made: zoo.Model, text: str) -> str:
    """Greedily, up to a newline or the byte that ends a document."""
    tokens = [int(t) for t in generate(made, torch.tensor([list(text.encode())]), steps=6, temperature=0)]
    for stop in (0, ord("\n")):
        tokens = tokens[: tokens.index(stop)] if stop in tokens else tokens
    return bytes(tokens).decode(errors="replace")


def write_tasks(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        head = (
            f"task: zoo_{name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / 'rows.jsonl'}\ntest_split: test\n"
        )
        (folder / f"{name}.yaml").write_text(head + text)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_harness_says_what_the_model_says(batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import datasets

    from zoo.hf.harness import evaluate

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = model()
    export_folder(made, tmp_path / "model", "zoo")
    likeliest = [max(range(3), key=lambda i: log_likelihood(made, t.encode(), CHOICES[i].encode())) for t in TEXTS]
    answers = [likeliest[0], likeliest[1], (likeliest[2] + 1) % 3, likeliest[3]]  # three of four are what the model says
    rows = [{"text": t, "choices": CHOICES, "answer": a, "written": written(made, t)} for t, a in zip(TEXTS, answers, strict=True)]
    write_tasks(tmp_path, rows)
    tasks = [f"zoo_{name}" for name in TASKS]
    found = evaluate(tmp_path / "model", tasks, task_folder=tmp_path, device="cpu", batch_size=batch_size, bootstrap_iters=0)
    assert found["zoo_choice"]["acc,none"] == 0.75
    nats, size = sum(log_likelihood(made, b"\0", t.encode()) for t in TEXTS), sum(len(t.encode()) for t in TEXTS)
    assert found["zoo_rolling"]["bits_per_byte,none"] == pytest.approx(-nats / size / math.log(2), rel=1e-5)
    assert found["zoo_writing"]["exact_match,none"] == 1.0
