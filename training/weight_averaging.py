"""Averaged weights: an exponential moving average beside the weights that train, which steadies what a voice says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WARMUP = 10  # after n steps no more than the last n of them count: (1 + n) / (10 + n), as in TensorFlow's average


class AveragedWeights:
    """The average of a model's floating weights and running statistics over the steps that were taken.

    average = d average + (1 - d) weights after each, with d the smaller of `decay` and (1 + n) / (10 + n).
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model, self.decay = model, decay
        self.average = {name: t.detach().clone() for name, t in self._living().items()}
        self.n_steps = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)

    def _living(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.model.state_dict().items() if t.is_floating_point()}

    @torch.no_grad()
    def after_step(self, is_taken: Tensor) -> None:
        """is_taken [] truth on the device: without it average and count stay. Waits for nothing."""
        self.n_steps += is_taken
        decay = torch.clamp((1 + self.n_steps) / (WARMUP + self.n_steps), max=self.decay)
        share = ((1 - decay) * is_taken).float()
        living = list(self._living().values())
        torch._foreach_lerp_(list(self.average.values()), living, [share] * len(living))

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Inside, the model holds the average; after it its own weights again, bit for bit."""
        living = self._living()
        own = {name: t.clone() for name, t in living.items()}
        for name, tensor in living.items():
            tensor.copy_(self.average[name])
        try:
            yield
        finally:
            for name, tensor in living.items():
                tensor.copy_(own[name])

    def weights(self) -> dict[str, Tensor]:
        """What a voice speaks with, [...] by name: the average, and what can't be averaged as it is."""
        return {**self.model.state_dict(), **self.average}

    def state(self) -> dict[str, Any]:
        """For the checkpoint, beside `weights`, which are its model."""
        return {"weights": self.model.state_dict(), "n_steps": self.n_steps}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor], n_steps: Tensor | None) -> None:
        """weights [...]: the averaged ones of a checkpoint; n_steps []: None begins anew from them."""
        for name, tensor in self.average.items():
            tensor.copy_(weights[name])
        self.n_steps.fill_(0 if n_steps is None else float(n_steps))
