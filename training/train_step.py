"""One optimiser step: forward and backward of its micro-batches, clipping, the update."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from checkpointing.checkpoint_file import Checkpoint
from corpus.batch import Batch
from data_utils import Corpus, spoken_symbols
from hparams import HParams
from kernels.chunked_steps import chunk_for
from kernels.host_sync import allow_host_sync, are_waits_forbidden, forbid_host_sync, is_gpu
from loss_function import LossTerms, tacotron2_loss
from losses.auxiliary import AuxiliaryLosses
from model import Tacotron2, decoder_steps
from parallel.process_group import SINGLE_PROCESS, ProcessGroup
from recovery.ladder import Fault, StepLimits
from run_directory.records import Event
from training.frame_dropping import FrameDropper
from training.mixed_precision import Precision
from training.schedules import guide_weight, learning_rate, teacher_forcing_ratio
from training.weight_averaging import AveragedWeights


@dataclass(frozen=True)
class StepOutcome:
    """Loss and gradient norm of one step, read back from the device."""

    loss: float
    norm: float  # of the gradient, before clipping
    is_taken: bool
    fault: Fault | None  # why it was not taken; None too where fp16 only looked for its scale


@dataclass(frozen=True)
class StepResult:
    """What a step did. Everything that depends on its data stays on the device until somebody reads it."""

    losses: Mapping[str, Tensor]
    numbers: Tensor  # [3] float64: loss, gradient norm before clipping, 1 if the step was taken
    limits: StepLimits
    seeks_scale: bool  # fp16: a gradient that overflows only says that the loss scale is too high
    event: Event | None  # what a person should know of it

    def outcome(self, loss: float, norm: float, is_taken: float) -> StepOutcome:
        """The numbers, read."""
        fault = self.limits.fault(loss, norm)
        if isfinite(loss) and not isfinite(norm) and self.seeks_scale:
            fault = None
        return StepOutcome(loss, norm, bool(is_taken), fault)


@dataclass(frozen=True)
class StepSnapshot:
    """State to restore if the step is rejected: BatchNorm statistics, random state."""

    buffers: Sequence[Tensor]  # running statistics, which move in the forward pass
    factor: Tensor  # MMI's
    torch_rng: Tensor
    cuda_rng: Sequence[Tensor]


class TrainStep:
    """Moves one model by one optimiser step at a time, and owns all that such a step changes beside the weights."""

    def __init__(
        self, hp: HParams, model: Tacotron2, corpus: Corpus, device: torch.device, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.hp, self.model, self.device, self.group = hp, model, device, group
        self.auxiliary = AuxiliaryLosses(hp, model, spoken_symbols(corpus), device)
        self.frame_dropper = FrameDropper(hp, corpus, device)
        self.precision = Precision(hp, device)
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=hp.learning_rate, weight_decay=hp.weight_decay, fused=True
        )
        self.average = AveragedWeights(model, decay=hp.ema_decay) if hp.ema_decay else None
        self.peak_rate = hp.learning_rate  # the checkpoint's with use_saved_learning_rate
        self.forbids_waits = is_gpu(device) and are_waits_forbidden()

    @property
    def rate(self) -> float:
        """Of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def run(
        self,
        micro_batches: Sequence[Batch],
        *,
        step: int,
        rate_scale: float,
        limits: StepLimits,
        rate_factor: float = 1.0,
        clip_factor: float = 1.0,
    ) -> StepResult:
        """Forward, backward, clip, update; a step over the `limits` is not taken. Nothing here waits for the device.

        step: the number of this one, from 1; rate_scale: what the plateau decay left of the learning rate. Both factors
        are caution on top of the settings. If it raises, `undo_step` undoes what it did.
        """
        rate = rate_factor * learning_rate(step, self.hp, scale=rate_scale, peak=self.peak_rate)
        clip = clip_factor * self.hp.grad_clip_thresh
        with forbid_host_sync(self.device) if self.forbids_waits else nullcontext():
            return self._run(micro_batches, step=step, rate=rate, clip=clip, limits=limits)

    def _run(
        self, micro_batches: Sequence[Batch], *, step: int, rate: float, clip: float, limits: StepLimits
    ) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self._before = self._snapshot()
        losses = self.accumulate(micro_batches, step=step)
        self.sync_gradients()
        self.precision.unscale(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip).double()
        # all processes of a run must see the same two numbers here
        loss = torch.as_tensor(self.group.all_reduce_sum_on_device(losses["total"].float())[0]).double()
        is_good = torch.isfinite(loss) & torch.isfinite(norm) & (loss <= limits.loss) & (norm <= limits.gradient_norm)
        self.optimizer.found_inf = (~is_good).float()  # type: ignore[attr-defined]  # what fused Adam asks for
        self.optimizer.step()
        self._keep_statistics(is_good)
        if self.average is not None:
            self.average.after_step(is_good)
        seeks_scale = self.precision.is_looking_for_its_scale
        numbers = torch.stack((loss, norm, is_good.double()))
        return StepResult(losses, numbers, limits, seeks_scale, self.precision.after_step(step))

    def _keep_statistics(self, is_good: Tensor) -> None:
        """The running statistics that the step made, or those before it, as a truth on the device [] says."""
        if not is_gpu(self.device) and is_good:  # which waits for nothing here
            return
        before = self._before
        for buffer, old in zip(self.model.buffers(), before.buffers, strict=True):
            buffer.copy_(torch.where(is_good, buffer, old))
        self.auxiliary.factor = torch.where(is_good, self.auxiliary.factor, before.factor)

    def sync_gradients(self) -> None:
        """From here on all processes have the same gradient, so they scale, clip, take or skip the step alike."""
        self.group.all_reduce_gradients(self.model.parameters(), compression=self.hp.gradient_compression)
        self.group.all_reduce_mean(self.model.buffers())

    def rehearse(self, micro_batches: Sequence[Batch], *, step: int) -> None:
        """The part of a step that needs most memory, without a trace."""
        self._before = self._snapshot()
        self.accumulate(micro_batches, step=step)
        self.undo_step()

    def undo_step(self) -> None:
        """Everything as before the step that failed in the middle, random states too, and its memory given back."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter, state in list(self.optimizer.state.items()):
            if "exp_avg_sq" not in state:  # memory ended while Adam made its state
                del self.optimizer.state[parameter]
        self._undo_statistics()
        torch.set_rng_state(self._before.torch_rng)
        self.precision.forget_step()
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(self._before.cuda_rng)
            chunk_for.cache_clear()  # recordings of the larger batch would keep their memory
            torch.cuda.empty_cache()

    def _snapshot(self) -> StepSnapshot:
        return StepSnapshot(
            [b.clone() for b in self.model.buffers()],
            self.auxiliary.factor,
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        )

    def _undo_statistics(self) -> None:
        for buffer, before in zip(self.model.buffers(), self._before.buffers, strict=True):
            buffer.copy_(before)
        self.auxiliary.factor = self._before.factor

    def find_non_finite_state(self) -> str | None:
        """What of that which lasts from step to step is not finite; None if all is."""
        lasting = {f"the model's {name}": t for name, t in self.model.state_dict().items() if t.is_floating_point()}
        for name, parameter in self.model.named_parameters():
            for what, value in self.optimizer.state.get(parameter, {}).items():
                lasting[f"Adam's {what} of {name}"] = value
        if self.average is not None:
            lasting |= {f"the averaged {name}": t for name, t in self.average.average.items()}
        lasting["MMI's adaptive factor"] = self.auxiliary.factor
        # a sum is finite only if all of its terms are; it is a tenth of the work, and waits for the device once
        if torch.isfinite(torch.stack([tensor.sum().float() for tensor in lasting.values()])).all():
            return None
        return next((name for name, tensor in lasting.items() if not torch.isfinite(tensor).all()), None)

    def accumulate(self, micro_batches: Sequence[Batch], *, step: int) -> dict[str, Tensor]:
        """Gradients as of one batch of all utterances: every loss is a mean over valid decoder steps, or made one. ->
        losses [] by name

        Of several processes, each gets its part of that gradient and of the losses: their sum is the whole.
        """
        guide = guide_weight(step, self.hp)
        with allow_host_sync(self.device):  # not for the device: batches come from the host
            steps = [int(decoder_steps(batch.mel_lengths, self.model.r).sum()) for batch in micro_batches]
        counting = [i for i, batch in enumerate(micro_batches) if batch.counts]
        all_steps, n_utterances = self.group.all_reduce_sum_on_device(
            sum(steps[i] for i in counting), sum(len(micro_batches[i]) for i in counting)
        )
        sums: dict[str, Tensor] = {}
        for batch, n in zip(micro_batches, steps, strict=True):
            share = n / all_steps
            batch = batch.to(self.device, non_blocking=True).with_frames_per_step(self.model.r)
            terms = self._losses(batch, guide, step=step, share=share, by_utterances=len(batch) / n_utterances)
            weight = share if batch.counts else 0.0  # every process has a gradient, if only to add nothing
            self.precision.scaled(terms.total * weight).backward()
            for name, value in {"total": terms.total, **terms.parts}.items():
                sums[name] = sums.get(name, 0.0) + value.detach() * weight
        return sums

    def _losses(
        self, batch: Batch, guide: float, *, step: int, share: Tensor | float, by_utterances: Tensor | float
    ) -> LossTerms:
        """All losses of one micro-batch, which makes so much of the step by decoder steps and by utterances."""
        with self.precision.autocast():
            outputs = self.model(
                batch.text,
                batch.text_lengths,
                batch.mel,
                batch.mel_lengths,
                speakers=batch.speakers,
                teacher=self.frame_dropper.teacher_frames(batch),
                p_teacher=teacher_forcing_ratio(step, self.hp),
            )
        terms = tacotron2_loss(
            outputs,
            batch.mel,
            batch.gate,
            text_lengths=batch.text_lengths,
            mel_lengths=batch.mel_lengths,
            hp=self.hp,
            r=self.model.r,
            mask_padding=self.hp.mask_padding,
            guide=guide,
        )
        return self.auxiliary.add(terms, outputs, batch, step=step - 1, share=share, by_utterances=by_utterances)

    def speaking_weights(self) -> dict[str, Tensor]:
        """What a checkpoint speaks with, [...] by name: the averaged weights where there are such."""
        return self.model.state_dict() if self.average is None else self.average.weights()

    def with_speaking_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds them."""
        return nullcontext() if self.average is None else self.average.in_place()

    def state(self) -> dict[str, Any]:
        """For the checkpoint, beside the weights that it speaks with."""
        return {
            **({} if self.average is None else {"average": self.average.state()}),
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.peak_rate,
            "loss_scale": self.precision.state(),
            "auxiliary": self.auxiliary.state(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.training is not None, "a stripped checkpoint can be spoken with, not resumed"
        saved = checkpoint.training
        averaged = saved.get("average", {})  # absent where the run went without
        self.model.load_state_dict(averaged.get("weights", checkpoint.model))
        if self.average is not None:
            self.average.restore(checkpoint.model, averaged.get("n_steps"))
        self.optimizer.load_state_dict(saved["optimizer"])
        self.auxiliary.restore(saved.get("auxiliary", {}))
        self.precision.restore(saved.get("loss_scale", {}))  # absent in checkpoints of version 0.1.0
        if self.hp.use_saved_learning_rate:
            self.peak_rate = saved["learning_rate"]
