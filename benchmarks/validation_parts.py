"""What each part of a validation costs: `python benchmarks/validation_parts.py -c output`.

A run's voice is validated three times as training does it, by one thread; medians of processor time. The lists are the
run's own, or those of `--data FOLDER --train LIST --validation LIST`.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from corpus.loader import make_loader
from data_utils import load_corpus, plan_batches
from hparams import HParams
from speech.decoding import assess, sample_of, sound_of, speak
from speech.metrics import dtw_mel_distance
from speech.vocoders.vocoder import GriffinLim
from speech.voice import Voice
from training.validation import SAMPLE_ITERATIONS, VOCODED_TEXTS, references_of, teacher_forced_losses
from training.voice_info import decode_limits

REPEATS = 3


class Stopwatch:
    """Processor seconds by the part's name."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.times[part].append(time.process_time() - began)


def settings(voice: Voice, args: argparse.Namespace) -> HParams:
    given = {"dataset_path": args.data, "training_files": args.train, "validation_files": args.validation}
    return voice.hp.model_copy(update={name: value for name, value in given.items() if value})


def validate(voice: Voice, hp: HParams, watch: Stopwatch) -> str:
    """Every part so many times. -> what was validated"""
    corpus, device = load_corpus(hp, front_end=voice.front_end), torch.device("cpu")
    plan, references = plan_batches(corpus.validation, hp, is_validation=True), references_of(corpus)
    limits, std, vocoder = decode_limits(hp, corpus), corpus.stats.std, GriffinLim(hp)
    n_frames = 0
    for _ in range(REPEATS):
        with watch.timing("teacher-forced losses"):
            loader = make_loader(corpus.validation, plan, epoch=0, r=voice.model.r)
            teacher_forced_losses(voice.model, loader, hp, corpus, device)
        with watch.timing("texts spoken freely, as mels"):
            decoded = speak(voice.model, references, limits, seed=hp.seed, device=device)
        samples = [
            sample_of(one, text, hp, corpus.stats, n_iter=0) for one, text in zip(decoded, references, strict=True)
        ]
        with watch.timing("their metrics"):
            for sample in samples:
                assess(sample, std)
        with watch.timing("of that, time warping"):
            for sample in samples:
                if sample.target_mel is not None:
                    dtw_mel_distance(sample.mel, sample.target_mel, std=std)
        with watch.timing(f"sound of {VOCODED_TEXTS} by Griffin-Lim"):
            for sample in samples[:VOCODED_TEXTS]:
                sound_of(sample.mel, vocoder, n_iter=SAMPLE_ITERATIONS, seed=0)
        n_frames = sum(sample.mel.shape[1] for sample in samples)
    return f"{len(corpus.validation)} utterances, {len(references)} of them spoken freely: {n_frames} frames"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-c", "--checkpoint-path", required=True, type=Path)
    p.add_argument("--data", help="the folder that the lists name recordings in")
    p.add_argument("--train", help="a list; its recordings say what mels are like")
    p.add_argument("--validation", help="a list")
    args = p.parse_args()
    torch.set_num_threads(1)
    voice, watch = Voice.load(args.checkpoint_path, device="cpu"), Stopwatch()
    print(validate(voice, settings(voice, args), watch))
    print("\n| part | CPU s |\n|---|---|")
    for part, times in watch.times.items():
        print(f"| {part} | {statistics.median(times):.2f} |")


if __name__ == "__main__":
    main()
