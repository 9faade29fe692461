"""MMI: a recogniser reads the text back from the decoder, so that the decoder has to heed it (arXiv 1909.01145).

The recogniser is weak on purpose, one hidden layer on the features that both projections read: a strong one would
follow the mel alone and teach the decoder nothing. Its keys start with `mmi.`; synthesis knows nothing of it.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hparams import ModelParams
from kernels.chunks import STEPS_RECORDED
from kernels.ctc import ctc_losses
from kernels.waits import is_gpu
from metrics import edit_distance
from text.symbols import symbols

RECOGNISER_DROPOUT = 0.5  # weak on purpose, too
# A bias in front of a batch normalisation has a gradient of rounding noise, 1e-9 to 1e-7 of the largest, where all
# others have over 1e-3: no ratio to go by.
NEGLIGIBLE = 1e-6


class Recogniser(nn.Module):
    """Decoder features -> log-probabilities of all symbols and, last, of CTC's blank."""

    def __init__(self, n_features: int, hp: ModelParams) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, hp.decoder_rnn_dim)
        self.output = nn.Linear(hp.decoder_rnn_dim, hp.n_symbols + 1)
        if hp.xavier_init:
            nn.init.xavier_uniform_(self.hidden.weight, gain=nn.init.calculate_gain("relu"))
            nn.init.xavier_uniform_(self.output.weight)

    def forward(self, features: Tensor) -> Tensor:
        """features [T_dec, B, D + E] -> [T_dec, B, n_symbols + 1] in the precision of the weights, autocast or not."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = F.relu(self.hidden(features.to(self.hidden.weight.dtype)))
            return F.log_softmax(self.output(F.dropout(hidden, RECOGNISER_DROPOUT, self.training)), 2)


@cache
def is_spoken(n_symbols: int, device: torch.device) -> Tensor:
    """True for ids that sound: letters and phonemes, not padding, punctuation or spaces. [n_symbols]

    Ids beyond our own symbols, which a checkpoint may bring, count as spoken.
    """
    known = [any(map(str.isalnum, symbol)) for symbol in symbols[:n_symbols]]
    return torch.tensor(known + [True] * (n_symbols - len(known))).to(device, non_blocking=True)


def ctc_targets(text: Tensor, text_lengths: Tensor, n_symbols: int) -> tuple[Tensor, Tensor]:
    """What is spoken of each text, moved to the front: text [B, T_text], text_lengths [B] -> the same shapes."""
    positions = torch.arange(text.size(1), device=text.device)
    kept = is_spoken(n_symbols, text.device)[text] & (positions < text_lengths[:, None])
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    return text.gather(1, order), kept.sum(1)


def mmi_loss(log_probs: Tensor, text: Tensor, text_lengths: Tensor, steps: Tensor) -> Tensor:
    """CTC / decoder steps, averaged over the utterances; 0 for one with too few steps for its text.

    log_probs [T_dec, B, n_symbols + 1], blank last; text [B, T_text] ids, text_lengths [B], steps [B] valid steps.
    """
    blank = log_probs.size(2) - 1
    targets, lengths = ctc_targets(text, text_lengths, blank)
    if is_gpu(log_probs.device):
        ctc = ctc_losses(log_probs, targets, steps, lengths, chunk=STEPS_RECORDED)  # [B]
    else:
        ctc = F.ctc_loss(log_probs, targets, steps, lengths, blank=blank, reduction="none", zero_infinity=True)
    return (ctc / steps).mean()


def reading_error(log_probs: Tensor, text: Tensor, text_lengths: Tensor, steps: Tensor) -> float:
    """What the likeliest path misreads, insertions included, as a share of what is spoken: mean over the utterances.

    Arguments as `mmi_loss`. A recogniser that hears nothing has 1.
    """
    blank = log_probs.size(2) - 1
    targets, lengths = (t.tolist() for t in ctc_targets(text, text_lengths, blank))
    paths = log_probs.argmax(2).t().tolist()  # [B][T_dec]
    shares = []
    for path, n, target, length in zip(paths, steps.tolist(), targets, lengths, strict=True):
        heard = [symbol for symbol, _ in groupby(path[:n]) if symbol != blank]
        shares.append(edit_distance(heard, target[:length]) / max(length, 1))
    return sum(shares) / len(shares)


def largest_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """max |d loss / d p| of each parameter, 0 where the loss does not reach it: [len(parameters)].

    By `autograd.grad`: `.grad` and the hooks of data-parallel wrappers see nothing, the graph stays for the real pass.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.stack([loss.new_zeros(()) if g is None else g.abs().amax().to(loss.dtype) for g in gradients])


def adaptive_factor(task: Tensor, mmi: Tensor, parameters: Sequence[Tensor], *, most: float, before: Tensor) -> Tensor:
    """Gradient adaptive factor: the least of max|g_task| / max|g_mmi| over what both losses reach, at most `most`.

    Parameters whose task gradient is rounding noise don't count: one of them would decide alone. `before` stays where
    there is nothing to measure: no common parameter, or a gradient that is not finite.
    """
    of_task, of_mmi = largest_gradients(task, parameters), largest_gradients(mmi, parameters)
    shared = (of_task > NEGLIGIBLE * of_task.max()) & (of_mmi > 0)
    least = torch.where(shared, of_task / of_mmi, torch.inf).min()
    is_measured = torch.isfinite(least) & torch.isfinite(of_mmi).all()
    return torch.where(is_measured, least.clamp(max=most), before).detach()
