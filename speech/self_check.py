"""Whether an utterance came out as its text says: what attention, stop gate and, if there is one, a listener tell."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np

from common.log import LOG
from run_directory.records import Sample
from speech import asr, metrics
from speech.decoding import ignored_symbols
from speech.utterance import SynthesizedUtterance

Listener = Callable[[np.ndarray, int, str], tuple[float, str]]  # sound, rate, text -> character errors, what is heard

REPEATED_SYMBOLS = 6  # attention that goes back so far says something twice
LONGEST_REST_S = 1.2  # on one symbol with a sound of its own
LEAST_SHARPNESS = 0.35  # under it attention looks at half the sentence at once
MISHEARD = 0.25  # of the characters


@dataclass(frozen=True)
class Examination:
    """doubts: in words, none if all is well. badness: 0 is perfect; of two attempts the smaller one is better."""

    doubts: tuple[str, ...] = ()
    badness: float = 0.0
    heard: str | None = None


def examine(utterance: SynthesizedUtterance, listener: Listener | None = None) -> Examination:
    """What is doubtful about it."""
    sample = utterance.sample
    ignore = ignored_symbols(sample.symbols)
    doubts = [*_of_stop(utterance), *_of_attention(sample, ignore, utterance.step_s)]
    badness = 1.0 - metrics.attention_score(sample.alignment, ignore=ignore)
    badness += 0.5 * (sample.stop_reason != "gate")
    heard = None
    if listener is not None:
        errors, heard = listener(utterance.wav, utterance.sampling_rate, sample.text)
        badness += 2 * min(errors, 1.0)
        if errors > MISHEARD:
            doubts.append(f"heard as {heard!r}")
    return Examination(tuple(doubts), badness, heard)


def examiner(language: str) -> Callable[[SynthesizedUtterance], Examination]:
    """`examine` with the recogniser, if there is one for the language; else a warning says that nobody listens."""
    lack = lack_of_listener(language)
    if lack is None:
        return partial(examine, listener=listen)
    LOG.warning("--check looks at attention and stop alone: %s", lack)
    return examine


def lack_of_listener(language: str) -> str | None:
    """Why nobody listens in this language; None if somebody does."""
    if not language.startswith("en"):
        return f"the recogniser knows English only, and the voice speaks {language}"
    missing = [package for package, module in asr.PACKAGES.items() if find_spec(module) is None]
    return f"{', '.join(missing)} missing here; {asr.INSTALL_HINT}" if missing else None


def listen(wav: np.ndarray, sampling_rate: int, text: str) -> tuple[float, str]:
    """Share of the characters that the recogniser hears otherwise, and what it hears."""
    (heard,) = asr.transcribe([wav], sampling_rate=sampling_rate)
    return asr.cer([text], [heard]), heard


def _of_stop(utterance: SynthesizedUtterance) -> list[str]:
    return [] if utterance.sample.stop_reason == "gate" else [utterance.verdict]


def _of_attention(sample: Sample, ignore: np.ndarray, step_s: float) -> list[str]:
    alignment, doubts = sample.alignment, []
    if metrics.sharpness(alignment) < LEAST_SHARPNESS:
        doubts.append("attention is blurred")
    skipped = skipped_symbols(alignment, ignore)
    if skipped.any():
        shown = "".join(s for s, is_skipped in zip(sample.symbols, skipped, strict=True) if is_skipped)
        doubts.append(f"passed over {int(skipped.sum())} symbols: {shown}")
    if not metrics.end_reached(alignment):
        doubts.append("did not reach the end of the text")
    if (back := metrics.backward_jump(alignment)) >= REPEATED_SYMBOLS:
        doubts.append(f"went back by {back} symbols")
    rest_s = _longest_rest(alignment, ignore) * step_s
    if rest_s > LONGEST_REST_S:
        doubts.append(f"stayed on one symbol for {rest_s:.1f} s")
    return doubts


def skipped_symbols(alignment: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    """True for symbols with a sound that were never read, in the sense of `metrics.argmax_coverage`. [T_text]"""
    n_symbols = len(ignore)
    alone = ~np.eye(n_symbols, dtype=bool)  # row n ignores all but symbol n
    counted = np.flatnonzero(~ignore)
    skipped = np.zeros(n_symbols, dtype=bool)
    if metrics.argmax_coverage(alignment, ignore=ignore) < 1.0:
        skipped[counted] = [metrics.argmax_coverage(alignment, ignore=alone[n]) < 1.0 for n in counted]
    return skipped


def _longest_rest(alignment: np.ndarray, ignore: np.ndarray) -> int:
    """Decoder steps of the longest stay of the argmax on one symbol that has a sound."""
    path = alignment.argmax(axis=1)
    longest = run = 0
    for t in range(len(path)):
        run = run + 1 if t and path[t] == path[t - 1] else 1
        if not ignore[path[t]]:
            longest = max(longest, run)
    return longest
