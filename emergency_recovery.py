"""Examines a run that stopped: what ended it, which checkpoints are whole, and how to go on.

Without an argument it takes the newest run anywhere under output/. It needs no GPU, no network and no tracker, and
never changes a checkpoint.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from common.cli import Parser, run_command
from common.errors import UserError
from common.files import explain_write_errors

if TYPE_CHECKING:  # torch takes seconds to import; --help doesn't need it
    from recovery.diagnosis import Diagnosis
    from recovery.repair import Findings

EXAMPLES = """examples:
  python emergency_recovery.py                      the newest run under output/: what happened, what is whole
  python emergency_recovery.py output --restart     go on from its last whole checkpoint, after a fault more safely
  python emergency_recovery.py output --export-weights --checkpoint output/checkpoints/step_00012000.pt

exit codes: 0 done; 2 wrong usage; 5 nothing to recover; with --restart, the training's own"""


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES)
    add = p.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="the run directory (default: the newest under output/)")
    add("--checkpoint", type=Path, metavar="PT", help="use this checkpoint instead of the newest whole one")
    add("--restart", action="store_true", help="go on training now; after a fault with safer settings")
    add("--strip-optimizer", action="store_true", help="write a copy without the optimizer to RUN/recovered/")
    add("--export-weights", action="store_true", help="write bare weights with NVIDIA's names to RUN/recovered/")
    add("--notify", action="store_true", help="send the diagnosis by Telegram (TELEGRAM_BOT_TOKEN, TELEGRAM_CHAT_ID)")
    add("--json", action="store_true", help="print one JSON object, for programs")
    add("--dry-run", action="store_true", help="print what would be done, change nothing")
    return p


def run(args: argparse.Namespace) -> int:
    from recovery import repair
    from recovery.diagnosis import diagnose, format_diagnosis, newest_run

    directory = args.run or newest_run(Path("output"))
    diagnosis = diagnose(directory)
    findings = repair.examine(directory)
    own = own_command(args, diagnosis)
    if not args.json:
        print(f"{format_diagnosis(diagnosis)}\n{table(findings)}")
    if args.notify and not args.dry_run:
        notify(format_diagnosis(diagnosis))
    with explain_write_errors(f"to {directory}", next_step="free space there (df -h); --dry-run writes nothing"):
        done, command = act(args, diagnosis, findings, own=own)
    if args.json:
        print(repair.as_json(diagnosis, findings, [*done, shlex.join(command)]))
    else:
        print(epilogue(diagnosis, done, command, own=own))
    if not args.restart or args.dry_run:
        return 0
    if diagnosis.state == "running":
        raise UserError(f"{directory}: {diagnosis.why}; stop it first (Ctrl-C or SIGTERM saves), then --restart")
    start(command, diagnosis)


def act(
    args: argparse.Namespace, diagnosis: "Diagnosis", findings: "Findings", *, own: list[str]
) -> tuple[list[str], list[str]]:
    """Repairs and writes what was asked for. -> what was done, in words; the command that goes on

    own: the command with the run's own settings; [] where it is no way on.
    """
    from recovery import repair

    directory, is_running = diagnosis.directory, diagnosis.state == "running"
    proposed = directory / repair.PROPOSAL
    is_plain = diagnosis.state == "interrupted" and bool(own)  # nothing was wrong with it: nothing is to be changed
    command = own if is_plain else repair.restart_command(diagnosis, proposed, checkpoint=args.checkpoint)
    done = [] if args.dry_run or is_running else [f"renewed {renewed_report(directory)}"]
    best = repair.chosen(findings, args.checkpoint, directory)
    if args.dry_run:
        return [], command
    if not is_running:
        done += repair.repair_pointers(directory, findings)
    if not is_running and not is_plain and (args.restart or diagnosis.state != "finished"):
        repair.write_proposal(directory, best.path, diagnosis.safer, diagnosis.reasons)
        done.append(f"wrote {proposed}")
    if args.strip_optimizer:
        done.append(f"wrote {repair.strip_optimizer(best.path, directory)}")
    if args.export_weights:
        done.append(f"wrote {repair.export_weights(best.path, directory)}")
    if args.restart and not is_running:
        done += [f"set aside {path}" for path in repair.quarantine(findings)]
    return done, command


def own_command(args: argparse.Namespace, diagnosis: "Diagnosis") -> list[str]:
    """What goes on with the run's own settings; [] where something else was asked for, or they are at fault."""
    from recovery import repair

    if args.restart or args.checkpoint is not None or diagnosis.safer or diagnosis.state == "gave_up":
        return []
    return repair.own_command(diagnosis)


def renewed_report(directory: Path) -> Path:
    """The page that the run left says that it trains."""
    from common.translations import language_of
    from monitoring.report.page import write_report

    return write_report(directory, language_of(os.environ))


def table(findings: "Findings") -> str:
    """One line for each file of checkpoints/."""
    newest = findings.newest
    good = {v.path: "whole, the newest: training goes on from it" if v is newest else "whole" for v in findings.good}
    rows = [f"  {v.path.name:<24}{v.n_bytes / 2**20:>9.1f} MiB  {v.problem or good[v.path]}" for v in findings.statuses]
    return "\n".join(["checkpoints:", *(rows or ["  none"])])


def epilogue(diagnosis: "Diagnosis", done: Sequence[str], command: Sequence[str], *, own: Sequence[str]) -> str:
    """own: the command with the run's own settings, which comes first; [] where it is no way on."""
    lines = [f"done:        {line}" for line in done]
    lines += [f"safer:       {reason}" for reason in diagnosis.reasons]
    if diagnosis.state in ("running", "finished"):
        return "\n".join(lines)
    if own:
        lines.append(f"to go on:    {shlex.join(own)}{in_folder(diagnosis.working_directory)}")
    if command != own:
        restart = f"python emergency_recovery.py {diagnosis.directory} --restart"
        lines.append(f"{'or:      ' if own else 'to go on:'}    {restart}")
        lines.append(f"which runs:  {shlex.join(command)}")
    return "\n".join(lines)


def in_folder(folder: str | None) -> str:
    """Where a command must be typed, if not here."""
    return "" if folder is None or Path(folder) == Path.cwd() else f"   (in {folder})"


def notify(text: str) -> None:
    """By Telegram. A message that does not get through is said, and stops nothing; UserError where nobody is named."""
    from threading import Event

    from monitoring.observer import ObserverOff
    from monitoring.telegram import TelegramClient, Undelivered, account_from

    account = account_from(os.environ)
    if account is None:
        raise UserError("--notify needs a bot's token in TELEGRAM_BOT_TOKEN and a chat's number in TELEGRAM_CHAT_ID")
    client = TelegramClient(account, Event(), pause_s=1.0)
    try:
        client.send(text)
    except ObserverOff as error:  # the client has closed itself
        print(f"warning: {error}", file=sys.stderr)
        return
    except Undelivered as error:
        print(f"warning: Telegram was not told: {error}", file=sys.stderr)
    client.close()


def start(command: Sequence[str], diagnosis: "Diagnosis") -> NoReturn:
    """Becomes the training, in the directory where it was first started: signals reach it, its exit code is ours."""
    folder = diagnosis.working_directory
    if folder and os.path.isdir(folder):
        os.chdir(folder)
    sys.stdout.flush()
    os.execv(command[0], list(command))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
