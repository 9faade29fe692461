"""What sharper mels are worth to a voice: `python benchmarks/sharpening.py -c output --filelist test.csv -n 50`.

Says the texts once, gives the mels more detail in several ways (audio/mel_sharpening.py), and asks the listeners of
evaluate.py about the sound through HiFi-GAN: words of all, sound quality of the first 12. Needs requirements-eval.txt,
requirements-vocoder.txt and requirements-listen.txt.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from audio.mel_sharpening import detail, sharpened, with_more_detail
from evaluation.chosen_list import chosen_list
from evaluation.sounds import speak_lines
from evaluation.texts import read_lines
from listeners.quality import SoundQuality
from listeners.recogniser import Recogniser
from listeners.words import cer, wer
from speech.voice import Speaker

MARKED = 12  # sounds; marks take longest
WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as predicted": np.asarray,
    "blur 2, share 0.5": partial(with_more_detail, share=0.5, blur=2.0),
    "blur 2, share 0.7": partial(with_more_detail, share=0.7, blur=2.0),
    "blur 3, share 0.5": partial(with_more_detail, share=0.5, blur=3.0),
    "blur 4, share 0.5": partial(with_more_detail, share=0.5, blur=4.0),
    "as synthesize.py does": sharpened,
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-c", type=Path, required=True, metavar="RUN")
    p.add_argument("--filelist", type=Path, required=True)
    p.add_argument("--dataset-path", type=Path)
    p.add_argument("-n", type=int, default=50)
    p.add_argument("--seed", type=int, default=1234)
    args = p.parse_args()
    voice = Speaker.load(args.c, vocoder="universal")
    lines = read_lines(voice, chosen_list(args.c, voice, args.filelist, args.dataset_path), n=args.n)
    mels = [clip.mel for clip in speak_lines(voice, lines, [args.seed], lambda done, n: None)]
    own, recorded = (statistics.fmean(map(detail, each)) for each in (mels, [line.mel for line in lines]))
    print(f"detail: {own:.2f} of the voice, {recorded:.2f} of the recordings", flush=True)
    quality, recogniser = SoundQuality(), Recogniser(voice.front_end.language.code, n_threads=1)
    texts, rate = [line.utterance.text for line in lines], voice.vocoder.sampling_rate
    for name, way in WAYS.items():
        wavs = [voice.vocoder(torch.from_numpy(way(mel))).numpy() for mel in mels]
        marks = [quality.marks(wav, sampling_rate=rate) for wav in wavs[:MARKED]]
        means = {mark: statistics.fmean(each[mark] for each in marks) for mark in ("distillmos", "dnsmos_p808")}
        heard = recogniser.transcribe(wavs, sampling_rate=rate)
        print(
            f"{name:22} DistillMOS {means['distillmos']:.2f}, P.808 {means['dnsmos_p808']:.2f}, "
            f"word errors {wer(texts, heard):.1%}, character errors {cer(texts, heard):.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
