"""Long recordings become sentences: where somebody speaks, what is said, where to cut, how loud, how sure."""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from common.errors import DataError
from common.files import atomic_file, write_atomic
from corpus.cut_points import Piece, pauses_between, plan_pieces
from corpus.findings import Finding
from corpus.phone_formats import readable
from corpus.recording_checks import check_recording
from corpus.recording_fixes import levelled
from corpus.recording_measures import RecordingMeasures, measure
from corpus.speech_rate import Spoken, check_speech_rate
from corpus.text_checks import check_text
from listeners.recogniser import RATE, Recogniser

LONGEST_SOURCE_S = 4 * 3600.0  # held in memory at 16 kHz: 0.9 GB
LEAST_PAUSE_S = 0.2
SPEECH_PAD_S = 0.03
SURE = 0.75  # mean probability of the words of a piece
SURE_OF_EVERY_WORD = 0.15
REPETITIVE = 2.4  # times that a text shrinks when compressed: what Whisper itself takes for a loop
BLOCK_S = 60.0

Progress = Callable[[float, float], None]  # seconds done, of all


@dataclass(frozen=True)
class CutSettings:
    """Lengths of pieces in seconds."""

    longest_s: float = 12.0
    shortest_s: float = 1.0


@dataclass(frozen=True)
class Cut:
    """One piece that was written.

    path: relative to the output folder. start_s, end_s: in the source. doubts: reasons to listen before it trains, in
    words; none for a sure one.
    """

    path: str
    source: str
    start_s: float
    end_s: float
    text: str
    confidence: float
    sound_s: float
    doubts: tuple[str, ...] = ()


def cut_recording(
    path: Path, out: Path, recogniser: Recogniser, settings: CutSettings, *, progress: Progress | None = None
) -> list[Cut]:
    """Writes the pieces of one recording to out/wavs and remembers them in out/sources: it is not heard again.

    Raises DataError for what is no recording, UserError where packages are missing.
    """
    name = _name(path)
    memory = out / "sources" / f"{name}-{_digest(path, settings, recogniser)}.json"
    known = _remembered(memory, out)
    if known is not None:
        return known
    with readable(path) as sound:
        wav = heard_at(sound, RATE)
        speech = speech_in(wav)
        length_s = len(wav) / RATE
        told = None if progress is None else lambda done: progress(done, length_s)
        words = recogniser.timed_words(wav, sampling_rate=RATE, progress=told) if speech else []
        spoken = [word for word in words if _is_in(word.middle_s, speech)]
        pauses = pauses_between(speech, length_s=length_s, least_s=LEAST_PAUSE_S)
        pieces = plan_pieces(spoken, pauses, longest_s=settings.longest_s, shortest_s=settings.shortest_s)
        cuts = [
            _write_piece(piece, sound, path, out / "wavs" / f"{name}_{i:04d}.flac", settings)
            for i, piece in enumerate(pieces, start=1)
        ]
    write_atomic(memory, json.dumps([asdict(cut) for cut in cuts], ensure_ascii=False, indent=1))
    return cuts


def with_odd_rates(cuts: Sequence[Cut]) -> list[Cut]:
    """The same pieces, with a doubt where sound and text don't fit by what the others do."""
    findings = check_speech_rate([Spoken(cut.text, cut.sound_s) for cut in cuts])
    return [_doubted(cut, finding) for cut, finding in zip(cuts, findings, strict=True)]


def _doubted(cut: Cut, finding: Finding | None) -> Cut:
    return cut if finding is None else replace(cut, doubts=(*cut.doubts, finding.detail))


# ---- hearing


def heard_at(path: Path, rate: int) -> np.ndarray:
    """A recording as float32 [L], mono, at `rate`; read by blocks, so that its own rate costs no memory."""
    with soundfile.SoundFile(path) as file:
        seconds = file.frames / file.samplerate
        if seconds > LONGEST_SOURCE_S:
            raise DataError(f"{path} is {seconds / 3600:.1f} h long; cut it into parts of at most 4 h first")
        resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32", quality="HQ")
        size = int(BLOCK_S * file.samplerate)
        parts = [resampler.resample_chunk(mixed) for mixed in _mixed_blocks(file, size)]
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    wav = np.concatenate(parts)
    if not np.isfinite(wav).all():
        raise DataError(f"{path} holds samples that are NaN or infinite; export it again")
    return wav


def _mixed_blocks(file: soundfile.SoundFile, size: int) -> Iterator[np.ndarray]:
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        yield np.ascontiguousarray(block.mean(axis=1))


def seconds_of(path: Path) -> float:
    """How long a recording is; DataError if it can't be read, UserError if that takes a package which is missing."""
    with readable(path) as sound:
        return float(soundfile.info(sound).duration)


def speech_in(wav: np.ndarray) -> list[tuple[float, float]]:
    """Stretches (start, end) in seconds in which somebody speaks, by Silero VAD, whose weights faster-whisper carries.

    wav: float32 [L] at 16 kHz.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(min_silence_duration_ms=round(1000 * LEAST_PAUSE_S), speech_pad_ms=round(1000 * SPEECH_PAD_S))
    found = get_speech_timestamps(wav, options, sampling_rate=RATE)
    return [(stretch["start"] / RATE, stretch["end"] / RATE) for stretch in found]


def _is_in(time_s: float, speech: Sequence[tuple[float, float]]) -> bool:
    """Whether somebody speaks then, or nearly: what is "heard" in silence is invented."""
    return any(start - 0.5 <= time_s <= end + 0.5 for start, end in speech)


# ---- writing


def _write_piece(piece: Piece, sound: Path, source: Path, target: Path, settings: CutSettings) -> Cut:
    with soundfile.SoundFile(sound) as file:
        rate = file.samplerate
        file.seek(min(file.frames, int(piece.start_s * rate)))
        samples = file.read(max(1, int(piece.length_s * rate)), dtype="float32", always_2d=True)
    wav = levelled(samples.mean(axis=1), rate)
    with atomic_file(target) as written:
        soundfile.write(written, wav, rate, format="FLAC", subtype="PCM_16")
    measures = measure(wav[None], rate)
    confidence = float(np.mean([word.probability for word in piece.words]))
    return Cut(
        path=f"wavs/{target.name}",
        source=str(source),
        start_s=round(piece.start_s, 3),
        end_s=round(piece.end_s, 3),
        text=piece.text.replace("|", " "),
        confidence=round(confidence, 3),
        sound_s=measures.sound_s,
        doubts=tuple(_doubts(piece, measures, settings, confidence=confidence)),
    )


def _doubts(piece: Piece, measures: RecordingMeasures, settings: CutSettings, *, confidence: float) -> Iterator[str]:
    """Whatever training would refuse or warn of, and what the recogniser was unsure of."""
    for finding in (*check_recording(measures), *check_text(piece.text)):
        if finding.severity != "note":
            yield finding.detail
    word = min(piece.words, key=lambda word: word.probability)
    if confidence < SURE:
        yield f"the recogniser is {100 * confidence:.0f} % sure"
    elif word.probability < SURE_OF_EVERY_WORD:
        yield f'the recogniser is {100 * word.probability:.0f} % sure of "{word.text}"'
    if piece.length_s > settings.longest_s + 1:
        yield f"{piece.length_s:.0f} s without a pause to cut at"
    if _shrinks(piece.text) > REPETITIVE:
        yield "the text repeats itself, as recognisers do in noise"


def _shrinks(text: str) -> float:
    encoded = text.encode("utf-8")
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 1.0


# ---- memory


def _name(path: Path) -> str:
    """What pieces of a recording are called: no two recordings alike, and nothing in it that a list can't hold."""
    plain = re.sub(r"[^\w.-]+", "_", path.stem)
    return f"{plain}-{zlib.crc32(str(path.resolve()).encode()) & 0xFFFFFF:06x}"


def _digest(path: Path, settings: CutSettings, recogniser: Recogniser) -> str:
    status = path.stat()
    facts = (str(path.resolve()), status.st_size, status.st_mtime_ns, asdict(settings), recogniser.key)
    return f"{zlib.crc32(repr(facts).encode()):08x}"


def _remembered(memory: Path, out: Path) -> list[Cut] | None:
    """What an earlier run cut, if its pieces are still there."""
    try:
        cuts = [Cut(**{**cut, "doubts": tuple(cut["doubts"])}) for cut in json.loads(memory.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return cuts if all((out / cut.path).is_file() for cut in cuts) else None
