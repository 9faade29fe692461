"""What --check gains: word errors of a voice with and without it, and the time it takes.

    python benchmarks/self_check.py -c output -n 100

The sentences are held-out ones of the demo corpus. Whisper tiny.en judges, which also took part in choosing where a row
says "heard": that row flatters itself. The row "attention" was chosen without it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from corpus.demo.sentences import demo_sentences
from speech.self_check import examine, examiner
from speech.voice import Voice


@dataclass(frozen=True)
class Outcome:
    """Of all sentences, said in one way."""

    word_errors: float
    n_doubtful: int
    n_repeated: int
    seconds: float
    sound_s: float


def said(voice: Voice, texts: list[str], way: str, judge: Callable[[list[np.ndarray]], float]) -> Outcome:
    """way: "plain", "attention" (chosen without a listener) or "heard"."""
    check = {"plain": None, "attention": examine, "heard": examiner(voice.front_end.language.code)}[way]
    began, wavs, n_doubtful, n_repeated = time.perf_counter(), [], 0, 0
    for text in texts:
        speech = voice.synthesize(text, examine=check, attempts=4)
        wavs.append(speech.wav)
        n_doubtful += bool(speech.doubts)
        n_repeated += any(part.n_attempts > 1 for part in speech.parts)
    seconds = time.perf_counter() - began
    sound_s = sum(len(wav) for wav in wavs) / voice.sampling_rate
    return Outcome(judge(wavs), n_doubtful, n_repeated, seconds, sound_s)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-c", "--checkpoint-path", required=True, type=Path)
    p.add_argument("-n", type=int, default=100)
    args = p.parse_args()
    voice, texts = Voice.load(args.checkpoint_path), list(demo_sentences().test[: args.n])

    from speech import asr

    def judge(wavs: list[np.ndarray]) -> float:
        return asr.wer(texts, asr.transcribe(wavs, sampling_rate=voice.sampling_rate))

    print("| way | word errors | doubtful | said again | time, s | sound, s |\n|---|---|---|---|---|---|")
    for way in ("plain", "attention", "heard"):
        o = said(voice, texts, way, judge)
        row = (way, f"{o.word_errors:.3f}", o.n_doubtful, o.n_repeated, f"{o.seconds:.0f}", f"{o.sound_s:.0f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
