"""In-context languages: a prediction is right if it is legal, and a model is as good as its law of the next symbol is near the true one.

Total variation distance (RegBench, arXiv:2401.12973): half the summed difference between the model's probabilities of the next symbol,
the delimiter left out, and the true ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.measures.shared.streaming import Judged, Read, logits_at
from zoo.model.model import Model
from zoo.tasks import in_context_languages as task

SCORES = ("tvd", "legal", "best")


def judge(model: Model, config: task.Config, seed: int, first: int, count: int) -> Judged:
    """The scores of a piece of these examples: tvd; legal (0 or 1); best (the rate of right answers that nothing can exceed)."""
    laws = task.distributions(config, seed, first, count)
    laws = F.pad(laws, (0, model.config.vocab_size - config.vocab_size))

    def judged(read: Read) -> dict[str, Tensor]:
        law = laws[:, read.start : read.start + read.nll.shape[1]]
        scored = {name: torch.zeros(read.nll.shape, dtype=torch.float64) for name in SCORES}
        asked = law.sum(-1) > 0
        if bool(asked.any()):
            true = law[asked].double()
            said = torch.cat([_symbols(logits) for logits in logits_at(model, read.hidden, asked.to(read.hidden.device))])
            legal = true.gather(1, read.predicted[asked][:, None])[:, 0] > 0
            scores = ((said.cpu() - true).abs().sum(1) / 2, legal.double(), true.amax(1))
            for name, values in zip(SCORES, scores, strict=True):
                scored[name][asked] = values
        return scored

    return judged


def _symbols(logits: Tensor) -> Tensor:
    """(n, vocabulary) float64: the law of the next token, given that it is no delimiter."""
    barred = torch.tensor([task.DELIMITER], device=logits.device)
    return logits.double().index_fill(1, barred, -torch.inf).softmax(1)
