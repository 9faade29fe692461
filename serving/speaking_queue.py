"""Requests wait in line for one thread that speaks: torch uses all cores for a sentence, two at once gain nothing."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from speech.narration import NarratedPart
from speech.speech import Speech


class QueueFull(Exception):
    """As many requests wait as may wait."""


class Closing(Exception):
    """The server ends; nothing more is said."""


@dataclass(frozen=True)
class Spoken:
    """A speech and what it took."""

    speech: Speech
    waited_s: float
    work_s: float


Begin = Callable[[], tuple[Iterable[NarratedPart], int]]  # -> parts as they are said, their sampling rate


@dataclass
class Job:
    """done: the speech, or what went wrong. given_up: nobody waits for it any more."""

    begin: Begin
    done: Future[Spoken] = field(default_factory=Future)
    given_up: threading.Event = field(default_factory=threading.Event)
    came_at: float = field(default_factory=time.perf_counter)

    def give_up(self) -> None:
        """Nobody waits for it any more: it ends after the sentence that is being said, or never begins."""
        self.given_up.set()
        self.done.cancel()


class SpeakingQueue:
    """First come, first served; `size` requests may wait beside the one that is being said."""

    def __init__(self, *, size: int) -> None:
        self._waiting: queue.Queue[Job | None] = queue.Queue(size)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="speaking", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        return self._waiting.qsize()

    def put(self, begin: Begin) -> Job:
        """QueueFull or Closing where it can't be taken."""
        if self._closing.is_set():
            raise Closing
        job = Job(begin)
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise QueueFull from None
        return job

    def close(self, *, patience_s: float = 10.0) -> None:
        """Ends the sentence that is being said; who still waits learns that the server closes."""
        self._closing.set()
        with suppress(queue.Full):  # then it has work, and sees afterwards that the queue closes
            self._waiting.put_nowait(None)  # wakes a thread that waits for work
        self._thread.join(patience_s)

    def _work(self) -> None:
        while not self._closing.is_set():
            job = self._waiting.get()
            if job is not None:
                self._do(job)
        while not self._waiting.empty():
            job = self._waiting.get_nowait()
            if job is not None and job.done.set_running_or_notify_cancel():
                job.done.set_exception(Closing())

    def _do(self, job: Job) -> None:
        if not job.done.set_running_or_notify_cancel():
            return
        try:
            job.done.set_result(self._speak(job))
        except Exception as error:  # noqa: BLE001 - it belongs to the request, which reports it; the thread goes on
            job.done.set_exception(error)

    def _speak(self, job: Job) -> Spoken:
        began = time.perf_counter()
        said, sampling_rate = job.begin()
        parts = []
        for part in said:
            if self._closing.is_set() or job.given_up.is_set():
                raise Closing
            parts.append(part)
        speech = Speech(tuple(parts), sampling_rate)
        return Spoken(speech, waited_s=began - job.came_at, work_s=time.perf_counter() - began)
