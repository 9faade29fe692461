"""Whether two revisions train to the same bits: `python benchmarks/same_bits.py REVISION --hparams "dataset_path=..."`.

Both train the preset demo, with one thread and one seed, then go on from the older one's run, and speak. Compared: the
weights, every metric but times and speeds, the sound. REVISION is a commit of this repository; the other side is the
working tree, or the commit after --other. Ends with 1 where anything differs. --hparams reaches both, so it may name
only what both know, with whole paths. Without a dataset each makes its own demo corpus.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("weights", "metrics", "weights after going on", "metrics after going on", "sound")
ALWAYS_DIFFERENT = {"time", "duration_s", "attempt", "step_s", "frames_per_s", "data_wait"}


def checked_out(revision: str, folder: Path) -> Path:
    clone = ["git", "clone", "-q", str(REPOSITORY), str(folder)]
    for command in (clone, ["git", "-C", str(folder), "checkout", "-q", revision]):
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{' '.join(command)} failed; name a commit of this repository")
    return folder


def run(tree: Path, side: Path, command: list[str]) -> None:
    """In the tree, with the side's own cache."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "TACOTRON2_CACHE": str(side / "cache")}
    done = subprocess.run([sys.executable, *command], cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tree}: {' '.join(command)} ended with {done.returncode}\n{done.stderr[-2000:]}")


def trained(tree: Path, side: Path, folder: Path, *, n_steps: int, hparams: str) -> None:
    intervals = f"validate_interval={n_steps // 3},iters_per_checkpoint={n_steps // 3}"
    settings = ",".join(part for part in ("seed=1234", intervals, hparams) if part)
    command = ["train.py", "--preset", "demo", "--max-steps", str(n_steps), "--hparams", settings]
    run(tree, side, [*command, "-o", str(folder), "-l", f"{folder}-logs"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def weights_of(folder: Path) -> str:
    newest = sorted((folder / "checkpoints").glob("step_*.pt"))[-1]
    model = torch.load(newest, map_location="cpu", weights_only=True)["model"]
    return sha256(b"".join(model[name].contiguous().numpy().tobytes() for name in sorted(model)))


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in ALWAYS_DIFFERENT}
    return {name: without_times(value) if isinstance(value, dict) else value for name, value in kept.items()}


def metrics_of(folder: Path) -> str:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return sha256("\n".join(json.dumps(without_times(json.loads(line)), sort_keys=True) for line in lines).encode())


def prints(tree: Path, side: Path, older: Path, *, n_steps: int, hparams: str) -> Iterator[str]:
    """One for each of PARTS. side: where to write. older: the run to go on from; made here if it is not there yet."""
    own, going_on, wav = side / "run", side / "going-on", side / "said.wav"
    trained(tree, side, own, n_steps=n_steps, hparams=hparams)
    yield weights_of(own)
    yield metrics_of(own)
    if not older.exists():
        shutil.copytree(own, older)
    shutil.copytree(older, going_on)
    trained(tree, side, going_on, n_steps=n_steps + n_steps // 3, hparams=hparams)
    yield weights_of(going_on)
    yield metrics_of(going_on)
    run(tree, side, ["synthesize.py", "-c", str(older), "The sun is up.", "-o", str(wav), "--seed", "1"])
    yield sha256(wav.read_bytes())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("revision")
    p.add_argument("--other", metavar="REVISION", help="compare with this one, not with the working tree")
    p.add_argument("--hparams", default="")
    p.add_argument("--steps", type=int, default=60)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        first = checked_out(args.revision, work / "first")
        second = checked_out(args.other, work / "second") if args.other else REPOSITORY
        arguments = {"n_steps": args.steps, "hparams": args.hparams}
        sides = {work / "one": first, work / "other": second}
        found = [list(prints(tree, side, work / "older", **arguments)) for side, tree in sides.items()]
    n_different = 0
    for part, one, other in zip(PARTS, *found, strict=True):
        n_different += one != other
        print(f"{part:24} {one} {other} {'same' if one == other else 'DIFFERENT'}")
    sys.exit(min(n_different, 1))


if __name__ == "__main__":
    main()
