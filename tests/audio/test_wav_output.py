"""Wavs that are written while they are made."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio.recordings import write_wav
from audio.wav_output import WavPipe, wav_file
from common.errors import DataError

RATE = 8000
WAV = (0.5 * np.sin(np.arange(1000) / 7)).astype(np.float32)


def test_pieces_make_the_same_file_as_the_whole(tmp_path: Path) -> None:
    write_wav(tmp_path / "whole.wav", WAV, RATE)
    with wav_file(tmp_path / "pieces.wav", RATE) as output:
        for piece in np.split(WAV, [0, 10, 700]):
            output.write(piece)
    assert (tmp_path / "pieces.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_a_file_that_was_not_finished_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds NaN"), wav_file(tmp_path / "a.wav", RATE) as output:
        output.write(WAV)
        output.write(np.array([np.nan], np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_gets_the_header_at_once_and_each_piece_as_it_comes(tmp_path: Path) -> None:
    pipe = BytesIO()
    output = WavPipe(pipe, RATE, is_raw=False)
    assert len(pipe.getvalue()) == 44
    output.write(WAV)
    (tmp_path / "piped.wav").write_bytes(pipe.getvalue())
    wav, rate = soundfile.read(tmp_path / "piped.wav", dtype="float32")
    assert rate == RATE and np.abs(wav - WAV).max() < 1e-4


def test_raw_sound_is_samples_alone() -> None:
    pipe = BytesIO()
    WavPipe(pipe, RATE, is_raw=True).write(WAV)
    assert np.frombuffer(pipe.getvalue(), "<i2").tolist() == np.rint(WAV * 32768).astype(int).tolist()
