"""Minutes of training until speech is understood: `python benchmarks/understood.py RUN RUN`, whose training had
`--hparams iters_per_checkpoint=50,keep_checkpoints=1000,listen_every=0`.

A recognizer hears each checkpoint say the validation texts, until hardly a word is misheard. That comes after training.
The minutes are those of the steps alone, at the run's median speed: what disturbed it for a while does not count.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpointing.directory import all_checkpoints
from hparams import resolve_hparams
from run_directory.metrics_log import read_metrics
from run_directory.paths import DEMO
from run_directory.run_info import read_run_info
from training.corpus_setup import read_corpus
from training.listening import Child, Heard, check_listener, step_of, validation_texts
from training.options import Options

SHARES = (0.5, 0.2, 0.1, 0.05)  # of the words misheard, at most


def curve(run: Path) -> list[tuple[float, float]]:
    """Minutes of training at each checkpoint, and the share of the words misheard, up to the last of SHARES."""
    records = read_metrics(run)
    if sum(record["type"] == "step" for record in records) < 2:
        sys.exit(f"{run}: no metrics.jsonl with steps in it; name a run directory")
    settings = resolve_hparams(hparams_file=run / "hparams.yaml")
    corpus = read_corpus(settings, Options(output=run, logs=run), is_demo=read_run_info(run).get("data") == DEMO)
    language, texts = corpus.front_end.language.code, validation_texts(corpus)
    check_listener(language, texts)
    found = list[tuple[float, float]]()
    for path in sorted(all_checkpoints(run / "checkpoints")):
        heard, step = hear(Child(path, language, texts, niceness=0)), step_of(path)
        found.append((step * step_s(records) / 60, heard.wer))
        print(f"{run.name}, step {step}, {found[-1][0]:.2f} minutes: {heard}", flush=True)
        if heard.wer <= SHARES[-1]:
            break
    return found


def step_s(records: Sequence[dict[str, Any]]) -> float:
    steps = [record for record in records if record["type"] == "step"]
    pairs = itertools.pairwise(steps)
    return statistics.median((b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in pairs)


def hear(child: Child) -> Heard:
    while not child.is_done:
        time.sleep(0.1)
    found = child.result()
    if not isinstance(found, Heard):
        sys.exit(f"{child.checkpoint}: {found}")
    return found


def table(runs: Sequence[Path]) -> str:
    curves = [curve(run) for run in runs]
    lines = ["| words misheard, at most | " + " | ".join(run.name for run in runs) + " |"]
    lines.append("|---" * (len(runs) + 1) + "|")
    for share in SHARES:
        firsts = [next((minutes for minutes, wer in one if wer <= share), None) for one in curves]
        shown = ["never" if first is None else f"{first:.1f}" for first in firsts]
        lines.append(f"| {share:.0%} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", type=Path)
    print(table(p.parse_args().runs))


if __name__ == "__main__":
    main()
