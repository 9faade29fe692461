"""Which recordings a voice is judged on: those that are named, else the demo's test list or its own validation list."""

from dataclasses import dataclass
from pathlib import Path

from checkpointing import directory as checkpoint_dir
from common.errors import UserError
from corpus.demo.builder import ensure_demo_corpus
from hparams import HParams
from monitoring.progress_bar import counted_progress
from run_directory.paths import DEMO
from run_directory.run_info import read_run_info
from speech.voice import Speaker

NAME_ONE = "name recordings of its own speaker, best such as training never saw, with --filelist"


@dataclass(frozen=True)
class ChosenList:
    """data_roots: further folders that its paths may lead into. note: what readers of the figures must know, or ""."""

    path: Path
    dataset_path: Path
    data_roots: tuple[Path, ...] = ()
    note: str = ""


def chosen_list(
    run_or_checkpoint: Path, speaker: Speaker, filelist: Path | None, dataset_path: Path | None
) -> ChosenList:
    """UserError if no list is named, and the voice knows none that is still there."""
    roots = tuple(Path(root) for root in speaker.hp.data_roots)  # trusted when the voice was trained
    if filelist is not None:
        return ChosenList(filelist, dataset_path or filelist.parent, roots)
    info = _info_of(run_or_checkpoint)
    if info.get("data") == DEMO:
        corpus = ensure_demo_corpus(progress=counted_progress("speaking the demo corpus"))
        return ChosenList(corpus.test_files, dataset_path or corpus.root)
    if speaker.step is None:
        raise UserError(f"-c {run_or_checkpoint}: the voice does not say what it was trained on; {NAME_ONE}")
    return _own_validation_list(run_or_checkpoint, speaker.hp, dataset_path, Path(info.get("working_directory", "")))


def _info_of(run_or_checkpoint: Path) -> dict[str, str]:
    """run.json of the run that a checkpoint belongs to; {} for one that was moved out of its run."""
    directory = checkpoint_dir.resolve(run_or_checkpoint).absolute().parent
    return read_run_info(directory) or read_run_info(directory.parent)


def _own_validation_list(
    run_or_checkpoint: Path, hp: HParams, dataset_path: Path | None, trained_in: Path
) -> ChosenList:
    """Relative paths are looked for here, then in the directory where the voice was trained."""
    for base in (Path(), trained_in):
        path = base / hp.validation_files
        if path.is_file():
            note = (
                f"on {path}, by which training chose its best checkpoint: these figures flatter it; --filelist names "
                "recordings that it never saw"
            )
            roots = tuple(base / root for root in hp.data_roots)
            return ChosenList(path, dataset_path or base / hp.dataset_path, roots, note)
    raise UserError(
        f"-c {run_or_checkpoint}: the list that the voice was validated on, {hp.validation_files}, is not there any "
        f"more; {NAME_ONE}"
    )
