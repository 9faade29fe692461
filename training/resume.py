"""Whether a run may go on, and from which checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.log import LOG
from config.hparams_diff import differences
from hparams import HParams, Resolved
from run_directory.paths import DEMO
from run_directory.run_info import launch_id, read_run_info


def is_fresh_start(directory: Path, *, asked: bool) -> bool:
    """--fresh and force_model_reinit act once a launch: an automatic restart finds its own launch id and goes on."""
    return asked and read_run_info(directory).get("launch_id") != launch_id()


def is_demo_wanted(resolved: Resolved, directory: Path, *, is_fresh: bool = False) -> bool:
    """Whether the embedded demo corpus stands in: nothing names data, no default file exists, no other data before."""
    if any(resolved.origins[name] != "default" for name in ("training_files", "validation_files")):
        return False
    hp = resolved.hparams
    if Path(hp.training_files).exists() or Path(hp.validation_files).exists():
        return False
    return is_fresh or read_run_info(directory).get("data", DEMO) == DEMO


def check_resumable(
    hp: HParams, saved: Mapping[str, Any], *, corpus_differs: bool, with_changes: bool, where: Path
) -> None:
    """Refuses to go on with another setting than the saved one, naming every difference and the ways on."""
    found = differences(hp, saved)
    lines = [line for group in found.values() for line in group]
    if corpus_differs:
        lines.append("the training data: other recordings or texts than before")
    if not lines:
        return
    listed = "\n  ".join(lines)
    if found["arch"]:
        raise UserError(
            f"{where} holds a model of another shape:\n  {listed}\n"
            "Ways on: --fresh (the old run is moved aside), another -o, or -c with --warm-start to keep what fits."
        )
    if not with_changes:
        raise UserError(
            f"{where} was trained with other settings:\n  {listed}\n"
            "Ways on: --resume-with-changes (the new ones hold), --fresh (the old run is moved aside), another -o."
        )
    LOG.warning("going on with changed settings:\n  %s", listed)
