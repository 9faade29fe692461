"""Losses: pure functions of outputs and targets. Padding never counts, whatever the batch looks like."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hparams import LossParams
from layers import padding_mask
from model import Outputs, decoder_steps
from modules.style_tokens import Style


@dataclass(frozen=True)
class LossTerms:
    """Each part by name, unweighted, and what is minimised."""

    total: Tensor
    parts: Mapping[str, Tensor]


def masked_mean(values: Tensor, is_padding: Tensor) -> Tensor:
    """Mean [] of values [...] over what is not padding. is_padding is True in the padding and broadcasts to [...]."""
    valid = (~is_padding).expand_as(values)
    return values.masked_fill(~valid, 0.0).sum() / valid.sum()


def mel_loss(predicted: Tensor, target: Tensor, is_padding: Tensor) -> Tensor:
    """Mean squared error. predicted, target [B, n_mels, T_mel], is_padding [B, T_mel]."""
    return masked_mean((predicted - target).square(), is_padding.unsqueeze(1))


def gate_loss(logits: Tensor, target: Tensor, is_padding: Tensor) -> Tensor:
    """Binary cross-entropy of the stop decision. All [B, T_dec]."""
    return masked_mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), is_padding)


def guided_attention_weights(text_lengths: Tensor, steps: Tensor, shape: tuple[int, int], sigma: float) -> Tensor:
    """Cost of attending off the diagonal: 0 on it, near 1 far from it; 0 in padding.

    W[t, n] = 1 - exp(-(n / N - t / T)^2 / (2 sigma^2)), each utterance with its own N and T (in decoder steps);
    arXiv 1710.08969. text_lengths [B], steps [B], shape (T_dec, T_text) -> [B, T_dec, T_text].
    """
    T_dec, T_text = shape
    device = text_lengths.device
    t = torch.arange(T_dec, device=device)[None, :, None] / steps[:, None, None]
    n = torch.arange(T_text, device=device)[None, None, :] / text_lengths[:, None, None]
    weights = 1.0 - torch.exp(-((n - t) ** 2) / (2.0 * sigma**2))
    outside = padding_mask(steps, T_dec)[:, :, None] | padding_mask(text_lengths, T_text)[:, None, :]
    return weights.masked_fill(outside, 0.0)


def guided_attention_loss(alignments: Tensor, text_lengths: Tensor, steps: Tensor, sigma: float) -> Tensor:
    """Mean over valid decoder steps of the cost of that step's attention, so it doesn't depend on text length.

    alignments [B, T_dec, T_text], text_lengths [B], steps [B] -> scalar in [0, 1).
    """
    weights = guided_attention_weights(text_lengths, steps, (alignments.size(1), alignments.size(2)), sigma)
    return (alignments * weights).sum() / steps.sum()


def tacotron2_loss(
    outputs: Outputs,
    mel: Tensor,
    gate: Tensor,
    *,
    text_lengths: Tensor,
    mel_lengths: Tensor,
    hp: LossParams,
    r: int,
    mask_padding: bool,
    guide: float,
) -> LossTerms:
    """Mel before and after the postnet, gate, guided attention with the weight `guide`, and the predicted style.

    mel [B, n_mels, T_mel] and gate [B, T_dec] are targets; with r frames a step, the silence that fills an
    utterance's last group counts as speech. Without `mask_padding` the means run over the padding too.
    """
    steps = decoder_steps(mel_lengths, r)
    is_padding = padding_mask(steps, gate.size(1)) & mask_padding  # [B, T_dec]
    is_padded_frame = is_padding.repeat_interleave(r, 1)  # [B, T_mel]
    parts = {
        "mel": mel_loss(outputs.mel, mel, is_padded_frame),
        "mel_post": mel_loss(outputs.mel_post, mel, is_padded_frame),
        "gate": gate_loss(outputs.gate_logits, gate, is_padding),
    }
    total = parts["mel"] + parts["mel_post"] + parts["gate"]
    if guide > 0.0:
        parts["guided_attention"] = guided_attention_loss(outputs.alignments, text_lengths, steps, hp.guide_sigma)
        total = total + guide * parts["guided_attention"]
    if outputs.style is not None:
        parts["style"] = style_loss(outputs.style, steps)
        total = total + parts["style"]
    return LossTerms(total, parts)


def unmasked_nvidia_loss(outputs: Outputs, mel: Tensor, gate: Tensor, std: float) -> Tensor:
    """NVIDIA/tacotron2's loss, for comparison with its published curves: means over the padded tensors, log-mel units.

    Its value depends on how much padding a batch has. `outputs` come masked, `mel` [B, n_mels, T_mel] holds
    standardised silence behind each utterance, where the error counts as 0.
    """
    is_padding = (outputs.gate_logits > 500.0).repeat_interleave(mel.size(2) // gate.size(1), 1).unsqueeze(1)
    mel = mel.masked_fill(is_padding, 0.0)
    squared = F.mse_loss(outputs.mel, mel) + F.mse_loss(outputs.mel_post, mel)
    return squared * std**2 + F.binary_cross_entropy_with_logits(outputs.gate_logits, gate)


def style_loss(style: Style, steps: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the predicted weights from those of the mel, mean over heads; 0 = predicted.

    Reaches the predictor alone, so it needs no weight of its own. An utterance counts by its decoder steps [B], as it
    does in the other losses: so accumulated micro-batches give the gradient of one large batch.
    """
    divergence = F.kl_div(style.predicted, style.weights.detach(), reduction="none").sum(2).mean(1)  # [B]
    return (divergence * steps).sum() / steps.sum()
