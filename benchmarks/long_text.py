"""Memory and time of a long text: `python benchmarks/long_text.py -c output --words 60 900`.

Sentences of the demo corpus, as many as make so many words, are said by `synthesize.py` in a process of its own, once
for each number of words. Memory is the most that the process held.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import soundfile

from corpus.demo.sentences import demo_sentences

SPEAK = str(Path(__file__).resolve().parent.parent / "synthesize.py")


def text_of(n_words: int) -> str:
    sentences: list[str] = []
    words = 0
    for sentence in cycle(demo_sentences().test):
        if words >= n_words:
            return " ".join(sentences)
        sentences.append(sentence if re.search(r"[.!?]$", sentence) else f"{sentence}.")
        words += len(sentence.split())
    raise AssertionError("a cycle has no end")


def spoken(text: Path, wav: Path, voice: Path, more: list[str]) -> tuple[float, float, float]:
    """-> MB at most, seconds of processor, seconds by the clock"""
    began = time.perf_counter()
    command = [sys.executable, SPEAK, "-c", str(voice), "--file", str(text), "-o", str(wav), *more]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: a sentence was cut at its limit
        raise SystemExit(f"synthesize.py ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1000, usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-c", "--checkpoint-path", required=True, type=Path)
    p.add_argument("--words", type=int, nargs="+", default=[60, 900])
    args, more = p.parse_known_args()  # the rest is for synthesize.py
    print("| words | sentences | sound, s | memory at most, MB | CPU s | by the clock, s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for n_words in args.words:
            path, wav, text = Path(name, "text.txt"), Path(name, "speech.wav"), text_of(n_words)
            path.write_text(text, encoding="utf-8")
            megabytes, cpu_s, clock_s = spoken(path, wav, args.checkpoint_path, more)
            n_sentences, sound_s = len(re.findall(r"[.!?]", text)), soundfile.info(wav).duration
            row = (n_words, n_sentences, f"{sound_s:.0f}", f"{megabytes:.0f}", f"{cpu_s:.1f}", f"{clock_s:.1f}")
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
