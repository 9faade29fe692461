"""Double decoder consistency: the loss of the coarse decoder and the distance of both alignments."""

from torch import Tensor

from layers import padding_mask
from loss_function import gate_loss, masked_mean, mel_loss
from model import CoarseOutputs, decoder_steps


def alignment_distance(fine: Tensor, coarse: Tensor, is_padding: Tensor) -> Tensor:
    """Mean over valid steps of the L1 distance between two attention rows, in 0..2 whatever the text's length.

    fine [B, T_dec, T_text], coarse [B, T_dec / k, T_text] with each of its steps standing for k, is_padding [B, T_dec].
    """
    upsampled = coarse.repeat_interleave(fine.size(1) // coarse.size(1), 1)  # the nearest step
    return masked_mean((fine - upsampled).abs().sum(2), is_padding)


def coarse_losses(
    coarse: CoarseOutputs, alignments: Tensor, mel: Tensor, mel_lengths: Tensor, r: int
) -> dict[str, Tensor]:
    """Mel and gate loss of the coarse decoder, and how far both alignments are apart.

    alignments [B, T_dec, T_text] of the fine decoder, mel [B, n_mels, T_mel] the target. Every mean is over the frames
    and steps that are valid for the fine decoder, with r frames a step, so the two mel losses can be compared.
    """
    T_dec, T_coarse = alignments.size(1), coarse.gate_logits.size(1)
    k = T_dec // T_coarse
    is_padding = padding_mask(decoder_steps(mel_lengths, r), T_dec)
    gate = padding_mask(decoder_steps(mel_lengths, k * r) - 1, T_coarse).to(coarse.gate_logits.dtype)
    return {
        "mel_coarse": mel_loss(coarse.mel, mel, is_padding.repeat_interleave(r, 1)),
        "gate_coarse": gate_loss(coarse.gate_logits.repeat_interleave(k, 1), gate.repeat_interleave(k, 1), is_padding),
        "ddc": alignment_distance(alignments, coarse.alignments, is_padding),
    }
