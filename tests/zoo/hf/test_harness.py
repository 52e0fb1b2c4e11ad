"""lm-evaluation-harness, offline, on tasks made here: its numbers are those of the model itself, in Python and as a command."""

import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.convert.checkpoint import export_folder
from zoo.model.generate import generate

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
MODELS: dict[str, dict[str, Any]] = {
    "zoo": {
        "blocks": {"M": {"type": "mamba2", "d_state": 4, "head_dim": 8}, "A": {"type": "gqa", "n_heads": 2, "window": 6}},
        "pattern": "M A",
        "tie_embeddings": False,
    },
    "llama": {
        "blocks": {"A": {"type": "gqa", "n_heads": 2, "rope": {}}, "F": {"type": "swiglu"}},
        "pattern": "A F",
        "tie_embeddings": False,
    },
}


@cache
def model(family: str) -> zoo.Model:
    made = zoo.build({"d_model": 16, "vocab_size": 256, **MODELS[family]}, seed=4).eval()
    with torch.no_grad():
        made.head_weight.mul_(4)
    return made


def log_likelihood(made: zoo.Model, before: str, said: str) -> float:
    """Of the text behind another, or behind the byte that begins a document."""
    head, tail = list(before.encode()) or [0], list(said.encode())
    tokens = torch.tensor([[*head, *tail]])
    scores = made(tokens[:, :-1])[0].detach().double().log_softmax(-1)
    return float(scores.gather(2, tokens[:, 1:, None])[0, len(head) - 1 :].sum())


def written(made: zoo.Model, text: str) -> str:
    """Greedily, up to a newline or the byte that ends a document."""
    tokens = [int(t) for t in generate(made, torch.tensor([list(text.encode())]), steps=6, temperature=0)]
    for stop in (0, ord("\n")):
        tokens = tokens[: tokens.index(stop)] if stop in tokens else tokens
    return bytes(tokens).decode(errors="replace")


def bits(made: zoo.Model) -> float:
    """A byte of all texts."""
    nats, size = sum(log_likelihood(made, "", t) for t in TEXTS), sum(len(t.encode()) for t in TEXTS)
    return -nats / size / math.log(2)


def write_tasks(folder: Path, made: zoo.Model) -> None:
    """Of the answers, three of four are what the model says."""
    likeliest = [max(range(3), key=lambda i: log_likelihood(made, t, CHOICES[i])) for t in TEXTS]
    answers = [likeliest[0], likeliest[1], (likeliest[2] + 1) % 3, likeliest[3]]
    rows = [{"text": t, "choices": CHOICES, "answer": a, "written": written(made, t)} for t, a in zip(TEXTS, answers, strict=True)]
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / 'rows.jsonl'}\ntest_split: test\n"
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: zoo_{name}\n{data}{text}")


def check(results: dict[str, Any], made: zoo.Model) -> None:
    """The results of the three tasks."""
    assert results["zoo_choice"]["acc,none"] == 0.75
    assert results["zoo_rolling"]["bits_per_byte,none"] == pytest.approx(bits(made), rel=1e-5)
    assert results["zoo_writing"]["exact_match,none"] == 1.0


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("family", MODELS)
def test_every_request_is_answered_as_the_model_does(family: str, batch_size: int, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    import zoo.hf

    made = model(family)
    assert export_folder(made, tmp_path / "model") == family
    harness = HFLM(pretrained=str(tmp_path / "model"), device="cpu", batch_size=batch_size)
    assert isinstance(harness.model, zoo.hf.ZooForCausalLM) == (family == "zoo")

    def asked(request: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        requests: Any = [Instance(request_type=request, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]  # type: ignore[arg-type]
        return getattr(harness, request)(requests, disable_tqdm=True)

    pairs = [(t, choice) for t in TEXTS for choice in CHOICES]
    values = [value for value, _ in asked("loglikelihood", pairs)]
    assert values == pytest.approx([log_likelihood(made, *pair) for pair in pairs], rel=1e-5)
    assert asked("loglikelihood_rolling", [(t,) for t in TEXTS]) == pytest.approx([log_likelihood(made, "", t) for t in TEXTS], rel=1e-5)
    ways = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    assert asked("generate_until", [(t, dict(ways)) for t in TEXTS]) == [written(made, t) for t in TEXTS]


def offline(folder: Path) -> dict[str, str]:
    return {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}


def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    import datasets

    from zoo.hf.harness import evaluate

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export_folder(model("zoo"), tmp_path / "model")
    write_tasks(tmp_path / "tasks", model("zoo"))
    tasks = [f"zoo_{name}" for name in TASKS]
    check(evaluate(tmp_path / "model", tasks, task_folder=tmp_path / "tasks", device="cpu", batch_size=2, bootstrap_iters=0), model("zoo"))


def test_the_commands(tmp_path: Path) -> None:
    """`python -m zoo.hf.harness` on a hybrid and plain lm_eval on a folder that transformers has a class for, beside each other."""
    started = {}
    for family, command in (("zoo", "zoo.hf.harness"), ("llama", "lm_eval")):
        folder = tmp_path / family
        export_folder(model(family), folder)
        write_tasks(folder / "tasks", model(family))
        line = [sys.executable, "-m", command, "run", "--model", "hf", "--model_args", f"pretrained={folder}"]
        line += ["--tasks", *(f"zoo_{name}" for name in TASKS), "--include_path", str(folder / "tasks")]
        line += ["--output_path", str(folder / "results"), "--device", "cpu", "--batch_size", "2"]
        with (folder / "log").open("w") as log:
            started[family] = subprocess.Popen(line, cwd=folder, env=os.environ | offline(folder), stdout=log, stderr=log)
    for family, process in started.items():
        folder = tmp_path / family
        assert process.wait() == 0, (folder / "log").read_text()[-2000:]
        assert "zoo_rolling" in (folder / "log").read_text()
        (results,) = (folder / "results").rglob("results_*.json")
        check(json.loads(results.read_text())["results"], model(family))
