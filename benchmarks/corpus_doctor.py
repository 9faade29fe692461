"""What `prepare_data.py check` finds of planted damage, misses, and wrongly suspects, to repeat the figures of docs.

    python benchmarks/corpus_doctor.py FOLDER LIST WORK [--listen] [--share 0.05] [--seed 1] [--language en]

FOLDER holds the recordings, LIST is a wav|text list of theirs, WORK is a folder to work in. Twice the share of lines is
spoiled in a copy: one half is given each other's texts, the other half gets a defect each, in turn. Then the copy is
checked, and the undamaged list too. Written: planted.json (what was spoiled, line by line) and results.json.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

COMMAND = Path(__file__).resolve().parents[1] / "prepare_data.py"
WRONG_TEXT = "wrong text"
Spoil = Callable[[np.ndarray, int, np.random.Generator], tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Entry:
    path: str
    text: str


# ---- defects: wav [L], rate -> wav [L] or [L, channels], rate


def _gain_db(wav: np.ndarray, db: float) -> np.ndarray:
    return wav * 10 ** (db / 20)


def _noise(wav: np.ndarray, rng: np.random.Generator, *, snr_db: float) -> np.ndarray:
    return rng.standard_normal(len(wav)) * wav.std() * 10 ** (-snr_db / 20)


def _clipped(wav: np.ndarray, rate: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return np.clip(wav / np.abs(wav).max() * 3, -1, 1), rate


def _narrow(wav: np.ndarray, rate: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return soxr.resample(soxr.resample(wav, rate, 8000), 8000, rate), rate


DEFECTS: dict[str, Spoil] = {
    "digital silence": lambda wav, rate, rng: (0 * wav, rate),
    "near silence": lambda wav, rate, rng: (2e-5 * rng.standard_normal(len(wav)), rate),
    "noise alone": lambda wav, rate, rng: (0.05 * rng.standard_normal(len(wav)), rate),
    "clipped (+10 dB)": _clipped,
    "10 dB of noise": lambda wav, rate, rng: (wav + _noise(wav, rng, snr_db=10), rate),
    "integer scale": lambda wav, rate, rng: (wav * 32768, rate),
    "channels cancel": lambda wav, rate, rng: (np.stack([wav, -wav], 1), rate),
    "dead channel": lambda wav, rate, rng: (np.stack([wav, 0 * wav], 1), rate),
    "8 kHz source": _narrow,
    "2 s of silence in front": lambda wav, rate, rng: (
        np.concatenate([1e-4 * rng.standard_normal(2 * rate), wav]),
        rate,
    ),
    "second half missing": lambda wav, rate, rng: (wav[: len(wav) // 2], rate),
    "said three times": lambda wav, rate, rng: (np.tile(wav, 3), rate),
    "30 dB quieter": lambda wav, rate, rng: (_gain_db(wav, -30), rate),
    "file cut off": lambda wav, rate, rng: (wav, rate),
}


def planted(folder: Path, entries: Sequence[Entry], work: Path, *, share: float, seed: int) -> dict[int, str]:
    """Writes work/wavs and work/spoiled.csv. -> what was done to which line, from 1."""
    chance = random.Random(seed)
    n = round(share * len(entries))
    chosen = chance.sample(range(len(entries)), 2 * n)
    wrong, spoiled = chosen[:n], chosen[n:]
    texts = [entry.text for entry in entries]
    for i, j in zip(wrong, [*wrong[1:], wrong[0]], strict=True):
        texts[i] = entries[j].text
    names = list(DEFECTS)
    done = {i: names[k % len(names)] for k, i in enumerate(spoiled)}
    (work / "wavs").mkdir(parents=True, exist_ok=True)
    lines = []
    for i, entry in enumerate(entries):
        name = f"wavs/{i:05d}{Path(entry.path).suffix}"
        if i in done:
            name = f"wavs/{i:05d}.wav"
            _write_spoiled(folder / entry.path, work / name, done[i], seed=seed + i)
        else:
            shutil.copyfile(folder / entry.path, work / name)
        lines.append(f"{name}|{texts[i]}\n")
    (work / "spoiled.csv").write_text("".join(lines), encoding="utf-8")
    return {i + 1: WRONG_TEXT for i in wrong} | {i + 1: name for i, name in done.items()}


def _write_spoiled(source: Path, target: Path, defect: str, *, seed: int) -> None:
    wav, rate = soundfile.read(source)
    spoiled, rate = DEFECTS[defect](wav, rate, np.random.default_rng(seed))
    soundfile.write(target, spoiled, rate, subtype="FLOAT" if defect == "integer scale" else "PCM_16")
    if defect == "file cut off":
        content = target.read_bytes()
        target.write_bytes(content[: len(content) * 2 // 3])


# ---- counting


def checked(list_path: Path, work: Path, name: str, arguments: Sequence[str]) -> tuple[dict[int, list[str]], float]:
    """Kinds of errors and warnings by line, and the seconds it took."""
    target = work / f"{name}.json"
    began = time.monotonic()
    page = work / f"{name}.html"
    files = ["--json", str(target), "--report", str(page)]
    command = [sys.executable, str(COMMAND), "check", str(list_path), *files, *arguments]
    done = subprocess.run(command, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)
    seconds = time.monotonic() - began
    found: defaultdict[int, list[str]] = defaultdict(list)
    for finding in json.loads(target.read_text(encoding="utf-8"))["findings"]:
        if finding["severity"] != "note":
            found[finding["line"]].append(f"{finding['severity']}: {finding['kind']}")
    return dict(found), seconds


def table(planted_lines: dict[int, str], found: dict[int, list[str]], n_lines: int) -> dict[str, object]:
    """Found and missed by kind of damage, and the false alarms among the lines left alone."""
    by_damage: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line, damage in planted_lines.items():
        by_damage[damage][0] += line in found
        by_damage[damage][1] += 1
    false = [kind for line, kinds in found.items() if line not in planted_lines for kind in kinds]
    return {
        "found of planted": {damage: f"{hits} of {n}" for damage, (hits, n) in sorted(by_damage.items())},
        "lines left alone": n_lines - len(planted_lines),
        "false alarms": dict(Counter(false)),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("list", type=Path)
    p.add_argument("work", type=Path)
    p.add_argument("--listen", action="store_true")
    p.add_argument("--share", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--language", default="en")
    args = p.parse_args()
    cells = [line.split("|") for line in args.list.read_text(encoding="utf-8").splitlines()]
    entries = [Entry(row[0], row[1]) for row in cells]
    damage = planted(args.folder, entries, args.work, share=args.share, seed=args.seed)
    (args.work / "planted.json").write_text(json.dumps(damage, indent=1))
    arguments = ["--dataset-path", str(args.work), "--language", args.language]
    results: dict[str, object] = {}
    found, seconds = checked(args.work / "spoiled.csv", args.work, "without listening", arguments)
    results["without listening"] = table(damage, found, len(entries)) | {"seconds": round(seconds, 1)}
    if args.listen:
        found, seconds = checked(args.work / "spoiled.csv", args.work, "listening", [*arguments, "--listen"])
        results["listening"] = table(damage, found, len(entries)) | {"seconds": round(seconds, 1)}
    text = json.dumps(results, indent=1)
    (args.work / "results.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
