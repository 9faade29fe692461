"""Validation: teacher-forced losses, and fixed texts spoken freely and compared with their recordings."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from corpus.batch import Batch
from corpus.mel_statistics import MelStats, to_log_mel_units
from data_utils import Corpus
from hparams import HParams
from loss_function import guided_attention_loss, tacotron2_loss, unmasked_nvidia_loss
from losses.auxiliary import auxiliary_parts
from losses.mmi import ctc_targets
from model import DecodeLimits, Outputs, Tacotron2, decoder_steps
from run_directory.records import Sample
from speech import metrics
from speech.decoding import Reference, assess, ignored_symbols, sample_of, speak, symbols_of
from speech.metrics import edit_distance

FREE_RUNNING_TEXTS = 20  # enough to tell 90 % from 100 %, few enough to decode in one batch
VOCODED_TEXTS = 3  # as many as a person listens to
SAMPLE_ITERATIONS = 30  # of Griffin-Lim: samples are for judging progress, synthesize.py uses more


@torch.no_grad()
def teacher_forced_losses(
    model: Tacotron2, batches: Iterable[Batch], hp: HParams, stats: MelStats, device: torch.device
) -> dict[str, float]:
    """Masked losses over the validation set in log-mel units, by name.

    For comparison, `nvidia_unmasked` is the loss as NVIDIA/tacotron2 computes it (padding included).
    """
    by_steps, by_utterances = Means(), Means()
    for batch in batches:
        batch = batch.to(device)
        outputs = model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speakers=batch.speakers)
        steps = decoder_steps(batch.mel_lengths, model.r)
        terms = tacotron2_loss(
            outputs,
            batch.mel,
            batch.gate,
            text_lengths=batch.text_lengths,
            mel_lengths=batch.mel_lengths,
            hp=hp,
            r=model.r,
            mask_padding=True,
            guide=0.0,
        )
        parts = {**terms.parts, **auxiliary_parts(outputs, batch, hp, r=model.r)}
        parts["guided_attention"] = guided_attention_loss(outputs.alignments, batch.text_lengths, steps, hp.guide_sigma)
        if hp.mask_padding:
            parts["nvidia_unmasked"] = unmasked_nvidia_loss(outputs, batch.mel, batch.gate, stats.std)
        of_utterances = taught_alignments(outputs, batch, steps)
        if outputs.ctc_log_probs is not None:
            of_utterances["mmi"] = float(parts.pop("mmi"))  # a mean over utterances, not over steps
            of_utterances["mmi_error"] = reading_error(outputs.ctc_log_probs, batch.text, batch.text_lengths, steps)
        by_utterances.add(of_utterances, weight=len(batch))
        by_steps.add(
            {name: to_log_mel_units(name, float(value), stats) for name, value in parts.items()},
            weight=int(steps.sum()),
        )
    return {**by_steps.values(), **by_utterances.values()}


class Means:
    """Weighted means by name, of batches one after the other."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._total = 0

    def add(self, values: Mapping[str, float], *, weight: int) -> None:
        self._total += weight
        for name, value in values.items():
            self._sums[name] += weight * value

    def values(self) -> dict[str, float]:
        return {name: value / self._total for name, value in self._sums.items()}


def taught_alignments(outputs: Outputs, batch: Batch, steps: Tensor) -> dict[str, float]:
    """With a second decoder, the alignment scores of both, so that one sees which has learnt to attend; steps [B]."""
    if outputs.coarse is None:
        return {}
    k = outputs.alignments.size(1) // outputs.coarse.alignments.size(1)
    return {
        "alignment_fine": mean_attention_score(outputs.alignments, batch, steps),
        "alignment_coarse": mean_attention_score(outputs.coarse.alignments, batch, (steps + k - 1) // k),
    }


def mean_attention_score(alignments: Tensor, batch: Batch, steps: Tensor) -> float:
    """alignments [B, T_dec, T_text], steps [B] valid ones -> `metrics.attention_score`, averaged over utterances."""
    scores = []
    lengths = zip(steps.tolist(), batch.text_lengths.tolist(), strict=True)
    for weights, ids, (n, length) in zip(alignments.float().cpu().numpy(), batch.text.tolist(), lengths, strict=True):
        ignore = ignored_symbols(symbols_of(ids[:length]))
        scores.append(metrics.attention_score(weights[:n, :length], ignore=ignore))
    return float(np.mean(scores))


@dataclass(frozen=True)
class Validated:
    losses: dict[str, float]
    free_running: dict[str, float]
    score: float
    samples: list[Sample]
    duration_s: float


def validate(
    model: Tacotron2,
    batches: Iterable[Batch],
    references: Sequence[Reference],
    hp: HParams,
    stats: MelStats,
    limits: DecodeLimits,
    device: torch.device,
) -> Validated:
    """One validation. Leaves the model in training mode and every random state as it was."""
    started = time.perf_counter()
    model.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(hp.seed)
        losses = teacher_forced_losses(model, batches, hp, stats, device)
    summary: dict[str, float] = {}
    samples: list[Sample] = []
    if hp.validation_attention_analysis:
        spoken = speak(model, references, limits, seed=hp.seed, device=device)
        enhanced = hp.use_audio_quality_enhancement
        samples = [
            sample_of(
                decoded,
                reference,
                hp,
                stats,
                n_iter=SAMPLE_ITERATIONS if i < VOCODED_TEXTS else 0,
                enhanced=enhanced,
            )
            for i, (decoded, reference) in enumerate(zip(spoken, references, strict=True))
        ]
        summary = metrics.summarise([assess(sample, stats.std) for sample in samples])
    model.train()
    # without the free-running analysis there is only the loss to go by, which the user chose
    score = metrics.composite_score(summary) if summary else losses["mel_post"]
    return Validated(losses, summary, score, samples, time.perf_counter() - started)


def references_of(corpus: Corpus) -> list[Reference]:
    """The first validation texts: the same ones at every validation of every run on this corpus."""
    dataset = corpus.validation
    chosen = [(dataset.features[i].utterance.text, dataset[i]) for i in range(min(FREE_RUNNING_TEXTS, len(dataset)))]
    return [Reference(text, item.text.tolist(), item.mel.numpy(), item.speaker) for text, item in chosen]


def reading_error(log_probs: Tensor, text: Tensor, text_lengths: Tensor, steps: Tensor) -> float:
    """What the likeliest path misreads, insertions included, as a share of what is spoken: mean over the utterances.

    log_probs [T_dec, B, n_symbols + 1] and the rest as `mmi_loss`. A recogniser that reads nothing has 1.
    """
    blank = log_probs.size(2) - 1
    targets, lengths = (t.tolist() for t in ctc_targets(text, text_lengths, blank))
    paths = log_probs.argmax(2).t().tolist()  # [B][T_dec]
    shares = []
    for path, n, target, length in zip(paths, steps.tolist(), targets, lengths, strict=True):
        heard = [symbol for symbol, _ in groupby(path[:n]) if symbol != blank]
        shares.append(edit_distance(heard, target[:length]) / max(length, 1))
    return sum(shares) / len(shares)
