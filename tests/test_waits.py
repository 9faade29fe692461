"""On the path that a GPU takes, nothing in a training step's forward and backward pass makes the host wait."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.waits import HostWaits, no_waits, read_later, waiting

REPOSITORY = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
VALUES = torch.tensor([3.0, 1.0, 2.0])
IS_BIG = VALUES > 1.5


WAITS: dict[str, Callable[[], object]] = {
    "item": lambda: VALUES[0].item(),
    "tolist": lambda: VALUES.tolist(),
    "numpy": lambda: VALUES.numpy(),
    "an array": lambda: np.asarray(VALUES),
    "cpu": lambda: VALUES.cpu(),
    "to a device": lambda: VALUES.to("cpu"),
    "to a device, and another type": lambda: VALUES.to(device=CPU, dtype=torch.float64),
    "if": lambda: 1 if VALUES[0] > 2.0 else 2,
    "float": lambda: float(VALUES[0]),
    "int": lambda: int(VALUES[0]),
    "range": lambda: range(VALUES[0].long()),
    "max": lambda: max(VALUES),
    "in": lambda: 3.0 in VALUES,
    "a mask as an index": lambda: VALUES[IS_BIG],
    "a mask to set": lambda: VALUES.clone().__setitem__(IS_BIG, 0.0),
    "a list as an index": lambda: VALUES[[0, 2]],
    "masked_select": lambda: torch.masked_select(VALUES, IS_BIG),
    "nonzero": lambda: VALUES.nonzero(),
    "where": lambda: torch.where(IS_BIG),
    "unique": lambda: VALUES.unique(),
    "repeat_interleave": lambda: torch.repeat_interleave(VALUES, torch.tensor([1, 2, 1])),
    "a size": lambda: torch.zeros(IS_BIG.sum()),
    "a slice": lambda: VALUES[: IS_BIG.sum()],
    "equal": lambda: torch.equal(VALUES, VALUES),
    "allclose": lambda: torch.allclose(VALUES, VALUES),
    "a tensor of values": lambda: torch.tensor([1.0, 2.0], device=CPU),
    "packed sequences": lambda: nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), torch.tensor([3, 2])),
    "PyTorch's CTC": lambda: F.ctc_loss(
        torch.zeros(3, 1, 4), torch.ones(1, 1, dtype=torch.long), torch.tensor([3]), torch.tensor([1])
    ),
    "clipping that raises": lambda: nn.utils.clip_grad_norm_(_with_gradient(), 1.0, error_if_nonfinite=True),
    "in a backward pass": lambda: _Asking.apply(VALUES.clone().requires_grad_()).sum().backward(),
}


class _Asking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad if grad.sum() > 0 else -grad


def _with_gradient() -> nn.Parameter:
    parameter = nn.Parameter(VALUES.clone())
    parameter.grad = VALUES.clone()
    return parameter


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_waits_is_caught(wait: Callable[[], object]) -> None:
    wait()
    with no_waits(CPU), pytest.raises(HostWaits):
        wait()
    with no_waits(CPU), waiting(CPU):
        wait()
    with no_waits(CPU), pytest.raises(HostWaits):  # what may wait has an end
        wait()
    wait()


def test_what_does_not_wait_passes() -> None:
    with no_waits(CPU):
        x = VALUES.masked_fill(IS_BIG, 0.0).index_select(0, torch.arange(2)).to(torch.float64)
        assert x.shape == (2,) and len(VALUES) == 3
        VALUES.clone()[1:] = 0.0
        torch.where(IS_BIG, VALUES, 0.0).to(CPU, non_blocking=True)
        nn.utils.clip_grad_norm_(_with_gradient(), 1.0)


def test_values_may_be_asked_for_and_read_later() -> None:
    with no_waits(CPU):
        later = read_later(VALUES)
    assert later() == [3.0, 1.0, 2.0]
