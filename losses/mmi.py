"""MMI (arXiv 1909.01145): CTC targets and loss, and the factor that adapts its gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.chunked_steps import STEPS_RECORDED
from kernels.ctc import ctc_losses
from kernels.host_sync import is_gpu

# A bias in front of a batch normalisation has a gradient of rounding noise, 1e-9 to 1e-7 of the largest, where all
# others have over 1e-3: no ratio to go by.
NEGLIGIBLE = 1e-6


def ctc_targets(text: Tensor, text_lengths: Tensor, is_spoken: Tensor) -> tuple[Tensor, Tensor]:
    """What is spoken of each text, moved to the front: text [B, T_text], text_lengths [B] -> the same shapes.

    is_spoken [n_symbols]: True for ids that sound, not for padding, punctuation or spaces.
    """
    positions = torch.arange(text.size(1), device=text.device)
    kept = is_spoken[text] & (positions < text_lengths[:, None])
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    return text.gather(1, order), kept.sum(1)


def mmi_loss(log_probs: Tensor, text: Tensor, text_lengths: Tensor, steps: Tensor, is_spoken: Tensor) -> Tensor:
    """CTC / decoder steps, averaged over the utterances; 0 for one with too few steps for its text.

    log_probs [T_dec, B, n_symbols + 1], blank last; text [B, T_text] ids, text_lengths [B], steps [B] valid steps;
    is_spoken [n_symbols].
    """
    blank = log_probs.size(2) - 1
    targets, lengths = ctc_targets(text, text_lengths, is_spoken)
    if is_gpu(log_probs.device):
        ctc = ctc_losses(log_probs, targets, steps, lengths, chunk=STEPS_RECORDED)  # [B]
    else:
        ctc = F.ctc_loss(log_probs, targets, steps, lengths, blank=blank, reduction="none", zero_infinity=True)
    return (ctc / steps).mean()


def largest_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """max |d loss / d p| of each parameter, 0 where the loss does not reach it: [len(parameters)].

    By `autograd.grad`: `.grad` and the hooks of data-parallel wrappers see nothing, the graph stays for the real pass.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.stack([loss.new_zeros(()) if g is None else g.abs().amax().to(loss.dtype) for g in gradients])


def adaptive_factor(task: Tensor, mmi: Tensor, parameters: Sequence[Tensor], *, most: float, before: Tensor) -> Tensor:
    """Gradient adaptive factor []: the least of max|g_task| / max|g_mmi| over what both losses reach, at most `most`.

    task, mmi []: the losses; parameters [...]. Parameters whose task gradient is rounding noise don't count: one of
    them would decide alone. `before` [] stays where there is nothing to measure: no common parameter, or a gradient
    that is not finite.
    """
    of_task, of_mmi = largest_gradients(task, parameters), largest_gradients(mmi, parameters)
    shared = (of_task > NEGLIGIBLE * of_task.max()) & (of_mmi > 0)
    least = torch.where(shared, of_task / of_mmi, torch.inf).min()
    is_measured = torch.isfinite(least) & torch.isfinite(of_mmi).all()
    return torch.where(is_measured, least.clamp(max=most), before).detach()
