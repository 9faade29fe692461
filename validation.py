"""Validation: teacher-forced losses, and fixed texts spoken freely and compared with their recordings."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import metrics
from audio.enhancement import enhance
from audio.griffin_lim import griffin_lim
from auxiliary_losses import auxiliary_parts
from data_utils import Batch, Corpus, MelStats
from hparams import HParams
from loss_function import guided_attention_loss, tacotron2_loss, unmasked_nvidia_loss
from mmi import reading_error
from model import Decoded, DecodeLimits, Outputs, Tacotron2, decoder_steps, pad_texts
from run_directory.records import Sample
from speakers import row_tensor
from text import sequence_to_text

FREE_RUNNING_TEXTS = 20  # enough to tell 90 % from 100 %, few enough to decode in one batch
VOCODED_TEXTS = 3  # as many as a person listens to
SAMPLE_ITERATIONS = 30  # of Griffin-Lim: samples are for judging progress, synthesize.py uses more
NO_SYMBOL_NEEDED = frozenset(" _-!'(),.:;?")  # attention may pass over these without harm


@dataclass(frozen=True)
class Reference:
    """A text to speak and the recording to compare with."""

    text: str
    ids: Sequence[int]
    mel: np.ndarray | None  # [n_mels, T_mel] log-mel of the recording, where there is one
    speaker: int | None = None  # row of the speaker table


@torch.no_grad()
def teacher_forced_losses(
    model: Tacotron2, batches: Iterable[Batch], hp: HParams, stats: MelStats, device: torch.device
) -> dict[str, float]:
    """Masked losses over the validation set in log-mel units, and the ancestor's unmasked loss for comparison."""
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
        if outputs.recognised is not None:
            of_utterances["mmi"] = float(parts.pop("mmi"))  # a mean over utterances, not over steps
            of_utterances["mmi_error"] = reading_error(outputs.recognised, batch.text, batch.text_lengths, steps)
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


def to_log_mel_units(name: str, value: float, stats: MelStats) -> float:
    """Mean squared errors of standardised mels, as they are in log-mel."""
    return value * stats.std**2 if name.startswith("mel") else value


def speak(
    model: Tacotron2,
    references: Sequence[Reference],
    limits: DecodeLimits,
    *,
    seed: int,
    device: torch.device,
    style: Tensor | None = None,
) -> list[Decoded]:
    """Free-running decoding in one batch, reproducible by `seed`; training's random state is left alone.

    style [B, heads, tokens]: without it each text decides its own, whatever its recording was like.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    text, lengths = pad_texts([reference.ids for reference in references])
    rows = row_tensor([reference.speaker for reference in references])
    speakers = None if rows is None else rows.to(device)
    return model.infer(text.to(device), lengths.to(device), limits, generator=generator, speakers=speakers, style=style)


def symbols_of(ids: Sequence[int]) -> list[str]:
    return [sequence_to_text([i]) for i in ids]


def ignored_symbols(symbols: Sequence[str]) -> np.ndarray:
    """True where a symbol needs no attention of its own: spaces and punctuation. [T_text]"""
    return np.array([symbol in NO_SYMBOL_NEEDED for symbol in symbols])


def log_mel(standardised: Tensor, stats: MelStats) -> np.ndarray:
    return (standardised.float().cpu().numpy() * stats.std + stats.mean).astype(np.float32)


def assess(sample: Sample, std: float) -> metrics.FreeRunning:
    """The free-running metrics of one sample that has a recording; `std` is the corpus deviation."""
    assert sample.target_mel is not None, sample.text
    return metrics.assess(
        sample.alignment,
        predicted_mel=sample.mel,
        reference_mel=sample.target_mel,
        std=std,
        stop_reason=sample.stop_reason,
        ignore=ignored_symbols(sample.symbols),
    )


def sample_of(
    decoded: Decoded,
    reference: Reference,
    hp: HParams,
    stats: MelStats,
    *,
    n_iter: int,
    seed: int = 0,
    enhanced: bool = False,
) -> Sample:
    """What there is to see and hear of one text; no sound with n_iter=0. Enhancement touches the sound only."""
    mel = log_mel(decoded.mel, stats)
    wav = griffin_lim(torch.from_numpy(mel), hp, n_iter=n_iter, seed=seed).numpy() if n_iter else None
    return Sample(
        text=reference.text,
        symbols=symbols_of(reference.ids),
        alignment=decoded.alignment.float().cpu().numpy(),
        gate=decoded.gate.float().cpu().numpy(),
        mel=mel,
        target_mel=reference.mel,
        stop_reason=decoded.stop_reason,
        wav=enhance(wav, hp.sampling_rate) if enhanced and wav is not None else wav,
        sampling_rate=hp.sampling_rate,
        frame_s=hp.hop_length / hp.sampling_rate,
    )


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
