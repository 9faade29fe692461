"""Whether a run may go on, and from which checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from audio.mel import MelFingerprint
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import NothingToRecover, UserError
from common.files import refusals_explained
from common.log import LOG
from config.hparams_diff import differences
from data_utils import Corpus
from hparams import HParams, Resolved
from model import Tacotron2
from run_directory.metrics_log import RunLog
from run_directory.paths import DEMO, MAKE_ROOM, move_aside
from run_directory.records import Event
from run_directory.run_info import launch_id, read_run_info, write_run_info
from text.front_end import FrontEnd, front_end_of_voice
from text.pronunciations import read_pronunciations
from text.symbol_sets import named_table
from training.options import Options


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


def kept_front_end(directory: Path, hp: HParams, options: Options, *, is_fresh: bool) -> FrontEnd | None:
    """How the voice that goes on reads texts: its symbols and pronunciations stay. None where a new voice begins."""
    path = None if is_fresh else checkpoint_dir.newest_good(directory / "checkpoints")
    if path is None and options.checkpoint is not None and not options.warm_start:
        path = checkpoint_dir.resolve(options.checkpoint)
    voice = None if path is None else checkpoint_file.read_voice(path)
    if voice is None:
        return None
    kept = front_end_of_voice(voice.front_end, symbols=voice.symbols, cleaners=HParams(**voice.hparams).text_cleaners)
    return _with_pronunciations(kept, hp, options, where=path)


def _with_pronunciations(kept: FrontEnd, hp: HParams, options: Options, *, where: Path | None) -> FrontEnd:
    """The voice's own, unless a changed file is asked for with --resume-with-changes."""
    if not hp.pronunciations:
        return kept
    named = read_pronunciations(Path(hp.pronunciations))
    if named.as_lists() == kept.pronunciations.as_lists():
        return kept
    if not options.resume_with_changes:
        raise UserError(
            f"{hp.pronunciations} differs from the pronunciations that {where} keeps\n"
            "Ways on: --resume-with-changes (the file holds from now on), --fresh (the old run is moved aside), "
            "another -o."
        )
    return replace(kept, pronunciations=named)


def open_run(
    model: Tacotron2, hp: HParams, corpus: Corpus, directory: Path, options: Options, data: str, is_fresh: bool
) -> tuple[Checkpoint | None, int]:
    """What to go on from, perhaps weights that are in the model now, and the number of this attempt."""
    saved = None if is_fresh else own_checkpoint(directory, hp, corpus, options)
    if saved is None and options.checkpoint is not None:
        saved = start_from(checkpoint_dir.resolve(options.checkpoint), model, hp, corpus, options)
    with refusals_explained(f"to {directory}", next_step=f"{MAKE_ROOM} -o"):
        if is_fresh and (aside := move_aside(directory)):
            LOG.warning("starting anew; the old run is kept in %s", aside)
        attempt = write_run_info(
            directory, hp, data=data, fingerprint=corpus.fingerprint, mel=MelFingerprint.of(hp).to_dict()
        )
    return saved, attempt


def set_aside(directory: Path, step: int, log: RunLog) -> None:
    """Damaged files of later steps than the one that training goes on from: moved, never deleted."""
    for path in checkpoint_dir.all_checkpoints(directory / "checkpoints"):
        if path > checkpoint_dir.checkpoint_path(path.parent, step):
            moved = checkpoint_dir.quarantine(path)
            LOG.warning("%s is damaged and was moved to %s", path, moved)
            log.write(Event(step, "quarantined", f"{path.name} is damaged; moved to {moved.parent.name}/"))


def own_checkpoint(directory: Path, hp: HParams, corpus: Corpus, options: Options) -> Checkpoint | None:
    """The run's own newest good checkpoint, if its settings allow to go on; it beats -c."""
    path = checkpoint_dir.newest_good(directory / "checkpoints")
    damaged = checkpoint_dir.all_checkpoints(directory / "checkpoints")
    if path is None and damaged:
        raise NothingToRecover(
            f"{directory}: all {len(damaged)} checkpoints are damaged; put a good one back, or start anew with --fresh "
            "(the old run is moved aside)"
        )
    if path is None:
        return None
    if options.checkpoint is not None:
        LOG.warning("%s has its own checkpoint %s; -c is not used (--fresh would start anew)", directory, path.name)
    return resumable(path, hp, corpus, options, where=directory)


def resumable(path: Path, hp: HParams, corpus: Corpus, options: Options, *, where: Path) -> Checkpoint:
    """A checkpoint of ours that training can go on from with these settings; else a UserError with the ways on."""
    saved = checkpoint_file.load(path)
    if saved.training is None:
        raise UserError(f"{path} was stripped of what resuming needs; start anew with --fresh -c {path} --warm-start")
    if list(saved.voice.speakers) != list(corpus.speakers):
        raise UserError(
            f"{where} holds a voice of other speakers ({', '.join(saved.voice.speakers) or 'none named'} there, "
            f"{', '.join(corpus.speakers) or 'none named'} in the filelists)\n"
            "Ways on: --fresh (the old run is moved aside), another -o, or -c with --warm-start, which copies by name."
        )
    check_resumable(
        hp, saved.voice.hparams, corpus_differs=saved.training["corpus"] != corpus.fingerprint,
        with_changes=options.resume_with_changes, where=where,
    )  # fmt: skip
    return saved


def start_from(path: Path, model: Tacotron2, hp: HParams, corpus: Corpus, options: Options) -> Checkpoint | None:
    """-c: with --warm-start the weights that fit; else a checkpoint of ours is gone on from, NVIDIA's loads exactly."""
    content = checkpoint_file.read(path)
    if options.warm_start:
        # a base voice reads the same symbols: its embedding is what it has learnt
        ignored_layers = hp.ignore_layers if options.base_steps is None else ()
        ignore = [*ignored_layers, *checkpoint_weights.keys_under(options.ignore_prefixes, content)]
        done = checkpoint_weights.warm_start(
            model,
            content,
            ignore=ignore,
            symbols=corpus.front_end.table.symbols,
            unnamed_symbols=named_table("nvidia").symbols,
            speakers=corpus.speakers,
        )
        LOG.info("warm start from %s: %s", path, done)
        return None
    if content.get("format") == checkpoint_file.FORMAT:
        return resumable(path, hp, corpus, options, where=path)
    if hp.normalize_mel:
        raise UserError(
            f"{path} has no mel mean and deviation, so it speaks raw log-mels (as NVIDIA's weights do), and "
            "normalize_mel=True expects standardised ones; add --preset nvidia, or --warm-start to take the weights "
            "as a beginning only"
        )
    checkpoint_weights.load_exactly(model, content, path=path)
    LOG.info("loaded all weights of %s; training starts at step 0", path)
    return None
