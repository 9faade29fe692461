"""How long texts take to become symbols: `python benchmarks/reading.py FILELIST --language ru`.

`FrontEnd.read` alone is timed, with the start of its processes, for so many sentences of the list; a shorter list is
recombined. CPU seconds are of this process and of those that it has started. `--nvidia CLONE` compares the ids of
English letters with those of NVIDIA's own code instead, line by line:

    git clone https://github.com/NVIDIA/tacotron2
    pip install inflect unidecode
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from text.front_end import TEXT_INPUTS, FrontEnd
from training.base_voice import recombined

# NVIDIA's package is called text as well, so it is a process of its own
THEIRS = """
import json, sys
from text import text_to_sequence
print(json.dumps([text_to_sequence(text, ["english_cleaners"]) for text in json.load(sys.stdin)]))
"""


def texts_of(filelist: Path) -> list[str]:
    """The last column of every line."""
    return [line.split("|")[-1] for line in filelist.read_text(encoding="utf-8").splitlines() if line]


def cpu_s() -> float:
    """Of this process and those that it has started."""
    process = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


def timed(front_end: FrontEnd, texts: list[str]) -> str:
    """A row of the table."""
    began, before = time.perf_counter(), cpu_s()
    readings = front_end.read(texts)
    seconds, spent = time.perf_counter() - began, cpu_s() - before
    n_unread = sum(bool(reading.problems) for reading in readings)
    name = f"{front_end.language.code}, {front_end.text_input}"
    mean_length = sum(map(len, texts)) / len(texts)
    return f"| {name} | {len(texts)} | {mean_length:.0f} | {seconds:.1f} | {spent:.1f} | {n_unread} |"


def compare(texts: list[str], clone: Path) -> str:
    """How many texts have NVIDIA's ids, and the first that has not."""
    command = [sys.executable, "-W", "ignore", "-c", THEIRS]
    done = subprocess.run(command, cwd=clone, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    ours = [list(reading.ids) for reading in FrontEnd.create().read(texts)]
    others = [text for text, a, b in zip(texts, ours, json.loads(done.stdout), strict=True) if a != b]
    return f"{len(texts) - len(others)} of {len(texts)} have the same ids" + (f"; not {others[0]!r}" if others else "")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("filelist", type=Path)
    p.add_argument("--language", default="en")
    p.add_argument("--text-input", choices=TEXT_INPUTS, default="characters")
    p.add_argument("-n", type=int, default=10_000, help="sentences (default 10000)")
    p.add_argument("--nvidia", type=Path, metavar="CLONE", help="compare ids of all lines with this code's")
    args = p.parse_args()
    texts = texts_of(args.filelist)
    if args.nvidia:
        print(compare(texts, args.nvidia))
        return
    chosen = texts[: args.n] if len(texts) >= args.n else list(recombined(texts, args.n))
    front_end = FrontEnd.create(language=args.language, text_input=args.text_input)
    print("| | sentences | mean characters | seconds | CPU s | could not be read |\n|---|---|---|---|---|---|")
    print(timed(front_end, chosen), flush=True)
    front_end.close()


if __name__ == "__main__":
    main()
