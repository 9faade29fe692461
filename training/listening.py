"""A listener beside training: saved checkpoints speak in a process of their own, and `best` is the best understood."""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from checkpointing import directory as checkpoint_dir
from common.errors import UserError
from common.files import write_atomic
from common.log import LOG
from data_utils import Corpus
from hparams import HParams
from listeners import words
from listeners.packages import require
from listeners.recogniser import Recogniser
from monitoring.observer import RunInfo
from run_directory.metrics_log import read_jsonl
from run_directory.records import Event, Record

ROOT = Path(__file__).resolve().parent.parent
TEXTS = 25  # some 200 words, for which one core needs a minute
NICENESS = 19  # training comes first
LIMIT_S = 900.0  # for one checkpoint, on a busy machine
PHONEMES = re.compile(r"\{[^{}]*\}")  # of a filelist: a recogniser hears words
POLL_S = 0.2


@dataclass(frozen=True)
class Text:
    text: str
    speaker: str | None


@dataclass(frozen=True)
class Job:
    """What the child process is asked."""

    checkpoint: str
    language: str
    texts: Sequence[Text]
    niceness: int


@dataclass(frozen=True)
class Heard:
    """Errors as shares, of so many words."""

    wer: float
    cer: float
    n_words: int

    def __str__(self) -> str:
        return f"{100 * self.wer:.1f} % of the words and {100 * self.cer:.1f} % of the characters misheard"


@dataclass(frozen=True)
class Clearest:
    """What `best` points to, how it was heard, and the fewest words that any checkpoint had misheard."""

    path: Path
    heard: Heard
    lowest_wer: float

    def gives_way_to(self, later: Heard) -> bool:
        """The latest within one standard error of the lowest: fewer words tell nothing, and longer training does.

        Two voices of a quarter of an hour: one was 12.2 % of 222 words at half time and 13.1 % at the end; of 450 other
        words 14.7 and 8.9 %.
        """
        share = min(1.0, max(self.lowest_wer, 1 / later.n_words))  # none wrong is no proof of perfection
        return later.wer <= self.lowest_wer + math.sqrt(share * (1 - share) / later.n_words)


class Child:
    """One checkpoint being heard."""

    def __init__(
        self, checkpoint: Path, language: str, texts: Sequence[Text], *, niceness: int = NICENESS
    ) -> None:  # fmt: skip
        self.checkpoint, self.began = checkpoint, time.monotonic()
        self._out, self._err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 - see `end`
        # one thread and no device: what training uses is its own
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training.listening_child"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=self._out, stderr=self._err, text=True,
            start_new_session=True,  # Ctrl-C is training's to handle
        )  # fmt: skip
        job = Job(str(checkpoint.absolute()), language, texts, niceness)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # dead already: its status tells
            stdin.write(json.dumps(asdict(job)))

    @property
    def is_done(self) -> bool:
        """Told, out of patience, or dead."""
        return self._process.poll() is not None or time.monotonic() - self.began > LIMIT_S

    def result(self) -> Heard | str:
        """What was heard, or why nothing was. Ends the process."""
        code = self._process.poll()
        if code is None:
            self.end()
            return f"no answer within {LIMIT_S:.0f} s"
        out, err = (_content(file) for file in (self._out, self._err))
        self.end()
        if code:
            return err.strip().splitlines()[-1] if err.strip() else f"its process ended with code {code}"
        found = json.loads(out.splitlines()[-1])
        n_words = found["words"]
        return Heard(found["wrong_words"] / n_words, found["wrong_characters"] / found["characters"], n_words)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._err.close()


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


class Listening:
    """An observer that has checkpoints heard, one at a time, and points `best` at the best understood.

    Training never waits for it but at the very end. A checkpoint that is saved while another is heard is passed over.
    """

    def __init__(
        self, language: str, texts: Sequence[Text], *, every: int, directory: Path, emit: Callable[[Event], None]
    ) -> None:
        self.language, self.texts, self.every, self.directory, self.emit = language, texts, every, directory, emit
        self._child: Child | None = None
        self._heard_step: int | None = None
        self._unheard: Path | None = None  # the newest that was saved since

    def on_start(self, run: RunInfo) -> None:
        self._heard_step = run.first_step or None
        path = checkpoint_dir.checkpoint_path(self.directory, run.first_step)
        if run.first_step and path.is_file() and not was_heard(self.directory.parent, run.first_step):
            self._unheard = path  # a launch ended before; if nothing follows it is heard at the end

    def on_record(self, record: Record) -> None:
        if self._child is not None and self._child.is_done:
            self._take_in(self._child)
        # the last step may be saved twice: with its validation, and with what that changed
        if isinstance(record, Event) and record.kind == "saved" and record.step != self._heard_step:
            if self._heard_step is not None and record.step < self._heard_step:  # the run went back
                self._heard_step = None
            self._unheard = checkpoint_dir.checkpoint_path(self.directory, record.step)
            if self._child is None and record.step - (self._heard_step or 0) >= self.every:
                self._hear(record.step, self._unheard)

    def finish(self, *, is_ending: Callable[[], bool] = lambda: False) -> None:
        """Waits for the checkpoint in hand, then has the last one heard; both only until `is_ending`."""
        while self._child is not None or self._unheard is not None:
            if self._child is None and self._unheard is not None:
                self._hear(step_of(self._unheard), self._unheard)
            if self._child is None:
                return
            LOG.info("the listener hears %s; Ctrl-C ends without it", self._child.checkpoint.name)
            while not self._child.is_done:
                if is_ending():
                    LOG.info("ended without it; the same command has it heard")
                    self.close()
                    return
                time.sleep(POLL_S)
            self._take_in(self._child)

    def close(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _hear(self, step: int, checkpoint: Path) -> None:
        self._heard_step, self._unheard = step, None
        try:
            checkpoint_dir.point(self.directory, checkpoint_dir.LISTENING, checkpoint)  # keeps it from being pruned
            self._child = Child(checkpoint, self.language, self.texts)
        except OSError as error:  # a full disk, no room for a process: not training's concern
            self._tell_failure(checkpoint, str(error))

    def _take_in(self, child: Child) -> None:
        self._child, step = None, step_of(child.checkpoint)
        result = child.result()
        if not isinstance(result, str) and not child.checkpoint.is_file():
            result = "it is gone, as the run went back"
        if isinstance(result, str):
            self._tell_failure(child.checkpoint, result)
            return
        before = clearest_heard(self.directory)
        is_best = before is None or before.gives_way_to(result)
        if is_best:
            try:
                point_best(self.directory, child.checkpoint, result, before)
            except OSError as error:
                self._tell_failure(child.checkpoint, f"{result}, but `best` can't be moved: {error}")
                return
        seconds = round(time.monotonic() - child.began, 1)
        data = {**asdict(result), "is_best": is_best, "texts": len(self.texts), "seconds": seconds}
        self.emit(Event(step, "heard", f"step {step}: {result}; {standing(result, before, is_best)}", data))

    def _tell_failure(self, checkpoint: Path, reason: str) -> None:
        self.emit(Event(step_of(checkpoint), "not_heard", f"the listener, on {checkpoint.name}: {reason}"))


def was_heard(run: Path, step: int) -> bool:
    return any(event.get("kind") == "heard" and event.get("step") == step for event in read_jsonl(run / "events.jsonl"))


def step_of(checkpoint: Path) -> int:
    match = checkpoint_dir.NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def clearest_heard(directory: Path) -> Clearest | None:
    """None if none was heard, or it is gone."""
    path = checkpoint_dir.pointed(directory, checkpoint_dir.CLEAREST)
    if path is None:
        return None
    content = json.loads((directory / f"{checkpoint_dir.CLEAREST}.json").read_text(encoding="utf-8"))
    heard = Heard(content["wer"], content["cer"], content.get("n_words", 0))
    return Clearest(path, heard, content.get("lowest_wer", heard.wer))  # older files lack both


def point_best(directory: Path, checkpoint: Path, heard: Heard, before: Clearest | None) -> None:
    """From here on `best` is the listener's to choose, see `CheckpointWriter`."""
    lowest = heard.wer if before is None else min(heard.wer, before.lowest_wer)
    content = {"file": checkpoint.name, **asdict(heard), "lowest_wer": lowest}
    write_atomic(directory / f"{checkpoint_dir.CLEAREST}.json", json.dumps(content) + "\n")
    checkpoint_dir.point(directory, "best", checkpoint)


def standing(heard: Heard, before: Clearest | None, is_best: bool) -> str:
    if before is None or heard.wer <= before.lowest_wer:
        return "best so far"
    if is_best:
        lowest = 100 * before.lowest_wer
        return f"best, as {heard.n_words} words don't tell it from {lowest:.1f} % and it is trained longer"
    return f"{before.path.name} stays best with {before.heard}"


def validation_texts(corpus: Corpus) -> list[Text]:
    """What every checkpoint is asked to say."""
    utterances = [feature.utterance for feature in corpus.validation.features]
    return [Text(u.text, u.speaker) for u in utterances if not PHONEMES.search(u.text)][:TEXTS]


def check_listener(language: str, texts: Sequence[Text]) -> None:
    """UserError where nobody can listen."""
    require(words.PACKAGES, purpose="counting word errors")
    Recogniser(language).check()
    if not texts:
        raise UserError("all validation texts hold phonemes, and a recogniser hears words")


def listening_of(hp: HParams, corpus: Corpus, *, directory: Path, emit: Callable[[Event], None]) -> Listening | None:
    """None with listen_every=0, and, said in one line, where nobody can listen."""
    if not hp.listen_every:
        return None
    language, texts = corpus.front_end.language.code, validation_texts(corpus)
    try:
        check_listener(language, texts)
    except UserError as error:
        LOG.warning("listen_every=%d: nobody listens, `best` goes by the score: %s", hp.listen_every, error)
        return None
    return Listening(language, texts, every=hp.listen_every, directory=directory / "checkpoints", emit=emit)
