"""Validation: teacher-forced losses, and fixed texts spoken freely and compared with their recordings."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from audio.mel import MelFingerprint
from corpus.batch import Batch
from corpus.loader import make_loader
from corpus.mel_statistics import to_log_mel_units
from data_utils import Corpus, plan_batches, spoken_symbols
from hparams import HParams
from loss_function import guided_attention_loss, tacotron2_loss, unmasked_nvidia_loss
from losses.auxiliary import auxiliary_parts
from losses.mmi import ctc_targets
from model import Outputs, Tacotron2, decoder_steps
from run_directory.records import Sample
from speech import metrics
from speech.decoding import Reference, assess, sample_of, speak
from speech.metrics import edit_distance
from speech.vocoders.vocoder import sample_vocoder
from training.voice_info import decode_limits

FREE_RUNNING_TEXTS = 20  # enough to tell 90 % from 100 %, few enough to decode in one batch
VOCODED_TEXTS = 3  # as many as a person listens to
SAMPLE_ITERATIONS = 30  # of Griffin-Lim: samples are for judging progress, synthesize.py uses more


@torch.no_grad()
def teacher_forced_losses(
    model: Tacotron2, batches: Iterable[Batch], hp: HParams, corpus: Corpus, device: torch.device
) -> dict[str, float]:
    """Masked losses over the validation set in log-mel units, by name.

    For comparison, `nvidia_unmasked` is the loss as NVIDIA/tacotron2 computes it (padding included).
    """
    by_steps, by_utterances = Means(), Means()
    stats, is_spoken = corpus.stats, spoken_symbols(corpus).to(device)
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
        parts = {**terms.parts, **auxiliary_parts(outputs, batch, hp, r=model.r, is_spoken=is_spoken)}
        parts["guided_attention"] = guided_attention_loss(outputs.alignments, batch.text_lengths, steps, hp.guide_sigma)
        if hp.mask_padding:
            parts["nvidia_unmasked"] = unmasked_nvidia_loss(outputs, batch.mel, batch.gate, stats.std)
        of_utterances = taught_alignments(outputs, batch, steps, is_spoken)
        if outputs.ctc_log_probs is not None:
            of_utterances["mmi"] = float(parts.pop("mmi"))  # a mean over utterances, not over steps
            of_utterances["mmi_error"] = reading_error(
                outputs.ctc_log_probs, batch.text, batch.text_lengths, steps, is_spoken
            )
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


def taught_alignments(outputs: Outputs, batch: Batch, steps: Tensor, is_spoken: Tensor) -> dict[str, float]:
    """With a second decoder, the alignment scores of both, so that one sees which has learnt to attend.

    steps [B] valid decoder steps, is_spoken [n_symbols].
    """
    if outputs.coarse is None:
        return {}
    k = outputs.alignments.size(1) // outputs.coarse.alignments.size(1)
    return {
        "alignment_fine": mean_attention_score(outputs.alignments, batch, steps, is_spoken),
        "alignment_coarse": mean_attention_score(outputs.coarse.alignments, batch, (steps + k - 1) // k, is_spoken),
    }


def mean_attention_score(alignments: Tensor, batch: Batch, steps: Tensor, is_spoken: Tensor) -> float:
    """alignments [B, T_dec, T_text], steps [B] valid ones -> `metrics.attention_score`, averaged over utterances."""
    scores = []
    lengths = zip(steps.tolist(), batch.text_lengths.tolist(), strict=True)
    ignore = (~is_spoken[batch.text]).cpu().numpy()  # [B, T_text]
    for weights, silent, (n, length) in zip(alignments.float().cpu().numpy(), ignore, lengths, strict=True):
        scores.append(metrics.attention_score(weights[:n, :length], ignore=silent[:length]))
    return float(np.mean(scores))


@dataclass(frozen=True)
class Validated:
    losses: dict[str, float]
    free_running: dict[str, float]
    score: float
    duration_s: float
    samples: Sequence[Sample] = ()


class Validator:
    """Validates one model on the validation half of one corpus."""

    def __init__(self, hp: HParams, model: Tacotron2, corpus: Corpus, device: torch.device) -> None:
        self.hp, self.model, self.corpus, self.device = hp, model, corpus, device
        self.plan = plan_batches(corpus.validation, hp, is_validation=True)
        self.limits = decode_limits(hp, corpus)
        self.references = references_of(corpus)

    def run(self, *, with_heartbeat: Callable[[Iterable[Batch]], Iterable[Batch]] = iter) -> Validated:
        """One validation. Leaves the model in training mode and every random state as it was.

        with_heartbeat: passes the batches on and tells whoever waits that this process lives.
        """
        started, hp = time.perf_counter(), self.hp
        loader = make_loader(self.corpus.validation, self.plan, epoch=0, r=self.model.r)
        self.model.eval()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(hp.seed)
            losses = teacher_forced_losses(self.model, with_heartbeat(loader), hp, self.corpus, self.device)
        samples = self._speak() if hp.validation_attention_analysis else []
        self.model.train()
        summary = metrics.summarise([assess(sample, self.corpus.stats.std) for sample in samples]) if samples else {}
        # without the free-running analysis there is only the loss to go by, which the user chose
        score = metrics.composite_score(summary) if summary else losses["mel_post"]
        return Validated(losses, summary, score, time.perf_counter() - started, samples)

    def _speak(self) -> list[Sample]:
        """Free-running speech of the reference texts, the first of them with sound."""
        hp, limits = self.hp, replace(self.limits, max_frames=self.hp.max_decoder_steps * self.model.r)
        decoded = speak(self.model, self.references, limits, seed=hp.seed, device=self.device)
        vocoder = sample_vocoder(hp.sample_vocoder, MelFingerprint.of(hp), self.device)
        return [
            sample_of(
                one,
                reference,
                hp,
                self.corpus.stats,
                n_iter=SAMPLE_ITERATIONS if i < VOCODED_TEXTS else 0,
                enhanced=hp.use_audio_quality_enhancement,
                vocoder=vocoder,
            )
            for i, (one, reference) in enumerate(zip(decoded, self.references, strict=True))
        ]


def references_of(corpus: Corpus) -> list[Reference]:
    """The first validation texts: the same ones at every validation of every run on this corpus."""
    dataset = corpus.validation
    chosen = [(dataset.features[i].utterance.text, dataset[i]) for i in range(min(FREE_RUNNING_TEXTS, len(dataset)))]
    table = corpus.front_end.table
    return [
        Reference(text, ids, table.shown(ids), item.mel.numpy(), item.speaker)
        for text, item in chosen
        for ids in [item.text.tolist()]
    ]


def reading_error(log_probs: Tensor, text: Tensor, text_lengths: Tensor, steps: Tensor, is_spoken: Tensor) -> float:
    """What the likeliest path misreads, insertions included, as a share of what is spoken: mean over the utterances.

    log_probs [T_dec, B, n_symbols + 1] and the rest as `mmi_loss`. A recogniser that reads nothing has 1.
    """
    blank = log_probs.size(2) - 1
    targets, lengths = (t.tolist() for t in ctc_targets(text, text_lengths, is_spoken))
    paths = log_probs.argmax(2).t().tolist()  # [B][T_dec]
    shares = []
    for path, n, target, length in zip(paths, steps.tolist(), targets, lengths, strict=True):
        heard = [symbol for symbol, _ in groupby(path[:n]) if symbol != blank]
        shares.append(edit_distance(heard, target[:length]) / max(length, 1))
    return sum(shares) / len(shares)
