"""A beginning that the project makes itself: a voice trained on synthetic speech of the words of the user's texts.

Synthetic speech is free and without end, and what a model learns from it (to read, attend and stop) is what an hour of
recordings is short of. The base voice has the layers and symbols of the run that begins from it. A training process
of its own makes it, once; it is kept in the cache, where it goes on if it was interrupted:

    <cache>/base-<digest>/checkpoints ...
"""

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from filelock import BaseFileLock, FileLock, Timeout

from checkpointing import directory as checkpoint_dir
from common.cache_dir import CACHE_VARIABLE, cache_directory
from common.errors import GaveUp, TimeIsUp, UserError
from common.files import explain_write_errors, write_atomic
from common.log import LOG
from common.signals import requests
from corpus.demo.builder import DemoCorpus, ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from corpus.demo.teachers import Teacher, espeak, hibari
from data_utils import Corpus
from hparams import HParams, field_info, field_names
from monitoring.progress_bar import counted_progress
from run_directory.paths import acquire_where_possible, is_in_use
from text.language_settings import default_symbol_set
from text.languages import language_of
from text.phoneme_readers import ESPEAK_VOICES
from training.corpus_setup import training_seconds

# of the launcher that started this process: the base voice is trained by one
OF_SEVERAL_PROCESSES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID")
ROOT = Path(__file__).resolve().parent.parent
SENTENCES, HELD_OUT = 2950, 20  # after 3500 steps on so many, 1500 on real speech gave fewer errors than 3000 without
SHORTEST, LONGEST = 4, 14  # words
# Minutes, under which Hibari speaks English base voices. After ten minutes of recordings 10 % of the words are misheard
# with it, 16 % with espeak-ng; after an hour 10 % with it and 7 % with espeak-ng. In between nothing compares them.
LITTLE_SPEECH_MIN = 30
SEED = 2017
WAIT_S = 1.0
# Of the run alone, beside what may change when a run is resumed: one base is made for all values of these.
OF_THE_RUN = ("seed", "anneal_start", "anneal_steps", "ema_decay", "load_mel_from_disk")
FILES = ("training_files", "validation_files", "dataset_path")
# Nobody chooses among its checkpoints, watches it from afar or looks at its pictures.
OWN: dict[str, bool | int | float] = {
    "drop_frame_rate": 0.2,  # it is where attention is learnt; a run that begins with it may drop none
    **dict.fromkeys(("mlflow_logging", "telegram_monitoring", "debug_reporting", "early_stopping"), False),
    **{"save_interval": 0, "iters_per_checkpoint": 400, "validate_interval": 1000},
}


def base_voice(hp: HParams, recordings: Corpus, *, steps: int, ends_at: float = math.inf) -> Path:
    """The checkpoint of the base voice for these hyperparameters and recordings; made now if the cache lacks it.

    UserError where its speech or its training fails; SystemExit if a signal ended it, TimeIsUp at `ends_at` (of
    time.monotonic()), after it was saved.
    """
    texts = [feature.utterance.text for feature in recordings.train.features]
    teacher = teacher_of(hp.language, speech_s=training_seconds(hp, recordings))
    corpus = synthetic_corpus(texts, SENTENCES, teacher=teacher, ends_at=ends_at)
    settings = base_settings(hp, files_of(corpus))
    directory = cache_directory() / f"base-{digest_of(settings, steps)}"
    if not is_made(directory, steps):
        with alone_with(directory, ends_at=ends_at):
            if not is_made(directory, steps):
                LOG.warning("making the base voice in %s: %d steps on synthetic speech, once", directory, steps)
                train_base(settings, directory, steps, ends_at=ends_at)
    return checkpoint_dir.checkpoint_path(directory / "checkpoints", steps)


@contextmanager
def alone_with(directory: Path, *, ends_at: float = math.inf) -> Iterator[None]:
    """Runs that begin from the same base wait for the one that makes it, or for what a killed one left training;
    TimeIsUp where that takes longer than until `ends_at` (of time.monotonic()).
    """
    lock, is_told = FileLock(f"{directory}.lock", timeout=0), False
    with explain_write_errors(f"to {directory.parent}", next_step=f"set {CACHE_VARIABLE} to another folder"):
        directory.parent.mkdir(parents=True, exist_ok=True)
        while not _is_free(lock, directory):
            if not is_told:
                LOG.warning("another run is making the base voice in %s; waiting for it", directory)
            is_told = True
            if time.monotonic() >= ends_at:
                raise TimeIsUp(f"another run is still making the base voice in {directory}")
            time.sleep(WAIT_S)
    try:
        yield
    finally:
        lock.release()


def _is_free(lock: BaseFileLock, directory: Path) -> bool:
    """With the lock taken, then."""
    try:
        acquire_where_possible(lock, directory)
    except Timeout:
        return False
    if is_in_use(directory):
        lock.release()
        return False
    return True


def digest_of(settings: HParams, steps: int) -> str:
    """Of what differs from the defaults, which stay: so a base is found again when a later version adds a parameter.

    Who tries mixed precision later begins from the same weights.
    """
    defaults = HParams().canonical() | {"fp16_run": settings.fp16_run}
    chosen = {name: value for name, value in settings.canonical().items() if value != defaults[name]}
    return hashlib.sha256(json.dumps([chosen, steps], sort_keys=True).encode()).hexdigest()[:12]


def base_recipe(hp: HParams, *, steps: int) -> str:
    """A name for how a base voice is made, the same on all machines, whatever its words."""
    return digest_of(base_settings(hp, {name: getattr(HParams(), name) for name in FILES}), steps)


def is_made(directory: Path, steps: int) -> bool:
    path = checkpoint_dir.checkpoint_path(directory / "checkpoints", steps)
    return path.is_file() and checkpoint_dir.problem_of(path) is None


def teacher_of(language: str, *, speech_s: float) -> Teacher:
    """Who says the words of so many seconds of recordings."""
    known = language_of(language)
    if known.is_english and speech_s < 60 * LITTLE_SPEECH_MIN:
        return hibari()
    return espeak(ESPEAK_VOICES.get(known.code, known.code))


def synthetic_corpus(texts: Sequence[str], n: int, *, teacher: Teacher, ends_at: float = math.inf) -> DemoCorpus:
    """n sentences of the words of the texts. TimeIsUp at `ends_at` (of time.monotonic())."""
    words_only = [text for text in texts if "{" not in text]  # phonemes are for the voice, not for its teacher
    said = recombined(words_only, n + 2 * HELD_OUT)
    split = DemoSentences(said[: -2 * HELD_OUT], said[-2 * HELD_OUT : -HELD_OUT], said[-HELD_OUT:])
    show = counted_progress("speaking the base corpus")

    def in_time(done: int, total: int) -> None:
        show(done, total)
        if time.monotonic() >= ends_at:
            raise TimeIsUp("the base corpus is not spoken yet")

    return ensure_demo_corpus(progress=in_time, sentences=split, teacher=teacher)


def recombined(texts: Sequence[str], n: int) -> tuple[str, ...]:
    """n different sentences of words drawn from the texts, as often as they are there; the same ones each time."""
    words = [word for text in texts for word in text.split() if any(char.isalpha() for char in word)]
    if len(set(words)) < 2 * SHORTEST:
        raise UserError(f"--from-base: the training texts hold {len(set(words))} words, too few to make sentences of")
    draw, found = random.Random(SEED), dict[str, None]()
    while len(found) < n:
        drawn = " ".join(draw.choices(words, k=draw.randint(SHORTEST, LONGEST))).rstrip(".,;:!?-\u2026")
        found[f"{drawn}."] = None
    return tuple(found)


def files_of(corpus: DemoCorpus) -> dict[str, str]:
    return dict(zip(FILES, map(str, (corpus.training_files, corpus.validation_files, corpus.root)), strict=True))


def base_settings(hp: HParams, files: Mapping[str, str]) -> HParams:
    """Layers, symbols and rates as they are; what the run alone has, as by default; the base's own data.

    The set of symbols is named also where the user leaves it to the language: one base serves both ways to say it.
    """
    defaults = HParams()
    by_default = [name for name in field_names() if field_info(name).mutable or name in OF_THE_RUN]
    own = {"symbol_set": hp.symbol_set or default_symbol_set(language_of(hp.language), hp.text_input, hp.text_cleaners)}
    return hp.model_copy(update={**{name: getattr(defaults, name) for name in by_default}, **OWN, **files, **own})


def train_base(settings: HParams, directory: Path, steps: int, *, ends_at: float = math.inf) -> None:
    with explain_write_errors(f"to {directory}", next_step="free space there"):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / "base.yaml", settings.to_yaml())
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-o", str(directory), "-l", str(directory / "logs")),
        *("--hparams-file", str(directory / "base.yaml"), "--max-steps", str(steps), "--resume-with-changes"),
    ]
    alone = {name: value for name, value in os.environ.items() if name not in OF_SEVERAL_PROCESSES}
    child = subprocess.Popen(command, env=alone, start_new_session=True)
    with passing_signals_on(child) as signals:
        is_late = False
        try:
            code = child.wait(None if ends_at == math.inf else max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            is_late = True
            child.terminate()  # it saves
            code = child.wait()
    if is_late and not is_made(directory, steps):
        raise TimeIsUp(f"the base voice in {directory} is saved as far as it came")
    if signals:
        LOG.warning("the base voice is saved as far as it came; the same command goes on")
        sys.exit(128 + signals[0])
    if code or not is_made(directory, steps):
        refuse_unmade(code, directory)


def refuse_unmade(code: int, directory: Path) -> NoReturn:
    """With the exit code of what its training ended by."""
    said = f"the base voice was not made: its training ended with status {code}, see {directory}/logs"
    if code < 0:
        LOG.error("%s; killed from outside, most often for lack of memory; the same command goes on", said)
        sys.exit(128 - code)
    raise GaveUp(said) if code == GaveUp.exit_code else UserError(said)


@contextmanager
def passing_signals_on(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """-> the signals that came; the child saves and ends by them."""
    came: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        came.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in requests()}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
