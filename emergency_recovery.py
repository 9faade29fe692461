"""Looks at a run that is down: what ended it, which checkpoints are whole, and how to go on.

Without an argument it takes the newest run anywhere under output/. It needs no GPU, no network and no tracker, and
never changes a checkpoint.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from switches import with_dashes

if TYPE_CHECKING:  # torch takes seconds to import; --help doesn't need it
    from checkpoint import Verdict
    from diagnosis import Diagnosis
    from rescue import Findings

EXAMPLES = """examples:
  python emergency_recovery.py                      the newest run under output/: what happened, what is whole
  python emergency_recovery.py output --restart     go on from its last whole checkpoint, with safer settings
  python emergency_recovery.py output --export-weights --checkpoint output/checkpoints/step_00012000.pt

exit codes: 0 done; 2 wrong usage; 5 nothing to recover; with --restart, the training's own"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = p.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="the run directory (default: the newest under output/)")
    add("--checkpoint", type=Path, metavar="PT", help="go on from, strip or export this one instead of the newest")
    add("--restart", action="store_true", help="go on training now, with the safer settings")
    add("--strip-optimizer", action="store_true", help="write a copy for speaking only into RUN/recovered/")
    add("--export-weights", action="store_true", help="write bare weights, as NVIDIA names them, into RUN/recovered/")
    add("--notify", action="store_true", help="send the diagnosis by Telegram (TELEGRAM_BOT_TOKEN, TELEGRAM_CHAT_ID)")
    add("--json", action="store_true", help="one object on stdout, for programs")
    add("--dry-run", action="store_true", help="write and start nothing, only say")
    return p


def run(args: argparse.Namespace) -> int:
    import rescue
    from diagnosis import diagnose, newest_run, story

    directory = args.run or newest_run(Path("output"))
    diagnosis = diagnose(directory)
    findings = rescue.examine(directory)
    if not args.json:
        print(f"{story(diagnosis)}\n{table(findings)}")
    best = rescue.chosen(findings, args.checkpoint, directory)
    done, command = act(args, diagnosis, findings, best)
    if args.json:
        print(rescue.as_json(diagnosis, findings, [*done, " ".join(command)]))
    else:
        print(epilogue(diagnosis, done, command))
    if args.notify and not args.dry_run:
        notify(story(diagnosis))
    if not args.restart or args.dry_run:
        return 0
    if diagnosis.state == "running":
        raise UserError(f"{directory}: {diagnosis.why}; stop it first (Ctrl-C or SIGTERM saves), then --restart")
    return start(command, diagnosis)


def act(
    args: argparse.Namespace, diagnosis: "Diagnosis", findings: "Findings", best: "Verdict"
) -> tuple[list[str], list[str]]:
    """Repairs and writes what was asked for. -> what was done, in words; the command that goes on"""
    import rescue

    directory = diagnosis.directory
    proposed = directory / rescue.PROPOSAL
    command = rescue.restart_command(diagnosis, proposed, checkpoint=args.checkpoint)
    if args.dry_run:
        return [], command
    done = [] if diagnosis.state == "running" else rescue.repair_pointers(directory, findings)
    if diagnosis.state not in ("running", "finished"):
        rescue.write_proposal(directory, best.path, diagnosis.safer, diagnosis.reasons)
        done.append(f"wrote {proposed}")
    if args.strip_optimizer:
        done.append(f"wrote {rescue.strip_optimizer(best.path, directory)}")
    if args.export_weights:
        done.append(f"wrote {rescue.export_weights(best.path, directory)}")
    if args.restart and diagnosis.state != "running":
        done += [f"set aside {path}" for path in rescue.quarantine(findings)]
    return done, command


def table(findings: "Findings") -> str:
    """One line for each file of checkpoints/."""
    rows = [f"  {v.path.name:<24}{v.n_bytes / 2**20:>9.1f} MiB  {v.problem or 'whole'}" for v in findings.verdicts]
    return "\n".join(["checkpoints:", *(rows or ["  none"])])


def epilogue(diagnosis: "Diagnosis", done: Sequence[str], command: Sequence[str]) -> str:
    lines = [f"done:        {line}" for line in done]
    lines += [f"safer:       {reason}" for reason in diagnosis.reasons]
    if diagnosis.state not in ("running", "finished"):
        lines.append(f"to go on:    python emergency_recovery.py {diagnosis.directory} --restart")
        lines.append(f"which runs:  {' '.join(command)}")
    return "\n".join(lines)


def notify(text: str) -> None:
    """By Telegram. A message that does not get through is said, and stops nothing; UserError where nobody is named."""
    from threading import Event

    from run_log import ObserverOff
    from smart_tuner.monitors.telegram import Courier, Undelivered, account_from

    account = account_from(os.environ)
    if account is None:
        raise UserError("--notify needs a bot's token in TELEGRAM_BOT_TOKEN and a chat's number in TELEGRAM_CHAT_ID")
    courier = Courier(account, Event(), pause_s=1.0)
    try:
        courier.send(text)
    except ObserverOff as error:  # the courier has closed itself
        print(f"warning: {error}", file=sys.stderr)
        return
    except Undelivered as error:
        print(f"warning: Telegram was not told: {error}", file=sys.stderr)
    courier.close()


def start(command: Sequence[str], diagnosis: "Diagnosis") -> int:
    """The training, in the directory where it was first started, in the foreground. -> its exit code"""
    folder = diagnosis.working_directory
    there = folder if folder and os.path.isdir(folder) else None
    sys.stdout.flush()
    code = subprocess.run(command, cwd=there, check=False).returncode
    return code if code >= 0 else 128 - code


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(parser().parse_args(with_dashes(sys.argv[1:] if argv is None else argv)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
