"""Whether a run may go on, and from which checkpoint."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from audio.mel import MelFingerprint, require_known_format
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import NothingToRecover, UserError
from common.files import explain_write_errors
from common.log import LOG
from config.hparams_diff import differences
from data_utils import Corpus
from hparams import HParams, Resolved
from model import Tacotron2
from monitoring.logging_setup import configure_logging
from run_directory.metrics_log import RunLog
from run_directory.paths import DEMO, MAKE_ROOM, RunPaths, move_aside
from run_directory.records import Event
from run_directory.run_info import launch_id, read_run_info, write_run_info
from speech.vocoders.vocoder import sample_vocoder
from text.front_end import FrontEnd, front_end_of_voice
from text.pronunciations import read_pronunciations
from text.symbol_sets import named_table
from training.options import Options

# With another of these the texts would be refused as the voice reads them, and not as the user asked for.
READING = ("language", "text_input", "symbol_set", "text_cleaners")


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
    listed += _last_command(where)
    if found["arch"]:
        raise UserError(
            f"{where} holds a model of another shape:\n  {listed}\n"
            "Use --fresh (the old run is moved aside), another -o, or -c with --warm-start to keep what fits."
        )
    if not with_changes:
        raise UserError(
            f"{where} was trained with other settings:\n  {listed}\n"
            "Use --resume-with-changes (the new ones hold), --fresh (the old run is moved aside) or another -o."
        )
    LOG.warning("going on with changed settings:\n  %s", "\n  ".join(lines))


def _last_command(where: Path) -> str:
    """A line with the command that trained this run, or this checkpoint's: whoever forgot a --preset sees it there."""
    command = read_run_info(where if where.is_dir() else where.parent.parent).get("command")
    return f"\nIts last launch was: python {shlex.join(command)}" if command else ""


@dataclass(frozen=True)
class RunStart:
    """What a launch has found in its run directory. `data`: training_files, or `DEMO`."""

    directory: Path
    is_fresh: bool
    data: str

    @property
    def is_demo(self) -> bool:
        return self.data == DEMO

    @property
    def goes_on(self) -> bool:
        """From its own checkpoints."""
        return not self.is_fresh and bool(checkpoint_dir.all_checkpoints(self.directory / "checkpoints"))


def inspect_run(paths: RunPaths, settings: Resolved, options: Options) -> RunStart:
    """Before anything takes its time: whether to start anew, on which data. UserError if -c can't be used."""
    with explain_write_errors(f"to {paths.log_directory}", next_step=f"{MAKE_ROOM} -l"):
        configure_logging(paths.log_directory)
    sample_vocoder(settings.hparams.sample_vocoder, MelFingerprint.of(settings.hparams), torch.device("cpu"))
    directory = paths.directory
    is_fresh = is_fresh_start(directory, asked=options.fresh or settings.hparams.force_model_reinit)
    is_demo = is_demo_wanted(settings, directory, is_fresh=is_fresh)
    start = RunStart(directory, is_fresh, DEMO if is_demo else settings.hparams.training_files)
    if options.checkpoint is not None and not start.goes_on:
        checkpoint_file.read(checkpoint_dir.resolve(options.checkpoint))  # a wrong -c is refused here
    if start.goes_on:
        _tell_unused_beginning(directory, options)
    return start


def _tell_unused_beginning(directory: Path, options: Options) -> None:
    """A run that goes on begins nowhere else. The command that began it, given again, is no mistake."""
    checkpoint = options.checkpoint
    asked = "--from-base" if options.base_steps is not None else "" if checkpoint is None else f"-c {checkpoint}"
    if checkpoint is not None and checkpoint.resolve().is_relative_to(directory.resolve()):
        return
    if asked and asked.removeprefix("-c ") not in read_run_info(directory).get("command", ()):
        LOG.warning(
            "%s is not used: the run in %s goes on from its own checkpoints; to begin from it, add --fresh (the old "
            "run is moved aside) or name another -o",
            asked, directory,
        )  # fmt: skip


def kept_front_end(start: RunStart, hp: HParams, options: Options) -> FrontEnd | None:
    """How the voice that goes on reads texts: its symbols and pronunciations stay. None where a new voice begins."""
    path = own = None if start.is_fresh else checkpoint_dir.newest_good(start.directory / "checkpoints")
    if path is None and options.checkpoint is not None and not options.warm_start:
        path = checkpoint_dir.resolve(options.checkpoint, prefer="newest")
    voice = None if path is None else checkpoint_file.read_voice(path)
    if path is None or voice is None:
        return None
    kept = front_end_of_voice(voice.front_end, symbols=voice.symbols, cleaners=HParams(**voice.hparams).text_cleaners)
    asked = hp.canonical()
    reads_otherwise = any(voice.hparams.get(name, asked[name]) != asked[name] for name in READING)
    if reads_otherwise and not options.resume_with_changes:
        of_this_table = hp.model_copy(update={"n_symbols": len(kept.table)})
        where = start.directory if own else path
        check_resumable(of_this_table, voice.hparams, corpus_differs=False, with_changes=False, where=where)
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
            "Use --resume-with-changes (the file holds from now on), --fresh (the old run is moved aside) or "
            "another -o."
        )
    return replace(kept, pronunciations=named)


def prepare_run(
    start: RunStart, model: Tacotron2, hp: HParams, corpus: Corpus, options: Options
) -> tuple[Checkpoint | None, int]:
    """What to go on from, perhaps weights that are in the model now, and the number of this attempt."""
    directory = start.directory
    saved = None if start.is_fresh else own_checkpoint(directory, hp, corpus, options)
    if saved is None and options.checkpoint is not None:
        saved = load_initial_weights(chosen_checkpoint(options.checkpoint), model, hp, corpus, options)
    with explain_write_errors(f"to {directory}", next_step=f"{MAKE_ROOM} -o"):
        if start.is_fresh and (aside := move_aside(directory)):
            LOG.warning("starting anew; the old run is kept in %s", aside)
        attempt = write_run_info(directory, hp, data=start.data)
    return saved, attempt


def chosen_checkpoint(named: Path) -> Path:
    """The file that -c names; of a run its newest, which is said."""
    path = checkpoint_dir.resolve(named, prefer="newest")
    if path != named:
        best = checkpoint_dir.pointed(path.parent, "best")
        also = f" (the best is {best.name})" if best is not None and best != path else ""
        LOG.info("-c %s: its newest checkpoint, %s%s", named, path.name, also)
    return path


def set_aside_damaged(directory: Path, step: int, log: RunLog) -> None:
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
    require_known_format(saved.voice.mel_fingerprint, where=path)
    if saved.training is None:
        raise UserError(f"{path} was stripped of what resuming needs; start anew with --fresh -c {path} --warm-start")
    if list(saved.voice.speakers) != list(corpus.speakers):
        raise UserError(
            f"{where} holds a voice of other speakers ({', '.join(saved.voice.speakers) or 'none named'} there, "
            f"{', '.join(corpus.speakers) or 'none named'} in the filelists)\n"
            "Use --fresh (the old run is moved aside), another -o, or -c with --warm-start, which copies by name."
        )
    check_resumable(
        hp, saved.voice.hparams, corpus_differs=saved.training["corpus"] != corpus.fingerprint,
        with_changes=options.resume_with_changes, where=where,
    )  # fmt: skip
    return saved


def warn_of_other_mels(path: Path, content: Mapping[str, Any], hp: HParams) -> None:
    """Weights that have learnt mels of other parameters must learn these anew; NVIDIA's files don't say theirs."""
    there = (content.get("voice") or {}).get("mel_fingerprint")
    lines = MelFingerprint.of(hp).differences(there) if there else []
    if lines:
        LOG.warning(
            "%s was trained on other mels, so what it knows of them helps little:\n  %s", path, "\n  ".join(lines)
        )


def warn_of_vain_exclusions(
    path: Path, model: Tacotron2, content: Mapping[str, Any], hp: HParams, options: Options
) -> None:
    """What a warm start is told to leave out, and nothing has."""
    theirs = checkpoint_weights.weights_of(content)
    known = [*model.state_dict(), *theirs]
    for key in hp.ignore_layers:
        if key not in known:
            nearest = get_close_matches(key, known, n=1, cutoff=0.0)
            LOG.warning(
                "ignore_layers: neither %s nor this model has %s; the nearest is %s", path, key, "".join(nearest)
            )
    for prefix in options.ignore_prefixes:
        if not any(key.startswith(prefix) for key in theirs):
            LOG.warning("%s has no weights that begin with %s, so there was nothing to leave out", path, prefix)


def load_initial_weights(
    path: Path, model: Tacotron2, hp: HParams, corpus: Corpus, options: Options
) -> Checkpoint | None:
    """-c: with --warm-start the weights that fit; else a checkpoint of ours is gone on from, NVIDIA's loads exactly."""
    content = checkpoint_file.read(path)
    if options.warm_start:
        # a base voice reads the same symbols: its embedding is what it has learnt
        ignored_layers = hp.ignore_layers if options.base_steps is None else ()
        ignored = checkpoint_weights.keys_under(options.ignore_prefixes, content)
        warn_of_vain_exclusions(path, model, content, hp, options)
        done = checkpoint_weights.warm_start(
            model,
            content,
            ignore=[*ignored_layers, *ignored],
            symbols=corpus.front_end.table.symbols,
            unnamed_symbols=named_table("nvidia").symbols,
            speakers=corpus.speakers,
        )
        if done.is_empty:
            raise UserError(f"no weight of {path} fits ({done.why_empty}); name another file, or start without -c")
        LOG.info("warm start from %s: %s", path, done)
        warn_of_other_mels(path, content, hp)
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
