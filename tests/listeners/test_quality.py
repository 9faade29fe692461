"""Models of people's marks put a clean recording over a spoiled one, and one person's clips close together."""

import sys

import numpy as np
import pytest

from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from listeners.likeness import SpeakerLikeness, middle, unit
from listeners.packages import missing
from listeners.quality import DISTILLMOS, DNSMOS, SoundQuality

RATE = 22050
SAID = DemoSentences(("My window is yellow, and the horse is in the kitchen.",), ("It is windy on Monday morning.",),
                     ("The old river is cold.",))  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    import soundfile

    corpus = ensure_demo_corpus(tmp_path_factory.mktemp("cache"), sentences=SAID)
    return [soundfile.read(path, dtype="float32")[0] for path in sorted((corpus.root / "wavs").iterdir())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "mark"), [(DNSMOS, "dnsmos_overall"), (DISTILLMOS, "distillmos")], ids=["DNSMOS", "DistillMOS"]
)
def test_noise_lowers_the_mark(clips: list[np.ndarray], packages: dict[str, str], mark: str) -> None:
    if lacking := missing(packages):
        pytest.skip(f"{', '.join(lacking)} missing; see requirements-eval.txt and requirements-listen.txt")
    quality, noise = SoundQuality(), np.random.default_rng(0).normal(0, 0.1, len(clips[0])).astype(np.float32)
    clean, noisy = (quality.marks(wav, sampling_rate=RATE)[mark] for wav in (clips[0], clips[0] + noise))
    assert 1 <= noisy < clean <= 5
    assert "torchaudio" not in sys.modules or hasattr(sys.modules["torchaudio"], "__version__")  # no stand-in is left


def test_one_voice_is_more_like_itself_than_like_another(clips: list[np.ndarray]) -> None:
    pytest.importorskip("resemblyzer", reason="pip install --no-deps -r requirements-listen.txt")
    import soxr

    likeness = SpeakerLikeness()
    own = [likeness.voice(wav, sampling_rate=RATE) for wav in clips]
    higher = likeness.voice(soxr.resample(clips[1], RATE * 3 // 2, RATE), sampling_rate=RATE)  # as by a child
    centre = middle(own[1:])
    assert own[0] is not None and higher is not None and centre is not None
    assert own[0] @ centre > higher @ centre + 0.1
    assert likeness.voice(clips[0][: RATE // 2], sampling_rate=RATE) is None


def test_the_middle_of_voices_leaves_out_those_too_short_to_tell() -> None:
    a, b = unit(np.array([1.0, 0.0])), unit(np.array([0.0, 1.0]))
    assert middle([a, None, b]) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert middle([None]) is None


def test_what_is_missing_is_named_with_the_way_to_install_it() -> None:
    quality = SoundQuality()
    quality.has_dnsmos = quality.has_distillmos = False
    assert quality.marks(np.zeros(RATE, np.float32), sampling_rate=RATE) == {}
    assert quality.missing == [
        "DNSMOS: pip install -r requirements-eval.txt",
        "DistillMOS: pip install --no-deps -r requirements-listen.txt",
    ]
