"""A long text in one file: how fast it is spoken, in how much memory, and which words are lost or said twice.

    python benchmarks/long_text.py -c output --words 5000 --vocoder universal --cores 1

The text is made of the demo corpus' sentences, joined by commas to 7 to 42 words. `synthesize.py` says it as a user
would. Whisper hears each sentence where the TextGrid says that it is.
"""

import argparse
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import soundfile

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from corpus.demo.sentences import demo_sentences  # noqa: E402
from listeners.recogniser import Recogniser  # noqa: E402
from listeners.words import WordErrors, word_errors  # noqa: E402

JOINED = (1, 2, 3, 6)  # demo sentences of about seven words in a sentence, in turn
INTERVAL = re.compile(r'xmin = ([\d.]+)\s+xmax = ([\d.]+)\s+text = "((?:[^"]|"")*)"')
MARGIN_S = 0.1


@dataclass(frozen=True)
class Run:
    seconds: float
    cpu_s: float
    sound_s: float
    memory_mib: list[float]  # resident, looked at every half second


def sentences(n_words: int) -> Iterator[str]:
    """Until there are so many words."""
    parts = itertools.cycle(text.rstrip(".?!") for text in demo_sentences().training)
    for n_joined in itertools.cycle(JOINED):
        if n_words <= 0:
            return
        said = ", ".join(itertools.islice(parts, n_joined)) + "."
        n_words -= len(said.split())
        yield said


def speak(args: argparse.Namespace, text: Path, wav: Path) -> Run:
    command = [sys.executable, str(REPOSITORY / "synthesize.py"), "-c", str(args.checkpoint_path), "--file", str(text)]
    command += ["-o", str(wav), "--srt", "--textgrid", "--vocoder", args.vocoder, "--precision", args.precision]
    began = time.perf_counter()
    child = psutil.Popen([*command, *args.more])
    if args.cores:
        child.cpu_affinity(child.cpu_affinity()[: args.cores])
    memory, cpu_s = [], 0.0
    while child.poll() is None:
        try:
            memory.append(child.memory_info().rss / 2**20)
            cpu_s = sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    if child.wait() not in (0, 3):  # 3: a sentence was cut at its limit
        sys.exit("synthesize.py failed, see above")
    return Run(time.perf_counter() - began, cpu_s, soundfile.info(wav).duration, memory)


def heard(wav: Path) -> list[WordErrors]:
    """Of each sentence, by the first tier of the TextGrid."""
    grid = wav.with_suffix(".TextGrid").read_text(encoding="utf-8").split("item [2]")[0]
    timed = [(float(a), float(b), text.replace('""', '"')) for a, b, text in INTERVAL.findall(grid) if text.strip()]
    sound, rate = soundfile.read(wav, dtype="float32")
    pieces = [sound[max(0, int((a - MARGIN_S) * rate)) : int((b + MARGIN_S) * rate)] for a, b, _ in timed]
    texts = Recogniser("en").transcribe(pieces, sampling_rate=rate)
    return [word_errors(text, said) for (_, _, text), said in zip(timed, texts, strict=True)]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-c", "--checkpoint-path", required=True, type=Path)
    p.add_argument("--words", type=int, default=5000)
    p.add_argument("--vocoder", default="griffin-lim")
    p.add_argument("--precision", default="fp32")
    p.add_argument("more", nargs="*", help="what else goes to synthesize.py, after --")
    p.add_argument("--cores", type=int, default=0, help="processors that it may use (default all)")
    args = p.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(args.cores or os.cpu_count()))
    with tempfile.TemporaryDirectory() as folder:
        text, wav = Path(folder) / "text.txt", Path(folder) / "text.wav"
        text.write_text(" ".join(sentences(args.words)) + "\n", encoding="utf-8")
        run = speak(args, text, wav)
        errors = heard(wav)
    n = len(run.memory_mib)
    tenths = [max(run.memory_mib[i * n // 5 : (i + 1) * n // 5 or 1]) for i in range(5)]
    words = sum(e.n_words for e in errors)
    print(f"{words} words in {len(errors)} pieces, {run.sound_s:.0f} s of sound in {run.seconds:.0f} s", end="")
    print(f" ({run.seconds / run.sound_s:.2f} s a second of sound; {run.cpu_s / run.sound_s:.2f} of CPU)")
    print("most resident memory in each fifth of the time, MiB:", ", ".join(f"{m:.0f}" for m in tenths))
    print(f"word errors {sum(e.total for e in errors) / words:.1%}, not heard {sum(e.deleted for e in errors)}", end="")
    print(f", heard twice {sum(e.repeated for e in errors)}; pieces with over two words not heard or", end="")
    print(f" any heard twice: {sum(e.deleted > 2 or e.repeated > 0 for e in errors)}")


if __name__ == "__main__":
    main()
