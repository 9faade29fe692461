"""How far speech is from its definition in double precision: `python benchmarks/speech_equality.py RUN`.

A trained voice says every test sentence of the demo corpus by the definition in fp32, which strays too, and by each
loop in each precision, with the same seed. The frame that differs most counts, in deviations of the corpus.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from corpus.demo.sentences import demo_sentences
from kernels.backend import why_unsupported
from kernels.packed_weights import InferencePrecision
from model import Decoded
from speech.decoding import Reference, speak
from speech.voice import Speaker

BACKENDS: tuple[Literal["plain", "fast", "auto"], ...] = ("plain", "fast", "auto")
PRECISIONS: tuple[InferencePrecision, ...] = ("fp32", "bf16", "int8")


def texts_for(speaker: Speaker, n: int) -> list[Reference]:
    return speaker.references_for(demo_sentences().test[:n])


def spoken(speaker: Speaker, texts: Sequence[Reference]) -> list[Decoded]:
    """One by one, with the same seed."""
    return [speak(speaker.model, [text], speaker.limits, seed=1234, device=speaker.device)[0] for text in texts]


def by_every_loop(speaker: Speaker, texts: Sequence[Reference]) -> Iterator[tuple[str, list[Decoded]]]:
    decoder = speaker.model.decoder
    for backend in BACKENDS:
        decoder.backend = backend
        for precision in PRECISIONS:
            if why_unsupported(decoder, precision) is None:
                decoder.prepare_for_inference(precision)
                yield f"decoder_backend={backend}, {precision}", spoken(speaker, texts)


def difference(found: Decoded, exact: Decoded) -> float:
    """Of the frames that both have."""
    n = min(found.mel.size(1), exact.mel.size(1))
    return float((found.mel[:, :n] - exact.mel[:, :n]).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory or a checkpoint")
    parser.add_argument("-n", type=int, default=100, help="sentences")
    args = parser.parse_args()
    torch.set_num_threads(1)
    speaker, exactly = Speaker.load(args.run), Speaker.load(args.run)
    exactly.model.double()
    exactly.model.decoder.backend = "plain"
    texts = texts_for(speaker, args.n)
    exact = spoken(exactly, texts)
    print(f"{len(texts)} sentences\n\n| loop | median | largest | stop at another step |\n|---|---|---|---|")
    for name, found in by_every_loop(speaker, texts):
        differences = [difference(a, b) for a, b in zip(found, exact, strict=True)]
        others = sum(len(a.gate) != len(b.gate) for a, b in zip(found, exact, strict=True))
        print(f"| {name} | {statistics.median(differences):.1e} | {max(differences):.1e} | {others} |", flush=True)


if __name__ == "__main__":
    main()
