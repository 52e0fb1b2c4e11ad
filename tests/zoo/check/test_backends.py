"""`zoo check --backend`: every back end of a block beside the reference; an error in one is caught, and one that can't serve says why."""

import pytest
import torch
from torch import Tensor

import kernels.decay
from blocks.catalogue import block_types, config_class
from train.cli.command_line import run
from zoo.check.backends import check_backends
from zoo.check.contract import ContractError


@pytest.mark.parametrize("block_type", block_types())
def test_the_chunked_back_ends_of_every_block(block_type: str) -> None:
    (result,) = check_backends(config_class(block_type)(), 32, ("chunked",))
    served_nothing = block_type in ("swiglu", "mlp", "rwkv_channel_mix")
    assert bool(result.operations) != served_nothing
    assert result.worst < 1e-5


def test_a_library_back_end_without_its_machine_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "mamba2", "--backend", "all"]) == 0
    out = capsys.readouterr().out
    assert "holds  chunked" in out
    assert "conv, decay, norm; float32" in out
    assert "can't serve this call" in out


def test_a_wrong_back_end_is_caught(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    chunked = kernels.decay.BACKENDS["chunked"]

    def wrong(q: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        o, state = chunked(q, *args, **kwargs)
        return torch.roll(o, 1, 1), state

    monkeypatch.setitem(kernels.decay.BACKENDS, "chunked", wrong)
    with pytest.raises(ContractError, match=r"'chunked'.*differs from the reference"):
        list(check_backends(config_class("gla")(), 32, ("chunked",)))
    with pytest.raises(SystemExit, match="1"):
        run(["check", "gla", "--backend", "chunked"])
    assert "BROKEN" in capsys.readouterr().out


def test_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "gla", "--backend", "chunkd"]) == 2
    assert run(["check"]) == 2
    assert "block's type" in capsys.readouterr().err
