"""What each setting is worth on real speech: one factor at a time, then the best together; resumable.

    python benchmarks/recipes.py run OUT --corpus kathleen=FOLDER --steps 6000 --base "text_input=phonemes"
    python benchmarks/recipes.py run OUT --corpus demo --steps 2660 --factors drop_frame_rate ema --seeds 1 2
    python benchmarks/recipes.py run OUT --corpus kathleen=FOLDER --steps 18000 --together --seeds 1 2 3
    python benchmarks/recipes.py run OUT --corpus kathleen=FOLDER --steps 600 --begin BASE/checkpoints/step_00003500.pt
    python benchmarks/recipes.py report OUT

FOLDER holds train, val and test lists (.csv or .txt, there or in filelists/); `demo` is the embedded corpus. A cell is
one corpus, one choice and one seed. Each is trained by train.py and judged by evaluate.py, in processes of their own,
and adds a line to OUT/cells.jsonl. The same command goes on where it was interrupted, also within a cell. A cell that
fails is a line, too; --retry takes it once more. OUT/report.md is written anew after each cell.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from common.cli import run_command  # noqa: E402
from common.files import write_atomic  # noqa: E402
from hparams import resolve_hparams  # noqa: E402

BASE = "base"
TOGETHER = "together"
ALIGNED = 0.9  # of free-running texts
QUIET = "mlflow_logging=False,tensorboard_logging=False,telegram_monitoring=False,debug_reporting=False,listen_every=0"
# Each choice is tried against the base. {p40} is 40 % of the steps. A better choice goes into `together`.
FACTORS: Mapping[str, Sequence[str]] = {
    "text": ("text_input=characters", "text_input=phonemes"),
    "drop_frame_rate": tuple(f"drop_frame_rate={rate}" for rate in (0, 0.1, 0.2, 0.3)),
    "frames_per_step": ("n_frames_per_step=2", "n_frames_per_step=3", "reduction_schedule=[0:5,{p30}:3]"),
    "prenet_dropout": ("dropout_rate=0.3", "dropout_rate=0.5"),
    "dropout": tuple(
        f"encoder_dropout_rate={p},postnet_dropout_rate={p},p_attention_dropout={p},p_decoder_dropout={p}"
        for p in (0, 0.05, 0.1)
    ),
    "guide_width": ("use_guided_attn=False", "guide_sigma=0.2", "guide_sigma=0.4"),
    "guide_weight": ("guide_loss_initial_weight=1", "guide_loss_initial_weight=5"),
    "guide_end": tuple(f"guide_loss_decay_start={{p{at}}},guide_loss_decay_steps={{p5}}" for at in (15, 50)),
    "mmi": ("use_mmi=True", "use_mmi=True,use_gaf=False"),
    "ddc": ("use_ddc_loss=True",),
    "monotonicity": ("attention_alignment_loss_weight=0.1", "attention_alignment_loss_weight=1"),
    "own_frames": (
        "use_scheduled_teacher_forcing=True,teacher_forcing_decay_start={p50},teacher_forcing_decay_steps={p50}",
    ),
    "batch_size": ("batch_size=8", "batch_size=16", "batch_size=32"),
    "rate": ("learning_rate=1e-3", "learning_rate=2e-3", "learning_rate=4e-3"),
    "annealing": tuple(f"anneal_start={{p{at}}},anneal_steps={{p{100 - at}}}" for at in (20, 40, 60)),
    "width": (
        "attention_rnn_dim=256,decoder_rnn_dim=256",
        "attention_rnn_dim=320,decoder_rnn_dim=320",
        "attention_rnn_dim=512,decoder_rnn_dim=512",
    ),
    "ema": ("ema_decay=0", "ema_decay=0.999", "ema_decay=0.9995"),
    "postnet_context": ("postnet_kernel_size=5", "postnet_kernel_size=9"),
}


@dataclass(frozen=True)
class Corpus:
    """folder None: the embedded demo corpus."""

    name: str
    folder: Path | None

    @classmethod
    def named(cls, text: str) -> "Corpus":
        name, _, folder = text.partition("=")
        if not folder and name != "demo":
            raise argparse.ArgumentTypeError(f"{text}: write NAME=FOLDER, or demo")
        return cls(name, Path(folder).resolve() if folder else None)

    def filelist(self, split: str) -> Path:
        assert self.folder is not None
        places = [self.folder / where / f"{split}{end}" for where in ("", "filelists") for end in (".csv", ".txt")]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            sys.exit(f"{self.folder}: no {split}.csv or {split}.txt there or in filelists/")
        return found

    @property
    def settings(self) -> str:
        if self.folder is None:
            return ""
        lists = f"training_files={self.filelist('train')},validation_files={self.filelist('val')}"
        return f"dataset_path={self.folder},{lists}"


@dataclass(frozen=True)
class Cell:
    """One run: what is tried over the base, and the seed."""

    corpus: str
    factor: str
    choice: str
    settings: str  # all of them, without corpus and seed
    seed: int
    steps: int
    preset: str
    begin: str = ""  # the checkpoint whose weights it begins with

    @property
    def key(self) -> str:
        """The name of its folder; other settings are another cell."""
        named = {name: value for name, value in asdict(self).items() if name != "begin" or value}
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.corpus}-{self.factor}-{digest}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """What became of a cell: measures by name, of evaluation.json and metrics.jsonl; or why there are none."""

    key: str
    cell: Mapping[str, Any]
    measures: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""


# ---- which cells


def merged(*layers: str) -> str:
    """Settings `a=1,b=[0:2,5:1]`; the later layer wins."""
    values: dict[str, str] = {}
    for pair in pairs_of(",".join(layer for layer in layers if layer)):
        name, _, value = pair.partition("=")
        values[name] = value
    return ",".join(f"{name}={value}" for name, value in values.items())


def pairs_of(settings: str) -> Iterator[str]:
    """Split at the commas that are in no brackets."""
    begin, depth = 0, 0
    for i, char in enumerate([*settings, ","]):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            if begin < i:
                yield settings[begin:i]
            begin = i + 1


def with_steps(settings: str, steps: int) -> str:
    return settings.format(**{f"p{n}": steps * n // 100 for n in range(101)})


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """The base, then every choice that differs from it; seed by seed, so that every choice has one soon."""
    base = cell_of(args, BASE, "", args.seeds[0])
    choices = [(name, choice) for name in args.factors for choice in FACTORS[name]]
    others = [(name, choice) for name, choice in choices if not is_same(cell_of(args, name, choice, base.seed), base)]
    return [cell_of(args, name, choice, seed) for seed in args.seeds for name, choice in [(BASE, ""), *others]]


def is_same(cell: Cell, base: Cell) -> bool:
    """The base has this choice already."""
    mine, its = (resolve_hparams(preset=one.preset or None, overrides=one.settings).hparams for one in (cell, base))
    return mine == its


def cell_of(args: argparse.Namespace, factor: str, choice: str, seed: int) -> Cell:
    filled = with_steps(choice, args.steps)
    settings = merged(with_steps(args.base, args.steps), filled)
    begin = str(args.begin.resolve()) if args.begin else ""
    return Cell(args.corpus.name, factor, filled, settings, seed, args.steps, args.preset, begin)


def best_together(results: Sequence[Result], corpus: str, steps: int) -> str:
    """Of each factor the choice with the fewest word errors, where that is better than the base."""
    means = mean_errors(results, corpus, steps)
    base = means.get((BASE, ""))
    if base is None:
        sys.exit("--together needs the base and some factors first: the same command without it")
    chosen = []
    for factor in dict.fromkeys(factor for factor, _ in means if factor not in (BASE, TOGETHER)):
        error, choice = min((error, choice) for (name, choice), error in means.items() if name == factor)
        if error < base:
            chosen.append(choice)
    return merged(*chosen)


def mean_errors(results: Sequence[Result], corpus: str, steps: int) -> dict[tuple[str, str], float]:
    """By factor and choice: word errors, or without a recogniser the mel distance. Over the seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for result in results:
        cell = result.cell
        if result.measures and (cell["corpus"], cell["steps"]) == (corpus, steps):
            value = result.measures.get("wer", result.measures["mel_distance"])
            found.setdefault((cell["factor"], cell["choice"]), []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


# ---- one cell


def run_cell(cell: Cell, args: argparse.Namespace) -> Result:
    """Trains and judges. A cell that was begun goes on."""
    folder = args.out / "cells" / cell.key
    folder.mkdir(parents=True, exist_ok=True)
    settings = merged(QUIET, args.corpus.settings, cell.settings, f"seed={cell.seed}")
    preset = ["--preset", cell.preset] if cell.preset else []
    begin = ["-c", cell.begin, "--warm-start"] if cell.begin else []
    train = ["train.py", *preset, *begin, "-o", folder / "run", "-l", folder / "logs", "--max-steps", cell.steps]
    judged = [] if args.corpus.folder is None else test_list(args.corpus)
    judges = [] if args.judges == "none" else [f"--{args.judges}"]
    evaluate = ["evaluate.py", "-c", folder / "run", "-o", folder / "evaluation", "-n", args.n, *judges, *judged]
    for command in ([*train, "--hparams", settings], evaluate):
        problem = run(command, folder / f"{command[0]}.log")
        if problem:
            return Result(cell.key, asdict(cell), problem=problem)
    return Result(cell.key, asdict(cell), measures_of(folder))


def test_list(corpus: Corpus) -> list[Path | str]:
    assert corpus.folder is not None
    return ["--filelist", corpus.filelist("test"), "--dataset-path", corpus.folder]


def run(command: Sequence[object], log: Path) -> str:
    """-> "" or the last line of a command that failed. A signal to this process ends the command, too."""
    with log.open("a", encoding="utf-8") as out:
        arguments = [sys.executable, *map(str, command)]
        done = subprocess.run(arguments, cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode in (130, 143, -2, -15):
        sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    if done.returncode == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{command[0]} ended with {done.returncode}: {lines[-1] if lines else ''}"


def measures_of(folder: Path) -> dict[str, float]:
    judged = json.loads((folder / "evaluation/evaluation.json").read_text(encoding="utf-8"))
    found = {name: float(value) for name, value in judged.items() if isinstance(value, int | float) and name != "step"}
    found["best_step"] = float(judged["step"])
    return found | pace_of(read_lines(folder / "run/metrics.jsonl"))


def pace_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds a step, and the step and minutes at which free-running texts first aligned; those absent if never."""
    trained_s, step, step_s = 0.0, 0, list[float]()
    found: dict[str, float] = {}
    for line in lines:
        if line.get("type") == "step":
            trained_s += line["step_s"] * (line["step"] - step)
            step = line["step"]
            step_s.append(line["step_s"])
        is_aligned = line.get("free_running", {}).get("alignment", 0.0) >= ALIGNED
        if is_aligned and not found:
            found = {"aligned_step": float(line["step"]), "aligned_minutes": trained_s / 60}
    return {**found, "training_minutes": trained_s / 60, **({"step_s": statistics.median(step_s)} if step_s else {})}


# ---- what is known


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; the last may have been cut off."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def read_results(out: Path) -> list[Result]:
    """Of each cell the last line."""
    return list({line["key"]: Result(**line) for line in read_lines(out / "cells.jsonl")}.values())


def add_result(out: Path, result: Result) -> None:
    with (out / "cells.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


# ---- the report


COLUMNS = {  # measure -> head, and how it is shown
    "wer": ("WER, %", lambda x: f"{100 * x:.1f}"),
    "cer": ("CER, %", lambda x: f"{100 * x:.1f}"),
    "distillmos": ("DistillMOS", lambda x: f"{x:.2f}"),
    "mel_distance": ("mel distance", lambda x: f"{x:.3f}"),
    "stop_rate": ("stops, %", lambda x: f"{100 * x:.0f}"),
    "aligned_step": ("aligned at step", lambda x: f"{x:.0f}"),
    "aligned_minutes": ("after minutes", lambda x: f"{x:.1f}"),
    "training_minutes": ("minutes", lambda x: f"{x:.1f}"),
}


def report(results: Sequence[Result]) -> str:
    """Markdown: a table for each corpus and budget, what is better than the base in bold, failures at the end."""
    groups = dict.fromkeys((r.cell["corpus"], r.cell["steps"]) for r in results)
    parts = ["# Recipes\n", "Means over the seeds; in brackets the range. **Bold**: fewer errors than the base.\n"]
    parts += [table(results, *group) for group in groups]
    failures = [f"- `{r.key}` ({r.cell['choice'] or BASE}): {r.problem}" for r in results if r.problem]
    return "\n".join([*parts, *(["## Failed\n", *failures, ""] if failures else [])])


def table(results: Sequence[Result], corpus: str, steps: int) -> str:
    own = [r for r in results if r.measures and (r.cell["corpus"], r.cell["steps"]) == (corpus, steps)]
    means = mean_errors(own, corpus, steps)
    base = means.get((BASE, ""), float("-inf"))
    shown = [name for name in COLUMNS if any(name in r.measures for r in own)]
    heads = " | ".join(["factor", "choice", "seeds", *(COLUMNS[name][0] for name in shown)])
    lines = [f"## {corpus}, {steps} steps\n", f"| {heads} |", "|---" * (3 + len(shown)) + "|"]
    for factor, choice in means:
        same = [r for r in own if (r.cell["factor"], r.cell["choice"]) == (factor, choice)]
        name = f"**{choice}**" if means[factor, choice] < base else choice or "as the preset has it"
        cells = [cell_text([r.measures[n] for r in same if n in r.measures], n) for n in shown]
        lines.append(f"| {factor} | {name} | {len(same)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def cell_text(values: Sequence[float], name: str) -> str:
    if not values:
        return "never"
    show = COLUMNS[name][1]
    spread = f" ({show(min(values))} to {show(max(values))})" if len(values) > 1 else ""
    return show(statistics.fmean(values)) + spread


# ---- the command


def campaign(args: argparse.Namespace) -> int:
    args.out.mkdir(parents=True, exist_ok=True)
    results = read_results(args.out)
    cells = cells_of(args)
    if args.together:
        choice = best_together(results, args.corpus.name, args.steps)
        cells = [cell_of(args, TOGETHER, choice, seed) for seed in args.seeds]
    done = {r.key for r in results if r.measures or not args.retry}
    for i, cell in enumerate(cells, 1):
        if cell.key in done:
            continue
        print(f"{i}/{len(cells)} {cell.key}: {cell.choice or BASE}", flush=True)
        began = time.monotonic()
        result = run_cell(cell, args)
        add_result(args.out, result)
        write_atomic(args.out / "report.md", report(read_results(args.out)))
        print(f"  {result.problem or headline(result)} ({(time.monotonic() - began) / 60:.1f} min)", flush=True)
    print(args.out / "report.md")
    return 0


def headline(result: Result) -> str:
    return ", ".join(f"{COLUMNS[n][0]} {COLUMNS[n][1](result.measures[n])}" for n in COLUMNS if n in result.measures)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = p.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("report", help="write OUT/report.md anew")
    begun = commands.add_parser("run", help="train and judge what is missing")
    for each in (shown, begun):
        each.add_argument("out", type=Path, metavar="OUT")
    begun.add_argument("--corpus", type=Corpus.named, required=True, metavar="NAME=FOLDER")
    begun.add_argument("--steps", type=int, required=True, metavar="N", help="the budget of each cell")
    begun.add_argument("--base", default="", metavar="SETTINGS", help="what all cells share, over the preset")
    begun.add_argument("--preset", default=None, help="default: demo for the demo, small otherwise; '' for none")
    begun.add_argument("--begin", type=Path, metavar="CHECKPOINT", help="whose weights all cells begin with")
    begun.add_argument("--factors", nargs="*", choices=list(FACTORS), default=list(FACTORS), metavar="FACTOR")
    begun.add_argument("--seeds", nargs="+", type=int, default=[1, 2], metavar="SEED")
    begun.add_argument("-n", type=int, default=50, metavar="N", help="test sentences that are judged (default 50)")
    begun.add_argument("--judges", choices=["full", "asr", "none"], default="full", help="as of evaluate.py")
    begun.add_argument("--together", action="store_true", help="only the best choice of each factor, all at once")
    begun.add_argument("--retry", action="store_true", help="what failed once more")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    args.out = args.out.resolve()
    if args.command == "report":
        write_atomic(args.out / "report.md", report(read_results(args.out)))
        print(args.out / "report.md")
        return 0
    if args.preset is None:
        args.preset = "demo" if args.corpus.folder is None else "small"
    return campaign(args)


if __name__ == "__main__":
    sys.exit(run_command(main))
