"""What each option costs: time of a training step and peak memory beside the same trainer without it.

    OMP_NUM_THREADS=1 python benchmarks/options.py [--full] [--only use_mmi=True ...] [--turns 5]

Both train in processes of their own on the same two batches of the demo corpus and take turns, so that whatever else
the machine does meets both: medians of the turns, of trainer, loader, log and observers together. On a CPU it is the
process' own time, which neighbours stretch less; on a GPU the clock's. Memory is what the process grows by, at its
peak, over what it had before it built the model (on a GPU: what was allocated there).
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MONITORS = "save_attention_plots=True,tensorboard_logging=True,mlflow_logging=True,debug_reporting=True"
BASE = """
save_attention_plots: false
tensorboard_logging: false
mlflow_logging: false
telegram_monitoring: false
debug_reporting: false
validate_interval: 1000000
iters_per_checkpoint: 1000000
save_interval: 0
epochs: 100000
batch_size: 16
"""
OPTIONS = (
    "use_mmi=True",
    "use_mmi=True,use_gaf=False",
    "use_ddc_loss=True",
    "use_mmi=True,use_ddc_loss=True",
    "use_gst=True",
    "use_guided_attn=False",
    "attention_alignment_loss_weight=1",
    "drop_frame_rate=0.1",
    "fp16_run=True",
    "gradient_accumulation_steps=2",
    "n_frames_per_step=1",
    "n_frames_per_step=2",
    "n_frames_per_step=3",
    "reduction_schedule=[0:6,100000:2]",
    "decoder_backend=plain",
    "use_forward_attention=True",
    "use_attention_smoothing=True",
    "use_location_sensitive_attention=False",
    "use_scheduled_teacher_forcing=True,teacher_forcing_start_ratio=0.9",
    "decoder_backend=plain,use_memory_efficient_attention=True",
    "mask_padding=False",
    "use_bucket_batching=False",
    "use_balanced_sampling=True",
    MONITORS,
)
RECORDED = {MONITORS: 10}  # steps a turn where the record of every tenth step is what costs; otherwise 2, an epoch
MEBIBYTE = 1 << 20


# ---- the process that trains


def memory_bytes() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def serve(preset: str | None, option: str, folder: Path, answers: int) -> None:
    """Trains as many steps as each line on stdin says, and answers with their seconds; then with bytes, at the end."""
    import torch

    from data_utils import load_corpus
    from hparams import resolve_hparams
    from model import Tacotron2
    from monitoring.observer import Recorder, RunInfo
    from monitoring.setup import observers
    from parallel.devices import device_of
    from run_directory.metrics_log import RunLog
    from training.corpus_setup import with_demo_files
    from training.trainer import Trainer

    folder.mkdir()
    (folder / "base.yaml").write_text(BASE, encoding="utf-8")
    resolved = resolve_hparams(preset=preset, hparams_file=folder / "base.yaml", overrides=option)
    hp = with_demo_files(resolved.hparams)
    few = Path(hp.training_files).read_text(encoding="utf-8").splitlines(keepends=True)[: 2 * hp.batch_size]
    (folder / "two_batches.txt").write_text("".join(few), encoding="utf-8")
    corpus = load_corpus(hp.model_copy(update={"training_files": str(folder / "two_batches.txt")}))
    before, device = memory_bytes(), device_of("auto")
    torch.manual_seed(hp.seed)
    recorder = Recorder(RunLog(folder / "o", attempt=1), observers(hp)[1:])  # without the console
    trainer = Trainer(hp, Tacotron2(hp), corpus, directory=folder / "o", recorder=recorder, device=device)
    recorder.start(RunInfo(folder / "o", folder / "l", hp.canonical(), None, 0, ""))
    trainer.model.train()
    data = trainer.batches.steps(trainer.progress, r=lambda: trainer.model.r)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    with open(answers, "w", encoding="utf-8") as out:
        for line in sys.stdin:
            began = clock()
            for _ in range(int(line)):
                trainer._step(next(data))
                trainer._after_step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            print(clock() - began, file=out, flush=True)
        recorder.close()
        print(memory_bytes() - before, file=out, flush=True)


@dataclass
class Training:
    """The other end of `serve`."""

    option: str
    process: subprocess.Popen[str]
    answers: int

    @classmethod
    def begin(cls, preset: str | None, option: str, folder: Path) -> "Training":
        ours, theirs = os.pipe()
        arguments = ["--serve", option, "--folder", str(folder), "--answers", str(theirs)]
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, *(["--preset", preset] if preset else [])],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, pass_fds=[theirs],
        )  # fmt: skip
        os.close(theirs)
        return cls(option, process, ours)

    def turn(self, steps: int) -> float:
        """-> seconds a step"""
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        return self.answer() / steps

    def answer(self) -> float:
        text = b""
        while not text.endswith(b"\n"):
            more = os.read(self.answers, 64)
            if not more:
                sys.exit(f"training with {self.option!r} ended by itself; train.py with these --hparams tells why")
            text += more
        return float(text)

    def end(self) -> float:
        """-> the bytes it grew by"""
        assert self.process.stdin is not None
        self.process.stdin.close()
        grown = self.answer()
        self.process.wait()
        os.close(self.answers)
        return grown


# ---- the table


def row(option: str, base: Training, base_bytes: float, args: argparse.Namespace, folder: Path) -> str:
    steps = RECORDED.get(option, 2)
    with_it = Training.begin(args.preset, option, folder)
    both = [(base.turn(steps), with_it.turn(steps)) for _ in range(args.turns + 1)][1:]  # the first turn warms up
    without_s, with_s = (statistics.median(times) for times in zip(*both, strict=True))
    grown = with_it.end()
    return (
        f"| `{option}` | {without_s:.3f} | {with_s:.3f} | {with_s / without_s:.2f} | {grown / MEBIBYTE:.0f} | "
        f"{(grown - base_bytes) / MEBIBYTE:+.0f} |"
    )


def base_memory(args: argparse.Namespace, folder: Path) -> float:
    base = Training.begin(args.preset, "", folder)
    base.turn(4)
    return base.end()


def measure(args: argparse.Namespace, folder: Path) -> None:
    base_bytes = base_memory(args, folder / "memory")
    base = Training.begin(args.preset, "", folder / "base")
    print(f"without any of them the process grows by {base_bytes / MEBIBYTE:.0f} MiB; load {os.getloadavg()[0]:.1f}\n")
    print("| option | without, s a step | with, s a step | ratio | grows by, MiB | more, MiB |")
    print("|---|---|---|---|---|---|")
    for i, option in enumerate(args.only or OPTIONS):
        print(row(option, base, base_bytes, args, folder / str(i)), flush=True)
    base.end()
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the default model; otherwise the demo's")
    parser.add_argument("--only", nargs="+", metavar="SETTINGS")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--preset", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answers", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve is not None:
        return serve(args.preset, args.serve, args.folder, args.answers)
    args.preset = None if args.full else "demo"
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


if __name__ == "__main__":
    main()
