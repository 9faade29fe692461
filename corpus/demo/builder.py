"""A synthetic corpus on disk: spoken once in child processes, cached outside the repository, reused.

    <cache>/demo-<digest>/wavs/demo_0001.wav ...  train.csv  val.csv  test.csv  README.txt  complete.json

The digest names everything that shapes the corpus, so another sentence, setting or synthesiser gets a folder of its
own. A folder appears under its name only when it is whole; complete.json is the proof and lists every file.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.cache_dir import CACHE_VARIABLE
from common.cache_dir import cache_directory as default_cache_directory
from common.errors import UserError
from common.files import is_disk_full
from corpus.demo.espeak import EXIT_NO_LIBRARY
from corpus.demo.sentences import DemoSentences, demo_sentences
from corpus.demo.teachers import Teacher, hibari

FORMAT_VERSION = 1  # raise when the same settings would make other files
SAMPLING_RATE = 22050
PEAK = 0.8
# espeak-ng lets the pitch flutter, and the flutter goes on from sentence to sentence: the same sound comes only from
# the same sentences in the same process. A batch is also the step of the progress display.
BATCH_SENTENCES = 40
N_PROCESSES = 2

MARKER = "complete.json"
BUILDING_SUFFIX = ".building"
ABANDONED_AFTER_S = 3600.0  # building takes seconds, so an hour-old unfinished folder is nobody's

README = f"""\
A small corpus of synthetic speech for trying out the trainer. It can be deleted; it will be made again when needed.

The sentences are the trainer's own. They were cut at the ends where they are silent, scaled to a peak of {PEAK}, and
spoken by
{{notice}}
"""


@dataclass(frozen=True)
class DemoCorpus:
    """Folder and filelists (`wavs/demo_0001.wav|Text.`, paths relative to root); digest names the content."""

    root: Path
    training_files: Path
    validation_files: Path
    test_files: Path
    digest: str


def demo_fingerprint(sentences: DemoSentences | None = None, teacher: Teacher | None = None) -> str:
    """12 hex digits of everything that shapes the corpus: sentences, teacher, trimming, version of the synthesiser.

    Raises UserError if the synthesiser is not installed.
    """
    said, teacher = sentences or demo_sentences(), teacher or hibari()
    parts = {
        "format": FORMAT_VERSION,
        "sentences": [said.training, said.validation, said.test],
        "voice": [*teacher.shapes_sound, SAMPLING_RATE, PEAK, BATCH_SENTENCES],
        "synthesiser": [teacher.package, teacher.version()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def ensure_demo_corpus(
    cache_directory: Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    sentences: DemoSentences | None = None,
    teacher: Teacher | None = None,
) -> DemoCorpus:
    """The demo corpus, from the cache or made now (seconds); the cache defaults to cache.cache_directory().

    sentences, teacher: others than the demo's, for a base voice.

    progress is called with (sentences done, sentences in all) while the corpus is made, and not at all when it is
    reused. Several processes may call this at once: the first to finish wins and the others use its folder.

    Raises UserError if the synthesiser is missing or fails, or if the cache cannot be written.
    """
    said, teacher = sentences or demo_sentences(), teacher or hibari()
    corpus = _corpus_at(cache_directory or default_cache_directory(), digest=demo_fingerprint(said, teacher))
    _remove_abandoned(corpus.root.parent)
    if _is_complete(corpus):
        return corpus
    try:
        _build(corpus, said, teacher=teacher, progress=progress)
    except OSError as error:
        raise UserError(
            f"synthetic speech cannot be written to {corpus.root.parent}: {error}; "
            f"make room there, or set {CACHE_VARIABLE} to another folder"
        ) from error
    return corpus


def _corpus_at(folder: Path, *, digest: str) -> DemoCorpus:
    root = folder / f"demo-{digest}"
    return DemoCorpus(root, root / "train.csv", root / "val.csv", root / "test.csv", digest)


# ---- complete or not


def _is_complete(corpus: DemoCorpus) -> bool:
    """Whether the marker is there, is of this digest, and every file still has the content that it lists."""
    try:
        marker = json.loads((corpus.root / MARKER).read_text(encoding="utf-8"))
        return marker["digest"] == corpus.digest and marker["files"] == _content(corpus.root)
    except (OSError, ValueError, KeyError, TypeError):  # gone or damaged: make it again
        return False


def _content(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file but the marker; a tenth of a second for the whole corpus."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


# ---- building


def _build(
    corpus: DemoCorpus, said: DemoSentences, *, teacher: Teacher, progress: Callable[[int, int], None] | None
) -> None:
    corpus.root.parent.mkdir(parents=True, exist_ok=True)
    building = corpus.root.parent / f".{corpus.root.name}.{uuid.uuid4().hex}{BUILDING_SUFFIX}"
    try:
        (building / "wavs").mkdir(parents=True)
        identified = [(f"demo_{i:04d}", text) for i, text in enumerate(said.all, start=1)]
        _speak_all(identified, building / "wavs", teacher=teacher, progress=progress)
        _write_filelists(corpus, said, identified, folder=building)
        readme = README.format(notice=teacher.notice.format(version=teacher.version()))
        (building / "README.txt").write_text(readme, encoding="utf-8")
        marker = {"digest": corpus.digest, "files": _content(building)}
        (building / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
        _publish(building, corpus)
    finally:
        shutil.rmtree(building, ignore_errors=True)  # already gone when it was published


def _write_filelists(
    corpus: DemoCorpus, said: DemoSentences, identified: Sequence[tuple[str, str]], *, folder: Path
) -> None:
    lines = [f"wavs/{name}.wav|{text}\n" for name, text in identified]
    n_training, n_held_out = len(said.training), len(said.validation)
    splits = {
        corpus.training_files: lines[:n_training],
        corpus.validation_files: lines[n_training : n_training + n_held_out],
        corpus.test_files: lines[n_training + n_held_out :],
    }
    for path, split in splits.items():
        (folder / path.name).write_text("".join(split), encoding="utf-8")


def _publish(building: Path, corpus: DemoCorpus) -> None:
    """Give the finished folder its name; if another process was first, leave its folder in place."""
    if corpus.root.exists() and not _is_complete(corpus):
        _discard(corpus.root, building.with_name(f".{uuid.uuid4().hex}{BUILDING_SUFFIX}"))
    try:
        os.rename(building, corpus.root)
    except OSError:  # a folder with content is never renamed over
        if not _is_complete(corpus):
            raise


def _discard(folder: Path, aside: Path) -> None:
    """Take a damaged folder away in one step, so that nobody meets it half deleted under its name."""
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return  # another process was discarding it too
    shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Delete what builds that were killed left behind; a build in progress is too young to be touched."""
    for path in folder.glob(f".*{BUILDING_SUFFIX}"):
        with suppress(OSError):  # another process removes it
            written = max(part.stat().st_mtime for part in (path, *path.glob("wavs")))
            if time.time() - written > ABANDONED_AFTER_S:
                shutil.rmtree(path, ignore_errors=True)


# ---- speaking


def _speak_all(
    identified: Sequence[tuple[str, str]],
    folder: Path,
    *,
    teacher: Teacher,
    progress: Callable[[int, int], None] | None,
) -> None:
    starts = range(0, len(identified), BATCH_SENTENCES)
    batches = [identified[start : start + BATCH_SENTENCES] for start in starts]
    done = 0
    with ThreadPoolExecutor(N_PROCESSES) as pool:  # the threads only wait for their child processes
        for batch, _ in zip(batches, pool.map(partial(_speak_batch, folder, teacher), batches), strict=True):
            for name, _text in batch:
                _finish_recording(folder / f"{name}.wav")
            done += len(batch)
            if progress is not None:
                progress(done, len(identified))


def _speak_batch(folder: Path, teacher: Teacher, batch: Sequence[tuple[str, str]]) -> None:
    """Run one child process over a batch; its working directory and imports do not matter."""
    lines = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in batch)
    command = [sys.executable, str(teacher.script), str(folder), *teacher.arguments]
    child = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8", check=False)
    if child.returncode == EXIT_NO_LIBRARY:
        raise UserError(
            f"synthetic speech needs the package {teacher.package}: {child.stderr.strip()}; {teacher.install_hint}"
        )
    if child.returncode != 0 and is_disk_full(folder):  # which the teacher's libraries do not tell
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if child.returncode != 0:
        raise UserError(
            f"{teacher.package} failed with status {child.returncode}: {child.stderr.strip() or 'no message'}; "
            f"install it again with: pip install --force-reinstall --no-deps {teacher.package}"
        )


def _finish_recording(path: Path) -> None:
    """Resample, cut the silence at both ends and scale to the common peak, in place."""
    import soundfile  # not at import: the command line asks for --help without loading libraries for sound
    import soxr

    from audio.recordings import trim_silence, write_wav

    wav, rate = soundfile.read(path, dtype="float32")  # [L]
    wav = soxr.resample(wav, rate, SAMPLING_RATE)
    wav = trim_silence(wav, sampling_rate=SAMPLING_RATE, threshold_db=-40.0, keep_before_s=0.010, keep_after_s=0.030)
    write_wav(path, wav * (PEAK / abs(wav).max()), SAMPLING_RATE)
