"""From attention energies to attention weights: softmax, smoothed, and forward attention. Pure functions.

Energies and padding are [B, T_text], padding True behind each text. Every way gives rows that sum to 1 and are exactly
0 in the padding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MOVE = 0.5  # u of forward attention: the chance to move on by a symbol, before the energies have their say
# Less mass than this cannot move. The gradient of log(mass) is 1 / mass, and fp32 has few digits left for it; adding a
# small number to all positions instead, as is often done, would let mass appear anywhere.
LEAST_MASS = 1e-8
SMALLEST = 1e-30  # keeps the logarithm of a weight that underflowed finite


@dataclass(frozen=True)
class Memory:
    """The encoded text as attention reads it."""

    values: Tensor  # [B, T_text, E]
    keys: Tensor  # [B, T_text, A]
    padding: Tensor  # [B, T_text]


@dataclass(frozen=True)
class Normalisation:
    """How energies become weights. The default is softmax."""

    smoothing: float = 0.0  # share of the sigmoid normalisation
    is_forward: bool = False

    @property
    def is_softmax(self) -> bool:
        return not self.is_forward and self.smoothing == 0.0

    def first_weights(self, zeros: Tensor) -> Tensor:
        """What stands for the (last, summed) weights before the first step: zeros [B, 2, T_text] -> the same shape.

        Forward attention starts on the first symbol.
        """
        if self.is_forward:
            zeros[:, 0, 0] = 1.0
        return zeros

    def __call__(self, energies: Tensor, padding: Tensor, last: Tensor) -> Tensor:
        """last [B, T_text]: the weights of the step before -> weights [B, T_text]."""
        masked = energies.masked_fill(padding, float("-inf"))
        if self.is_softmax:
            return torch.softmax(masked, dim=1)
        if self.smoothing == 0.0:
            return moved_forward(masked, last)
        weights = smoothed(masked, self.smoothing)
        if not self.is_forward:
            return weights
        return moved_forward(weights.clamp(min=SMALLEST).log().masked_fill(padding, float("-inf")), last)


def smoothed(masked: Tensor, share: float) -> Tensor:
    """(1 - share) * softmax(e) + share * sigmoid(e) / sum of sigmoid(e).

    The second term is the smoothing of arXiv 1506.07503, section 2.3: bounded energies spread attention over several
    symbols. It is computed as the softmax of log sigmoid(e), whose sum can't underflow. masked [B, T_text]: energies,
    -inf in the padding.
    """
    spread = torch.softmax(F.logsigmoid(masked), dim=1)
    return torch.softmax(masked, dim=1).lerp(spread, share)


def moved_forward(scores: Tensor, last: Tensor) -> Tensor:
    """Forward attention (arXiv 1807.06736, eq. 9) with u = MOVE: attention stays on a symbol or moves on to the next.

    w_t(n) ~ [(1 - u) w_{t-1}(n) + u w_{t-1}(n - 1)] * exp(scores(n)), in the log domain: the energies of symbols that
    can't be reached may be far larger than those of symbols that can. scores [B, T_text], -inf in the padding. The
    last symbol with mass can always be stayed on, so no row is empty.
    """
    reached = (1.0 - MOVE) * last + MOVE * F.pad(last, (1, -1))  # [B, T_text]
    is_closed = reached < LEAST_MASS
    prior = reached.clamp(min=LEAST_MASS).log().masked_fill(is_closed, float("-inf"))
    return torch.softmax(scores + prior, dim=1)
