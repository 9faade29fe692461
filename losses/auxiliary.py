"""Losses beside Tacotron 2's own, off by default: MMI, double decoder consistency, monotonicity.

All but MMI are means over the valid steps of the fine decoder, so that micro-batches weighted by theirs give the
gradient of one large batch. MMI is a mean over utterances, and is weighted so.
"""

import torch
from torch import Tensor

from corpus.batch import Batch
from hparams import AuxiliaryParams, HParams
from loss_function import LossTerms
from losses.ddc import coarse_losses
from losses.mmi import adaptive_factor, mmi_loss
from losses.monotonicity import monotonicity_loss
from model import Outputs, Tacotron2, decoder_steps
from parallel.process_group import mean_over_processes


def auxiliary_parts(
    outputs: Outputs, batch: Batch, hp: AuxiliaryParams, *, r: int, is_spoken: Tensor
) -> dict[str, Tensor]:
    """The losses that are on, by name, unweighted, [] each.

    r: frames a decoder step of the fine decoder. is_spoken [n_symbols]: which symbols a recogniser can hear.
    """
    parts: dict[str, Tensor] = {}
    steps = decoder_steps(batch.mel_lengths, r)
    if outputs.coarse is not None:
        parts |= coarse_losses(outputs.coarse, outputs.alignments, batch.mel, batch.mel_lengths, r)
    if hp.attention_alignment_loss_weight > 0.0:
        parts["monotonicity"] = monotonicity_loss(outputs.alignments, batch.text_lengths, steps)
    if outputs.ctc_log_probs is not None:
        parts["mmi"] = mmi_loss(outputs.ctc_log_probs, batch.text, batch.text_lengths, steps, is_spoken)
    return parts


class AuxiliaryLosses:
    """What a trainer adds to the loss, and the little that has to be remembered for it."""

    def __init__(self, hp: HParams, model: Tacotron2, is_spoken: Tensor, device: torch.device) -> None:
        """is_spoken [n_symbols]: True for symbols that sound."""
        self.hp, self.model, self.is_spoken = hp, model, is_spoken.to(device)
        self.factor = torch.tensor(0.0 if hp.use_gaf else 1.0, device=device)  # of MMI
        self._measured_at: int | None = None

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

        step: optimiser steps taken before this one. The caller multiplies the whole loss of a micro-batch by `share`,
        its part of the step's valid decoder steps, [] or a number. MMI is a mean over utterances and must count by
        `by_utterances`, the micro-batch's part of the step's utterances: so it is divided by the one and multiplied by
        the other.
        """
        hp = self.hp
        parts = auxiliary_parts(outputs, batch, hp, r=self.model.r, is_spoken=self.is_spoken)
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
        self.factor = mean_over_processes(adaptive_factor(task, mmi, parameters, most=hp.max_gaf, before=self.factor))
        self._measured_at = step

    def state(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"factor": self.factor.item()}

    def restore(self, state: dict[str, float]) -> None:
        if self.hp.use_gaf and "factor" in state:
            self.factor = torch.full_like(self.factor, state["factor"])
