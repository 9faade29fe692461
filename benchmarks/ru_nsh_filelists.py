"""Filelists of a Russian corpus from its Debian package, to repeat the figures of docs/performance.md.

    apt-get download festvox-ru && dpkg-deb -x festvox-ru_*.deb festvox-ru    (0.5+dfsg-6; MIT-like licence)
    python benchmarks/ru_nsh_filelists.py festvox-ru

620 sentences of prose by one man, 99 minutes at 16 kHz (voice msu_ru_nsh_clunits, by Nickolay V. Shmyrev). Writes
train.csv, val.csv and test.csv into the folder of the voice and prints it. The package marks the stress of some words
with +; the lists don't, as texts of users rarely do.
"""

import re
import sys
from pathlib import Path

PROMPT = re.compile(r'\( ru_(\d{4}) "(.+)" \)')
VALIDATION = """
0008 0010 0012 0013 0032 0049 0075 0141 0147 0164 0175 0188 0212 0214 0260 0269 0271 0387 0417 0418 0473 0487 0587 0599
0663 0690 0791 0820 0829 0831
""".split()
TEST = """
0037 0073 0120 0122 0140 0233 0250 0297 0339 0350 0379 0388 0413 0419 0498 0522 0528 0530 0534 0537 0556 0560 0576 0697
0698 0705 0720 0729 0761 0803
""".split()


def write_filelists(voice: Path) -> dict[str, int]:
    """-> utterances of each list."""
    prompts = PROMPT.findall((voice / "etc" / "txt.done.data").read_text(encoding="utf-8"))
    lines = {number: f"wav/ru_{number}.wav|{text.replace('+', '')}\n" for number, text in prompts}
    parts = {"val": VALIDATION, "test": TEST}
    parts["train"] = [number for number in lines if number not in {*VALIDATION, *TEST}]
    for name, numbers in parts.items():
        (voice / f"{name}.csv").write_text("".join(lines[number] for number in numbers), encoding="utf-8")
    return {name: len(numbers) for name, numbers in parts.items()}


if __name__ == "__main__":
    found = list(Path(sys.argv[1]).rglob("txt.done.data")) if len(sys.argv) == 2 else []
    if len(found) != 1:
        sys.exit("usage: python benchmarks/ru_nsh_filelists.py FOLDER (where dpkg-deb -x unpacked festvox-ru)")
    home = found[0].parent.parent
    print(home, write_filelists(home))
