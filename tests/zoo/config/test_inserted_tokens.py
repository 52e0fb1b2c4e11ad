"""Where inserted tokens go: counted from the definition, position by position."""

import torch

from blocks.context import LANDMARK, META, PREFIX, TEXT, Context
from zoo.config.inserted_tokens import Landmark, Meta, Prefix, TokensConfig, insert


def test_one_landmark_after_every_block_and_a_prefix_before_all() -> None:
    plan = TokensConfig(prefix=Prefix(count=2), landmark=Landmark(every=3))
    assert plan.sequence(7) == [PREFIX] * 2 + [TEXT] * 3 + [LANDMARK] + [TEXT] * 3 + [LANDMARK] + [TEXT]


def test_exactly_one_meta_token_in_every_run_at_varying_places() -> None:
    plan = TokensConfig(meta=Meta(every=10, seed=3))
    kinds = torch.tensor(plan.sequence(1000))
    text_before = (kinds == TEXT).cumsum(0)[kinds == META]
    assert (text_before // 10).tolist() == list(range(100))
    counts = torch.bincount(text_before % 10, minlength=10)
    assert (counts > 0).all()
    assert plan.sequence(1000) != TokensConfig(meta=Meta(every=10, seed=4)).sequence(1000)


def test_positions_count_every_token_and_text_slots_are_found() -> None:
    plan = TokensConfig(prefix=Prefix(count=2), meta=Meta(every=4), landmark=Landmark(every=3))
    layout = insert(plan, Context(torch.arange(20)[None]))
    length = layout.ctx.positions.shape[1]
    assert layout.ctx.positions[0].tolist() == list(range(length))
    assert layout.ctx.kinds is not None
    assert layout.text[0].tolist() == [i for i, kind in enumerate(layout.ctx.kinds[0].tolist()) if kind == TEXT]
    assert layout.source[0, layout.text[0]].tolist() == list(range(20))


def test_a_piece_from_the_middle_is_that_piece_of_the_whole() -> None:
    plan = TokensConfig(prefix=Prefix(count=2), meta=Meta(every=4), landmark=Landmark(every=3))
    whole, part = insert(plan, Context(torch.arange(20)[None])), insert(plan, Context(torch.arange(7, 20)[None]))
    assert whole.ctx.kinds is not None
    assert part.ctx.kinds is not None
    n = part.ctx.kinds.shape[1]
    assert part.ctx.kinds[0].tolist() == whole.ctx.kinds[0, -n:].tolist()
    assert part.ctx.positions[0].tolist() == whole.ctx.positions[0, -n:].tolist()
