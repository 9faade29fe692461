"""What a corpus gives a voice beside its weights: what every checkpoint keeps for speaking."""

import numpy as np

from audio.mel import MelFingerprint
from checkpointing.checkpoint_file import VoiceInfo
from corpus.batch import MelDataset
from data_utils import Corpus
from hparams import HParams
from model import DecodeLimits


def voice_info_of(hp: HParams, corpus: Corpus, *, r: int | None = None) -> VoiceInfo:
    limits = decode_limits(hp, corpus)
    return VoiceInfo(
        hparams=hp.canonical(),
        symbols=list(corpus.front_end.table.symbols),
        front_end=corpus.front_end.to_dict(),
        mel_fingerprint=MelFingerprint.of(hp).to_dict(),
        mel_mean=corpus.stats.mean,
        mel_std=corpus.stats.std,
        frames_per_symbol=limits.frames_per_symbol,
        speakers=list(corpus.speakers),
        frames_per_step=r,
        symbol_counts=corpus.train.symbol_counts(len(corpus.front_end.table)),
        longest_text=longest_text(corpus.train),
    )


def decode_limits(hp: HParams, corpus: Corpus) -> DecodeLimits:
    """A text may take half again as long as the slowest training utterance of its length would, plus a little."""
    return DecodeLimits(
        max_frames=hp.max_decoder_steps * hp.n_frames_per_step,
        gate_threshold=hp.gate_threshold,
        frames_per_symbol=round(1.5 * slowest_frames_per_symbol(corpus.train), 3),
    )


def longest_text(dataset: MelDataset) -> int:
    """Symbols that 99 % of the texts have at most: longer ones, a voice has hardly learnt to say in one go."""
    return int(np.quantile([symbols for symbols, _ in dataset.lengths], 0.99))


def slowest_frames_per_symbol(dataset: MelDataset) -> float:
    """What 99.5 % of the utterances stay under, but at most three times the median.

    So that one odd recording doesn't set everybody's budget, in a small corpus neither.
    """
    rates = [frames / symbols for symbols, frames in dataset.lengths]
    return float(min(np.quantile(rates, 0.995), 3 * np.median(rates)))
