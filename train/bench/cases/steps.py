"""Whole models: a training step on associative recall, one token of decoding, and what torch.compile makes of them."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from train.bench import peers, peers_zoology
from train.bench.case import Case, Step, Target, inference
from train.config.run import TrainConfig
from train.trainer.optimiser import adamw
from train.trainer.step import clip
from zoo.config.model import load_model
from zoo.model.model import Model, build
from zoo.tasks import mqar

VOCAB = 8192
RECALL = {"d_model": 128, "batch": 64, "length": 256, "pairs": 64}
MIXERS = {
    "attention": {"type": "gqa", "n_heads": 2},
    "mamba2": {"type": "mamba2", "d_state": 128, "head_dim": 64},
}
DECODE = {"d_model": 256, "layers": 4}
COMPILES = "compiles for about a minute first; ours with torch.compile, the peer without"


def cases() -> Iterator[Case]:
    shape = f"L2 D128 V{VOCAB} T256 B64"
    note = "a quarter of the positions is labelled; ours clips the gradient as well"
    zoology, hugging_face = "Zoology's formulation", "Hugging Face Mamba2Mixer, full logits"
    yield Case("mqar step, attention", shape, zoology, partial(_recall, "attention"), _zoology, Target(equal=2.0, shipped=5.0), note=note)
    yield Case("mqar step, mamba2", shape, hugging_face, partial(_recall, "mamba2"), _mixers, Target(equal=2.5, shipped=6.5), note=note)
    for batch in (1, 32):
        ours, theirs = partial(_decode, batch), partial(_decode_hugging_face, batch)
        shape = f"mamba2 L4 D256 V{VOCAB} B{batch}"
        yield Case("decode", shape, "Hugging Face cached step", ours, theirs, Target(equal=2.5))
        ours = partial(_decode, batch, compiled=True)
        yield Case("compiled decode", shape, "Hugging Face cached step", ours, theirs, Target(), note=COMPILES)
    ours, theirs = partial(_compiled, True), partial(_compiled, False)
    yield Case("compiled step", f"mamba2 L2 D256 V{VOCAB} T256 B4", "itself, eager", ours, theirs, Target(), note=COMPILES)


def recall_batch() -> tuple[Tensor, Tensor]:
    """tokens, labels (64, 256): 64 pairs each, asked for once."""
    config = mqar.Config(vocab_size=VOCAB, length=RECALL["length"], pairs=RECALL["pairs"])
    batch = mqar.generate(config, 0, 0, RECALL["batch"])
    return batch.inputs, batch.labels


def model(mixer: str, layers: int, d_model: int) -> Model:
    return build(load_model({"d_model": d_model, "vocab_size": VOCAB, "blocks": {"M": MIXERS[mixer]}, "pattern": f"{layers}*M"}))


def _recall(mixer: str) -> Step:
    ours, train = model(mixer, 2, RECALL["d_model"]), TrainConfig()
    optimiser, parameters = adamw(ours, train), list(ours.parameters())
    tokens, labels = recall_batch()

    def step() -> object:
        loss, _ = ours.loss(tokens, labels)
        loss.backward()
        clip(parameters, train.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _compiled(compiled: bool) -> Step:
    """The loss of some text and its gradients; the stack compiled, as `train.compile` does."""
    ours = model("mamba2", 2, 256)
    if compiled:
        ours.stack.compile(fullgraph=True)
    parameters, tokens = list(ours.parameters()), torch.randint(VOCAB, (4, 256))
    return lambda: torch.autograd.grad(ours.loss(tokens)[0], parameters)


def _zoology() -> Step:
    return _peer_step(peers_zoology.attention(RECALL["d_model"], 2))


def _mixers() -> Step:
    return _peer_step(peers_zoology.mamba2(RECALL["d_model"], 128, 64))


def _peer_step(mixer: Callable[[int], nn.Module]) -> Step:
    tokens, labels = recall_batch()
    theirs = peers_zoology.LanguageModel(VOCAB, RECALL["d_model"], RECALL["length"], [mixer(layer) for layer in range(2)])
    return peers_zoology.training_step(theirs, tokens, labels)


def _decode(batch: int, *, compiled: bool = False) -> Step:
    ours = model("mamba2", DECODE["layers"], DECODE["d_model"]).eval()
    if compiled:
        ours.compile(fullgraph=True)
    tokens = torch.randint(VOCAB, (batch, 1))
    with torch.no_grad():
        state = [ours(tokens)[1]]

    def step() -> object:
        logits, state[0] = ours(tokens, state[0])
        return logits

    return inference(step)


def _decode_hugging_face(batch: int) -> Step:
    """A model of the same sizes, tied head included; the first call fills its cache, which every later one changes in place."""
    theirs = hugging_face_mamba2(DECODE["layers"], DECODE["d_model"]).eval()
    tokens = torch.randint(VOCAB, (batch, 1))
    with torch.no_grad():
        cache = theirs(tokens, use_cache=True).cache_params
    return inference(lambda: theirs(tokens, cache_params=cache, use_cache=True).logits)


def hugging_face_mamba2(layers: int, d_model: int) -> nn.Module:
    config = peers.hugging_face("mamba2.configuration_mamba2").Mamba2Config(
        vocab_size=VOCAB,
        hidden_size=d_model,
        state_size=128,
        num_heads=2 * d_model // 64,
        head_dim=64,
        n_groups=1,
        num_hidden_layers=layers,
        tie_word_embeddings=True,
    )
    return peers.hugging_face("mamba2.modeling_mamba2").Mamba2ForCausalLM(config)
