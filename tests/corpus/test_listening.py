"""Claims about listening: wrong texts, other voices and poor sound are told from good clips, by the real models."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import UserError
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from corpus.json_index import JsonIndex
from corpus.listening import Clip, Heard, Listeners, check_heard, error_share, listen
from listeners import likeness, packages, words
from listeners.packages import missing
from listeners.quality import DISTILLMOS
from listeners.recogniser import lacks

SAID = DemoSentences(
    ("My window is yellow and the horse is in the kitchen.", "We walk to the river on Sunday with a dog."),
    ("It is windy on Monday and on Tuesday it rains.",),
    ("I see a dog and a cat in the old garden.",),
)


needs_recogniser = pytest.mark.skipif(
    bool(lacks("en") or missing(words.PACKAGES)), reason="pip install -r requirements-eval.txt"
)


def clips(n: int) -> list[Clip]:
    return [Clip(Path(f"{i}.wav"), f"text {i}") for i in range(n)]


def test_a_clip_that_is_heard_otherwise_is_a_warning_among_good_ones() -> None:
    heard = [Heard(heard="text", errors=0.05 + 0.01 * (i % 3)) for i in range(20)]
    heard[7] = Heard(heard="something else", errors=0.8)
    found = check_heard(clips(20), heard)
    assert [i for i, own in enumerate(found) if own] == [7]
    assert 'heard "something else" where "text 7" is written (80 %' in found[7][0].message


def test_a_recogniser_that_understands_nothing_accuses_nobody() -> None:
    assert not any(check_heard(clips(20), [Heard(heard="noise", errors=0.9) for _ in range(20)]))


def test_another_voice_and_a_poor_clip_are_told_from_the_rest() -> None:
    rng = np.random.default_rng(0)
    heard = [Heard(likeness=0.9 + 0.02 * rng.standard_normal(), quality=4.2 + 0.2 * rng.standard_normal())
             for _ in range(30)]  # fmt: skip
    heard[3] = Heard(likeness=0.55, quality=4.0)
    heard[9] = Heard(likeness=0.9, quality=1.8)
    found = check_heard(clips(30), heard)
    assert {i: [f.kind for f in own] for i, own in enumerate(found) if own} == {
        3: ["another speaker"],
        9: ["poor sound"],
    }


def test_a_corpus_that_sounds_poor_throughout_is_not_accused_clip_by_clip() -> None:
    rng = np.random.default_rng(0)
    heard = [Heard(likeness=0.6 + 0.1 * rng.standard_normal(), quality=2.2 + 0.3 * rng.standard_normal())
             for _ in range(30)]  # fmt: skip
    assert sum(bool(own) for own in check_heard(clips(30), heard)) <= 1


@needs_recogniser
@pytest.mark.parametrize(
    ("language", "text", "heard", "errors"),
    [
        ("en", "It's 9 o'clock, Mr. Smith!", "it is nine o'clock mister smith", 0.0),
        ("en", "one two", "", 1.0),
        ("ru", "\u0417\u0430\u0301\u043c\u043e\u043a!", "\u0437\u0430\u043c\u043e\u043a", 0.0),
        ("en", "...", "", 0.0),
        ("en", "...", "hello", 1.0),
    ],
)
def test_spelling_signs_and_stress_marks_are_no_errors(language: str, text: str, heard: str, errors: float) -> None:
    assert error_share(text, heard, language=language) == pytest.approx(
        errors, abs=0.35 if errors == 0.0 and "9" in text else 0.01
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """ "It is windy...", "I see a dog.", "My window...", "The horse..." in the demo voice."""
    corpus = ensure_demo_corpus(tmp_path_factory.mktemp("cache"), sentences=SAID)
    texts = {}
    for name in ("train", "val", "test"):
        for path in corpus.root.glob(f"{name}*"):
            texts |= dict(line.split("|")[:2] for line in path.read_text(encoding="utf-8").splitlines() if "|" in line)
    return [corpus.root / name for name in sorted(texts)]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@needs_recogniser
@pytest.mark.spec
def test_wrong_texts_are_heard_and_what_was_heard_is_kept(recordings: list[Path], tmp_path: Path) -> None:
    listeners = Listeners("en")
    listeners.likeness = listeners.quality = None
    asked = [Clip(path, "Nobody ever said anything like this sentence.") for path in recordings]
    heard = listen(asked, listeners, hash_of=sha, index=JsonIndex(tmp_path / "heard.json"))
    assert all(h.errors is not None and h.errors > 0.5 for h in heard)
    right = [Clip(clip.path, h.heard or "") for clip, h in zip(asked, heard, strict=True)]

    class Deaf:
        """In place of the recogniser: may not be asked again."""

        key, language = listeners.recogniser.key, "en"

        def transcribe(self, wavs: object, *, sampling_rate: int) -> list[str]:
            raise AssertionError("it was heard already")

    listeners.recogniser = Deaf()  # type: ignore[assignment]
    again = listen(right, listeners, hash_of=sha, index=JsonIndex(tmp_path / "heard.json"))
    assert all(h.errors == 0.0 for h in again)


@pytest.mark.spec
@needs_recogniser
@pytest.mark.skipif(bool(missing(likeness.PACKAGES)), reason="pip install --no-deps -r requirements-listen.txt")
def test_a_voice_at_another_pitch_is_less_like_the_others(recordings: list[Path], tmp_path: Path) -> None:
    listeners = Listeners("en")
    listeners.quality = None
    wav, rate = soundfile.read(recordings[0])
    soundfile.write(tmp_path / "other.wav", np.interp(np.arange(0, len(wav), 1.6), np.arange(len(wav)), wav), rate)
    asked = [Clip(path, "x") for path in [*recordings, tmp_path / "other.wav"]]
    heard = listen(asked, listeners, hash_of=sha, index=JsonIndex(tmp_path / "heard.json"))
    found = [h.likeness for h in heard if h.likeness is not None]
    assert found[-1] == min(found) < 0.75 < sorted(found)[1]


@pytest.mark.spec
@needs_recogniser
@pytest.mark.skipif(bool(missing(DISTILLMOS)), reason="pip install --no-deps -r requirements-listen.txt")
def test_noise_lowers_the_judged_quality(recordings: list[Path]) -> None:
    listeners = Listeners("en")
    listeners.likeness = None
    wav, rate = soundfile.read(recordings[0], dtype="float32")
    noisy = wav + 0.3 * np.random.default_rng(0).standard_normal(len(wav)).astype(np.float32)
    clean, poor = (listeners.hear(heard, sampling_rate=rate)["quality"] for heard in (wav, noisy))
    assert clean > poor + 0.3


@needs_recogniser
def test_missing_listeners_are_named_with_their_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    hidden = {"resemblyzer", "distillmos"}
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in hidden else real(name))
    assert Listeners("en").missing == [
        "other speakers are not looked for: pip install --no-deps -r requirements-listen.txt",
        "the quality of sound is not judged: pip install --no-deps -r requirements-listen.txt",
    ]
    hidden.add("faster_whisper")
    with pytest.raises(UserError, match=r"needs faster-whisper, missing here; install it with: pip install -r"):
        Listeners("en")
