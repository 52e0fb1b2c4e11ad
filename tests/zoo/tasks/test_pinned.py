"""The first examples of each task, pinned: a change of theirs makes results incomparable and must be meant."""

import hashlib
from typing import Any

import pytest

from zoo.tasks import (
    TASKS,
    compression,
    in_context_languages,
    in_context_recall,
    induction,
    memorization,
    mqar_hops,
    phonebook,
    selective_copying,
    state_tracking,
)

# The config, and SHA-256 over the inputs and labels (little-endian int64) of examples 0..7 under seed 3
PINNED: dict[str, tuple[Any, str]] = {
    "compression": (compression.Config(), "ba1d6c9ad1a9cdf636f4005c1e7684a9b4cbff45df2ea869ff2e023f50262b20"),
    "in_context_languages": (in_context_languages.Config(), "db2dc827d827bd4215f557a86b0a8225ac5fd0459f67798ea199286677eba89e"),
    "in_context_recall": (in_context_recall.Config(), "e75bb9675c41bfcbb40af5f4a7951dc005e1f82e053c8dbcd8da446661e7f58b"),
    "in_context_recall-noisy": (
        in_context_recall.Config(vocab_size=32, noise=0.2, noise_ids=16),
        "0fb2eda4660e98c069f3e562bf05d03effc05cb358a316e7352af63741fab433",
    ),
    "in_context_recall-fuzzy": (
        in_context_recall.Config(key_motif=(1, 3), value_motif=(1, 3)),
        "ee6038ff0f9178735c788b692e277c8575c9521cf6018663068e0bd304cd3148",
    ),
    "induction": (induction.Config(), "5bc7ccf5e276bc012f6c33e0b3b900e468cccaffc5954dfdf98128238844d2dd"),
    "induction-repeated": (
        induction.Config(pattern="repeated", span=8),
        "2af1cb3c31f74f5ba396e876c9ec4b2618c9101a433f42cd5ae30c60e16b279d",
    ),
    "memorization": (memorization.Config(), "66cbf3fb3447c592fd1d13a97e28096a42bae678feae7bbfb5aed3f8b094f1f3"),
    "mqar_hops": (mqar_hops.Config(), "d4157ce70ff99acf365383fdf29f2b1a46f51e56518871e9a05052835d910e7f"),
    "phonebook": (phonebook.Config(), "a47e7ba8f7e019621bcfb2a53fcff04652d14c850cd4baddaf2c6499d79108ad"),
    "phonebook-tokens": (phonebook.Config(form="tokens"), "6a6bb80bc18a00ff20d43257a8ea105ff2b45ecc2fa89e0740f6b13fa36c469a"),
    "selective_copying": (selective_copying.Config(), "2f72760fdedc7bbb8e9c12d998d3443092fb344b0a5325a25f631aeb8a44ba01"),
    "selective_copying-shown": (
        selective_copying.Config(answer="shown"),
        "9a23813510b7a737a42a3ef5b496b958eaa8b91538b674ab33697cf94be1af3c",
    ),
    "state_tracking": (state_tracking.Config(), "4139d0f88743331881d186086b245e9ce5e3349719e89a475c1de5c6d222d697"),
    "state_tracking-swaps": (
        state_tracking.Config(group="s5", moves=2, ask="end"),
        "ce43f8f7c7903ff155603352ed5adb3f591a184ccb1cc8ff2c3160787bf754ef",
    ),
}


def digest(name: str) -> str:
    batch = TASKS[name.partition("-")[0]].generate(PINNED[name][0], 3, 0, 8)
    found = hashlib.sha256()
    for tensor in (batch.inputs, batch.labels):
        found.update(tensor.numpy().astype("<i8").tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", PINNED)
def test_the_first_examples_are_pinned(name: str) -> None:
    assert digest(name) == PINNED[name][1]
