"""`run.json`: settings, launch and versions of a run."""

import json
import os
import platform
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.files import write_atomic
from common.redaction import argument_without_secrets
from hparams import HParams


def launch_id() -> str:
    """The same for every automatic restart of one launch, another for each time a person starts the command."""
    elastic = os.environ.get("TORCHELASTIC_RUN_ID")
    if elastic == "none":  # torchrun's name for every launch without --rdzv-id; its own process is what they share
        return f"none-{os.getppid()}"
    return elastic or os.environ.setdefault("TACOTRON2_LAUNCH_ID", uuid.uuid4().hex)


def read_run_info(directory: Path) -> dict[str, Any]:
    """The content of run.json, {} where there is none."""
    path = directory / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # of the JSON, or of its encoding
        raise UserError(f"{path} is damaged ({error}); move it away to start anew") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no object, a {type(content).__name__}); move it away to start anew")
    return content


def write_run_info(directory: Path, hp: HParams, *, data: str) -> int:
    """Writes hparams.yaml and run.json. -> the number of this attempt, from 1."""
    import torch

    attempt = int(read_run_info(directory).get("attempt", 0)) + 1
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / "hparams.yaml", yaml.safe_dump(hp.canonical(), sort_keys=False, allow_unicode=True))
    info = {
        "command": [Path(sys.argv[0]).name, *map(argument_without_secrets, sys.argv[1:])],
        "attempt": attempt,
        "working_directory": os.getcwd(),
        "host": platform.node(),
        "pid": os.getpid(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "launch_id": launch_id(),
        "data": data,
        "git_revision": git_revision(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_atomic(directory / "run.json", json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    return attempt


def git_revision() -> str | None:
    """Of the trainer's own checkout; None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
