"""What `cut` and `record-next` of prepare_data.py make of a corpus whose texts are known.

    python benchmarks/preparing.py cut FOLDER LIST WORK
    python benchmarks/preparing.py join FOLDER LIST WORK
    python benchmarks/preparing.py record-next LIST

LIST is a wav|text list, FOLDER holds its recordings, WORK is a folder to work in. For `cut`, clips are joined to
recordings of six minutes with pauses of 0.3 to 0.8 s of room tone, and the first two are cut. `join` joins all of them
and cuts nothing: what `prepare_data.py cut` then makes of them can be trained. For `record-next`, the first 100
sentences are there and 50 more are chosen of the rest; beside them 50 by chance, the mean of 20 draws.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import soundfile

from corpus.coverage import coverage_of, suggest
from corpus.cutting import Cut, CutSettings, cut_recording, with_odd_rates
from listeners.recogniser import Recogniser
from listeners.words import cer

LENGTH_S, PAUSES_S, LOUD = 360.0, (0.3, 0.8), 0.05  # of a recording; of its peak, what counts as speech
N_KNOWN, N_CHOSEN, N_DRAWS = 100, 50, 20
FRAME = 512  # samples, of which the level is taken
MARGIN_S = 0.15  # how far a piece may reach into the quiet end of a word


@dataclass(frozen=True)
class Sentence:
    """Where a text is spoken in a joined recording, in seconds."""

    text: str
    start_s: float
    end_s: float

    def is_cut_by(self, piece: Cut) -> bool:
        return any(self.start_s + MARGIN_S < edge < self.end_s - MARGIN_S for edge in (piece.start_s, piece.end_s))


def entries_of(path: Path) -> list[list[str]]:
    return [line.split("|")[:2] for line in path.read_text(encoding="utf-8").splitlines() if line]


# ---- cut


def room_tone(mono: np.ndarray, rate: int, length_s: float) -> np.ndarray:
    """Noise [L] as loud as the quiet tenth of mono [L]: no recording has digital silence between its sentences."""
    frames = mono[: len(mono) // FRAME * FRAME].reshape(-1, FRAME)
    level = np.percentile(np.sqrt(np.square(frames).mean(axis=1)), 10)
    noise = np.random.default_rng(len(mono)).standard_normal(int(length_s * rate))
    return (level * noise).astype(np.float32)


def joined(folder: Path, entries: list[list[str]], target: Path, chance: random.Random) -> list[Sentence]:
    """Writes a recording of so many of the entries as fit, and takes those away from the list."""
    parts: list[np.ndarray] = []
    sentences, length_s = [], 0.0
    rate = soundfile.info(folder / entries[0][0]).samplerate
    while entries and length_s < LENGTH_S:
        name, text = entries.pop(0)
        wav, _ = soundfile.read(folder / name, dtype="float32", always_2d=True)
        mono = wav.mean(axis=1)
        loud = np.flatnonzero(np.abs(mono) > LOUD * np.abs(mono).max())
        sentences.append(Sentence(text, length_s + loud[0] / rate, length_s + loud[-1] / rate))
        parts += [mono, room_tone(mono, rate, chance.uniform(*PAUSES_S))]
        length_s += (len(mono) + len(parts[-1])) / rate
    soundfile.write(target, np.concatenate(parts), rate)
    return sentences


def said_in(piece: Cut, sentences: Sequence[Sentence]) -> str:
    """The sentences that a piece holds; none where one of them is cut."""
    if any(sentence.is_cut_by(piece) for sentence in sentences):
        return ""
    return " ".join(s.text for s in sentences if piece.start_s < (s.start_s + s.end_s) / 2 < piece.end_s)


def cut(folder: Path, path: Path, work: Path, *, n_recordings: int) -> str:
    entries, chance, recogniser = entries_of(path), random.Random(1), Recogniser("en", n_threads=1)
    work.mkdir(parents=True, exist_ok=True)
    made = [work / f"joined_{i}.flac" for i in range(n_recordings)]
    sentences = {str(target): joined(folder, entries, target, chance) for target in made}
    began = time.process_time()
    pieces = with_odd_rates(
        [piece for target in made for piece in cut_recording(target, work / "cut", recogniser, CutSettings())]
    )
    spent = time.process_time() - began
    seconds = sum(soundfile.info(target).duration for target in made)
    sure = [piece for piece in pieces if not piece.doubts]
    n_cut = sum(
        any(sentence.is_cut_by(piece) for piece in pieces if piece.source == name)
        for name, said in sentences.items()
        for sentence in said
    )
    compared = [(said, piece.text) for piece in sure if (said := said_in(piece, sentences[piece.source]))]
    errors = cer([said for said, _ in compared], [heard for _, heard in compared])
    n_sentences = sum(map(len, sentences.values()))
    return (
        f"{n_sentences} sentences, {seconds:.0f} s: {len(pieces)} pieces, {n_cut} sentences cut\n"
        f"{len(sure)} pieces are sure, {len(compared)} of them whole, with {errors:.1%} character errors\n"
        f"{spent / seconds:.2f} s of CPU a second of sound"
    )


def join(folder: Path, path: Path, work: Path) -> str:
    entries, chance = entries_of(path), random.Random(1)
    work.mkdir(parents=True, exist_ok=True)
    n = len(entries)
    made: list[Path] = []
    while entries:
        made.append(work / f"joined_{len(made)}.flac")
        joined(folder, entries, made[-1], chance)
    seconds = sum(soundfile.info(target).duration for target in made)
    return f"{n} sentences in {len(made)} recordings, {seconds:.0f} s"


# ---- record-next


def record_next(path: Path) -> str:
    texts = [text for _, text in entries_of(path)]
    known, pool = texts[:N_KNOWN], texts[N_KNOWN:]
    have = coverage_of(known)
    chosen = [suggestion.text for suggestion in suggest(have, pool, N_CHOSEN, known=known)]
    chance = random.Random(1)
    draws = [chance.sample(pool, N_CHOSEN) for _ in range(N_DRAWS)]

    def n_pairs(more: Sequence[str]) -> int:
        return len(coverage_of([*known, *more]).of("pair"))

    drawn = statistics.fmean(map(n_pairs, draws))
    return (
        f"different pairs of letters: {n_pairs([])} in {len(known)} sentences, {n_pairs(chosen)} with {len(chosen)} "
        f"chosen of {len(pool)}, {drawn:.0f} with as many by chance"
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = p.add_subparsers(dest="verb", required=True)
    cutting, joining = verbs.add_parser("cut"), verbs.add_parser("join")
    for verb in (cutting, joining):
        verb.add_argument("folder", type=Path)
        verb.add_argument("list", type=Path)
        verb.add_argument("work", type=Path)
    cutting.add_argument("--recordings", type=int, default=2, help="of six minutes (default 2)")
    verbs.add_parser("record-next").add_argument("list", type=Path)
    args = p.parse_args()
    if args.verb == "cut":
        print(cut(args.folder, args.list, args.work, n_recordings=args.recordings))
    elif args.verb == "join":
        print(join(args.folder, args.list, args.work))
    else:
        print(record_next(args.list))


if __name__ == "__main__":
    main()
