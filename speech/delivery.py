"""Texts from wherever they come to wavs, subtitles and pictures wherever they are wanted."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TextIO

from audio.recordings import write_wav
from audio.wav_output import SoundOutput, WavPipe, wav_file
from common.errors import UserError, format_problems
from common.files import check_place, explain_write_errors, read_given_text, write_atomic
from monitoring.plots import save_png
from monitoring.progress_bar import counted_progress
from monitoring.sample_files import figure_of
from speech.decoding import Reference
from speech.long_text import Part, Pauses
from speech.narration import Examine, NarratedPart
from speech.speech import Track
from speech.voice import Manner, Voice

PIPE = "-"
LARGEST_TEXT_BYTES = 50_000_000  # some 15,000 pages
CUT = frozenset(("budget", "limit"))  # stop reasons that may leave words unsaid


@dataclass(frozen=True)
class Source:
    """A text to say. stem: of the files that it makes in a folder; place: in front of line numbers in messages."""

    text: str
    stem: str
    place: str = ""


def read_sources(texts: Sequence[str], files: Sequence[Path], *, stdin: TextIO | None) -> list[Source]:
    """All texts in the order texts, files, standard input. UserError if there is none, or one can't be read."""
    problems = [problem for text in texts if (problem := _looks_like_a_file(text))]
    sources = [Source(text, f"{i:04d}") for i, text in enumerate(texts, start=1)]
    for path in files:
        try:
            sources.append(Source(_read(path), path.stem, f"{path}:"))
        except ValueError as error:
            problems.append(f"--file {path}: {error}")
    if stdin is not None:
        sources.append(Source(stdin.read(), "stdin", "standard input:"))
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else format_problems(problems, headline="no texts there:"))
    if not sources:
        raise UserError('nothing to say: give a text in quotes, --file TXT, or --stdin; "Hello there." for example')
    return _with_own_stems(sources)


def _looks_like_a_file(text: str) -> str | None:
    """A hint where somebody names a file in place of a text; a space behind the name makes it a text."""
    is_name = len(text) < 256 and "\n" not in text and bool(Path(text).suffix) and not text.endswith((" ", "."))
    if is_name and Path(text).is_file():
        return f"{text} is a file: to say what is in it, write --file {text}; to say its name, put a space behind it"
    return None


def _read(path: Path) -> str:
    """The text of a file; ValueError says why it can't be had."""
    try:
        if path.stat().st_size > LARGEST_TEXT_BYTES:
            raise ValueError(f"is larger than {LARGEST_TEXT_BYTES // 1_000_000} MB; cut it into several files")
        return read_given_text(path)
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror}); correct the path") from error


def _with_own_stems(sources: Sequence[Source]) -> list[Source]:
    counts = Counter(source.stem for source in sources)
    return [
        Source(source.text, f"{source.stem}_{i}" if counts[source.stem] > 1 else source.stem, source.place)
        for i, source in enumerate(sources, start=1)
    ]


@dataclass(frozen=True)
class Delivery:
    """Where everything goes: paths, a wav for each source, or none for standard output."""

    paths: tuple[Path, ...]
    by_sentence: bool = False
    srt: bool = False
    textgrid: bool = False
    pictures: bool = True
    is_raw: bool = False

    @property
    def is_pipe(self) -> bool:
        return not self.paths

    @classmethod
    def to(cls, output: str, sources: Sequence[Source], *, by_sentence: bool, is_raw: bool, **files: bool) -> Self:
        """output: a wav (numbered for several sources), a folder, or `-`. UserError for what does not go together."""
        if not output:
            raise UserError("-o is empty; name a .wav, a folder, or - for standard output")
        if is_raw and output != PIPE:
            raise UserError("--raw is for standard output: add -o -")
        subtitles = files["srt"] or files["textgrid"]
        if output == PIPE:
            if by_sentence or subtitles:
                raise UserError("-o -: standard output takes the sound alone; name a .wav or a folder for other files")
            return cls((), pictures=False, is_raw=is_raw)
        is_folder = output.endswith("/") or Path(output).is_dir() or not Path(output).suffix
        if by_sentence and not is_folder:
            raise UserError(f"--by-sentence makes many files, and -o {output} is one; name a folder")
        if by_sentence and subtitles:
            raise UserError("--by-sentence: subtitles belong to a whole text; leave out one of both")
        return cls(_paths(Path(output), sources, is_folder=is_folder), by_sentence=by_sentence, **files)


def _paths(output: Path, sources: Sequence[Source], *, is_folder: bool) -> tuple[Path, ...]:
    if is_folder:
        return tuple(output / f"{source.stem}.wav" for source in sources)
    if output.suffix.lower() != ".wav":
        raise UserError(f"-o {output}: the suffix must be .wav, or none for a folder")
    if len(sources) == 1:
        return (output,)
    return tuple(output.with_name(f"{output.stem}_{i}{output.suffix}") for i in range(1, len(sources) + 1))


@dataclass
class Delivered:
    """What was made of one source. cut_parts, unended, doubtful: sentences; words are missing of the first ones, and of
    the second ones perhaps.
    """

    name: str
    is_checked: bool
    is_long: bool  # of several parts; a single one's verdict says all
    n_parts: int = 0
    duration_s: float = 0.0
    work_s: float = 0.0
    verdict: str = ""
    n_repeated: int = 0
    doubtful: list[str] = field(default_factory=list)
    cut_parts: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)

    def add(self, part: NarratedPart, place: str) -> None:
        self.duration_s += len(part.wav) / part.sampling_rate
        if part.utterance is None:
            return
        self.n_parts += 1
        self.n_repeated += part.n_attempts > 1
        self.verdict = part.utterance.verdict
        is_cut = part.utterance.sample.stop_reason in CUT
        doubts = part.examination.doubts or ((self.verdict,) if is_cut and not self.is_checked else ())
        where = f"{place}{part.part.line}: " if place else ""
        if doubts:
            self.doubtful.append(f"{where}{part.part.text!r}: {'; '.join(doubts)}")
        if is_cut:
            surely = part.utterance.sample.stop_reason == "limit" and self.is_long
            (self.cut_parts if surely else self.unended).append(f"{where}{part.part.text!r}")


def deliver(
    voice: Voice,
    sources: Sequence[Source],
    delivery: Delivery,
    *,
    manner: Manner,
    seed: int,
    pauses: Pauses | None,
    batch_size: int = 1,
    examine: Examine | None = None,
    attempts: int = 1,
) -> Iterator[Delivered]:
    """Says the sources one by one. Nothing is said before all of them could be read. pauses: None says each in one go.

    A single sentence gets a picture. UserError if the disk refuses, DataError for what can't be read.
    """
    parts_of = [_parts(voice, source, pauses) for source in sources]
    references = _read_all(voice, sources, parts_of, manner)
    for first in delivery.paths[:1]:  # before minutes of speaking
        with explain_write_errors(f"-o {first}", next_step="free space there, or name another place"):
            check_place(first)
    pipe = None if delivery.paths else WavPipe(sys.stdout.buffer, voice.sampling_rate, is_raw=delivery.is_raw)
    for i, (source, parts, own) in enumerate(zip(sources, parts_of, references, strict=True)):
        path = None if pipe else delivery.paths[i]
        result = Delivered(str(path or source.stem), is_checked=examine is not None, is_long=len(own) > 1)
        began = time.perf_counter()
        said = voice.narrate(
            parts, references=own, seed=seed, manner=manner, batch_size=batch_size, examine=examine, attempts=attempts
        )
        said = _counted(said, len(parts), result, source)
        if pipe is not None:
            _send(said, pipe)
        else:
            assert path is not None
            with explain_write_errors(f"-o {path}", next_step="free space there, or name another place"):
                _write(said, path, delivery, voice.sampling_rate)
        result.work_s = time.perf_counter() - began
        yield result


def _parts(voice: Voice, source: Source, pauses: Pauses | None) -> list[Part]:
    if pauses is None:
        return [Part(" ".join(source.text.split()) or " ", 0.0)]
    return voice.parts_of(source.text, pauses=pauses)


def _read_all(
    voice: Voice, sources: Sequence[Source], parts_of: Sequence[Sequence[Part]], manner: Manner
) -> list[list[Reference]]:
    """The texts of all sources as the voice reads them; one DataError for all that can't be read."""
    spoken = [[part for part in parts if part.text] for parts in parts_of]
    places = [
        f"{source.place}{part.line}: " if source.place else ""
        for source, parts in zip(sources, spoken, strict=True)
        for part in parts
    ]
    texts = [part.text for parts in spoken for part in parts]
    read = iter(voice.references_for(texts, name=manner.speaker, places=places))
    return [[next(read) for _ in parts] for parts in spoken]


def _counted(
    said: Iterator[NarratedPart], n_parts: int, result: Delivered, source: Source
) -> Iterator[NarratedPart]:
    show = counted_progress(f"speaking {result.name}") if n_parts > 1 else None
    for i, part in enumerate(said, start=1):
        result.add(part, source.place)
        if show:
            show(i, n_parts)
        yield part


def _send(said: Iterator[NarratedPart], pipe: SoundOutput) -> None:
    """UserError where nobody listens any more."""
    try:
        for part in said:
            pipe.write(part.wav)
    except BrokenPipeError:
        raise UserError("-o -: whoever reads the sound has stopped; nothing more was said") from None


def _write(said: Iterator[NarratedPart], path: Path, delivery: Delivery, sampling_rate: int) -> None:
    if delivery.by_sentence:
        _write_sentences(said, path, sampling_rate)
        return
    track, n_spoken, last = Track.of(), 0, None
    with wav_file(path, sampling_rate) as output:
        for part in said:
            track.add(part)
            output.write(part.wav)
            n_spoken, last = n_spoken + (part.utterance is not None), part
    if delivery.srt:
        write_atomic(path.with_suffix(".srt"), track.srt())
    if delivery.textgrid:
        write_atomic(path.with_suffix(".TextGrid"), track.textgrid())
    if delivery.pictures and n_spoken == 1 and last is not None and last.utterance is not None:
        save_png(figure_of(last.utterance.sample), path.with_suffix(".png"))


def _write_sentences(said: Iterator[NarratedPart], path: Path, sampling_rate: int) -> None:
    """STEM_0001.wav and so on, and STEM.csv with the text of each."""
    lines: list[str] = []
    for part in said:
        if part.utterance is None:
            continue
        own = path.with_name(f"{path.stem}_{len(lines) + 1:04d}.wav")
        write_wav(own, part.utterance.wav, sampling_rate)
        lines.append(f"{own.name}|{part.part.text}\n")
    write_atomic(path.with_suffix(".csv"), "".join(lines))
