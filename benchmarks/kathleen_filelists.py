"""Filelists of the kathleen corpus, from a clone of its public source, to repeat the figures of docs/performance.md.

    git clone https://github.com/rhasspy/dataset-voice-kathleen    (CC0; figures: commit c51cb97)
    python benchmarks/kathleen_filelists.py dataset-voice-kathleen

writes train.csv, val.csv and test.csv into the clone: of each prompt the latest take, 50 prompts each for
validation and test. The trainer reads the 48 kHz stereo recordings as they are. The corpus of our figures differs in
eight takes that were noisy or cut at an edge, and was resampled once before.
"""

import re
import sys
from pathlib import Path

TAKE = re.compile(r"arctic_([ab]\d{4})_(\d+)\.wav")
VALIDATION = """
a0018 a0026 a0060 a0113 a0120 a0121 a0134 a0142 a0188 a0198 a0260 a0298 a0356 a0360 a0362 a0395 a0414 a0417 a0434
a0482 a0494 a0533 a0556 a0571 b0025 b0081 b0085 b0094 b0154 b0165 b0166 b0167 b0168 b0170 b0213 b0239 b0261 b0267
b0268 b0272 b0349 b0392 b0402 b0403 b0415 b0425 b0439 b0499 b0513 b0532
""".split()
TEST = """
a0007 a0008 a0014 a0021 a0048 a0053 a0057 a0074 a0091 a0101 a0102 a0116 a0194 a0204 a0253 a0308 a0341 a0354 a0367
a0461 a0465 a0479 a0487 a0491 a0537 a0541 a0569 b0049 b0060 b0114 b0146 b0178 b0186 b0193 b0210 b0211 b0218 b0243
b0258 b0259 b0291 b0292 b0331 b0348 b0378 b0385 b0397 b0496 b0522 b0523
""".split()


def latest_takes(folder: Path) -> dict[str, Path]:
    """Of each prompt the recording with the newest time stamp."""
    found: dict[str, tuple[int, Path]] = {}
    for path in folder.glob("*.wav"):
        if match := TAKE.fullmatch(path.name):
            found[match[1]] = max(found.get(match[1], (0, path)), (int(match[2]), path))
    return {prompt: path for prompt, (_, path) in sorted(found.items())}


def write_filelists(clone: Path) -> dict[str, int]:
    """-> utterances of each list."""
    takes = latest_takes(clone / "data")
    parts = {"val": set(VALIDATION), "test": set(TEST)}
    parts["train"] = set(takes) - parts["val"] - parts["test"]
    for name, prompts in parts.items():
        chosen = [path for prompt, path in takes.items() if prompt in prompts]
        lines = [f"data/{p.name}|{p.with_suffix('.txt').read_text(encoding='utf-8').strip()}\n" for p in chosen]
        (clone / f"{name}.csv").write_text("".join(lines), encoding="utf-8")
    return {name: len(prompts) for name, prompts in parts.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "data").is_dir():
        sys.exit("usage: python benchmarks/kathleen_filelists.py CLONE (the folder that holds data/ with recordings)")
    print(write_filelists(Path(sys.argv[1])))
