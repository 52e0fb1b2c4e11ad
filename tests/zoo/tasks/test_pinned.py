"""The first examples of each task, pinned: a change of theirs makes results incomparable and must be meant."""

import hashlib
from typing import Any

import pytest

from zoo.tasks import (
    TASKS,
    compression,
    facts,
    in_context_languages,
    in_context_recall,
    induction,
    joint_recall,
    many_shot,
    memorization,
    mqar_hops,
    needle,
    phonebook,
    selective_copying,
    state_tracking,
    threading,
    variable_tracking,
    word_extraction,
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
    "facts": (facts.Config(), "9b4f88e60380a55543da59cb570e3bec788ea9446c5e7b2f17c9b741ce24a357"),
    "facts-text": (
        facts.Config(form="text", length=1024, haystack="random", facts=3),
        "b84ec26e5d891c35973c26c2ce138fb9d3f239df6ef9383c92d3d0d2dbbe4730",
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
    "phonebook-first": (phonebook.Config(question="first"), "7f9476030b9a4e5f32ff37f5c39cb627e876e1bc68128f37917bf9e002212cb8"),
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
    "joint_recall": (joint_recall.Config(), "8e273f75119fc2e6530650ac1b298c9bb84e7723a5bfe1ecb523ccea80ca890c"),
    "joint_recall-levels": (joint_recall.Config(contexts=2, levels=2), "33ac200b713c7fa2af0a83a3d49477c43907c7129e7129cb29bec24863ae3e3b"),
    "many_shot": (many_shot.Config(), "173386befcc38e28d1cb14f226c7c123acade8bd4e5f11d4ba7c275431195ea7"),
    "needle": (needle.Config(), "51eec7fa45596982f8e87ec4c4e2e983b1cacd0b2667a6cd2027787ec719134f"),
    "needle-needles": (
        needle.Config(haystack="needles", values=2, queries=2),
        "4ba89c2d786083103be9060ae4ce9136784d2c59ec7e31b0634868b65ec57710",
    ),
    "needle-text": (needle.Config(form="text", haystack="random"), "9fbe500901845c3d814ba6cc9ec76ba07cdf859e7cb03068e22c067470d47672"),
    "threading": (threading.Config(), "346004e9419caaa8cfabedef965fa13725f9a903a18b80f5182b6a974cd6e0e9"),
    "threading-text": (
        threading.Config(form="text", threads=2, asked=2, direction="random"),
        "f0dda83ead392cdb487733aa2f53f424b7b0306567bc2ec4f6b30761d3142cb7",
    ),
    "variable_tracking": (variable_tracking.Config(), "cab5eb0a813fa4a6581ecc70896bdb86acd843beed114166b500c2c97c24b7f7"),
    "variable_tracking-text": (
        variable_tracking.Config(form="text", length=1024, chains=2, ask="value"),
        "a0ba6d5e6ccfa908680a3a6994382bdaade92bab6b95d7e997d2dd3a2e27a18b",
    ),
    "word_extraction": (word_extraction.Config(), "da807f7c221afaa117e8537a241342ce7922604fc262eda2c9b0ff7dc611c1ef"),
    "word_extraction-text": (
        word_extraction.Config(form="text", length=1024, law="common"),
        "7b8031c5b826445eac97c051954ac284bafd3b7519cc3efe8791c1b39bde34d3",
    ),
}


def digest(name: str) -> str:
    batch = TASKS[name.partition("-")[0]].generate(PINNED[name][0], 3, 0, 8)
    digest = hashlib.sha256()
    for tensor in (batch.inputs, batch.labels):
        digest.update(tensor.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", PINNED)
def test_the_first_examples_are_pinned(name: str) -> None:
    assert digest(name) == PINNED[name][1]
