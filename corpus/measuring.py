"""Measures of many recordings, each made once: kept by what the file holds, so that the second look takes no time.

<cache>/recordings.json     sha256 of a file -> its measures

May be deleted at any time and is made again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from common.processors import n_processors
from corpus.findings import Finding, error
from corpus.json_index import JsonIndex
from corpus.recording_files import UnreadableRecording, read_recording
from corpus.recording_measures import RecordingMeasures, measure_recording

MAX_WORKERS = 16
LONGEST_S = 3600.0  # of one recording; so long a clip is refused whatever comes after

Measured = RecordingMeasures | Finding


class MeasureIndex:
    """Measures by the sha256 of files; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._index = JsonIndex(path)

    def get(self, sha256: str) -> RecordingMeasures | None:
        """None for what was never measured, or by another version."""
        return RecordingMeasures.from_dict(self._index.get(sha256) or {})

    def add(self, sha256: str, measures: RecordingMeasures) -> None:
        self._index.add(sha256, measures.to_dict())

    def write(self) -> None:
        """Keeps what is new for the next run."""
        self._index.write()

    def write_now_and_then(self) -> None:
        """So that a killed process loses little."""
        self._index.write_now_and_then()


def measure_files(
    paths: Sequence[Path],
    *,
    hash_of: Callable[[Path], str],
    index: MeasureIndex,
    progress: Callable[[int, int], None] | None = None,
    n_workers: int | None = None,
) -> list[Measured]:
    """For each file its measures, or the one finding why there are none, in the order given.

    hash_of names the content of a file and may raise OSError. progress(done, total) is called from this thread. What
    was measured is kept even if this is interrupted.
    """
    measured: list[Measured] = []
    try:
        with ThreadPoolExecutor(n_workers or min(MAX_WORKERS, n_processors())) as pool:
            for outcome in pool.map(partial(measure_file, hash_of=hash_of, index=index), paths):
                measured.append(outcome)
                index.write_now_and_then()
                if progress is not None:
                    progress(len(measured), len(paths))
    finally:
        index.write()
    return measured


def measure_file(path: Path, *, hash_of: Callable[[Path], str], index: MeasureIndex) -> Measured:
    """The measures of one file, remembered or made now."""
    try:
        sha256 = hash_of(path)
        known = index.get(sha256)
        if known is not None:
            return known
        measures = measure_recording(read_recording(path, max_s=LONGEST_S))
    except OSError as caught:
        return error("unreadable", f"{path} can't be read ({caught.strerror})", "restore it or check its rights")
    except UnreadableRecording as caught:  # not kept: it is quick to see, and the message names the file
        return error(caught.kind, caught.message, caught.advice)
    index.add(sha256, measures)
    return measures
