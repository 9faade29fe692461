"""What the network gives: of a teacher-forced pass, and of one utterance spoken without a teacher."""

from dataclasses import dataclass

from torch import Tensor

from modules.stopping import StopReason
from modules.style_tokens import Style


@dataclass(frozen=True)
class CoarseOutputs:
    """What the second decoder of double decoder consistency predicts, in its own, longer steps."""

    mel: Tensor  # [B, n_mels, T_mel]
    gate_logits: Tensor  # [B, T_mel / ddc_reduction_factor]
    alignments: Tensor  # [B, T_mel / ddc_reduction_factor, T_text]


@dataclass(frozen=True)
class Outputs:
    """What one teacher-forced pass predicts."""

    mel: Tensor  # [B, n_mels, T_mel] before the postnet
    mel_post: Tensor  # [B, n_mels, T_mel]
    gate_logits: Tensor  # [B, T_dec]
    alignments: Tensor  # [B, T_dec, T_text]
    style: Style | None = None  # with style tokens
    coarse: CoarseOutputs | None = None  # with use_ddc_loss
    ctc_log_probs: Tensor | None = None  # with use_mmi: [T_dec, B, n_symbols + 1], blank last


@dataclass(frozen=True)
class Decoded:
    """One utterance spoken without a teacher."""

    mel: Tensor  # [n_mels, T_mel] standardised, after the postnet
    gate: Tensor  # [T_dec] stop probability
    alignment: Tensor  # [T_dec, T_text]
    stop_reason: StopReason
