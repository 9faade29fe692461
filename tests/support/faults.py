"""Faults put into a training step: losses, gradients, weights and moments that are not finite."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpus.batch import Batch
from training.train_step import TrainStep

OFTEN = "iters_per_checkpoint=5,epochs=100"


class Sick(TrainStep):
    """`hurt(train_step, step, losses)` comes after the backward pass of every step; it may change the losses."""

    spoils_batch_at = 0  # step; 0 = never

    def __init__(self, *arguments: Any, hurt: "Hurt") -> None:
        super().__init__(*arguments)
        self.hurt = hurt

    def accumulate(self, micro_batches: Sequence[Batch], *, step: int) -> dict[str, Tensor]:
        if step == self.spoils_batch_at:
            micro_batches[0].mel[0] = nan
        losses = super().accumulate(micro_batches, step=step)
        self.hurt(self, step, losses)
        return losses


Hurt = Callable[[Sick, int, dict[str, Tensor]], None]


def sick(hurt: Hurt) -> Callable[..., Sick]:
    """For `trainer_of(train_step=...)`."""
    return partial(Sick, hurt=hurt)


def once(at: int, do: Callable[[Sick, dict[str, Tensor]], None]) -> Hurt:
    """A fault that does not come again when the step is done again."""
    pending = [at]

    def hurt(train_step: Sick, step: int, losses: dict[str, Tensor]) -> None:
        if step in pending:
            pending.remove(step)
            do(train_step, losses)

    return hurt


def nan_loss(train_step: Sick, losses: dict[str, Tensor]) -> None:
    losses["total"] = losses["total"] * nan


def nan_gradient(train_step: Sick, losses: dict[str, Tensor]) -> None:
    weight = train_step.model.embedding.weight
    assert weight.grad is not None
    weight.grad[0, 0] = nan


def large_gradient(train_step: Sick, losses: dict[str, Tensor]) -> None:
    for parameter in train_step.model.parameters():
        if parameter.grad is not None:
            parameter.grad *= 1e6


def nan_weight(train_step: Sick, losses: dict[str, Tensor]) -> None:
    with torch.no_grad():
        train_step.model.embedding.weight[0, 0] = nan  # the padding symbol's: no loss depends on it


def inf_weight(train_step: Sick, losses: dict[str, Tensor]) -> None:
    with torch.no_grad():
        train_step.model.decoder.gate_layer.linear_layer.bias.fill_(inf)


def nan_statistics(train_step: Sick, losses: dict[str, Tensor]) -> None:
    next(b for b in train_step.model.buffers() if b.is_floating_point()).fill_(nan)


def nan_moments(train_step: Sick, losses: dict[str, Tensor]) -> None:
    next(iter(train_step.optimizer.state.values()))["exp_avg_sq"].fill_(nan)


def inf_moments(train_step: Sick, losses: dict[str, Tensor]) -> None:
    next(iter(train_step.optimizer.state.values()))["exp_avg_sq"].fill_(inf)  # the weights stay finite, and stand still


def diagnosis(directory: Path) -> dict[str, Any]:
    content = json.loads((directory / "diagnosis.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
