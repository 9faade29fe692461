"""Losses beside Tacotron 2's own, off by default: MMI, double decoder consistency, monotonicity; and frame dropping.

All but MMI are means over the valid steps of the fine decoder, so that micro-batches weighted by theirs give the
gradient of one large batch. MMI is a mean over utterances, and is weighted so.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from data_utils import Batch, Corpus
from drop_frames import drop_frames, standardised_mean_frame
from hparams import AuxiliaryParams, HParams
from layers import padding_mask
from loss_function import LossTerms, gate_loss, masked_mean, mel_loss
from mmi import adaptive_factor, mmi_loss
from model import Coarse, Outputs, Tacotron2, decoder_steps


def alignment_distance(fine: Tensor, coarse: Tensor, behind: Tensor) -> Tensor:
    """Mean over valid steps of the L1 distance between two attention rows, in 0..2 whatever the text's length.

    fine [B, T_dec, T_text], coarse [B, T_dec / k, T_text] with each of its steps standing for k, behind [B, T_dec].
    """
    upsampled = coarse.repeat_interleave(fine.size(1) // coarse.size(1), 1)  # the nearest step
    return masked_mean((fine - upsampled).abs().sum(2), behind)


def coarse_losses(coarse: Coarse, alignments: Tensor, mel: Tensor, mel_lengths: Tensor, r: int) -> dict[str, Tensor]:
    """Mel and gate loss of the coarse decoder, and how far both alignments are apart.

    alignments [B, T_dec, T_text] of the fine decoder, mel [B, n_mels, T_mel] the target. Every mean is over the frames
    and steps that are valid for the fine decoder, with r frames a step, so the two mel losses can be compared.
    """
    T_dec, T_coarse = alignments.size(1), coarse.gate_logits.size(1)
    k = T_dec // T_coarse
    behind = padding_mask(decoder_steps(mel_lengths, r), T_dec)
    gate = padding_mask(decoder_steps(mel_lengths, k * r) - 1, T_coarse).to(coarse.gate_logits.dtype)
    return {
        "mel_coarse": mel_loss(coarse.mel, mel, behind.repeat_interleave(r, 1)),
        "gate_coarse": gate_loss(coarse.gate_logits.repeat_interleave(k, 1), gate.repeat_interleave(k, 1), behind),
        "ddc": alignment_distance(alignments, coarse.alignments, behind),
    }


def monotonicity_loss(alignments: Tensor, text_lengths: Tensor, steps: Tensor) -> Tensor:
    """How far attention moves backward in a step, as a share of the text: mean over valid decoder steps.

    With the mean position m[t] = sum_n n a[t, n], step t costs max(0, m[t-1] - m[t]) / N, the first one nothing; after
    Regotron (arXiv 2204.13437), without a margin, as attention may stay on a long sound.
    alignments [B, T_dec, T_text], text_lengths [B], steps [B].
    """
    T_dec, T_text = alignments.shape[1:]
    position = alignments @ torch.arange(T_text, device=alignments.device, dtype=alignments.dtype)  # [B, T_dec]
    backward = F.relu(position[:, :-1] - position[:, 1:]) / text_lengths[:, None]
    return masked_mean(F.pad(backward, (1, 0)), padding_mask(steps, T_dec))


def auxiliary_parts(outputs: Outputs, batch: Batch, hp: AuxiliaryParams, *, r: int) -> dict[str, Tensor]:
    """The losses that are on, by name, unweighted."""
    parts: dict[str, Tensor] = {}
    steps = decoder_steps(batch.mel_lengths, r)
    if outputs.coarse is not None:
        parts |= coarse_losses(outputs.coarse, outputs.alignments, batch.mel, batch.mel_lengths, r)
    if hp.attention_alignment_loss_weight > 0.0:
        parts["monotonicity"] = monotonicity_loss(outputs.alignments, batch.text_lengths, steps)
    if outputs.recognised is not None:
        parts["mmi"] = mmi_loss(outputs.recognised, batch.text, batch.text_lengths, steps)
    return parts


class AuxiliaryLosses:
    """What a trainer adds to the loss, and the little that has to be remembered for it."""

    def __init__(self, hp: HParams, corpus: Corpus, model: Tacotron2, device: torch.device) -> None:
        self.hp, self.model = hp, model
        self.factor = torch.tensor(0.0 if hp.use_gaf else 1.0, device=device)  # of MMI
        self._measured_at: int | None = None
        self.mean_frame: Tensor | None = None
        if hp.drop_frame_rate > 0.0:
            self.mean_frame = standardised_mean_frame(corpus.train.features, hp, corpus.stats).to(device)

    def teacher(self, batch: Batch) -> Tensor:
        """What the decoder is shown in training: the target, some frames of it dropped. [B, n_mels, T_mel]"""
        if self.mean_frame is None:
            return batch.mel
        return drop_frames(batch.mel, batch.mel_lengths, self.mean_frame, self.hp.drop_frame_rate)

    def add(
        self,
        terms: LossTerms,
        outputs: Outputs,
        batch: Batch,
        *,
        step: int,
        share: Tensor | float,
        by_utterances: Tensor | float,
    ) -> LossTerms:
        """The terms with all that is on.

        step: optimiser steps taken before this one. The caller weighs everything by `share` of a micro-batch;
        by_utterances: its share of the step's utterances.
        """
        hp = self.hp
        parts = auxiliary_parts(outputs, batch, hp, r=self.model.r)
        total = terms.total
        if "ddc" in parts:
            total = total + parts["mel_coarse"] + parts["gate_coarse"] + hp.ddc_loss_weight * parts["ddc"]
        if "monotonicity" in parts:
            total = total + hp.attention_alignment_loss_weight * parts["monotonicity"]
        if "mmi" in parts:
            self._measure(total, parts["mmi"], step)
            parts["mmi"] = parts["mmi"] * (by_utterances / share)
            total = total + hp.mmi_weight * self.factor * parts["mmi"]
            parts["mmi_factor"] = self.factor
        return LossTerms(total, {**terms.parts, **parts})

    def _measure(self, task: Tensor, mmi: Tensor, step: int) -> None:
        """The adaptive factor anew, every so many optimiser steps, on the first micro-batch."""
        hp = self.hp
        if not hp.use_gaf or step % hp.update_gaf_every_n_step or step == self._measured_at:
            return
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.factor = agreed(adaptive_factor(task, mmi, parameters, most=hp.max_gaf, before=self.factor))
        self._measured_at = step

    def state(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"factor": self.factor.item()}

    def restore(self, state: dict[str, float]) -> None:
        if self.hp.use_gaf and "factor" in state:
            self.factor = torch.full_like(self.factor, state["factor"])


def agreed(value: Tensor) -> Tensor:
    """The mean over all processes, where there are several: they must not weigh the same step differently."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
